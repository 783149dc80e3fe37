//! `20310101T060000Z`: the time form of signatures.

use crate::field::EpochMillis;
use crate::xml::civil;
use std::fmt;

/// A second in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(i64);

impl Stamp {
    pub fn of(now: EpochMillis) -> Stamp {
        Stamp(now.0.div_euclid(1000))
    }

    pub fn at(self) -> EpochMillis {
        EpochMillis(self.0 * 1000)
    }

    /// `None` for any other form, and for dates that do not exist.
    pub fn parse(text: &str) -> Option<Stamp> {
        let bytes = text.as_bytes();
        if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
            return None;
        }
        let number = |from: usize, to: usize| {
            let digits = &bytes[from..to];
            let value = digits.iter().map(|b| i64::from(b.wrapping_sub(b'0')));
            digits.iter().all(u8::is_ascii_digit).then(|| value.fold(0, |sum, digit| sum * 10 + digit))
        };
        let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
        let stamp = Stamp(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second);
        // Whatever was out of range shows itself when written again.
        (stamp.to_string() == text).then_some(stamp)
    }

    /// `20310101`.
    pub fn date(self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

/// Days from 1970-01-01, by eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(86_400));
        let second = self.0.rem_euclid(86_400);
        write!(
            f,
            "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}
