//! Both directions of a data channel: numbers, acknowledgments, repetition, order.
//!
//! A receiver that is not ready drops what it gets without a word, so everything is repeated until it is acknowledged.

use super::{Acknowledgment, ChannelClosed, Kind, Malformed, Message};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Messages that may wait for an acknowledgment before the sender pauses. The plugin keeps as many that came early.
const WINDOW: usize = 64;
/// Messages kept that came before their turn.
const EARLY_MAX: usize = 10_000;
/// From sending a message to sending it again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The other side has gone when it acknowledges nothing for so long.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A point in time, as a duration since an origin that the caller chooses.
pub type Instant = Duration;

/// One side of a channel.
#[derive(Debug)]
pub struct Stream {
    /// What this side sends.
    kind: Kind,
    next: i64,
    unacknowledged: VecDeque<Sent>,
    expected: i64,
    early: BTreeMap<i64, Message>,
}

#[derive(Debug)]
struct Sent {
    sequence: i64,
    bytes: Vec<u8>,
    first: Instant,
    last: Instant,
}

/// What came out of a message that was received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// To be sent back.
    pub replies: Vec<Vec<u8>>,
    /// Payloads whose turn has come, each with the number of its type.
    pub payloads: Vec<(u32, Vec<u8>)>,
    /// The other side has ended the session, for this reason.
    pub closed: Option<String>,
    /// The other side is there, or has gone for a while, as who carries the session says.
    pub present: Option<bool>,
}

impl Stream {
    /// The side that sends `kind`: [`Kind::Output`] for the container's, [`Kind::Input`] for the client's.
    pub fn new(kind: Kind) -> Stream {
        Stream { kind, next: 0, unacknowledged: VecDeque::new(), expected: 0, early: BTreeMap::new() }
    }

    /// Whether more may be sent: not while too much is unacknowledged.
    pub fn has_room(&self) -> bool {
        self.unacknowledged.len() < WINDOW
    }

    /// Whether the other side has all that was sent.
    pub fn is_quiet(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// Makes the next message. It is repeated by [`Self::due`] until it is acknowledged.
    pub fn send(
        &mut self,
        now: Instant,
        created: u64,
        id: [u8; 16],
        payload_type: u32,
        payload: Vec<u8>,
    ) -> Vec<u8> {
        let message = Message { kind: self.kind, sequence: self.next, id, created, payload_type, payload };
        let bytes = message.encode();
        self.unacknowledged.push_back(Sent {
            sequence: self.next,
            bytes: bytes.clone(),
            first: now,
            last: now,
        });
        self.next += 1;
        bytes
    }

    /// Takes a message of the other side. What is acknowledged needs an id of its own, from `fresh_id`.
    ///
    /// # Errors
    /// For bytes that are no message; the stream is as before.
    pub fn receive(
        &mut self,
        created: u64,
        mut fresh_id: impl FnMut() -> [u8; 16],
        bytes: &[u8],
    ) -> Result<Received, Malformed> {
        let message = Message::decode(bytes)?;
        let mut received = Received::default();
        match message.kind {
            Kind::Acknowledge => {
                let about: Acknowledgment =
                    serde_json::from_slice(&message.payload).map_err(|_| Malformed::Payload)?;
                self.unacknowledged.retain(|sent| sent.sequence != about.sequence);
            }
            Kind::ChannelClosed => {
                let closed: ChannelClosed =
                    serde_json::from_slice(&message.payload).map_err(|_| Malformed::Payload)?;
                received.closed = Some(closed.output);
            }
            Kind::Input | Kind::Output if message.kind != self.kind => {
                if message.sequence > self.expected && self.early.len() >= EARLY_MAX {
                    return Ok(received);
                }
                received.replies.push(acknowledge(&message, created, fresh_id()));
                if message.sequence >= self.expected {
                    self.early.insert(message.sequence, message);
                }
                while let Some(message) = self.early.remove(&self.expected) {
                    self.expected += 1;
                    received.payloads.push((message.payload_type, message.payload));
                }
            }
            Kind::StartPublication => received.present = Some(true),
            Kind::PausePublication => received.present = Some(false),
            // Our own, echoed.
            Kind::Input | Kind::Output => {}
        }
        Ok(received)
    }

    /// What has to be sent once more. `None` when the other side has been silent for too long.
    pub fn due(&mut self, now: Instant) -> Option<Vec<Vec<u8>>> {
        let oldest = self.unacknowledged.front();
        if oldest.is_some_and(|sent| now >= sent.first + SILENCE_MAX) {
            return None;
        }
        let late = self.unacknowledged.iter_mut().filter(|sent| now >= sent.last + AGAIN_AFTER);
        Some(
            late.map(|sent| {
                sent.last = now;
                sent.bytes.clone()
            })
            .collect(),
        )
    }

    /// The other side can be reached again after it could not: what it may have missed is due at once, and its silence
    /// counts from now.
    pub fn again(&mut self, now: Instant) {
        for sent in &mut self.unacknowledged {
            sent.first = now;
            sent.last = now.saturating_sub(AGAIN_AFTER);
        }
    }

    /// When [`Self::due`] is to be asked next.
    pub fn wake_at(&self) -> Option<Instant> {
        self.unacknowledged.iter().map(|sent| sent.last + AGAIN_AFTER).min()
    }
}

fn acknowledge(message: &Message, created: u64, id: [u8; 16]) -> Vec<u8> {
    let about = Acknowledgment {
        kind: message.kind.name().to_owned(),
        id: canonical(message.id),
        sequence: message.sequence,
        is_sequential: true,
    };
    let payload = serde_json::to_vec(&about).unwrap_or_default();
    Message { kind: Kind::Acknowledge, sequence: 0, id, created, payload_type: 0, payload }.encode()
}

/// The message by which who carries a session tells one side that the other is there, or has gone for a while.
pub fn presence(created: u64, id: [u8; 16], is_there: bool) -> Vec<u8> {
    let kind = if is_there { Kind::StartPublication } else { Kind::PausePublication };
    Message { kind, sequence: 0, id, created, payload_type: 0, payload: Vec::new() }.encode()
}

/// The message by which one side ends a session.
pub fn closing(session_id: &str, created: u64, id: [u8; 16], output: &str) -> Vec<u8> {
    let closed = ChannelClosed {
        message_id: canonical(id),
        created_date: created.to_string(),
        destination_id: String::new(),
        session_id: session_id.to_owned(),
        message_type: Kind::ChannelClosed.name().to_owned(),
        schema_version: 1,
        output: output.to_owned(),
    };
    let payload = serde_json::to_vec(&closed).unwrap_or_default();
    Message { kind: Kind::ChannelClosed, sequence: 0, id, created, payload_type: 0, payload }.encode()
}

/// `8-4-4-4-12` hexadecimal digits.
fn canonical(id: [u8; 16]) -> String {
    let digits = faster_hex::hex_string(&id);
    let [a, b, c, d, e] = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Duration::from_secs(1);

    fn id() -> [u8; 16] {
        [7; 16]
    }

    fn later(seconds: u64) -> Instant {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn a_message_is_repeated_until_it_is_acknowledged() {
        let (mut ours, mut theirs) = (Stream::new(Kind::Output), Stream::new(Kind::Input));
        let sent = ours.send(NOW, 1, id(), 1, b"$ ".to_vec());
        assert_eq!(ours.due(NOW), Some(vec![]));
        assert_eq!(ours.due(later(1)), Some(vec![sent.clone()]));
        let received = theirs.receive(1, id, &sent).unwrap();
        assert_eq!(received.payloads, [(1, b"$ ".to_vec())]);
        let again = theirs.receive(1, id, &sent).unwrap();
        assert_eq!(again.payloads, [], "the repetition counts once");
        assert_eq!(again.replies.len(), 1, "and is acknowledged too: the first acknowledgment may be lost");
        assert!(!ours.is_quiet());
        ours.receive(1, id, &received.replies[0]).unwrap();
        assert!(ours.is_quiet() && ours.wake_at().is_none());
    }

    #[test]
    fn who_never_answers_is_given_up() {
        let mut ours = Stream::new(Kind::Output);
        ours.send(NOW, 1, id(), 1, Vec::new());
        assert!(ours.due(later(59)).is_some());
        assert_eq!(ours.due(later(60)), None);
    }

    #[test]
    fn who_comes_back_gets_at_once_what_it_may_have_missed() {
        let mut ours = Stream::new(Kind::Output);
        let sent = ours.send(NOW, 1, id(), 1, b"missed".to_vec());
        ours.again(later(50));
        assert_eq!(ours.due(later(50)), Some(vec![sent]));
        assert!(ours.due(later(109)).is_some(), "its silence counts anew");
        assert_eq!(ours.due(later(110)), None);
        let there = |present| presence(1, id(), present);
        assert_eq!(ours.receive(1, id, &there(false)).unwrap().present, Some(false));
        assert_eq!(ours.receive(1, id, &there(true)).unwrap().present, Some(true));
    }

    #[test]
    fn a_window_bounds_what_waits() {
        let mut ours = Stream::new(Kind::Output);
        for _ in 0..WINDOW {
            assert!(ours.has_room());
            ours.send(NOW, 1, id(), 1, Vec::new());
        }
        assert!(!ours.has_room());
    }

    #[test]
    fn the_end_has_a_reason() {
        let mut ours = Stream::new(Kind::Input);
        let received = ours.receive(1, id, &closing("s-1", 1, id(), "gone")).unwrap();
        assert_eq!(received.closed.as_deref(), Some("gone"));
        assert_eq!(canonical(id()), "07070707-0707-0707-0707-070707070707");
    }

    proptest! {
        /// Lost, late and repeated messages: what arrives is what was sent, in order, once.
        #[test]
        fn order_survives_the_network(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 1..40),
            choices in prop::collection::vec(0..3u8, 400),
        ) {
            let (mut ours, mut theirs) = (Stream::new(Kind::Output), Stream::new(Kind::Input));
            let mut wire: Vec<Vec<u8>> =
                texts.iter().map(|text| ours.send(NOW, 1, id(), 1, text.clone())).collect();
            let mut got = Vec::new();
            let mut choices = choices.into_iter().chain(std::iter::repeat(2));
            for round in 0..200 {
                let mut kept = Vec::new();
                for bytes in std::mem::take(&mut wire) {
                    match choices.next().unwrap() {
                        0 => {}
                        1 => kept.push(bytes),
                        _ => {
                            let received = theirs.receive(1, id, &bytes).unwrap();
                            got.extend(received.payloads.into_iter().map(|(_, payload)| payload));
                            for reply in received.replies {
                                if choices.next().unwrap() > 0 {
                                    ours.receive(1, id, &reply).unwrap();
                                }
                            }
                        }
                    }
                }
                kept.reverse();
                wire = kept;
                // So that time passes without anybody being given up.
                let now = NOW + Duration::from_millis(250 * round);
                wire.extend(ours.due(now).unwrap());
                if ours.is_quiet() {
                    break;
                }
            }
            prop_assert_eq!(got, texts);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut ours = Stream::new(Kind::Input);
            prop_assert!(ours.receive(1, id, &bytes).is_err());
        }
    }
}
