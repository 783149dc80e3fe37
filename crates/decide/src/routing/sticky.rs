//! What a stickiness cookie holds: whom the client stays with, and until when. It names nobody: target and group are
//! hashes, the same on every balancer, so that cookies outlive any of them.

use super::config::{TargetGroupArn, TargetKey};
use crate::time::Timestamp;

/// A cookie's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// [`Ticket::of_target`] or [`Ticket::of_group`].
    pub holder: u64,
    pub until: Timestamp,
}

impl Ticket {
    pub fn of_target(group: &TargetGroupArn, target: &TargetKey) -> u64 {
        let port = target.port.to_be_bytes();
        hash(&[group.as_str().as_bytes(), target.id.as_str().as_bytes(), &port])
    }

    pub fn of_group(group: &TargetGroupArn) -> u64 {
        hash(&[group.as_str().as_bytes()])
    }

    /// The cookie's value.
    pub fn text(self) -> String {
        format!("{:016x}{:x}", self.holder, self.until.as_millis().max(0))
    }

    /// Reads a cookie's value; None for one that is not ours, or over.
    pub fn read(text: &str, now: Timestamp) -> Option<Ticket> {
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (holder, until) = text.split_at_checked(16).filter(|_| hex)?;
        let holder = u64::from_str_radix(holder, 16).ok()?;
        let until = Timestamp::from_millis(i64::from_str_radix(until, 16).ok()?);
        (until > now).then_some(Ticket { holder, until })
    }
}

/// FNV-1a over the parts with a separator that no part holds: the same in every version of the program. A client that
/// makes up a hash wins a target that it could have been given anyway.
fn hash(parts: &[&[u8]]) -> u64 {
    parts.iter().flat_map(|part| part.iter().chain(&[0xff])).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::TargetId;
    use super::*;

    #[test]
    fn a_ticket_reads_back_until_it_is_over() {
        let group = TargetGroupArn::new("g");
        let key = |port| TargetKey { id: TargetId::new("i-1"), port };
        let now = Timestamp::from_millis(1_800_000_000_000);
        let ticket = Ticket {
            holder: Ticket::of_target(&group, &key(80)),
            until: Timestamp::from_millis(1_800_000_000_001),
        };
        assert_eq!(Ticket::read(&ticket.text(), now), Some(ticket));
        assert_eq!(Ticket::read(&ticket.text(), ticket.until), None);
        assert_ne!(Ticket::of_target(&group, &key(80)), Ticket::of_target(&group, &key(81)));
        for text in
            ["", "0", "zzzzzzzzzzzzzzzz1", "0123456789abcdefé", "0123456789abcdef", "0123456789abcdef+1"]
        {
            assert_eq!(Ticket::read(text, now), None, "{text}");
        }
    }
}
