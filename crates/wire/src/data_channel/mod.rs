//! The data channel of AWS Session Manager, on which ECS Exec carries a terminal: its binary messages and, in
//! [`stream`], the order in which they count.
//!
//! A message is a header of fixed fields, in network byte order, and a payload:
//! `length of the header (4) · type (32, padded with blanks) · version (4) · created, ms (8) · sequence (8) · flags (8) ·
//! id (16, its halves swapped) · SHA-256 of the payload (32) · type of the payload (4) · length of the payload (4)`.

pub mod stream;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// Bytes before the payload's length, which the header's own length does not count.
const HEADER: usize = 116;
const TYPE_LENGTH: usize = 32;
const VERSION: u32 = 1;
/// Bytes of one payload: the plugin sends keystrokes, a paste at most.
pub const PAYLOAD_MAX: usize = 256 << 10;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the client: keystrokes, sizes, answers.
    Input,
    /// From the container's side: what the terminal shows, questions.
    Output,
    Acknowledge,
    /// The session is over.
    ChannelClosed,
    /// The other side has come; or has gone for a while.
    StartPublication,
    PausePublication,
}

impl Kind {
    const ALL: [(Kind, &'static str); 6] = [
        (Kind::Input, "input_stream_data"),
        (Kind::Output, "output_stream_data"),
        (Kind::Acknowledge, "acknowledge"),
        (Kind::ChannelClosed, "channel_closed"),
        (Kind::StartPublication, "start_publication"),
        (Kind::PausePublication, "pause_publication"),
    ];

    /// The kind of an encoded message, without looking at the rest of it.
    pub fn of(bytes: &[u8]) -> Option<Kind> {
        let name = std::str::from_utf8(bytes.get(4..4 + TYPE_LENGTH)?).ok()?;
        Kind::named(name)
    }

    fn named(name: &str) -> Option<Kind> {
        let name = name.trim_matches(|c| c == ' ' || c == '\0');
        Kind::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// What a payload of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PayloadType {
    /// Bytes of the terminal, in either direction.
    Output = 1,
    /// [`Size`] of the client's terminal.
    Size = 3,
    HandshakeRequest = 5,
    HandshakeResponse = 6,
    HandshakeComplete = 7,
    /// Four bytes: [`TERMINATE_SESSION`] is the only one that terminals use.
    Flag = 10,
    /// Bytes of standard error, where there is no terminal.
    StdErr = 11,
    /// Decimal text.
    ExitCode = 12,
}

impl PayloadType {
    const ALL: [PayloadType; 8] = [
        PayloadType::Output,
        PayloadType::Size,
        PayloadType::HandshakeRequest,
        PayloadType::HandshakeResponse,
        PayloadType::HandshakeComplete,
        PayloadType::Flag,
        PayloadType::StdErr,
        PayloadType::ExitCode,
    ];

    /// The type of this number; `None` for those that a terminal has no use for.
    pub fn of(number: u32) -> Option<PayloadType> {
        PayloadType::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// The payload of a [`PayloadType::Flag`] by which a client ends its session.
pub const TERMINATE_SESSION: u32 = 2;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    pub sequence: i64,
    pub id: [u8; 16],
    /// Milliseconds since 1970.
    pub created: u64,
    /// A number of [`PayloadType`], or another; 0 in acknowledgments.
    pub payload_type: u32,
    pub payload: Vec<u8>,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the message is shorter than its header says")]
    Short,
    #[error("the message's type is not known")]
    Kind,
    #[error("the payload is longer than {PAYLOAD_MAX} bytes")]
    Long,
    #[error("the payload does not have the digest that the header names")]
    Digest,
    #[error("the payload is not the JSON that its type asks for")]
    Payload,
}

/// Swaps an id between its usual order and the one on the wire: the less significant half comes first.
fn swapped(id: [u8; 16]) -> [u8; 16] {
    let mut other = [0; 16];
    other[..8].copy_from_slice(&id[8..]);
    other[8..].copy_from_slice(&id[..8]);
    other
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let flags: u64 = match (self.kind, self.sequence) {
            (Kind::Acknowledge, _) => 3,
            (_, 0) => 1,
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(HEADER + 4 + self.payload.len());
        bytes.extend((HEADER as u32).to_be_bytes());
        bytes.extend(format!("{:TYPE_LENGTH$}", self.kind.name()).as_bytes());
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(self.created.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(swapped(self.id));
        bytes.extend(digest(&SHA256, &self.payload).as_ref());
        bytes.extend(self.payload_type.to_be_bytes());
        bytes.extend((self.payload.len() as u32).to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads one message.
    ///
    /// # Errors
    /// For bytes that are none, or whose digest does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let mut header = Reader(bytes);
        let length = header.u32()? as usize;
        let name = header.take::<TYPE_LENGTH>()?;
        let name = std::str::from_utf8(&name).map_err(|_| Malformed::Kind)?;
        let kind = Kind::named(name).ok_or(Malformed::Kind)?;
        let _version = header.u32()?;
        let created = u64::from_be_bytes(header.take()?);
        let sequence = i64::from_be_bytes(header.take()?);
        let _flags = header.take::<8>()?;
        let id = swapped(header.take()?);
        let expected: [u8; 32] = header.take()?;
        let payload_type = header.u32()?;
        // A header of another length ends where it says; the payload's length follows it.
        let mut rest = Reader(bytes.get(length..).ok_or(Malformed::Short)?);
        let payload_length = rest.u32()? as usize;
        if payload_length > PAYLOAD_MAX {
            return Err(Malformed::Long);
        }
        let payload = rest.0.get(..payload_length).ok_or(Malformed::Short)?.to_vec();
        if !payload.is_empty() && digest(&SHA256, &payload).as_ref() != expected {
            return Err(Malformed::Digest);
        }
        Ok(Message { kind, sequence, id, created, payload_type, payload })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }
}

/// The first message of a client, as text: proof that it may take part.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannel {
    pub message_schema_version: String,
    pub request_id: String,
    pub token_value: String,
    #[serde(default)]
    pub client_id: String,
    #[serde(default)]
    pub client_version: String,
}

/// Where a control plane serves data channels.
pub const PATH: &str = "/v1/data-channel";

/// The path of one session, by the account and region of its task.
pub fn path(
    account: impl std::fmt::Display,
    region: impl std::fmt::Display,
    id: impl std::fmt::Display,
) -> String {
    format!("{PATH}/{account}/{region}/{id}")
}

/// What is kept of a session's token: enough to know it again, not to use it.
pub fn token_digest(token: &str) -> String {
    faster_hex::hex_string(digest(&SHA256, token.as_bytes()).as_ref())
}

/// What a message of kind [`Kind::Acknowledge`] says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Acknowledgment {
    #[serde(rename = "AcknowledgedMessageType")]
    pub kind: String,
    #[serde(rename = "AcknowledgedMessageId")]
    pub id: String,
    #[serde(rename = "AcknowledgedMessageSequenceNumber")]
    pub sequence: i64,
    #[serde(rename = "IsSequentialMessage")]
    pub is_sequential: bool,
}

/// What a message of kind [`Kind::ChannelClosed`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ChannelClosed {
    pub message_id: String,
    pub created_date: String,
    pub destination_id: String,
    pub session_id: String,
    pub message_type: String,
    pub schema_version: i32,
    /// Why, in words for the user; empty for an ordinary end.
    pub output: String,
}

/// The question that opens a session, from the container's side.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeRequest {
    pub agent_version: String,
    pub requested_client_actions: Vec<ClientAction>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClientAction {
    pub action_type: String,
    pub action_parameters: SessionType,
}

/// Which plugin of the client takes part: `InteractiveCommands` is a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionType {
    pub session_type: String,
    #[serde(default)]
    pub properties: serde_json::Value,
}

/// The client's answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeResponse {
    pub client_version: String,
    #[serde(default)]
    pub processed_client_actions: Vec<ProcessedAction>,
    #[serde(default)]
    pub errors: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessedAction {
    pub action_type: String,
    /// 1: done; 2: failed; 3: not known.
    pub action_status: i32,
    #[serde(default)]
    pub error: String,
}

/// The end of the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeComplete {
    /// Nanoseconds.
    pub handshake_time_to_complete: i64,
    pub customer_message: String,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message() -> Message {
        let mut id = [0; 16];
        id.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
        Message {
            kind: Kind::Input,
            sequence: 7,
            id,
            created: 1_700_000_000_123,
            payload_type: 1,
            payload: b"ls\r".to_vec(),
        }
    }

    #[test]
    fn fields_stand_where_the_plugin_looks_for_them() {
        let bytes = message().encode();
        assert_eq!(bytes[..4], 116u32.to_be_bytes());
        assert_eq!(&bytes[4..36], b"input_stream_data               ");
        assert_eq!(bytes[36..40], 1u32.to_be_bytes());
        assert_eq!(bytes[40..48], 1_700_000_000_123u64.to_be_bytes());
        assert_eq!(bytes[48..56], 7i64.to_be_bytes());
        assert_eq!(bytes[56..64], [0; 8]);
        assert_eq!(bytes[64..80], [9, 10, 11, 12, 13, 14, 15, 16, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[112..116], 1u32.to_be_bytes());
        assert_eq!(bytes[116..120], 3u32.to_be_bytes());
        assert_eq!(&bytes[120..], b"ls\r");
    }

    #[test]
    fn what_is_written_is_read() {
        for (kind, _) in Kind::ALL {
            let message = Message { kind, ..message() };
            assert_eq!(Kind::of(&message.encode()), Some(kind));
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        let empty = Message { payload: Vec::new(), ..message() };
        assert_eq!(Message::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn damage_is_noticed() {
        let bytes = message().encode();
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        let changed = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            Message::decode(&bytes).unwrap_err()
        };
        assert_eq!(changed(5, b'X'), Malformed::Kind);
        assert_eq!(changed(120, b'X'), Malformed::Digest);
        assert_eq!(changed(116, 0xff), Malformed::Long);
        assert_eq!(changed(0, 0xff), Malformed::Short);
    }
}
