//! Client certificates: the MQTT source and a running job connect to mosquitto, which uses OpenSSL and asks for one.
//! What it refuses, and files that cannot be used, are named in the alarm.

#[path = "certificates/http.rs"]
mod http;
#[path = "certificates/servers.rs"]
mod servers;
#[path = "certificates/settings.rs"]
mod settings;

use std::fs;
use std::path::Path;

use forebay::mqtt::{BrokerConfig, MqttAddress, Protocol};
use forebay::source::{Arrivals, Identity, MqttSource, MqttSourceConfig, Source};
use forebay::time::Clock;
use forebay::tls::{ClientFiles, TlsFiles};
use tokio::sync::mpsc::Receiver;

use crate::harness::{Forebay, until, write};
use crate::support::{Mosquitto, openssl, wait_for_alarm, wait_until};

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
const AUTHORITY: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\n\
                         serial = serial\nnew_certs_dir = .\ndefault_md = sha256\npolicy = any\n\
                         x509_extensions = leaf\n[any]\ncommonName = supplied\n[leaf]\nbasicConstraints = CA:FALSE\n";

/// A folder with an authority, a server's certificate, and those of clients of every kind.
fn fill(folder: &Path) {
    for name in ["ca", "stranger"] {
        openssl(folder, &format!("req -x509 {EC} -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name}"));
    }
    let issue = |name: &str, ca: &str, extensions: &str| {
        openssl(folder, &format!("req {EC} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -out {name}.pem -days 30 \
                {extensions}"
            ),
        );
    };
    write(folder, "names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
    write(folder, "leaf", "basicConstraints=CA:FALSE\n");
    issue("server", "ca", "-extfile names");
    issue("gateway", "ca", "-extfile leaf");
    issue("renewed", "ca", "-extfile leaf");
    issue("foreign", "stranger", "-extfile leaf");
    issue("first", "ca", "");
    // `x509` cannot set both dates
    write(folder, "index", "");
    write(folder, "serial", "1000\n");
    write(folder, "authority", AUTHORITY);
    openssl(folder, &format!("req {EC} -keyout past.key -out past.csr -subj /CN=past"));
    openssl(
        folder,
        "ca -batch -config authority -cert ca.pem -keyfile ca.key -startdate 20200101000000Z \
          -enddate 20200201000000Z -notext -in past.csr -out past.pem",
    );
}

/// Where a client's files are.
fn client(folder: &Path, certificate: &str, key: &str) -> TlsFiles {
    let client = ClientFiles { cert_file: folder.join(certificate), key_file: folder.join(key) };
    TlsFiles { ca_file: Some(folder.join("ca.pem")), client: Some(client), ..TlsFiles::default() }
}

/// Anybody whom the authority signed may connect.
fn broker(lines: &str) -> Mosquitto {
    let strict = "allow_anonymous true\ncafile {}/ca.pem\ncertfile {}/server.pem\nkeyfile {}/server.key\n\
                  require_certificate true\n";
    Mosquitto::start_with(&format!("{strict}{lines}"), fill)
}

fn source(broker: &Mosquitto, tls: TlsFiles, protocol: Option<Protocol>) -> (MqttSource, Receiver<Arrivals>) {
    let address = MqttAddress::parse(&format!("mqtts://127.0.0.1:{}", broker.port)).unwrap();
    let settings = BrokerConfig { client_id: Some("gateway".into()), protocol, tls, ..BrokerConfig::new(address) };
    let identity = Identity { name: "gateway".into(), is_known: false };
    MqttSource::start(MqttSourceConfig::new(settings, vec!["t/#".into()]), identity, [], true, Clock::Real)
}

async fn connects(broker: &Mosquitto, tls: TlsFiles, protocol: Option<Protocol>) {
    let (source, _arrivals) = source(broker, tls, protocol);
    let stats = source.stats().clone();
    wait_until(&format!("connected, {:?}", stats.alarm()), || stats.is_connected()).await;
    source.stop().await;
}

/// The alarm of a source that does not get on.
async fn alarm(broker: &Mosquitto, tls: TlsFiles, protocol: Option<Protocol>) -> String {
    let (source, _arrivals) = source(broker, tls, protocol);
    let stats = source.stats().clone();
    wait_until("an alarm", || stats.alarm().is_some()).await;
    source.stop().await;
    stats.alarm().unwrap()
}

#[tokio::test]
async fn a_broker_that_wants_a_certificate_gets_one_in_every_form_of_key() {
    let broker = broker("");
    let folder = broker.folder();
    openssl(folder, "ec -in gateway.key -out sec1.key");
    openssl(folder, "genrsa -traditional -out pkcs1.key 2048");
    openssl(folder, "req -new -key pkcs1.key -out rsa.csr -subj /CN=rsa");
    openssl(folder, "x509 -req -in rsa.csr -CA ca.pem -CAkey ca.key -out rsa.pem -days 3 -extfile leaf");
    openssl(folder, "pkcs8 -topk8 -nocrypt -in pkcs1.key -out pkcs8.key");
    let both = fs::read_to_string(folder.join("gateway.pem")).unwrap()
        + &fs::read_to_string(folder.join("gateway.key")).unwrap();
    write(folder, "both.pem", &both);
    for (key, head) in [
        ("sec1.key", "BEGIN EC PRIVATE KEY"),
        ("pkcs1.key", "BEGIN RSA PRIVATE KEY"),
        ("pkcs8.key", "BEGIN PRIVATE KEY"),
    ] {
        assert!(fs::read_to_string(folder.join(key)).unwrap().contains(head), "{key}");
    }
    for (certificate, key) in
        [("gateway.pem", "sec1.key"), ("rsa.pem", "pkcs1.key"), ("rsa.pem", "pkcs8.key"), ("both.pem", "both.pem")]
    {
        for protocol in [Protocol::V5, Protocol::V311] {
            connects(&broker, client(folder, certificate, key), Some(protocol)).await;
        }
    }
}

#[tokio::test]
async fn a_certificate_that_the_broker_refuses_is_named() {
    for version in ["tlsv1.2", "tlsv1.3"] {
        let broker = broker(&format!("tls_version {version}\n"));
        let folder = broker.folder();
        let none = TlsFiles { client: None, ..client(folder, "", "") };
        for protocol in [None, Some(Protocol::V311)] {
            for (tls, words) in [
                (
                    client(folder, "foreign.pem", "foreign.key"),
                    &["it refuses the client certificate `cert_file`", "foreign.pem"][..],
                ),
                (
                    client(folder, "past.pem", "past.key"),
                    &["past.pem as expired", "it expired at 2020-02-01T00:00:00Z"],
                ),
                (none.clone(), &["it may want a client certificate", "set `cert_file` and `key_file`"]),
            ] {
                let alarm = alarm(&broker, tls, protocol).await;
                for word in words {
                    assert!(alarm.contains(word), "{version}: {alarm}");
                }
                assert!(!alarm.contains("closed the connection"), "{alarm}");
            }
        }
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_before_anything_is_sent() {
    let broker = broker("");
    let folder = broker.folder();
    openssl(folder, "pkcs8 -topk8 -in gateway.key -out encrypted.key -passout pass:secret");
    openssl(folder, "ec -in gateway.key -aes256 -out old.key -passout pass:secret");
    openssl(folder, "x509 -in gateway.pem -outform der -out gateway.der");
    openssl(folder, "genrsa -out small.key 1024");
    let (ca, gateway) =
        (fs::read_to_string(folder.join("ca.pem")).unwrap(), fs::read_to_string(folder.join("gateway.pem")).unwrap());
    write(folder, "upside-down.pem", &(ca + &gateway));
    write(folder, "broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let log = || fs::read_to_string(folder.join("log")).unwrap().matches("New connection").count();
    // the broker's own start is looked for by connecting
    let before = log();
    for (certificate, key, words) in [
        ("missing.pem", "gateway.key", "`cert_file` DIR/missing.pem: No such file or directory"),
        ("names", "gateway.key", "`cert_file` DIR/names: holds no PEM certificate"),
        (
            "gateway.key",
            "gateway.pem",
            "gateway.key: holds no PEM certificate; it holds a private key: are the files exchanged?",
        ),
        ("gateway.der", "gateway.key", "gateway.der: holds no PEM certificate; it is binary"),
        ("broken.pem", "gateway.key", "broken.pem: the first certificate is damaged"),
        ("first.pem", "first.key", "`cert_file` DIR/first.pem: the certificate is of X.509 version 1"),
        ("first.pem", "first.key", "have it issued as version 3 (with `openssl x509 -req`, add `-extfile FILE`"),
        ("gateway.pem", "names", "`key_file` DIR/names: holds no private key"),
        ("gateway.pem", "gateway.pem", "gateway.pem: holds no private key; it holds a certificate"),
        ("gateway.pem", "encrypted.key", "`key_file` DIR/encrypted.key: the key is encrypted"),
        ("gateway.pem", "old.key", "`key_file` DIR/old.key: the key is encrypted"),
        (
            "gateway.pem",
            "renewed.key",
            "`key_file` DIR/renewed.key: the key does not belong to the certificate in DIR/gateway.pem",
        ),
        ("gateway.pem", "small.key", "small.key: the key is broken or of another kind: expected RSA of 2048 bits"),
        ("upside-down.pem", "gateway.key", "the key in `key_file` belongs to certificate 2 of the file"),
    ] {
        let alarm = alarm(&broker, client(folder, certificate, key), None).await;
        assert!(alarm.replace(&folder.display().to_string(), "DIR").contains(words), "{alarm}");
    }
    assert_eq!(log(), before, "nothing was sent");
}

#[tokio::test]
async fn a_renewed_certificate_needs_no_restart() {
    let broker = broker("");
    let folder = broker.folder();
    for (from, to) in [("past.pem", "now.pem"), ("past.key", "now.key")] {
        fs::copy(folder.join(from), folder.join(to)).unwrap();
    }
    let (source, _arrivals) = source(&broker, client(folder, "now.pem", "now.key"), None);
    let stats = source.stats().clone();
    wait_for_alarm(&stats, &["expired"]).await;
    for (from, to) in [("renewed.pem", "now.pem"), ("renewed.key", "now.key")] {
        fs::copy(folder.join(from), folder.join(to)).unwrap();
    }
    wait_until("connected", || stats.is_connected()).await;
    source.stop().await;
}

#[test]
fn what_is_odd_with_a_file_is_told_once_by_the_job_and_all_its_connections() {
    let broker = broker("");
    let folder = broker.folder();
    let unreadable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    write(folder, "some.pem", &(fs::read_to_string(folder.join("ca.pem")).unwrap() + unreadable));
    let job = format!(
        "[job]\nname = \"j\"\nquery = \"q\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[inputs.a]\ntype = \"mqtt\"\n\
         url = \"mqtts://127.0.0.1:{}\"\ntopics = [\"t\"]\nca_file = \"some.pem\"\ncert_file = \"past.pem\"\n\
         key_file = \"past.key\"\n[outputs.b]\ntype = \"stdout\"\n",
        broker.port
    );
    write(folder, "q", "SELECT n INTO b FROM a");
    let job = write(folder, "job.toml", &job);
    let forebay = Forebay::start(&job);
    let attempts = || fs::read_to_string(folder.join("log")).unwrap().matches("New connection").count();
    // the first is the probe that waited for the broker
    until("attempts", || (attempts() >= 5).then_some(()));
    let log = forebay.log();
    let told = |text: &str| log.matches(text).count();
    assert_eq!((told("WARN `cert_file`"), told("the client certificate expired at")), (1, 1), "{log}");
    assert_eq!((told("WARN `ca_file`"), told("1 certificate cannot be read")), (1, 1), "{log}");
    assert_eq!(told("warning:"), 0, "the level says so already: {log}");
}
