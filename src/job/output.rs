//! `[outputs.NAME]`: where rows go.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Broker, Qos, qos};
use super::input::{bad_name, bad_topic};
use super::reader::Section;
use crate::diagnostic::Span;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub name: String,
    pub kind: OutputKind,
    /// The column that carries each row's id; by MQTT it goes as a user property as well.
    pub row_id: Option<String>,
    /// Its name in the job file.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OutputKind {
    Mqtt(MqttOutput),
    File(FileOutput),
    Stdout,
}

/// One message a row.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttOutput {
    pub broker: Broker,
    /// A topic without wildcards.
    pub topic: String,
    pub qos: Qos,
    pub retain: bool,
}

/// One JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOutput {
    pub path: PathBuf,
    /// A new file when the present one is larger.
    pub rotate_bytes: Option<u64>,
    /// A new file when the present one is older.
    pub rotate_interval: Option<Duration>,
    /// Files kept besides the present one; `None`: all.
    pub keep_files: Option<u32>,
    pub fsync: Fsync,
}

/// When rows are on the disk for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before they count as delivered.
    Always,
    /// At least this often; a power cut may lose what was delivered since.
    Interval(Duration),
    /// When the system writes them.
    Never,
}

#[derive(Clone, Copy)]
enum Type {
    Mqtt,
    File,
    Stdout,
}

pub(super) fn read(mut section: Section) -> Option<Output> {
    section.required_text("type", "write `type = \"mqtt\"`, `type = \"file\"` or `type = \"stdout\"`")?;
    let kind = match section.optional_choice("type", &[("mqtt", Type::Mqtt), ("file", Type::File), ("stdout", Type::Stdout)])? {
        Type::Mqtt => mqtt(&mut section).map(OutputKind::Mqtt),
        Type::File => file(&mut section).map(OutputKind::File),
        Type::Stdout => Some(OutputKind::Stdout),
    };
    let row_id = section.text("row_id").map(|text| text.value);
    let (name, span) = (section.name(), section.span.unwrap_or_default());
    section.finish();
    Some(Output { name, kind: kind?, row_id, span })
}

fn mqtt(section: &mut Section) -> Option<MqttOutput> {
    let broker = Broker::read(section);
    let topic = section.required_text("topic", "write `topic = \"taxi/scored\"`");
    if let Some((topic, why)) = topic.as_ref().and_then(|topic| Some((topic, bad_name(&topic.value)?))) {
        section.problems().push(bad_topic(topic, why));
    }
    let qos = qos(section);
    let retain = section.boolean("retain", false);
    Some(MqttOutput { broker: broker?, topic: topic?.value, qos, retain })
}

#[derive(Clone, Copy)]
enum FsyncWord {
    Always,
    Interval,
    Never,
}

fn file(section: &mut Section) -> Option<FileOutput> {
    let help = "write `path = \"scored.jsonl\"`; the path is relative to the job file";
    let path = section.required_text("path", help).map(|text| section.problems().folder.join(text.value));
    let rotate_bytes = section.optional_size("rotate_bytes", 1 << 10, TIB, "without it files grow without end");
    let rotate_interval =
        section.optional_duration("rotate_interval", Duration::from_secs(1), 366 * DAY, "without it files grow without end");
    let keep_files = section.has("keep_files").then(|| section.count("keep_files", 1, 1_000_000, 10));
    if keep_files.is_some() && rotate_bytes.is_none() && rotate_interval.is_none() {
        section.wrong(
            "keep_files",
            "`keep_files` without rotation",
            "there is only one file",
            format!("add `rotate_bytes = \"{}\"` or `rotate_interval = \"1d\"`", super::units::show_size(64 * MIB)),
        );
    }
    let words = [("always", FsyncWord::Always), ("interval", FsyncWord::Interval), ("never", FsyncWord::Never)];
    let word = section.choice("fsync", &words, FsyncWord::Always);
    let has_interval = section.has("fsync_interval");
    let interval = section.duration("fsync_interval", Duration::from_millis(1), Duration::from_secs(3_600), Duration::from_secs(1));
    if has_interval && !matches!(word, FsyncWord::Interval) {
        section.wrong(
            "fsync_interval",
            "`fsync_interval` has no use here",
            "only with `fsync = \"interval\"`",
            "write `fsync = \"interval\"`, or leave this out",
        );
    }
    let fsync = match word {
        FsyncWord::Always => Fsync::Always,
        FsyncWord::Interval => Fsync::Interval(interval),
        FsyncWord::Never => Fsync::Never,
    };
    Some(FileOutput {
        path: path?,
        rotate_bytes,
        rotate_interval,
        keep_files: keep_files.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        fsync,
    })
}
