//! CPU units and mebibytes, and the spellings that task-level `cpu` and `memory` may have.

use serde::{Deserialize, Serialize};
use std::fmt;

/// CPU time in ECS's unit: 1024 of them are one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuUnits(pub u32);

/// Memory in mebibytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemoryMib(pub u32);

/// Text that is no amount of CPU or memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid '{what}' setting for task.")]
pub struct InvalidUnits {
    /// `cpu` or `memory`.
    pub what: &'static str,
}

impl fmt::Display for CpuUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MemoryMib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl CpuUnits {
    /// Whole vCPUs as the agent protocol wants them: 512 units are 0.5.
    pub fn as_vcpu(self) -> f64 {
        f64::from(self.0) / 1024.0
    }
}

impl std::str::FromStr for CpuUnits {
    type Err = InvalidUnits;

    /// Reads `1024`, `1 vCPU`, `.5 vcpu`; case and blanks do not count.
    fn from_str(text: &str) -> Result<Self, InvalidUnits> {
        read(text, "vcpu", 1024).map(CpuUnits).ok_or(InvalidUnits { what: "cpu" })
    }
}

impl std::str::FromStr for MemoryMib {
    type Err = InvalidUnits;

    /// Reads `2048`, `2GB`, `0.5 gb`; case and blanks do not count.
    fn from_str(text: &str) -> Result<Self, InvalidUnits> {
        read(text, "gb", 1024).map(MemoryMib).ok_or(InvalidUnits { what: "memory" })
    }
}

/// Reads a plain whole number of base units, or a decimal fraction followed by a suffix that is worth `factor` of
/// them. The result must be a whole number above zero.
fn read(text: &str, suffix: &str, factor: u64) -> Option<u32> {
    // Longer than any amount that fits: keeps the arithmetic below far from overflow.
    const MAX_LEN: usize = 32;
    if text.len() > MAX_LEN {
        return None;
    }
    let text = text.trim().to_ascii_lowercase();
    let amount = match text.strip_suffix(suffix) {
        None => digits(&text)?,
        Some(number) => {
            let number = number.trim_end();
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            // Six places are more than a vCPU's or GB's 1024 parts need.
            if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 6 {
                return None;
            }
            let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
            let whole = if whole.is_empty() { 0 } else { digits(whole)? };
            let fraction = if fraction.is_empty() { 0 } else { digits(fraction)? };
            let scaled = whole.checked_mul(scale)?.checked_add(fraction)?.checked_mul(factor)?;
            if scaled % scale != 0 {
                return None;
            }
            scaled / scale
        }
    };
    u32::try_from(amount).ok().filter(|n| *n > 0 && *n <= i32::MAX as u32)
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Serde for task-level sizes, which ECS writes as text: `"1024"`.
pub(crate) mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<compact_str::CompactString>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_normalised() {
        for (text, expected) in [
            ("256", Some(256)),
            ("1 vCPU", Some(1024)),
            ("1vCPU", Some(1024)),
            (".5 vcpu", Some(512)),
            ("0.25 VCPU", Some(256)),
            ("16 vCPU", Some(16384)),
            (" 512 ", Some(512)),
            ("", None),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("vcpu", None),
            (". vcpu", None),
            ("0.0001 vcpu", None),
            ("1e3", None),
            ("99999999999999999999999999999999999", None),
            ("4294967296", None),
        ] {
            assert_eq!(text.parse().ok(), expected.map(CpuUnits), "{text}");
        }
        for (text, expected) in [
            ("2GB", Some(2048)),
            ("0.5 gb", Some(512)),
            ("2 GB", Some(2048)),
            ("512MB", None),
            ("512", Some(512)),
        ] {
            assert_eq!(text.parse().ok(), expected.map(MemoryMib), "{text}");
        }
    }
}
