//! Endpoints that are away, slow or broken for long, mostly the embedded one: rows are held within a limit, and none is
//! lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay::demo::endpoint::{Endpoint, fare};
use forebay::score::{Chunk, Mode, OnMisfit, Scorer, State};
use forebay::value::Value;

use super::server::ready;
use super::{config, failures, rides, score, scored, start, two, two_fares, until};

#[tokio::test]
async fn an_outage_holds_the_rows_and_the_endpoint_gets_them_when_it_is_back() {
    let endpoint = Endpoint::start().await.unwrap();
    let mut config = config(&endpoint.url());
    config.max_batch_count = 10;
    let scorer = start(config);
    assert_eq!(
        scored(&score(&scorer, two()).await),
        [Value::Float(fare("Mon", 12, 1, 5.8)), Value::Float(fare("Wed", 10, 2, 10.0))]
    );
    endpoint.go_down().await.unwrap();
    let mut tickets = Vec::new();
    for statement in 0..3 {
        tickets.push(scorer.submit(Chunk::new(statement, rides(20))).await.unwrap());
    }
    until("backing off", || matches!(scorer.status().state(), State::BackingOff { .. })).await;
    endpoint.come_back().unwrap();
    for ticket in tickets {
        let values = scored(&ticket.outcomes().await.unwrap());
        assert_eq!(values.len(), 20);
        assert_eq!(values[1], Value::Float(fare("Tue", 1, 2, 1.1)));
    }
    assert_eq!(scorer.status().state(), State::Ready);
    assert_eq!(endpoint.rows(), 62);
}

#[tokio::test]
async fn a_gateway_starts_offline_by_the_signature_it_kept() {
    let endpoint = Endpoint::start().await.unwrap();
    let first = start(config(&endpoint.url()));
    score(&first, two()).await;
    let kept = first.description_updates().borrow().clone();
    endpoint.go_down().await.unwrap();

    let mut offline = config(&endpoint.url());
    let without = start(offline.clone());
    until("an unknown signature", || without.status().last_error().is_some()).await;
    assert_eq!(without.status().state(), State::UnknownSignature);
    offline.cached_description = kept;
    offline.on_misfit = OnMisfit::DeadLetter;
    let with = start(offline);
    let bad = Value::array(vec![Value::BigInt(1)]);
    let outcomes = score(&with, vec![bad]).await;
    assert_eq!(failures(&outcomes)[0].1.reason, "wrong_width");
    endpoint.come_back().unwrap();
    assert_eq!(scored(&score(&with, two()).await).len(), 2);
    assert_eq!(scored(&score(&without, two()).await).len(), 2);
}

#[tokio::test]
async fn too_many_requests_lower_the_parallelism_to_what_the_endpoint_takes() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.set_capacity(Some(3));
    endpoint.set_delay(Duration::from_millis(5));
    let mut config = config(&endpoint.url());
    (config.max_batch_count, config.parallel_requests) = (1, 20);
    let scorer = start(config);
    assert_eq!(scored(&score(&scorer, rides(300)).await).len(), 300);
    assert!(endpoint.most_in_flight() <= 3);
    assert!(endpoint.requests() < 500, "{} requests for 300 rows", endpoint.requests());
    assert!(scorer.status().failed_requests.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn never_more_requests_at_once_than_allowed() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.set_delay(Duration::from_millis(5));
    let mut config = config(&endpoint.url());
    (config.max_batch_count, config.parallel_requests) = (1, 5);
    let scorer = start(config);
    score(&scorer, rides(100)).await;
    assert_eq!(endpoint.most_in_flight(), 5);
}

#[tokio::test]
async fn a_model_that_breaks_condemns_no_row() {
    let endpoint = Endpoint::start().await.unwrap();
    let scorer = start(config(&endpoint.url()));
    score(&scorer, two()).await;
    endpoint.set_status(Some(500));
    let ticket = scorer.submit(Chunk::new(0, rides(20))).await.unwrap();
    until("paused", || matches!(scorer.status().state(), State::Paused { reason: "every row fails", .. })).await;
    endpoint.set_status(None);
    assert_eq!(scored(&ticket.outcomes().await.unwrap()).len(), 20);
}

#[tokio::test]
async fn mode_asa_ends_the_job_where_stream_analytics_does() {
    for (query, status) in [("?status=400", "400"), ("?status=404", "404"), ("?raise=1", "500"), ("?short=1", "200")] {
        let mut config = config(&ready("faulty").await.url(query));
        config.mode = Mode::Asa;
        let scorer = start(config);
        let ticket = scorer.submit(Chunk::new(0, two())).await.unwrap();
        let why = ticket.outcomes().await.unwrap_err().why;
        assert!(why.contains(status), "{query}: {why}");
        until("the end", || matches!(scorer.status().state(), State::Failed { .. })).await;
        assert!(match scorer.submit(Chunk::new(0, two())).await {
            Ok(ticket) => ticket.outcomes().await.is_err(),
            Err(_) => true,
        });
    }
    let mut config = config(&ready("faulty").await.url("?fail_first=2&key=asa"));
    config.mode = Mode::Asa;
    assert_eq!(scored(&score(&start(config), two()).await), two_fares());
}

#[tokio::test]
async fn what_is_held_for_a_dead_endpoint_is_bounded() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.go_down().await.unwrap();
    let scorer = start(config(&endpoint.url()));
    let mut tickets = Vec::new();
    // 4 requests of 1,000 rows, and as many rows that wait
    loop {
        let submit = scorer.submit(Chunk::new(0, rides(1000)));
        match tokio::time::timeout(Duration::from_millis(200), submit).await {
            Ok(ticket) => tickets.push(ticket.unwrap()),
            Err(_) => break,
        }
        assert!(tickets.len() <= 8);
    }
    assert_eq!(tickets.len(), 8);
    endpoint.come_back().unwrap();
    let first = tickets.remove(0).outcomes().await.unwrap();
    assert_eq!(first.len(), 1000);
}

#[test]
fn plain_threads_submit_and_wait() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endpoint = runtime.block_on(Endpoint::start()).unwrap();
    let scorer = Scorer::start(config(&endpoint.url()), runtime.handle()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|statement| {
            let scorer = scorer.clone();
            std::thread::spawn(move || {
                let mut ticket =
                    scorer.submit_blocking(Chunk::new(statement, rides(50)), 0, &scorer.new_room()).unwrap();
                scored(&ticket.wait(Duration::from_secs(60)).unwrap().unwrap()).len()
            })
        })
        .collect();
    assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).sum::<usize>(), 200);
}
