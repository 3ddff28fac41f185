//! `GetMetadataPropertyValue(input, 'Name')`.
//!
//! In: the property as written. Out: what a scan has to add to its rows. Invariant: a name of another transport is
//! refused with what an MQTT input has, except those that mean the arrival time. Not here: reading it (`engine`).

use smol_str::SmolStr;

use super::constant;
use super::core::Core;
use super::source::SourceKind;
use crate::diagnostic::{Diagnostic, Span, suggest};
use crate::query::ast::{Arg, Call, ExprKind};
use crate::query::plan::{Expr, Metadata, ScanColumn};
use crate::value::Value;

/// Names listed in errors.
const NAMES: [&str; 10] = [
    "EventId",
    "[User]",
    "[User].[name]",
    "Mqtt",
    "Mqtt.Topic",
    "Mqtt.Qos",
    "Mqtt.Retain",
    "EventEnqueuedUtcTime",
    "EventProcessedUtcTime",
    "EnqueuedTime",
];

impl Core<'_, '_> {
    pub(super) fn metadata(&mut self, call: &Call, span: Span) -> Expr {
        match self.metadata_column(call, span) {
            Ok((source, column)) => {
                let id = self.scan_column(source, ScanColumn::Metadata(column));
                self.uses.push((id, span));
                Expr::Slot(id)
            }
            Err(problem) => {
                self.binder.problem(*problem);
                Expr::Const(Value::Null)
            }
        }
    }

    fn metadata_column(&self, call: &Call, span: Span) -> Result<(usize, Metadata), Box<Diagnostic>> {
        let form = "write `GetMetadataPropertyValue(input, 'Mqtt.Topic')`";
        let [Arg::Expr(source), Arg::Expr(property)] = call.args.as_slice() else {
            let problem = Diagnostic::error("GetMetadataPropertyValue takes an input and the name of a property", span);
            return Err(Box::new(problem.label("expected two arguments").help(form)));
        };
        let name = match &source.kind {
            ExprKind::Path(path) => match path.as_slice() {
                [name] => Some(name),
                _ => None,
            },
            _ => None,
        };
        let index = name.and_then(|name| self.source_named(&name.name));
        let scanned = index.filter(|i| self.sources.get(*i).is_some_and(|s| matches!(s.kind, SourceKind::Scan { .. })));
        let Some(index) = scanned else {
            let problem = Diagnostic::error("GetMetadataPropertyValue reads an input of this FROM", source.span).label(
                if index.is_some() { "not an input: only an input has metadata" } else { "not an input of this FROM" },
            );
            return Err(Box::new(
                problem.help("read the metadata in the step that reads the input, and select it under a name"),
            ));
        };
        let Some(text) = constant::text(property) else {
            let problem = Diagnostic::error("the name of a metadata property is a literal text", property.span);
            return Err(Box::new(problem.label("expected a text in single quotes").help(form)));
        };
        let column = parse(text).ok_or_else(|| {
            let help = match suggest(text, NAMES) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("an MQTT input has {}", NAMES.map(|n| format!("'{n}'")).join(", ")),
            };
            Box::new(
                Diagnostic::error(format!("unknown metadata property '{text}'"), property.span)
                    .label("an input has no such property")
                    .help(help),
            )
        })?;
        Ok((index, column))
    }
}

/// `'[A].[B]'` and `'A.B'` are one name; letter case matters in the name of a user property only.
fn parse(text: &str) -> Option<Metadata> {
    let (first, rest) = segment(text.trim())?;
    let second = match rest.strip_prefix('.') {
        Some(rest) => segment(rest).filter(|(_, rest)| rest.is_empty()).map(|(name, _)| Some(name))?,
        None if rest.is_empty() => None,
        None => return None,
    };
    let lower = |name: &str| name.to_ascii_lowercase();
    match (lower(first).as_str(), second.map(lower).as_deref()) {
        ("eventid", None) => Some(Metadata::EventId),
        ("user", None) => Some(Metadata::UserProperties),
        ("user", Some(_)) => second.map(|name| Metadata::UserProperty(SmolStr::new(name))),
        ("mqtt", None) => Some(Metadata::Mqtt),
        ("mqtt", Some("topic")) => Some(Metadata::Topic),
        ("mqtt", Some("qos")) => Some(Metadata::Qos),
        ("mqtt", Some("retain")) => Some(Metadata::Retain),
        ("mqtt" | "eventhub" | "iothub", Some(name)) | (name, None) if is_arrival(name) => Some(Metadata::Arrival),
        _ => None,
    }
}

fn is_arrival(name: &str) -> bool {
    matches!(name, "eventenqueuedutctime" | "eventprocessedutctime" | "enqueuedtime" | "enqueuetime")
}

fn segment(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => text.split_at(text.find('.').unwrap_or(text.len())),
    };
    (!name.is_empty()).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_properties() {
        for (text, expected) in [
            ("EventId", Some(Metadata::EventId)),
            ("[User].[Fleet.Id]", Some(Metadata::UserProperty("Fleet.Id".into()))),
            ("user.site", Some(Metadata::UserProperty("site".into()))),
            ("[User]", Some(Metadata::UserProperties)),
            ("Mqtt.topic", Some(Metadata::Topic)),
            ("[Mqtt].[QoS]", Some(Metadata::Qos)),
            ("[EventHub].[EventEnqueuedUtcTime]", Some(Metadata::Arrival)),
            ("IoTHub.EnqueuedTime", Some(Metadata::Arrival)),
            ("EventProcessedUtcTime", Some(Metadata::Arrival)),
            ("PartitionId", None),
            ("", None),
            ("[User", None),
            ("[User].", None),
            ("[User]x", None),
            ("a.b.c", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
