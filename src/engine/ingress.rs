//! What an input gives a scan: decoded rows, and the policies that look at arrival.
//!
//! In: raw events. Out: rows with an event time, per substream. Invariant: every event becomes a row or a count under a
//! reason (`undecodable`, `schema`, `invalid_timestamp`, `invalid_timestamp_key`, `early`, `late`). Not here: order by
//! event time (`scan`), which each substream has for itself.

use super::emitted::UntimelyEvent;
use super::env::{Env, EvalError, InputEvent, Row};
use crate::batch::{Batch, MessageMeta, RawEvent, Reason, RowMeta};
use crate::decode::{Decoder, Schema};
use crate::query::plan::{Metadata, Scan, ScanColumn};
use crate::time::Timestamp;
use crate::value::{Record, SmolStr, Value};

#[derive(Debug)]
pub(super) struct Ingress {
    pub scan: Scan,
    decoder: Decoder,
    metadata: Vec<(usize, Metadata)>,
}

impl Ingress {
    pub(super) fn new(scan: &Scan) -> Ingress {
        let mut fields = Vec::new();
        let mut whole = Vec::new();
        let mut metadata = Vec::new();
        for (slot, column) in scan.columns.iter().enumerate() {
            match column {
                ScanColumn::Field(name) => fields.push((name.clone(), slot)),
                ScanColumn::Whole => whole.push(slot),
                ScanColumn::Metadata(what) => metadata.push((slot, what.clone())),
            }
        }
        let schema = scan.schema.as_ref().map(|s| Schema { columns: s.columns.clone() });
        Ingress { scan: scan.clone(), decoder: Decoder::new(fields, whole.first().copied(), schema), metadata }
    }

    pub(super) fn width(&self) -> usize {
        self.scan.columns.len()
    }

    /// Appends the event as a row of `out`; `false` when it was refused, which is counted.
    pub(super) fn read(&mut self, env: &mut Env, record: InputEvent<'_>, out: &mut Batch) -> bool {
        let InputEvent { event, offset, .. } = record;
        let meta = record.meta();
        env.counts.rows += 1;
        let row = out.push_blank(meta);
        if let Err(error) = self.decoder.decode(&event.payload, row) {
            out.pop();
            env.refuse(event, meta, error.reason(), error.to_string());
            return false;
        }
        for (slot, what) in &self.metadata {
            if let Some(cell) = row.get_mut(*slot) {
                *cell = describe(what, event, offset);
            }
        }
        if self.scan.timestamp_by.is_none() {
            return true;
        }
        match self.event_time(env, event, out.row(out.len() - 1), meta) {
            Some(time) => {
                if let Some(meta) = out.meta_mut().last_mut() {
                    meta.time = time;
                }
                true
            }
            None => {
                out.pop();
                false
            }
        }
    }

    /// The event's own time after the early and the late rule.
    fn event_time(&self, env: &mut Env, event: &RawEvent, values: &[Value], meta: RowMeta) -> Option<Timestamp> {
        let expr = self.scan.timestamp_by.as_ref()?;
        let time = match env.eval(expr, Row { values, meta: &meta }).map(|v| as_time(&v)) {
            Ok(Some(time)) => time,
            Ok(None) => {
                env.refuse(
                    event,
                    meta,
                    "invalid_timestamp",
                    "TIMESTAMP BY gives no datetime for this event".to_owned(),
                );
                return None;
            }
            Err(error) => {
                env.refuse(event, meta, "invalid_timestamp", format!("TIMESTAMP BY: {}", error.error.message));
                return None;
            }
        };
        let policies = &env.options.policies;
        let ahead = time.ticks() - meta.arrival.ticks();
        // a clock that was not trusted says nothing of who is early
        if policies.early_limit.is_some_and(|limit| ahead > limit) && event.message.is_timed() {
            self.drop_event(env, "early", event, time, meta);
            return None;
        }
        match policies.late_tolerance {
            Some(late) if -ahead > late && policies.adjust => {
                env.counts.adjusted += 1;
                Some(meta.arrival.saturating_add(-late))
            }
            Some(late) if -ahead > late => {
                self.drop_event(env, "late", event, time, meta);
                None
            }
            _ => Some(time),
        }
    }

    fn drop_event(&self, env: &mut Env, reason: Reason, event: &RawEvent, time: Timestamp, meta: RowMeta) {
        env.counts.add_dropped(reason);
        env.untimely.get_or_insert_with(|| UntimelyEvent {
            reason,
            input: SmolStr::new(&self.scan.input),
            message: SmolStr::new(&event.message.name),
            time,
            arrival: meta.arrival,
        });
    }

    /// The key of the substream that the last row of `out` belongs to; takes the row back when a part of it is NULL.
    pub(super) fn substream(&self, env: &mut Env, record: InputEvent<'_>, out: &mut Batch, key: &mut Vec<u8>) -> bool {
        let meta = out.meta().last().copied().unwrap_or_else(|| record.meta());
        let row = Row { values: out.row(out.len() - 1), meta: &meta };
        key.clear();
        let mut bad: Option<Option<Box<EvalError>>> = None;
        for expr in &self.scan.over {
            match env.eval(expr, row) {
                Ok(value) if !value.is_null() => super::key::put_key(key, &value),
                Ok(_) => bad = Some(None),
                Err(error) => bad = Some(Some(error)),
            }
        }
        let Some(error) = bad else { return true };
        let why = error.map_or_else(|| "a key of TIMESTAMP BY … OVER is NULL".to_owned(), |e| e.error.message.clone());
        out.pop();
        env.refuse(record.event, meta, "invalid_timestamp_key", why);
        false
    }
}

fn as_time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::DateTime(time) => Some(*time),
        Value::Text(text) => Timestamp::parse(text),
        _ => None,
    }
}

fn describe(what: &Metadata, event: &RawEvent, offset: i64) -> Value {
    let message: &MessageMeta = &event.message;
    // what MQTT has by default is not written beside a message
    let qos = || Value::BigInt(message.fact("qos").and_then(|qos| qos.parse().ok()).unwrap_or(0));
    let retain = || Value::Bit(message.fact("retain") == Some("true"));
    match what {
        Metadata::Arrival => Value::DateTime(event.arrival),
        Metadata::EventId => Value::text(event_id(event, offset)),
        Metadata::Mqtt => {
            let fields = vec![
                (SmolStr::new_static("topic"), Value::Text(message.name.clone())),
                (SmolStr::new_static("qos"), qos()),
                (SmolStr::new_static("retain"), retain()),
            ];
            Value::record(Record::from_unique(fields))
        }
        Metadata::Topic => Value::Text(message.name.clone()),
        Metadata::Qos => qos(),
        Metadata::Retain => retain(),
        Metadata::UserProperties => {
            let mut record = Record::with_capacity(message.properties.len());
            for (name, value) in &message.properties {
                record.insert(name.clone(), Value::Text(value.clone()));
            }
            Value::record(record)
        }
        Metadata::UserProperty(name) => {
            let found = message.properties.iter().rev().find(|(n, _)| n == name);
            found.map_or(Value::Null, |(_, value)| Value::Text(value.clone()))
        }
    }
}

/// A text in the form of a GUID that is the same whenever the event is read: its arrival and its offset.
fn event_id(event: &RawEvent, offset: i64) -> String {
    let hex = format!("{:016x}{:016x}", event.arrival.ticks(), offset);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
