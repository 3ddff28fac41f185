//! Response bodies to results.
//!
//! In: the body of a 200 and how many rows were sent. Out: exactly that many results, in the order of the rows, or why
//! the answer cannot be used. Invariant: never a part of the results: a wrong count pairs nothing; and with the body
//! itself the results take at most three times its bytes, or [`VALUES_MIN`] where that is more. So the body is walked,
//! never held as a tree, and reading ends at the first result too many. Not here: the status (`policy`), what a NaN
//! result becomes (`desk`), how long a body may be (`http`).

use std::borrow::Cow;
use std::collections::HashSet;

use jiter::{Jiter, JiterError, NumberAny, NumberInt, Peek};

use crate::diagnostic::counted;
use crate::value::{Record, SmolStr, Value, codec::DEPTH_MAX};

mod unescaped;

use unescaped::unescaped;

/// Keys under which scripts put the list of results, tried in this order.
const RESULT_KEYS: [&str; 6] = ["Results", "result", "results", "predictions", "outputs", "output"];
/// Longest part of an answer kept in a message.
const SHOWN_MAX: usize = 300;
/// Names of an object that a message shows.
const NAMES_MAX: usize = 20;
/// Results of an answer, with the answer, take at most so many times its bytes.
const TIMES_MAX: usize = 3;
/// The results may always take this: 10,000 rows with 30 numbers each, which are short to write and 24 bytes to keep.
pub const VALUES_MIN: usize = 8 << 20;
/// What a list or an object takes beside its items.
const HOLDER_BYTES: usize = 40;
/// From this number of fields on, repeated names are looked for in a set.
const FEW_FIELDS: usize = 32;

/// A 200 that is not a result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadResponse {
    #[error("the answer is not JSON: {0}")]
    NotJson(String),
    #[error("the script answered with an error: {0}")]
    ErrorText(String),
    #[error("the answer has {} for {}", counted(*found, "result"), counted(*sent, "row"))]
    WrongCount { sent: usize, found: usize },
    /// The rest was not read.
    #[error("the answer has more than {found} results for {}", counted(*sent, "row"))]
    TooMany { sent: usize, found: usize },
    #[error("the answer holds no list of results: {0}")]
    NoList(String),
    #[error("a result is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error(
        "the results take more than {0} bytes of memory, which is the most for an answer of this length: send fewer \
         rows at once (`max_batch_count`), or have the script answer with less for a row"
    )]
    TooLarge(usize),
}

type Understood<T> = Result<T, BadResponse>;

/// Reads the results of `rows` rows. `path`: the keys that lead to them, empty to look under the usual names. Floats
/// may be NaN or infinite: servers send such tokens although JSON has none.
pub fn read_results(body: &[u8], rows: usize, path: &[String]) -> Understood<Vec<Value>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let most = body.len().saturating_mul(TIMES_MAX - 1);
    // a script that returns `json.dumps(…)` is encoded a second time by the server
    let whole = Doc { text: body };
    if whole.kind()? != JsonKind::Text {
        return results(whole, rows, path, most.max(VALUES_MIN));
    }
    let text = whole.text()?;
    let inner = Doc { text: text.as_bytes() };
    let copied = if matches!(text, Cow::Owned(_)) { text.len() } else { 0 };
    match inner.kind() {
        Ok(JsonKind::Text) => Err(BadResponse::ErrorText(clip(&inner.text()?))),
        Ok(_) => match results(inner, rows, path, most.saturating_sub(copied).max(VALUES_MIN)) {
            Err(BadResponse::NotJson(_)) => Err(BadResponse::ErrorText(clip(&text))),
            read => read,
        },
        Err(_) => Err(BadResponse::ErrorText(clip(&text))),
    }
}

/// `most`: bytes of memory that the results may take.
fn results(whole: Doc<'_>, rows: usize, path: &[String], most: usize) -> Understood<Vec<Value>> {
    if whole.kind()? == JsonKind::Array {
        return whole.list(rows, most);
    }
    let named = match path {
        [] => None,
        path => path.iter().try_fold(Some(whole), |at, key| match at {
            Some(at) if at.kind()? == JsonKind::Object => Ok(at.members(&[key])?.found.first().copied().flatten()),
            _ => Ok(None),
        })?,
    };
    let is_list = |doc: Doc<'_>| doc.kind().is_ok_and(|kind| kind == JsonKind::Array);
    // what the signature names counts before a field that only looks like an error
    let listed = named.filter(|doc| is_list(*doc)).map(|doc| doc.list(rows, most));
    if let Some(Ok(values)) = listed {
        return Ok(values);
    }
    if let Some(text) = whole.error_text()? {
        return Err(BadResponse::ErrorText(text));
    }
    if let Some(unusable) = listed {
        return unusable;
    }
    let place = match named {
        Some(place) => place,
        None => whole.descend()?,
    };
    match place.kind()? {
        JsonKind::Array => place.list(rows, most),
        JsonKind::Object if place.members(&[])?.count == 0 => Err(BadResponse::NoList("{}".into())),
        // one row: its result may stand without a list
        JsonKind::Object | JsonKind::Text | JsonKind::Other if rows == 1 => Ok(vec![place.one(most)?]),
        _ => Err(BadResponse::NoList(clip(&place.shown()?))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum JsonKind {
    Array,
    Object,
    Text,
    Null,
    /// A number, or true or false.
    Other,
}

/// A part of a body that is one JSON value, or the whole.
#[derive(Clone, Copy)]
struct Doc<'a> {
    text: &'a [u8],
}

/// What was looked for in an object.
struct Members<'a> {
    count: usize,
    /// For each name that was asked for; the last of equal names, as everywhere in JSON practice.
    found: Vec<Option<Doc<'a>>>,
    first: Option<Doc<'a>>,
}

impl<'a> Doc<'a> {
    fn jiter(self) -> Jiter<'a> {
        Jiter::new(self.text).with_allow_inf_nan()
    }

    fn bad(self) -> BadResponse {
        // no more of it than a message shows
        let start = self.text.get(..4 * SHOWN_MAX).unwrap_or(self.text);
        BadResponse::NotJson(clip(&String::from_utf8_lossy(start)))
    }

    fn read<T>(self, got: Result<T, JiterError>) -> Understood<T> {
        got.map_err(|_| self.bad())
    }

    fn kind(self) -> Understood<JsonKind> {
        let peek = self.read(self.jiter().peek())?;
        Ok(match peek {
            Peek::Array => JsonKind::Array,
            Peek::Object => JsonKind::Object,
            Peek::String => JsonKind::Text,
            Peek::Null => JsonKind::Null,
            _ => JsonKind::Other,
        })
    }

    /// Looks for members by name. Nothing of the others is kept.
    fn members(self, names: &[&str]) -> Understood<Members<'a>> {
        let mut members = Members { count: 0, found: vec![None; names.len()], first: None };
        let mut jiter = self.jiter();
        let place = |key: &str| names.iter().position(|name| *name == key);
        let mut next = self.read(jiter.next_object().map(|key| key.map(place)))?;
        while let Some(wanted) = next {
            self.read(jiter.peek())?;
            let from = jiter.current_index();
            self.read(jiter.next_skip())?;
            let value = Doc { text: jiter.slice_to_current(from) };
            members.count += 1;
            members.first.get_or_insert(value);
            if let Some(slot) = wanted.and_then(|wanted| members.found.get_mut(wanted)) {
                *slot = Some(value);
            }
            next = self.read(jiter.next_key().map(|key| key.map(place)))?;
        }
        self.read(jiter.finish())?;
        Ok(members)
    }

    /// The results in a list, which are exactly as many as rows.
    fn list(self, rows: usize, most: usize) -> Understood<Vec<Value>> {
        let mut jiter = self.jiter();
        let mut room = MemoryLeft { most, left: most };
        room.take(rows.saturating_mul(size_of::<Value>()))?;
        let mut values = Vec::with_capacity(rows);
        let mut next = self.read(jiter.next_array())?;
        while let Some(peek) = next {
            if values.len() == rows {
                self.read(jiter.known_skip(peek))?;
                let goes_on = self.read(jiter.array_step())?.is_some();
                let found = rows + 1;
                return Err(match goes_on {
                    true => BadResponse::TooMany { sent: rows, found },
                    false => BadResponse::WrongCount { sent: rows, found },
                });
            }
            values.push(self.value(&mut jiter, peek, 0, &mut room)?);
            next = self.read(jiter.array_step())?;
        }
        self.read(jiter.finish())?;
        if values.len() == rows {
            return Ok(values);
        }
        Err(BadResponse::WrongCount { sent: rows, found: values.len() })
    }

    /// The value that this is.
    fn one(self, most: usize) -> Understood<Value> {
        let mut jiter = self.jiter();
        let peek = self.read(jiter.peek())?;
        let value = self.value(&mut jiter, peek, 0, &mut MemoryLeft { most, left: most })?;
        self.read(jiter.finish())?;
        Ok(value)
    }

    fn value(self, jiter: &mut Jiter<'a>, peek: Peek, depth: usize, room: &mut MemoryLeft) -> Understood<Value> {
        if depth >= DEPTH_MAX {
            return Err(BadResponse::TooDeep);
        }
        Ok(match peek {
            Peek::Null => self.read(jiter.known_null()).map(|()| Value::Null)?,
            Peek::True | Peek::False => Value::Bit(self.read(jiter.known_bool(peek))?),
            Peek::String => {
                let text = self.read(jiter.known_str())?;
                // shorter ones lie in the value itself
                room.take(if text.len() > size_of::<Value>() { text.len() } else { 0 })?;
                Value::text(text)
            }
            Peek::Array => {
                room.take(HOLDER_BYTES)?;
                let mut items = Vec::new();
                let mut next = self.read(jiter.known_array())?;
                while let Some(peek) = next {
                    if items.len() == items.capacity() {
                        let more = items.len().max(4);
                        room.take(more * size_of::<Value>())?;
                        items.reserve_exact(more);
                    }
                    items.push(self.value(jiter, peek, depth + 1, room)?);
                    next = self.read(jiter.array_step())?;
                }
                room.left += (items.capacity() - items.len()) * size_of::<Value>();
                items.shrink_to_fit();
                Value::array(items)
            }
            Peek::Object => {
                room.take(HOLDER_BYTES)?;
                let mut fields = ResultFields::default();
                let mut next = self.read(jiter.known_object().map(|key| key.map(SmolStr::new)))?;
                while let Some(name) = next {
                    room.take(if name.is_heap_allocated() { name.len() } else { 0 })?;
                    let peek = self.read(jiter.peek())?;
                    let value = self.value(jiter, peek, depth + 1, room)?;
                    fields.put(name, value, room)?;
                    next = self.read(jiter.next_key().map(|key| key.map(SmolStr::new)))?;
                }
                Value::record(fields.record)
            }
            _ => match self.read(jiter.known_number(peek))? {
                NumberAny::Int(NumberInt::Int(n)) => Value::BigInt(n),
                // a whole number past 64 bits
                NumberAny::Int(NumberInt::BigInt(n)) => Value::Float(n.to_string().parse().unwrap_or(f64::NAN)),
                NumberAny::Float(f) => Value::Float(f),
            },
        })
    }

    /// The text that this is.
    fn text(self) -> Understood<Cow<'a, str>> {
        let mut jiter = self.jiter();
        self.read(jiter.peek())?;
        let from = jiter.current_index();
        self.read(jiter.next_skip())?;
        let quoted = jiter.slice_to_current(from);
        self.read(jiter.finish())?;
        unescaped(quoted).ok_or_else(|| self.bad())
    }

    /// The text of `{"error": …}`, or of an object that holds nothing but a `message`. NULL is no error.
    fn error_text(self) -> Understood<Option<String>> {
        if self.kind()? != JsonKind::Object {
            return Ok(None);
        }
        let names: Vec<&str> = RESULT_KEYS.into_iter().chain(["error", "message"]).collect();
        let members = self.members(&names)?;
        let (lists, said) = members.found.split_at(RESULT_KEYS.len());
        for list in lists.iter().flatten() {
            if matches!(list.kind()?, JsonKind::Array | JsonKind::Object) {
                return Ok(None);
            }
        }
        for (place, is_said) in said.iter().zip([true, members.count == 1]) {
            if let Some(text) = place.filter(|_| is_said)
                && text.kind()? != JsonKind::Null
            {
                return text.shown().map(|text| Some(clip(&text)));
            }
        }
        Ok(None)
    }

    /// Goes down while the value is an object: the usual names first, else its only key.
    fn descend(self) -> Understood<Doc<'a>> {
        let mut at = self;
        for _ in 0..DEPTH_MAX {
            if at.kind()? != JsonKind::Object {
                break;
            }
            let members = at.members(&RESULT_KEYS)?;
            let usual = members.found.iter().flatten().next().copied();
            let only = members.first.filter(|_| members.count == 1);
            let Some(below) = usual.or(only) else { break };
            at = below;
        }
        Ok(at)
    }

    /// In words, for messages.
    fn shown(self) -> Understood<String> {
        let mut jiter = self.jiter();
        Ok(match self.kind()? {
            JsonKind::Text => self.text()?.into_owned(),
            JsonKind::Object => {
                let (mut names, mut count) = (Vec::new(), 0);
                let clipped = |key: Option<&str>| key.map(clip);
                let mut next = self.read(jiter.next_object().map(clipped))?;
                while let Some(name) = next {
                    count += 1;
                    if names.len() < NAMES_MAX {
                        names.push(name);
                    }
                    self.read(jiter.next_skip())?;
                    next = self.read(jiter.next_key().map(clipped))?;
                }
                let more =
                    if count > names.len() { format!(" and {} more", count - names.len()) } else { String::new() };
                format!("an object with {}{more}", names.join(", "))
            }
            JsonKind::Array => {
                let mut count = 0;
                let mut next = self.read(jiter.next_array())?;
                while let Some(peek) = next {
                    self.read(jiter.known_skip(peek))?;
                    count += 1;
                    next = self.read(jiter.array_step())?;
                }
                format!("an array of {count}")
            }
            JsonKind::Null | JsonKind::Other => self.one(VALUES_MIN)?.to_json(),
        })
    }
}

/// Memory that the results may still take.
struct MemoryLeft {
    most: usize,
    left: usize,
}

impl MemoryLeft {
    fn take(&mut self, bytes: usize) -> Understood<()> {
        self.left = self.left.checked_sub(bytes).ok_or(BadResponse::TooLarge(self.most))?;
        Ok(())
    }
}

/// The fields of an object; the last of equal names counts.
#[derive(Default)]
struct ResultFields {
    record: Record,
    /// About how much the record has room for.
    capacity: usize,
    /// The names, where they are many.
    names: HashSet<SmolStr>,
}

impl ResultFields {
    fn put(&mut self, name: SmolStr, value: Value, room: &mut MemoryLeft) -> Understood<()> {
        if self.record.len() == self.capacity {
            // as a list grows
            let more = self.capacity.max(4);
            room.take(more * size_of::<(SmolStr, Value)>())?;
            self.capacity += more;
        }
        if self.record.len() < FEW_FIELDS {
            self.record.insert(name, value);
            return Ok(());
        }
        if self.names.is_empty() {
            self.names = self.record.iter().map(|(name, _)| name.clone()).collect();
        }
        // a set that grows holds up to three and a half places a name
        room.take(4 * (size_of::<SmolStr>() + 1))?;
        match self.names.insert(name.clone()) {
            true => self.record.push_unique(name, value),
            false => self.record.insert(name, value),
        }
        Ok(())
    }
}

/// The start of a text, for messages.
fn clip(text: &str) -> String {
    super::clipped(text, SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(body: &str, rows: usize, path: &[&str]) -> String {
        let path: Vec<String> = path.iter().map(|s| s.to_string()).collect();
        match read_results(body.as_bytes(), rows, &path) {
            Ok(values) => values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(" "),
            Err(bad) => bad.to_string(),
        }
    }

    #[test]
    fn where_results_are_found_and_what_is_none() {
        let fares = "Float(15.92) Float(25.26)";
        for (body, rows, path, expected) in [
            ("[15.92, 25.26]", 2, &[][..], fares),
            ("[15.92, NaN]", 2, &[], "Float(15.92) Float(NaN)"),
            ("[Infinity, -Infinity]", 2, &[], "Float(inf) Float(-inf)"),
            ("[15.92, null]", 2, &[], "Float(15.92) Null"),
            (r#"{"result": [15.92, 25.26]}"#, 2, &["result"], fares),
            (r#"{"a": {"b": [15.92, 25.26]}, "c": 1}"#, 2, &["a", "b"], fares),
            (r#"{"Results": {"WebServiceOutput0": [15.92, 25.26]}, "time": 3}"#, 2, &[], fares),
            (r#"{"predictions": [15.92, 25.26], "model": "x"}"#, 2, &[], fares),
            (r#"{"only": [15.92, 25.26]}"#, 2, &[], fares),
            (r#""{\"result\": [15.92, 25.26]}""#, 2, &[], fares),
            ("15.92", 1, &[], "Float(15.92)"),
            (r#"{"result": "low"}"#, 1, &[], r#"Text("low")"#),
            ("[[0.5, 0.5]]", 1, &[], "Array([Float(0.5), Float(0.5)])"),
            ("[15.92]", 2, &[], "the answer has 1 result for 2 rows"),
            ("[1, 2, 3]", 2, &[], "the answer has 3 results for 2 rows"),
            ("15.92", 2, &[], "the answer holds no list of results: 15.92"),
            ("{}", 1, &[], "the answer holds no list of results: {}"),
            ("null", 1, &[], "the answer holds no list of results: null"),
            ("ok but not JSON", 2, &[], "the answer is not JSON: ok but not JSON"),
            ("", 1, &[], "the answer is not JSON: "),
            (r#""could not convert""#, 1, &[], "the script answered with an error: could not convert"),
            (r#""\"could not convert\"""#, 1, &[], "the script answered with an error: could not convert"),
            (r#"{"error": "no column x"}"#, 1, &[], "the script answered with an error: no column x"),
            (r#""{\"error\": \"no column x\"}""#, 1, &[], "the script answered with an error: no column x"),
            (r#"{"message": "no"}"#, 1, &["result"], "the script answered with an error: no"),
            (r#"{"result": [15.92, 25.26], "error": null}"#, 2, &[], fares),
            (r#"{"scores": [15.92, 25.26], "error": null}"#, 2, &["scores"], fares),
            (r#"{"scores": [15.92, 25.26], "error": ""}"#, 2, &["scores"], fares),
            (r#"{"scores": 15.92, "error": null}"#, 1, &["scores"], "Float(15.92)"),
            (
                r#"{"scores": [15.92], "error": "half of it"}"#,
                2,
                &["scores"],
                "the script answered with an error: half of it",
            ),
            (
                r#"{"scores": null, "error": "no column x"}"#,
                1,
                &["scores"],
                "the script answered with an error: no column x",
            ),
            (r#"{"error": null}"#, 1, &[], "the answer holds no list of results: null"),
        ] {
            assert_eq!(shown(body, rows, path), expected, "{body}");
        }
        let deep = format!("[{}1{}]", "[".repeat(100), "]".repeat(100));
        assert_eq!(shown(&deep, 1, &[]), "a result is nested deeper than 64 levels");
        assert_eq!(shown("[123456789012345678901234567890]", 1, &[]), "Float(1.2345678901234568e29)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..200), rows in 0usize..4) {
            if let Ok(values) = read_results(&body, rows, &[]) {
                prop_assert_eq!(values.len(), rows);
            }
        }
    }
}
