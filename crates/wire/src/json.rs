//! awsJson: a structure as a JSON object, times as seconds with a fraction, absent members left out.

use crate::error::{ApiError, ErrorField};
use crate::field::{EpochMillis, Field, Writer};
use crate::reading::{Reading, Value};
use crate::shape::Structure;

/// Reads a body into `target` as a client does, without regard to the model's constraints. An empty body counts as an
/// empty object, as some clients send it.
///
/// # Errors
/// `SerializationException` for what is no JSON or has values of the wrong type; see [`crate::reading::Violation`].
pub fn read(target: &mut dyn Structure, body: &[u8]) -> Result<(), ApiError> {
    read_as(target, body, Reading::json())
}

/// Reads a request into `target`.
///
/// # Errors
/// As [`read`], and for values that the model's constraints do not allow.
pub fn read_request(target: &mut dyn Structure, body: &[u8]) -> Result<(), ApiError> {
    read_as(target, body, Reading::json_request())
}

fn read_as(target: &mut dyn Structure, body: &[u8], reading: Reading) -> Result<(), ApiError> {
    let value: Value = if body.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        // serde_json refuses nesting beyond 128 levels, so a hostile body cannot exhaust the stack.
        serde_json::from_slice(body).map_err(|error| {
            ApiError::new("SerializationException", format!("The body is not JSON: {error}"))
        })?
    };
    Ok(crate::reading::read_body(target, value, reading)?)
}

/// Reads a body as one structure.
///
/// # Errors
/// As [`read`].
pub fn from_slice<T: Structure + Default>(body: &[u8]) -> Result<T, ApiError> {
    let mut target = T::default();
    read(&mut target, body)?;
    Ok(target)
}

/// A structure as JSON.
pub fn to_vec(structure: &dyn Structure) -> Vec<u8> {
    let mut writer = JsonWriter { out: Vec::with_capacity(TEXT_BYTES) };
    writer.structure(structure);
    writer.out
}

/// A structure as JSON text.
pub fn to_string(structure: &dyn Structure) -> String {
    to_string_within("", structure, "")
}

/// A structure as JSON text, between two others.
pub fn to_string_within(before: &str, structure: &dyn Structure, after: &str) -> String {
    let mut writer = JsonWriter { out: Vec::with_capacity(TEXT_BYTES) };
    writer.out.extend_from_slice(before.as_bytes());
    writer.structure(structure);
    writer.out.extend_from_slice(after.as_bytes());
    String::from_utf8(writer.out).expect("JSON is written from strings and ASCII")
}

/// Room for a text that needs no second allocation: most answers and messages are smaller.
const TEXT_BYTES: usize = 2048;

/// An error's body.
pub fn error(error: &ApiError) -> Vec<u8> {
    let mut body = serde_json::Map::new();
    body.insert("__type".to_owned(), Value::from(error.code.as_ref()));
    body.insert("message".to_owned(), Value::from(error.message.as_str()));
    for (name, values) in &error.fields {
        body.insert(
            name.clone().into_owned(),
            match values {
                ErrorField::Text(text) => Value::from(text.as_str()),
                ErrorField::Texts(texts) => Value::from(texts.as_slice()),
            },
        );
    }
    Value::Object(body).to_string().into_bytes()
}

/// Reads an error's body, as a client; `__type` may carry a prefix up to `#`. A body that says nothing still is an error.
pub fn read_error(status: u16, body: &[u8]) -> ApiError {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    let code = text("__type").map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
    let code = code.unwrap_or_else(|| "UnknownException".to_owned());
    let message = text("message").or_else(|| text("Message"));
    let message = message.unwrap_or_else(|| format!("the answer has status {status} and no message"));
    ApiError::new(code, message).with_status(status)
}

struct JsonWriter {
    out: Vec<u8>,
}

impl JsonWriter {
    fn scalar(&mut self, value: &impl serde::Serialize) {
        serde_json::to_writer(&mut self.out, value).expect("scalars are written to memory");
    }

    fn separate(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
    }
}

impl Writer for JsonWriter {
    fn text(&mut self, text: &str) {
        // Looked at as a whole, without a branch for each byte: nearly no text needs escaping.
        let escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        if text.bytes().fold(false, |found, byte| found | escape(byte)) {
            return self.scalar(&text);
        }
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    fn integer(&mut self, number: i64) {
        self.scalar(&number);
    }

    fn float(&mut self, number: f64) {
        self.scalar(&number);
    }

    fn boolean(&mut self, truth: bool) {
        self.scalar(&truth);
    }

    fn timestamp(&mut self, at: EpochMillis) {
        // Written digit by digit: a float would print large seconds in exponent form or lose milliseconds.
        let (sign, millis) = if at.0 < 0 { ("-", at.0.unsigned_abs()) } else { ("", at.0 as u64) };
        let text = match millis % 1000 {
            0 => format!("{sign}{}", millis / 1000),
            fraction => format!("{sign}{}.{fraction:03}", millis / 1000),
        };
        self.out.extend_from_slice(text.as_bytes());
    }

    fn blob(&mut self, bytes: &[u8]) {
        use base64::Engine as _;
        self.text(&base64::engine::general_purpose::STANDARD.encode(bytes));
    }

    fn structure(&mut self, structure: &dyn Structure) {
        self.out.push(b'{');
        let mut first = true;
        for (index, member) in structure.members().iter().enumerate() {
            let field = structure.field(index);
            if !field.is_absent() {
                self.separate(&mut first);
                // Names of models are identifiers: nothing in them needs escaping.
                self.out.push(b'"');
                self.out.extend_from_slice(member.name.as_bytes());
                self.out.extend_from_slice(b"\":");
                field.write(self);
            }
        }
        self.out.push(b'}');
    }

    fn list(&mut self, items: &mut dyn Iterator<Item = &dyn Field>) {
        self.out.push(b'[');
        let mut first = true;
        for item in items {
            self.separate(&mut first);
            item.write(self);
        }
        self.out.push(b']');
    }

    fn map(&mut self, entries: &mut dyn Iterator<Item = (&str, &dyn Field)>) {
        self.out.push(b'{');
        let mut first = true;
        for (key, item) in entries {
            self.separate(&mut first);
            self.text(key);
            self.out.push(b':');
            item.write(self);
        }
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::field::Secret;
    use std::collections::BTreeMap;

    #[allow(dead_code)]
    mod colour {
        crate::string_enum! { Colour { Red "RED", DarkBlue "DARK_BLUE", } }
    }
    use colour::Colour;
    crate::structure! { Leaf { name "name" true String, at "at" false Option<EpochMillis>, } }
    crate::structure! { Tree {
        leaves "leaves" false Option<Vec<Leaf>>,
        colour "colour" false Option<Colour>,
        labels "labels" false Option<BTreeMap<String, i32>>,
        key "key" false Option<Secret>,
    } }

    #[test]
    fn a_structure_reads_back_what_it_writes() {
        let tree = Tree {
            leaves: Some(vec![Leaf {
                name: "a \"b\"\n".to_owned(),
                at: Some(EpochMillis(1_700_000_000_123)),
            }]),
            colour: Some(Colour::DarkBlue),
            labels: Some(BTreeMap::from([("x".to_owned(), 7)])),
            key: Some(Secret::new("s3")),
        };
        let body = to_string(&tree);
        assert!(body.contains(r#""at":1700000000.123"#), "{body}");
        assert_eq!(from_slice::<Tree>(body.as_bytes()).unwrap(), tree);
        assert!(!format!("{tree:?}").contains("s3"));
    }

    #[test]
    fn text_is_escaped_as_serde_does() {
        for text in ["", "plain", "\u{e9}\u{2028}\u{7f}", "a\"b", "a\\b", "a\nb", "\u{1f}", "\0", "end\t"] {
            let leaf = Leaf { name: text.to_owned(), at: None };
            assert_eq!(to_string(&leaf), serde_json::json!({ "name": text }).to_string());
        }
    }

    #[test]
    fn absent_is_not_empty() {
        let tree: Tree = from_slice(br#"{"leaves":[],"colour":null,"unknown":{"deep":[1]}}"#).unwrap();
        assert_eq!((tree.leaves, tree.colour), (Some(Vec::new()), None));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        for (body, code, message) in [
            ("{", "SerializationException", "The body is not JSON"),
            ("[]", "SerializationException", "must be an object"),
            (r#"{"leaves":[{}]}"#, "InvalidParameterException", "leaves[0].name is missing"),
            (r#"{"leaves":[{"name":1}]}"#, "SerializationException", "leaves[0].name must be a string"),
            (r#"{"colour":"PINK"}"#, "InvalidParameterException", "one of: RED, DARK_BLUE"),
            (
                r#"{"labels":{"x":4294967296}}"#,
                "SerializationException",
                "labels[x] must be an integer of 32 bits",
            ),
        ] {
            let error = from_slice::<Tree>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, code, "{body}");
            assert!(error.message.contains(message), "{body}: {}", error.message);
        }
        assert!(from_slice::<Tree>("[".repeat(1 << 16).as_bytes()).is_err());
    }
}
