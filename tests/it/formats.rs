//! Formats of payloads: mosquitto carries JSON, CSV, text and bytes, also packed, into a running job, which makes rows
//! of them or dead letters.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

use crate::harness::{Forebay, until};
use crate::support::{Message, Mosquitto, assert_pool_is_good, dead_letters, publish, runtime, write_job};

const QUERY: &str = "
SELECT a, b INTO rows FROM rows_in;
SELECT payload, topic INTO words FROM words_in;
SELECT payload, topic INTO raw FROM raw_in;
SELECT n INTO numbers FROM numbers_in";

fn job(dir: &Path, broker: &Mosquitto) -> std::path::PathBuf {
    let mut text = "[job]\nname = \"formats\"\nquery = \"job.asaql\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (name, keys) in [
        ("rows", "format = \"csv\"\ndelimiter = \";\"\ncompression = \"gzip\""),
        ("words", "format = \"text\""),
        ("raw", "format = \"bytes\"\nempty = \"dead-letter\""),
        ("numbers", "compression = \"deflate\""),
    ] {
        text += &format!(
            "[inputs.{name}_in]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopics = [\"{name}/+\"]\n{keys}\n\
             [outputs.{name}]\ntype = \"file\"\npath = \"{name}.jsonl\"\n",
            broker.port
        );
    }
    write_job(dir, &text, QUERY)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

#[test]
fn payloads_of_every_format_become_rows_and_what_does_not_is_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Mosquitto::start();
    let runtime = runtime();
    let path = job(dir.path(), &broker);
    let forebay = Forebay::run(&path);
    until("all four inputs are subscribed", || (forebay.metric("forebay_source_connected") >= 4.0).then_some(()));
    let messages = vec![
        Message::new("rows/1", gzip(b"a;b\n1;\"x;y\"\n2;z\n3\n")),
        Message::new("rows/1", b"a;b\n1;2\n".to_vec()),
        Message::new("words/1", b"on\0".to_vec()),
        Message::new("words/2", b"21.5 \xc2\xb0C".to_vec()),
        Message::new("words/2", b"".to_vec()),
        Message::new("words/2", b"\xff".to_vec()),
        Message::new("raw/1", b"\xff\0".to_vec()),
        Message::new("raw/1", b"".to_vec()),
        Message::new("numbers/1", deflate(b"{\"n\":1}{\"n\":2}")),
        Message::new("numbers/1", b"".to_vec()),
        Message::new("numbers/1", deflate(b"{\"n\":3}{\"n\":}{\"n\":4}")),
        Message::new("numbers/1", deflate(b"[]")),
        Message::new("rows/2", gzip(b"a;b\n")),
    ];
    runtime.block_on(publish(&broker.url(), messages));
    let received = 4 + 1 + 4 + 2 + 7;
    until("all is stored", || (forebay.metric("forebay_input_received_total") >= f64::from(received)).then_some(()));
    let count = |name: &str, input: &str| {
        let all = forebay.metrics();
        let found = all.iter().filter(|(key, _)| key.starts_with(name) && key.contains(&format!("input=\"{input}\"")));
        found.map(|(_, n)| *n).sum::<f64>()
    };
    let counts = |input: &str| {
        ["stored", "undecodable", "dropped"].map(|what| count(&format!("forebay_input_{what}_total"), input))
    };
    assert_eq!(counts("rows_in"), [2.0, 2.0, 1.0]);
    assert_eq!(counts("words_in"), [2.0, 1.0, 1.0]);
    assert_eq!(counts("raw_in"), [1.0, 1.0, 0.0]);
    assert_eq!(counts("numbers_in"), [4.0, 1.0, 2.0]);
    let lines = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    for (name, want) in [
        ("rows.jsonl", "{\"a\":\"1\",\"b\":\"x;y\"}\n{\"a\":\"2\",\"b\":\"z\"}\n"),
        (
            "words.jsonl",
            "{\"payload\":\"on\",\"topic\":\"words/1\"}\n{\"payload\":\"21.5 °C\",\"topic\":\"words/2\"}\n",
        ),
        ("raw.jsonl", "{\"payload\":\"/wA=\",\"topic\":\"raw/1\"}\n"),
        ("numbers.jsonl", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n"),
    ] {
        until(name, || (lines(name) == want).then_some(()));
    }
    forebay.stop();
    let before = dead_letters(dir.path(), "job.toml");
    Forebay::run(&path).stop();
    let after = dead_letters(dir.path(), "job.toml");
    assert_eq!(after, before, "nothing comes twice");
    assert_eq!(lines("numbers.jsonl").lines().count(), 4);
    assert_pool_is_good(dir.path());
    for why in [
        "it is no gzip",
        "the row has 1 field, and there are 2 columns (byte 16 of the payload, topic rows/1)",
        "not UTF-8 text",
        "the payload is empty (topic raw/1)",
        "expected value at line 1 column 13 (byte 7 of the payload, topic numbers/1)\n",
    ] {
        assert!(after.contains(why), "{why}: {after}");
    }
}
