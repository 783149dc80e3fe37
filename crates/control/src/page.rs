//! Pages of a list: size limits, and tokens that say where the next page begins.
//!
//! A token holds the key of the last item shown, so a page is right also when items came or went in between. To the
//! caller it is opaque, and a check sum tells a token of ours from other text.

/// A page that cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("maxResults must be between 1 and {max}.")]
    Size { max: i32 },
    #[error("Invalid token.")]
    Token,
}

/// Items of most lists, at most and by default.
pub const LIST_MAX: i32 = 100;
/// ListAccountSettings and DescribeCapacityProviders show this many at most.
pub const SHORT_MAX: i32 = 10;

/// Longest token that is looked at: twice the longest key, its check sum, and room.
const TOKEN_LENGTH_MAX: usize = 2048;

/// A page as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    after: Option<String>,
    size: usize,
    descending: bool,
}

impl Page {
    /// Reads `nextToken` and `maxResults`.
    ///
    /// # Errors
    /// For text that is no token of ours and for a size outside 1 to `max`.
    pub fn read(token: Option<&str>, size: Option<i32>, max: i32, default: i32) -> Result<Page, PageError> {
        let size = size.unwrap_or(default);
        if !(1..=max).contains(&size) {
            return Err(PageError::Size { max });
        }
        let after = match token {
            None | Some("") => None,
            Some(token) => Some(open(token).ok_or(PageError::Token)?),
        };
        Ok(Page { after, size: size.unsigned_abs() as usize, descending: false })
    }

    /// The same page of items that come in falling order of their keys.
    pub fn descending(self, descending: bool) -> Page {
        Page { descending, ..self }
    }

    /// Takes the page out of all `items`, which come in the order of their `key`s, and the token of the next page if
    /// there is one.
    pub fn cut<T, O>(
        &self,
        items: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
        show: impl Fn(T) -> O,
    ) -> (Vec<O>, Option<String>) {
        let seen = |item: &T| {
            self.after.as_ref().is_some_and(|after| {
                let key = key(item);
                if self.descending { key >= *after } else { key <= *after }
            })
        };
        let mut items = items.skip_while(seen);
        let mut shown = Vec::new();
        let mut last = None;
        for item in items.by_ref().take(self.size) {
            last = Some(key(&item));
            shown.push(show(item));
        }
        let token = last.filter(|_| items.next().is_some()).map(|last| seal(&last));
        (shown, token)
    }
}

/// FNV-1a. It guards against mistakes, not against forgery: a token grants nothing.
fn check_sum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn seal(key: &str) -> String {
    use std::fmt::Write;
    let mut token = format!("{:08x}", check_sum(key));
    for byte in key.bytes() {
        // Writing to a string cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    token
}

fn open(token: &str) -> Option<String> {
    if token.len() > TOKEN_LENGTH_MAX || !token.len().is_multiple_of(2) {
        return None;
    }
    if !token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        (0..token.len()).step_by(2).map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok()).collect();
    let bytes = bytes?;
    let (sum, key) = bytes.split_at_checked(4)?;
    let key = String::from_utf8(key.to_vec()).ok()?;
    (check_sum(&key).to_be_bytes() == sum).then_some(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all_pages(names: &[&str], size: i32, descending: bool) -> Vec<Vec<String>> {
        let mut names = names.to_vec();
        names.sort_unstable();
        if descending {
            names.reverse();
        }
        let (mut pages, mut token) = (Vec::new(), None);
        loop {
            let page = Page::read(token.as_deref(), Some(size), 100, 100).unwrap().descending(descending);
            let (shown, next) = page.cut(names.iter(), |n| (**n).to_owned(), |n| (*n).to_owned());
            pages.push(shown);
            match next {
                Some(next) => token = Some(next),
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_cover_everything_once_in_order() {
        let names = ["a", "b", "c", "d", "e"];
        assert_eq!(all_pages(&names, 2, false), [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
        assert_eq!(all_pages(&names, 2, true), [vec!["e", "d"], vec!["c", "b"], vec!["a"]]);
        assert_eq!(all_pages(&names, 5, false).len(), 1, "a full last page has no token");
        assert_eq!(all_pages(&[], 5, false), [Vec::<String>::new()]);
    }

    #[test]
    fn a_page_goes_on_after_an_item_that_vanished() {
        let first = Page::read(None, Some(2), 100, 100).unwrap();
        let (_, token) = first.cut(["a", "b", "c"].iter(), |n| (**n).to_owned(), |n| *n);
        let second = Page::read(token.as_deref(), None, 100, 100).unwrap();
        assert_eq!(second.cut(["a", "c"].iter(), |n| (**n).to_owned(), |n| *n).0, ["c"]);
    }

    #[test]
    fn wrong_tokens_and_sizes_are_refused() {
        let sealed = seal("web");
        let digit = if sealed.starts_with('0') { '1' } else { '0' };
        let flipped = format!("{digit}{}", &sealed[1..]);
        for token in ["x", "zz", "00", "0000000000", "é0", flipped.as_str(), &"0".repeat(5000)] {
            let error = Page::read(Some(token), None, 100, 100).unwrap_err();
            assert_eq!(error.to_string(), "Invalid token.", "{token}");
        }
        for size in [0, -1, 101, i32::MAX, i32::MIN] {
            assert!(Page::read(None, Some(size), 100, 100).is_err(), "{size}");
        }
        assert_eq!(open(&sealed).unwrap(), "web");
    }
}
