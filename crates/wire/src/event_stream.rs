//! Streams of events, `application/vnd.amazon.eventstream`: how AWS answers an operation that goes on.
//!
//! A message is its length and that of its headers (32 bits each, big-endian), the CRC-32 of both, headers, payload, and
//! the CRC-32 of all before. A header is its name (a byte of length first), the type of its value, of which only text
//! is sent here, and the value (two bytes of length first).

use crate::{ApiError, Structure, json};

/// The content type of a response that is such a stream.
pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";
/// The type of a header's value that is text.
const TEXT: u8 = 7;
/// Bytes of the lengths and their sum before the headers.
const PRELUDE: usize = 12;

/// The first message of services whose protocol is awsJson: the response without its stream.
pub fn initial_response() -> Vec<u8> {
    message(&[(":message-type", "event"), (":event-type", "initial-response")], b"{}")
}

/// An event, by the name of the stream's member that it is.
pub fn event(name: &str, structure: &dyn Structure) -> Vec<u8> {
    message(&[(":message-type", "event"), (":event-type", name)], &json::to_vec(structure))
}

/// An error, with which the stream ends.
pub fn exception(error: &ApiError) -> Vec<u8> {
    message(&[(":message-type", "exception"), (":exception-type", &error.code)], &json::error(error))
}

fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let all = [(":content-type", "application/json")];
    let mut head = Vec::new();
    for (name, value) in headers.iter().chain(&all) {
        // Names and values are the model's own, far below these bounds.
        head.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        head.extend_from_slice(name.as_bytes());
        head.push(TEXT);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let total = PRELUDE + head.len() + payload.len() + 4;
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&length(total));
    out.extend_from_slice(&length(head.len()));
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_readers_expect() {
        let message = message(&[(":message-type", "event")], b"{}");
        assert_eq!(message[..4], (message.len() as u32).to_be_bytes());
        let headers = u32::from_be_bytes([message[4], message[5], message[6], message[7]]) as usize;
        assert_eq!(message[8..12], crc32fast::hash(&message[..8]).to_be_bytes());
        assert_eq!(&message[12..26], b"\x0d:message-type");
        assert_eq!(&message[26..34], b"\x07\0\x05event");
        assert_eq!(&message[12 + headers..message.len() - 4], b"{}");
        let (all, sum) = message.split_at(message.len() - 4);
        assert_eq!(sum, crc32fast::hash(all).to_be_bytes());
    }
}
