//! Where a writer that must neither lose nor repeat a log event is in what it writes: words of its own that are stored
//! together with the events, so that after a lost answer or a crash on either side both agree on what is there.
//!
//! A cursor travels as the sequence token of PutLogEvents, which AWS takes and ignores.

use std::fmt;
use std::str::FromStr;

/// Bytes of one position: twice what our agent's take.
pub const POSITION_MAX: usize = 128;

/// A step in a stream: done only from the position before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Absent for a stream's first events.
    pub before: Option<String>,
    pub after: String,
}

/// Text that is no cursor: another client's sequence token, for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NoCursor;

/// Whether text can be a position.
pub fn is_position(text: &str) -> bool {
    (1..=POSITION_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:_".contains(&b))
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cursor/{}/{}", self.before.as_deref().unwrap_or_default(), self.after)
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Cursor, NoCursor> {
        let (before, after) =
            text.strip_prefix("cursor/").and_then(|rest| rest.split_once('/')).ok_or(NoCursor)?;
        if !is_position(after) || !(before.is_empty() || is_position(before)) {
            return Err(NoCursor);
        }
        Ok(Cursor { before: (!before.is_empty()).then(|| before.to_owned()), after: after.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_written() {
        for cursor in [
            Cursor { before: None, after: "9.17:0".to_owned() },
            Cursor { before: Some("9.17:0".to_owned()), after: "9.17:4096".to_owned() },
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for other in
            ["", "49590302938475", "cursor/", "cursor/a", "cursor/a/", "cursor/a b/c", "cursor/a/b/c"]
        {
            assert_eq!(other.parse::<Cursor>(), Err(NoCursor), "{other}");
        }
    }
}
