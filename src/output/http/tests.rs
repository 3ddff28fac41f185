use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use reqwest::Url;

use super::super::tests::{IDS, rows};
use super::*;
use crate::output::BatchPolicy;
use crate::output::body::Body;

/// Decides about the numbers of a request.
type Rule = Box<dyn FnMut(&[i64]) -> u16 + Send>;

/// A receiver that counts.
#[derive(Clone)]
struct Receiver {
    rule: Arc<Mutex<Rule>>,
    /// Rows of each request.
    requests: Arc<Mutex<Vec<usize>>>,
}

async fn take(State(receiver): State<Receiver>, body: Bytes) -> StatusCode {
    let text = std::str::from_utf8(&body).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    let numbers: Vec<i64> = rows.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    receiver.requests.lock().unwrap().push(numbers.len());
    StatusCode::from_u16((receiver.rule.lock().unwrap())(&numbers)).unwrap()
}

impl Receiver {
    /// Its output gives requests of this number of rows, and does not wait.
    async fn start(batch: usize, rule: impl FnMut(&[i64]) -> u16 + Send + 'static) -> (Receiver, HttpOutput) {
        let receiver = Receiver { rule: Arc::new(Mutex::new(Box::new(rule))), requests: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let app = Router::new().route("/", post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let batch = BatchPolicy { rows: batch, bytes: 1 << 20, time: Duration::ZERO };
        let config = HttpOutputConfig { batch, body: Body::Array, ..HttpOutputConfig::new(url) };
        let mut output = HttpOutput::new(config, Arc::default()).unwrap();
        output.retry = Retry::new(Backoff { base: Duration::ZERO, cap: Duration::ZERO });
        (receiver, output)
    }

    fn take_requests(&self) -> Vec<usize> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

/// What an attempt may take of which nothing is taken.
fn attempt_max(rows: usize) -> usize {
    rows.next_power_of_two().ilog2() as usize + 2 * ALONE_MAX
}

/// Gives rows until they are through: the end, and the requests of each attempt.
async fn deliver(receiver: &Receiver, output: &mut HttpOutput, rows: &Rows) -> (Delivery, Vec<Vec<usize>>) {
    let mut attempts = Vec::new();
    loop {
        let delivery = output.hand_over(rows, IDS).await;
        attempts.push(receiver.take_requests());
        match delivery {
            Delivery::TryAgain { reason, .. } => assert!(reason.contains("check `url`, `body`"), "{reason}"),
            delivery => return (delivery, attempts),
        }
    }
}

fn rejected(delivery: Delivery) -> Vec<usize> {
    let Delivery::Rejected { rows } = delivery else { panic!("{delivery:?}") };
    rows.into_iter().map(|(row, _)| row).collect()
}

#[tokio::test]
async fn a_receiver_that_refuses_every_row_gets_a_bounded_number_of_requests() {
    for code in [400, 413] {
        for (count, batch) in [(120, 100), (1_000, 1_000), (1_000, 100), (9, 1), (9, 9), (8, 8), (3, 3), (2, 1), (1, 1)]
        {
            let (receiver, mut output) = Receiver::start(batch, move |_| code).await;
            let (delivery, attempts) = deliver(&receiver, &mut output, &rows(0..count)).await;
            let count = usize::try_from(count).unwrap();
            assert_eq!(rejected(delivery), (0..count).collect::<Vec<_>>(), "{count} in {batch}");
            let (last, tries) = attempts.split_last().unwrap();
            assert_eq!(tries.len(), 10, "{count} in {batch}");
            for requests in tries {
                assert!(requests.len() <= attempt_max(batch), "{count} in {batch}: {requests:?}");
                assert_eq!(requests[0], batch.min(count), "it was not the size");
            }
            assert_eq!(*last, vec![1; count], "each row alone, once");
        }
    }
}

#[tokio::test]
async fn few_bad_rows_at_the_head_are_found_at_once() {
    let (receiver, mut output) =
        Receiver::start(100, |numbers| if numbers.iter().any(|n| *n < 7) { 422 } else { 200 }).await;
    let (delivery, attempts) = deliver(&receiver, &mut output, &rows(0..120)).await;
    assert_eq!(rejected(delivery), (0..7).collect::<Vec<_>>());
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].len() < 30, "{attempts:?}");
}

#[tokio::test]
async fn halving_takes_at_most_two_requests_a_row_and_a_few() {
    // the first row passes, so that all others are found one by one; or half of them pass
    let rules: [fn(i64) -> bool; 3] = [|n| n == 0, |n| n % 2 == 1, |n| n == 7];
    for is_good in rules {
        let rule = move |numbers: &[i64]| if numbers.iter().all(|n| is_good(*n)) { 200 } else { 422 };
        let (receiver, mut output) = Receiver::start(128, rule).await;
        let (delivery, attempts) = deliver(&receiver, &mut output, &rows(0..128)).await;
        assert_eq!(rejected(delivery).len(), (0..128).filter(|n| !is_good(*n)).count());
        assert_eq!(attempts.len(), 1);
        assert!(attempts[0].len() <= 2 * 128 + ALONE_MAX, "{}", attempts[0].len());
    }
}

#[tokio::test]
async fn the_one_good_row_of_a_bad_batch_is_delivered() {
    let (receiver, mut output) = Receiver::start(100, |numbers| if numbers == [119] { 200 } else { 422 }).await;
    let (delivery, attempts) = deliver(&receiver, &mut output, &rows(0..120)).await;
    assert_eq!((rejected(delivery), attempts.len()), ((0..119).collect::<Vec<_>>(), 11));
    assert_eq!(attempts[10].len(), 120 + 119, "and those before it are sent once more");
}

#[tokio::test]
async fn a_receiver_that_is_mended_amid_an_attempt_takes_what_it_refused_before() {
    for (batch, refusals) in [(1, 3), (100, 9), (100, 300)] {
        let mut left = refusals;
        let rule = move |_: &[i64]| {
            left -= 1;
            if left >= 0 { 400 } else { 200 }
        };
        let (receiver, mut output) = Receiver::start(batch, rule).await;
        let (delivery, _) = deliver(&receiver, &mut output, &rows(0..120)).await;
        assert_eq!(delivery, Delivery::Delivered, "{refusals} refusals");
    }
}

#[tokio::test]
async fn statements_that_share_a_receiver_are_given_up_each_by_its_own_tries() {
    let (_receiver, mut output) = Receiver::start(100, |numbers| if numbers[0] < 100 { 400 } else { 200 }).await;
    let (bad, good, other) = (rows(0..3), rows(100..101), RowIds { consumer: "output s", ..IDS });
    for _ in 0..10 {
        assert!(matches!(output.hand_over(&bad, IDS).await, Delivery::TryAgain { .. }));
        assert_eq!(output.hand_over(&good, other).await, Delivery::Delivered);
    }
    assert_eq!(rejected(output.hand_over(&bad, IDS).await), [0, 1, 2]);
    assert!(output.others.is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_mended_takes_every_row() {
    for code in [400, 413] {
        let (receiver, mut output) = Receiver::start(100, move |_| code).await;
        let rows = rows(0..120);
        for _ in 0..9 {
            assert!(matches!(output.hand_over(&rows, IDS).await, Delivery::TryAgain { .. }));
        }
        *receiver.rule.lock().unwrap() = Box::new(|_| 200);
        receiver.take_requests();
        assert_eq!(deliver(&receiver, &mut output, &rows).await, (Delivery::Delivered, vec![vec![100, 20]]));
    }
}
