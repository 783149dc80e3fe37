//! The values of the query language that are more than text: versions, instants and patterns.

use crate::time::Timestamp;
use std::cmp::Ordering;
use std::fmt;

/// A dotted version, compared number by number; missing numbers are zero.
#[derive(Clone, Debug)]
pub struct Version(Vec<u64>);

/// More parts than any version has.
const VERSION_PARTS_MAX: usize = 8;

impl Version {
    /// Reads `1.14.5` or `v1.14.5`; nothing for other text.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let number =
            |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
        (parts.len() <= VERSION_PARTS_MAX).then_some(Version(parts))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        let part = |version: &Version, index: usize| version.0.get(index).copied().unwrap_or(0);
        let count = self.0.len().max(other.0.len());
        (0..count).map(|i| part(self, i).cmp(&part(other, i))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            write!(f, "{}{part}", if index > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}

/// An instant as the language writes it: whole seconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(i64);

const DAY_SECONDS: i64 = 86_400;

impl Instant {
    /// Reads `2018-06-18`, `2018-06-18T22:28:28`, and the latter with `Z` or `+00:00`; without a zone it is UTC.
    pub fn parse(text: &str) -> Option<Instant> {
        if !text.is_ascii() {
            return None;
        }
        let (date, time) = text.split_once('T').map_or((text, None), |(date, time)| (date, Some(time)));
        let days = days(date)?;
        let seconds = match time {
            None => 0,
            Some(time) => {
                let clock = clock(time.get(..8)?)?;
                clock - offset(time.get(8..)?)?
            }
        };
        Some(Instant(days * DAY_SECONDS + seconds))
    }
}

impl From<Timestamp> for Instant {
    /// Drops the milliseconds, which no expression can write.
    fn from(timestamp: Timestamp) -> Instant {
        Instant(timestamp.as_millis().div_euclid(1_000))
    }
}

/// A number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from 1970-01-01 to `YYYY-MM-DD`.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let length = match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last: the usual reckoning over 400-year eras.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Seconds of `hh:mm:ss`.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hour, minute, second) =
        (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    (parts.next().is_none() && hour < 24 && minute < 60 && second < 60)
        .then_some(hour * 3_600 + minute * 60 + second)
}

/// Seconds east of UTC of nothing, `Z` or `+hh:mm`.
fn offset(text: &str) -> Option<i64> {
    let sign = match text.chars().next() {
        None => return Some(0),
        Some('Z') => return (text.len() == 1).then_some(0),
        Some('+') => 1,
        Some('-') => -1,
        Some(_) => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0.div_euclid(DAY_SECONDS), self.0.rem_euclid(DAY_SECONDS));
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// A regular expression that the whole of a text must match. Runs in time linear in the text.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: regex::Regex,
}

/// Memory that one compiled pattern may take, in bytes. An expression of 2,000 characters holds at most some
/// hundred patterns, each then tiny; real ones need a few KiB.
const PATTERN_BYTES_MAX: usize = 256 << 10;

impl Pattern {
    /// # Errors
    /// When the text is no regular expression, or too big a one.
    pub fn parse(text: &str) -> Result<Pattern, regex::Error> {
        let build = |text: &str| {
            regex::RegexBuilder::new(text)
                .size_limit(PATTERN_BYTES_MAX)
                .dfa_size_limit(PATTERN_BYTES_MAX)
                .build()
        };
        // By itself first: `a)|(b` must not become valid through the brackets put around it.
        build(text)?;
        Ok(Pattern { text: text.to_owned(), regex: build(&format!(r"\A(?:{text})\z"))? })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}
