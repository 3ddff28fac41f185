//! `examples/outage`, as its first lines say: rides are sent while nobody answers at the endpoint's address, and then a
//! model does.

use std::fs;

use expect_test::expect;
use forebay::demo::endpoint::Endpoint;

use super::*;
use crate::harness::root;
use crate::support::{Message, publish};

#[test]
fn the_outage_example_estimates_fares_offline_and_has_them_corrected() {
    let folder = JobFolder::new();
    let endpoint = folder.runtime.block_on(Endpoint::start()).unwrap();
    folder.runtime.block_on(endpoint.go_down()).unwrap();
    let text = fs::read_to_string(root("examples/outage/job.toml")).unwrap();
    let text = text
        .replace("mqtt://127.0.0.1:1883", &folder.broker.url())
        .replace("http://127.0.0.1:5001/score", &endpoint.url())
        .replace("../../udfs", root("udfs").to_str().unwrap())
        .replace("[outputs.", "[metrics]\nlisten = \"127.0.0.1:0\"\n\n[outputs.");
    fs::copy(root("examples/outage/outage.asaql"), folder.path("outage.asaql")).unwrap();
    write(folder.dir(), "job.toml", &text);
    let forebay = folder.run();
    let rides = fs::read_to_string(root("examples/outage/rides.jsonl")).unwrap();
    let messages = rides.lines().map(|ride| Message::new("taxi/7/rides", ride)).collect();
    folder.runtime.block_on(publish(&folder.broker.url(), messages));
    let wait_for = |rows: usize| {
        let text = until(&format!("{rows} rows; log:\n{}", forebay.log()), || {
            let text = fs::read_to_string(folder.path("fares.jsonl")).ok()?;
            (text.matches('\n').count() >= rows).then_some(text)
        });
        // ids begin with a random word, which is the pool's
        let first: Json = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        text.replace(first["id"].as_str().unwrap().split('-').next().unwrap(), "POOL")
    };
    expect![[r#"
        {"rideId":"r1","fare":10.66,"id":"POOL-fares-0-0","scored_by":"udf.estimateFare","revision":0}
        {"rideId":"r2","fare":31.38,"id":"POOL-fares-1-0","scored_by":"udf.estimateFare","revision":0}
        {"rideId":"r3","fare":4.54,"id":"POOL-fares-2-0","scored_by":"udf.estimateFare","revision":0}
        {"rideId":"r4","fare":14.55,"id":"POOL-fares-3-0","scored_by":"udf.estimateFare","revision":0}
    "#]]
    .assert_eq(&wait_for(4));
    folder.runtime.block_on(async { endpoint.come_back() }).unwrap();
    let corrected = wait_for(8);
    expect![[r#"
        {"rideId":"r1","fare":11.76,"id":"POOL-fares-0-0","scored_by":"score","revision":1}
        {"rideId":"r2","fare":31.78,"id":"POOL-fares-1-0","scored_by":"score","revision":1}
        {"rideId":"r3","fare":4.74,"id":"POOL-fares-2-0","scored_by":"score","revision":1}
        {"rideId":"r4","fare":14.65,"id":"POOL-fares-3-0","scored_by":"score","revision":1}
    "#]]
    .assert_eq(&corrected.split_inclusive('\n').skip(4).collect::<String>());
    assert!(forebay.stop().success());
    folder.is_good();
}
