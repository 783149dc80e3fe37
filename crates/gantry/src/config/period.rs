//! Spans of time as the stock agent's settings write them: `30m`, `1h30m`, `500ms`.

use serde::Deserialize;
use std::str::FromStr;
use std::time::Duration;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

/// Text that is no span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a span of time is written like 30m, 1h30m or 45s; units are h, m, s and ms")]
pub struct InvalidPeriod;

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Period, InvalidPeriod> {
        let mut sum = Duration::ZERO;
        let mut rest = text;
        loop {
            let unit = rest.find(|c: char| !c.is_ascii_digit()).ok_or(InvalidPeriod)?;
            let number: u64 = rest[..unit].parse().map_err(|_| InvalidPeriod)?;
            rest = &rest[unit..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let millis = match &rest[..end] {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1000,
                "ms" => 1,
                _ => return Err(InvalidPeriod),
            };
            let part = Duration::from_millis(number.checked_mul(millis).ok_or(InvalidPeriod)?);
            sum = sum.checked_add(part).ok_or(InvalidPeriod)?;
            rest = &rest[end..];
            if rest.is_empty() {
                return Ok(Period(sum));
            }
        }
    }
}

impl TryFrom<String> for Period {
    type Error = InvalidPeriod;

    fn try_from(text: String) -> Result<Period, InvalidPeriod> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn spans_are_read_as_the_stock_agent_writes_them() {
        let seconds = |text: &str| text.parse::<Period>().unwrap().0.as_secs_f64();
        assert_eq!(
            [seconds("30m"), seconds("1h30m"), seconds("45s"), seconds("500ms")],
            [1800.0, 5400.0, 45.0, 0.5]
        );
        for wrong in
            ["", "30", "m", "1d", "1h30", "-1s", "1.5h", "99999999999999999999h", "18446744073709551615h"]
        {
            assert_eq!(wrong.parse::<Period>(), Err(InvalidPeriod), "{wrong}");
        }
    }
}
