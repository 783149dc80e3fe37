//! Availability zones and regions, as far as names go: every region is served, and each has three zones.

use gantry_decide::ids::Region;

/// Zones of a region: most of AWS's have three or more.
const LETTERS: [char; 3] = ['a', 'b', 'c'];

/// The regions that an AWS account has without asking for them.
const REGIONS: [&str; 17] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// An availability zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The region's name and a letter: `eu-north-1a`.
    pub name: String,
    /// The name that means the same zone in every account: `eun1-az1`.
    pub id: String,
}

/// The zones of a region, in the order of their names.
pub fn of(region: &Region) -> Vec<Zone> {
    let short = short_name(region.as_str());
    let zone = |(number, letter): (usize, &char)| Zone {
        name: format!("{region}{letter}"),
        id: format!("{short}-az{number}"),
    };
    (1..).zip(&LETTERS).map(zone).collect()
}

/// `ap-southeast-2` as `apse2`: directions by their first letters.
fn short_name(region: &str) -> String {
    let directions = ["north", "south", "east", "west", "central"];
    let shorten = |(index, part): (usize, &str)| {
        let mut rest = part;
        let mut letters = String::new();
        while let Some(direction) = directions.iter().find(|direction| rest.starts_with(**direction)) {
            letters.push_str(&direction[..1]);
            rest = &rest[direction.len()..];
        }
        if index == 0 || letters.is_empty() || !rest.is_empty() { part.to_owned() } else { letters }
    };
    region.split('-').enumerate().map(shorten).collect()
}

/// The regions that an account in `own` is told of.
pub fn regions(own: &Region) -> Vec<String> {
    let mut regions: Vec<String> = REGIONS.iter().map(|name| (*name).to_owned()).collect();
    regions.push(own.to_string());
    regions.sort();
    regions.dedup();
    regions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn zones_are_named_as_on_aws() {
        for (region, first, id) in [
            ("us-east-1", "us-east-1a", "use1-az1"),
            ("ap-southeast-2", "ap-southeast-2a", "apse2-az1"),
            ("eu-central-1", "eu-central-1a", "euc1-az1"),
            ("us-gov-west-1", "us-gov-west-1a", "usgovw1-az1"),
            ("lab", "laba", "lab-az1"),
        ] {
            let zones = of(&region.parse().unwrap());
            assert_eq!((zones[0].name.as_str(), zones[0].id.as_str()), (first, id));
            assert_eq!(zones.len(), 3);
        }
    }

    #[test]
    fn the_own_region_is_one_of_the_regions() {
        assert_eq!(regions(&"eu-north-1".parse().unwrap()).len(), REGIONS.len());
        assert!(regions(&"lab-1".parse().unwrap()).contains(&"lab-1".to_owned()));
    }
}
