//! What a stickiness cookie holds: whom the client stays with, and until when. It tells nobody who that is: targets and
//! groups have numbers from the control plane, the same on every balancer, so that cookies outlive any of them, and such
//! that nothing of what they stand for can be had from them.

use crate::time::Timestamp;

/// A cookie's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// A target's or a group's number.
    pub holder: u64,
    pub until: Timestamp,
}

impl Ticket {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_back_until_it_is_over() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let ticket = Ticket { holder: 0x0123, until: Timestamp::from_millis(1_800_000_000_001) };
        assert_eq!(Ticket::read(&ticket.text(), now), Some(ticket));
        assert_eq!(Ticket::read(&ticket.text(), ticket.until), None);
        for text in
            ["", "0", "zzzzzzzzzzzzzzzz1", "0123456789abcdefé", "0123456789abcdef", "0123456789abcdef+1"]
        {
            assert_eq!(Ticket::read(text, now), None, "{text}");
        }
    }
}
