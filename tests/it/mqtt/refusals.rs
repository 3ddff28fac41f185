//! Connections that a broker, its certificate or its name refuses: the alarm of the MQTT source says what to set.

use forebay::demo::broker::{Broker, BrokerOptions};
use forebay::diagnostic::Span;
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
