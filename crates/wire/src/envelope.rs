//! The envelope of the messages between control plane and agents: `{"type": NAME, "message": {…}}`, one JSON text a
//! WebSocket frame.

use crate::{ApiError, Structure, json};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A frame whose message is not read yet.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Opens an envelope; `None` for text that is none.
    pub fn open(text: &'a str) -> Option<Frame<'a>> {
        serde_json::from_str(text).ok()
    }

    /// Opens a telemetry frame: HTTP header lines, an empty line, then the envelope.
    pub fn open_signed(text: &'a str) -> Option<Frame<'a>> {
        Frame::open(text.split_once("\r\n\r\n").map_or(text, |(_, envelope)| envelope))
    }

    /// Reads the message.
    ///
    /// # Errors
    /// When it is not one of this shape. An absent message reads as an empty one.
    pub fn message<T: Structure + Default>(&self) -> Result<T, ApiError> {
        json::from_slice(self.message.map_or("{}", RawValue::get).as_bytes())
    }
}

/// A message in its envelope.
pub fn seal(kind: &str, message: &dyn Structure) -> String {
    json::to_string_within(&format!(r#"{{"type":"{kind}","message":"#), message, "}")
}

/// A telemetry frame: the headers of its signature, then the envelope.
pub fn seal_signed<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>, envelope: &str) -> String {
    let mut frame = String::with_capacity(envelope.len() + 512);
    for (name, value) in headers {
        frame.extend([name, ": ", value, "\r\n"]);
    }
    frame.extend(["\r\n", envelope]);
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    crate::structure! { Note { text "text" false Option<String>, } }

    #[test]
    fn what_is_sealed_opens_again() {
        let note = Note { text: Some("a \"b\"".to_owned()) };
        let sealed = seal("Note", &note);
        let frame = Frame::open(&sealed).unwrap();
        assert_eq!((frame.kind.as_ref(), frame.message::<Note>().unwrap()), ("Note", note.clone()));
        let signed = seal_signed([("Authorization", "x"), ("Host", "h")].into_iter(), &sealed);
        assert_eq!(Frame::open_signed(&signed).unwrap().message::<Note>().unwrap(), note);
        assert!(Frame::open_signed(&sealed).is_some());
    }

    #[test]
    fn nonsense_is_no_frame() {
        for text in ["", "{", "[]", r#"{"message":{}}"#, "\r\n\r\n"] {
            assert!(Frame::open_signed(text).is_none(), "{text}");
        }
        let frame = Frame::open(r#"{"type":"x","message":[1]}"#).unwrap();
        assert!(frame.message::<Note>().is_err());
        assert_eq!(Frame::open(r#"{"type":"x"}"#).unwrap().message::<Note>().unwrap(), Note::default());
    }
}
