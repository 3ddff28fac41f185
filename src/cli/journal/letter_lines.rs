//! Dead letters as lines of JSON.
//!
//! In: stored letters. Out: one object a line, and the way back. Invariant: a line that nobody changed is read back to
//! the same letter, byte for byte: what is no UTF-8 is base64, and a field beside it says so. Not here: text for
//! people.

use serde_json::{Map, Value as Json, json};

use crate::journal::{DeadLetter, LetterOrigin, StoredDeadLetter};
use crate::time::Timestamp;
use crate::value::{SmolStr, base64, from_base64};

/// Of the form of a line.
const FORM: u64 = 1;
const TEXT: &str = "utf-8";
const BASE64: &str = "base64";

/// One letter, without the end of the line.
pub fn line(stored: &StoredDeadLetter) -> String {
    let l = &stored.letter;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Json| drop(fields.insert(name.to_owned(), value));
    put("v", json!(FORM));
    put("id", json!(stored.id));
    put("at", json!(l.at.to_string()));
    put("stage", json!(l.stage.as_str()));
    put("reason", json!(l.reason.as_str()));
    put("message", json!(l.message));
    put("input", json!(l.input.as_deref()));
    put("offset", json!(l.offset));
    put("ordinal", json!(l.ordinal));
    let mut put_bytes = |name: &str, bytes: Option<&[u8]>| {
        let (value, encoding) = match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => (Json::Null, Json::Null),
            Some((_, Ok(text))) => (json!(text), json!(TEXT)),
            Some((bytes, Err(_))) => (json!(base64(bytes)), json!(BASE64)),
        };
        put(name, value);
        put(&format!("{name}_encoding"), encoding);
    };
    put_bytes("payload", Some(&l.payload));
    put_bytes("request", l.request.as_deref());
    put_bytes("response", l.response.as_deref());
    put("query_version", json!(l.query_version.as_str()));
    put("attempts", json!(l.attempts));
    put("origin", json!(l.origin.as_ref().and_then(LetterOrigin::to_bytes).map(|bytes| base64(&bytes))));
    Json::Object(fields).to_string()
}

/// The letter of a line.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(line: &str) -> Result<StoredDeadLetter, String> {
    let Json::Object(fields) = serde_json::from_str(line).map_err(|e| format!("it is no JSON: {e}"))? else {
        return Err("it is no JSON object".to_owned());
    };
    let fields = Fields(fields);
    match fields.number("v")? {
        FORM => {}
        other => return Err(format!("its form `v` is {other}, this program reads {FORM}")),
    }
    let at = fields.text("at")?;
    let offset = match fields.0.get("offset") {
        None | Some(Json::Null) => None,
        Some(value) => Some(value.as_i64().ok_or("`offset` must be a whole number")?),
    };
    let origin = fields.optional_text("origin")?.map(|text| {
        let bytes = from_base64(text).ok_or("`origin` is no base64")?;
        LetterOrigin::from_bytes(&bytes).map_err(|_| "`origin` is damaged")
    });
    Ok(StoredDeadLetter {
        id: fields.0.get("id").and_then(Json::as_i64).ok_or("`id` must be a whole number")?,
        letter: DeadLetter {
            at: Timestamp::parse(at).ok_or_else(|| format!("`at` is no ISO 8601 time: {at}"))?,
            stage: SmolStr::new(fields.text("stage")?),
            reason: SmolStr::new(fields.text("reason")?),
            message: fields.text("message")?.to_owned(),
            input: fields.optional_text("input")?.map(SmolStr::new),
            offset,
            ordinal: fields.small("ordinal")?,
            payload: fields.bytes("payload")?.ok_or("`payload` is missing")?,
            request: fields.bytes("request")?,
            response: fields.bytes("response")?,
            query_version: SmolStr::new(fields.text("query_version")?),
            attempts: fields.small("attempts")?,
            origin: origin.transpose()?,
        },
    })
}

struct Fields(Map<String, Json>);

impl Fields {
    fn number(&self, name: &str) -> Result<u64, String> {
        self.0.get(name).and_then(Json::as_u64).ok_or_else(|| format!("`{name}` must be a whole number"))
    }

    fn small(&self, name: &str) -> Result<u32, String> {
        u32::try_from(self.number(name)?).map_err(|_| format!("`{name}` is too large"))
    }

    fn optional_text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.0.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{name}` must be a text")),
        }
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        self.optional_text(name)?.ok_or_else(|| format!("`{name}` is missing"))
    }

    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        let encoding = format!("{name}_encoding");
        match self.optional_text(&encoding)? {
            Some(TEXT) | None => Ok(Some(text.as_bytes().to_vec())),
            Some(BASE64) => from_base64(text).map(Some).ok_or_else(|| format!("`{name}` is no base64")),
            Some(other) => Err(format!("`{encoding}` must be \"{TEXT}\" or \"{BASE64}\", not `{other}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::MessageMeta;

    #[test]
    fn a_line_is_read_back_byte_for_byte() {
        let at = Timestamp::parse("2026-11-28T08:00:00.1234567Z").unwrap();
        let letter = DeadLetter {
            at,
            stage: "input rides".into(),
            reason: "undecodable".into(),
            message: "a \u{1}\" sign".to_owned(),
            input: Some("rides".into()),
            payload: (0..=255).collect(),
            request: Some(Vec::new()),
            attempts: 3,
            origin: Some(LetterOrigin::Message { arrival: at, message: Arc::new(MessageMeta::default()), mark: 9 }),
            ..DeadLetter::default()
        };
        let row = DeadLetter {
            offset: Some(-1),
            ordinal: 7,
            payload: "{\"n\":\"ü\\n\"}".into(),
            response: Some(vec![0xff]),
            origin: None,
            ..letter.clone()
        };
        for letter in [letter, row] {
            let stored = StoredDeadLetter { id: 12, letter };
            let text = line(&stored);
            assert!(!text.contains('\n'));
            assert_eq!(parse(&text), Ok(stored));
        }
    }

    #[test]
    fn a_line_that_is_wrong_says_what_is() {
        let good = line(&StoredDeadLetter { id: 1, letter: DeadLetter::default() });
        for (from, to, said) in [
            ("{", "[", "it is no JSON"),
            ("\"v\":1", "\"v\":2", "its form `v` is 2, this program reads 1"),
            ("\"id\":1", "\"id\":\"1\"", "`id` must be a whole number"),
            ("\"ordinal\":0", "\"ordinal\":4294967296", "`ordinal` is too large"),
            ("\"payload_encoding\":\"utf-8\"", "\"payload_encoding\":\"hex\"", "must be \"utf-8\" or \"base64\""),
            ("\"origin\":null", "\"origin\":\"AAAA\"", "`origin` is damaged"),
            ("\"stage\":\"\",", "", "`stage` is missing"),
        ] {
            assert!(good.contains(from), "{good}");
            let error = parse(&good.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
