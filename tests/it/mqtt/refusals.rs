//! Connections that a broker, its certificate or its name refuses: the alarm of the MQTT source says what to set.

use forebay::demo::broker::{Broker, BrokerOptions};
use forebay::diagnostic::Span;
use forebay::mqtt::Protocol;
use forebay::settings::Secret;
use forebay::source::Source;

use super::{config, start};
use crate::support::{Mosquitto, openssl, wait_for_alarm, wait_until};

#[tokio::test]
async fn a_wrong_password_says_so_and_a_right_one_works() {
    let options = BrokerOptions { users: vec![("gw".into(), "right".into())], ..Default::default() };
    let demo = Broker::start_with(options).await.unwrap();
    let mosquitto = Mosquitto::start_with("allow_anonymous false\npassword_file {}/passwords\n", |folder| {
        let file = folder.join("passwords");
        let status =
            std::process::Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(file).args(["gw", "right"]).status();
        assert!(status.unwrap().success());
    });
    let secrets = tempfile::tempdir().unwrap();
    for url in [demo.url(), mosquitto.url()] {
        let with = |password: Option<&str>| {
            let mut config = config(&url, &["t/#"]);
            config.broker.username = password.map(|_| "gw".into());
            config.broker.password = password.map(|p| {
                std::fs::write(secrets.path().join(p), p).unwrap();
                Secret::parse(&format!("file:{p}"), Span::default(), secrets.path()).unwrap()
            });
            start(config)
        };
        let (source, _arrivals) = with(Some("wrong"));
        let stats = source.stats().clone();
        wait_until("the alarm names user and setting", || {
            stats
                .alarm()
                .is_some_and(|a| a.contains("refused user `gw`") && a.contains("`password`") && !a.contains("wrong"))
        })
        .await;
        source.stop().await;
        let (source, _arrivals) = with(None);
        let stats = source.stats().clone();
        wait_for_alarm(&stats, &["set `username`"]).await;
        source.stop().await;
        let (source, _arrivals) = with(Some("right"));
        let stats = source.stats().clone();
        wait_until("connected", || stats.is_connected()).await;
        source.stop().await;
    }
}

#[tokio::test]
async fn a_password_that_was_refused_is_read_again_from_its_file() {
    let users = |password: &str| BrokerOptions { users: vec![("gw".into(), password.into())], ..Default::default() };
    let broker = Broker::start_with(users("right")).await.unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let mut config = config(&broker.url(), &["t/#"]);
    config.broker.username = Some("gw".into());
    config.broker.password = Some(Secret::parse("file:password", Span::default(), secrets.path()).unwrap());
    let (source, _arrivals) = start(config);
    let stats = source.stats().clone();
    wait_for_alarm(&stats, &["refused user `gw`"]).await;
    assert!(!stats.is_connected());
    std::fs::write(&file, "right\n").unwrap();
    wait_until("connected", || stats.is_connected()).await;
    wait_until("the alarm is over", || stats.alarm().is_none()).await;
    source.stop().await;
}

#[tokio::test]
async fn two_clients_with_one_id_name_it_where_the_broker_gives_no_reason() {
    let broker = Mosquitto::start();
    let client = |id: &str| {
        let mut config = config(&broker.url(), &["t/#"]);
        config.broker.protocol = Some(Protocol::V311);
        config.broker.client_id = Some(id.into());
        start(config)
    };
    let (one, _of_one) = client("gateway");
    let (other, _of_other) = client("gateway");
    for stats in [one.stats(), other.stats()] {
        wait_for_alarm(stats, &["another client may have the client id `gateway`", "give each its own"]).await;
    }
    other.stop().await;
    let (other, _of_other) = client("another");
    for stats in [one.stats(), other.stats()] {
        wait_until("connected", || stats.is_connected()).await;
        wait_until("the alarm is over", || stats.alarm().is_none()).await;
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn tls_with_a_ca_file() {
    let broker =
        Mosquitto::start_with("allow_anonymous true\ncertfile {}/server.pem\nkeyfile {}/server.key\n", |folder| {
            for name in ["ca", "stranger"] {
                openssl(
                    folder,
                    &format!(
                        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out \
                        {name}.pem -days 30 -subj /CN={name}"
                    ),
                );
            }
            openssl(
                folder,
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj \
                /CN=broker",
            );
            std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
            openssl(
                folder,
                "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 30 -extfile \
                names",
            );
        });
    let with = |scheme: &str, ca: Option<&str>| {
        let mut config = config(&format!("{scheme}://127.0.0.1:{}", broker.port), &["t/#"]);
        config.broker.tls.ca_file = ca.map(|name| broker.folder().join(name));
        start(config)
    };
    let (source, mut arrivals) = with("mqtts", Some("ca.pem"));
    let stats = source.stats().clone();
    wait_until("connected", || stats.is_connected()).await;
    source.stop().await;
    assert!(arrivals.recv().await.is_none());
    for (scheme, ca, words) in [
        ("mqtts", Some("stranger.pem"), "`ca_file`"),
        ("mqtts", Some("missing.pem"), "missing.pem"),
        ("mqtts", Some("names"), "no PEM certificate"),
        ("mqtt", None, "`mqtts://`"),
    ] {
        let (source, _arrivals) = with(scheme, ca);
        let stats = source.stats().clone();
        wait_for_alarm(&stats, &[words]).await;
        source.stop().await;
    }
}

#[tokio::test]
async fn a_host_without_an_address_is_named() {
    let (source, _arrivals) = start(config("mqtt://no-such-host.invalid", &["t/#"]));
    let stats = source.stats().clone();
    wait_for_alarm(&stats, &["`no-such-host.invalid` has no address"]).await;
    source.stop().await;
}
