//! How large a machine of an EC2 instance type is: as EC2 documents its general, compute- and memory-optimised families.

use serde::{Deserialize, Serialize};

/// What a machine offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// CPU units: 1024 a core.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
}

/// A type that is not known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The instance type {0} is not known to Gantry: it knows the t, m, c and r families up to 48xlarge.")]
pub struct UnknownType(pub String);

/// The smallest t types, which follow no rule: cores and MiB.
const BURSTABLE: [(&str, u32, u32); 4] =
    [("nano", 2, 512), ("micro", 2, 1024), ("small", 2, 2048), ("medium", 2, 4096)];
const LARGEST: u32 = 48;

/// The size of `t3.micro`, `m5.large`, `c6g.4xlarge` and their like.
///
/// # Errors
/// For other texts.
pub fn size(text: &str) -> Result<Size, UnknownType> {
    let unknown = || UnknownType(text.chars().take(64).collect());
    let (family, size) = text.split_once('.').ok_or_else(unknown)?;
    let mut letters = family.bytes();
    let kind = letters.next().ok_or_else(unknown)?;
    let generation = letters.next().filter(u8::is_ascii_digit).ok_or_else(unknown)?;
    if !letters.all(|letter| letter.is_ascii_lowercase() || letter == b'-') {
        return Err(unknown());
    }
    // MiB a core.
    let ratio = match kind {
        b't' | b'm' => 4096,
        b'c' => 2048,
        b'r' => 8192,
        _ => return Err(unknown()),
    };
    if let Some((_, cores, memory)) = BURSTABLE.iter().find(|(name, ..)| kind == b't' && *name == size) {
        // Before t3 those below large had one core, but medium.
        let cores = if generation <= b'2' && size != "medium" { 1 } else { *cores };
        return Ok(Size { cpu: cores * 1024, memory: *memory });
    }
    let cores = match size {
        "medium" => 1,
        "large" => 2,
        "xlarge" => 4,
        other => {
            let times = other.strip_suffix("xlarge").and_then(|times| times.parse::<u32>().ok());
            4 * times.filter(|times| (2..=LARGEST).contains(times)).ok_or_else(unknown)?
        }
    };
    // All t types from large on have a multiple of two cores with 4 GiB each.
    Ok(Size { cpu: cores * 1024, memory: cores * ratio })
}

/// Who made a type's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manufacturer {
    Intel,
    Amd,
    AmazonWebServices,
}

/// Whether EC2 recommends a type still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    Current,
    Previous,
}

/// What a type's name says of it beside its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    pub manufacturer: Manufacturer,
    pub generation: Generation,
    pub burstable: bool,
    /// It has disks of its own.
    pub local_storage: bool,
}

/// None for a type whose size is not known either.
pub fn traits(text: &str) -> Option<Traits> {
    size(text).ok()?;
    let (family, _) = text.split_once('.')?;
    let burstable = family.starts_with('t');
    let generation = family.get(1..2)?.parse::<u32>().ok()?;
    // `-flex` and its like are no options.
    let options = family.get(2..)?.split('-').next()?;
    Some(Traits {
        manufacturer: match options.bytes().next() {
            Some(b'g') => Manufacturer::AmazonWebServices,
            Some(b'a') => Manufacturer::Amd,
            _ => Manufacturer::Intel,
        },
        generation: match generation {
            1 => Generation::Previous,
            2 | 3 if !burstable => Generation::Previous,
            _ => Generation::Current,
        },
        burstable,
        local_storage: options.contains('d'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_types_have() {
        use Manufacturer::{AmazonWebServices, Amd, Intel};
        for (text, manufacturer, local_storage) in [
            ("m5.large", Intel, false),
            ("c7i-flex.large", Intel, false),
            ("c6id.large", Intel, true),
            ("r5d.large", Intel, true),
            ("t3a.micro", Amd, false),
            ("m5ad.large", Amd, true),
            ("t4g.nano", AmazonWebServices, false),
            ("m7gd.large", AmazonWebServices, true),
        ] {
            let traits = traits(text);
            let expected = Some(Traits {
                manufacturer,
                generation: Generation::Current,
                burstable: text.starts_with('t'),
                local_storage,
            });
            assert_eq!(traits, expected, "{text}");
        }
        let generation = |text| traits(text).map(|traits| traits.generation);
        assert_eq!(generation("t2.micro"), Some(Generation::Current));
        assert_eq!(generation("m4.large"), Some(Generation::Current));
        for old in ["t1.micro", "m3.large", "c3.large", "r3.large"] {
            assert_eq!(generation(old), Some(Generation::Previous), "{old}");
        }
        assert_eq!(traits("p5.48xlarge"), None);
    }

    #[test]
    fn sizes_are_those_of_ec2() {
        for (text, cores, memory) in [
            ("t2.micro", 1, 1024),
            ("t3.nano", 2, 512),
            ("t3.medium", 2, 4096),
            ("t3.large", 2, 8192),
            ("t3.xlarge", 4, 16384),
            ("m5.large", 2, 8192),
            ("m6g.medium", 1, 4096),
            ("c5.large", 2, 4096),
            ("c6gn.4xlarge", 16, 32768),
            ("r5.2xlarge", 8, 65536),
        ] {
            assert_eq!(size(text), Ok(Size { cpu: cores * 1024, memory }), "{text}");
        }
        for text in [
            "",
            "t3",
            "t3.",
            "t.micro",
            "m5.metal",
            "m5.1xlarge",
            "m5.99xlarge",
            "p4d.24xlarge",
            "m5.-2xlarge",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
