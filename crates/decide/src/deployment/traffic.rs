//! Which revision of a service gets what share of its traffic: what a deployment asks of load balancing.
//!
//! A deployment writes the shares it wants; who balances the load reads them. Nothing here shifts anything, and a service
//! without a load balancer has shares that nobody reads, as on ECS.

use crate::ids::ServiceRevisionId;
use crate::mutant;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A share of the traffic, in tenths of a percent: the grain in which ECS takes steps. At most [`Share::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    pub const NONE: Share = Share(0);
    pub const ALL: Share = Share(1000);

    /// What is more than all is all.
    pub fn of_tenths(tenths: u32) -> Share {
        Share(tenths.min(Share::ALL.0))
    }

    /// At compile time.
    pub const fn of_percent_whole(percent: u32) -> Share {
        assert!(percent <= 100, "a share is at most all");
        Share(percent * 10)
    }

    /// From a percentage, which has to be a multiple of 0.1 from 0 to 100.
    pub fn of_percent(percent: f64) -> Option<Share> {
        let tenths = percent * 10.0;
        let whole = tenths.round();
        // What decimal fractions lose as binary ones is far below this.
        let is_multiple = (tenths - whole).abs() < 1e-6;
        let fits = (0.0..=1000.0).contains(&whole) && is_multiple;
        // In range, and whole.
        fits.then_some(Share(whole as u32))
    }

    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10.0
    }

    pub fn rest(self) -> Share {
        Share(Share::ALL.0.saturating_sub(self.0))
    }

    /// So many of these together; all at most.
    pub fn times(self, count: u32) -> Share {
        Share::of_tenths(self.0.saturating_mul(count))
    }
}

/// Shares by revision. They make up all of the traffic, or there are none: then all tasks of the service serve alike,
/// whatever their revision, as in a rolling deployment and in the first one of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weights(BTreeMap<ServiceRevisionId, Share>);

impl Weights {
    pub fn all_to(revision: ServiceRevisionId) -> Weights {
        Weights(BTreeMap::from([(revision, Share::ALL)]))
    }

    /// `share` to `target` and the rest to `source`; all to `target` where there is no other.
    pub fn split(source: Option<ServiceRevisionId>, target: ServiceRevisionId, share: Share) -> Weights {
        let Some(source) = source.filter(|source| *source != target) else { return Weights::all_to(target) };
        let rest = if mutant::is("a share of the traffic lost") { Share::NONE } else { share.rest() };
        let both = [(source, rest), (target, share)];
        Weights(both.into_iter().filter(|(_, share)| *share > Share::NONE).collect())
    }

    pub fn of(&self, revision: ServiceRevisionId) -> Share {
        self.0.get(&revision).copied().unwrap_or_default()
    }

    /// Who gets any, with how much; by id.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceRevisionId, Share)> + '_ {
        self.0.iter().map(|(revision, share)| (*revision, *share))
    }

    /// Who gets most; of equals the first by id.
    pub fn most(&self) -> Option<ServiceRevisionId> {
        let most = self.0.values().max()?;
        self.0.iter().find(|(_, share)| *share == most).map(|(revision, _)| *revision)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What production and test traffic is to go where. Test traffic is what reaches a service by its test listener, rule or
/// header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub production: Weights,
    pub test: Weights,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Seeded;

    #[test]
    fn percentages_are_multiples_of_a_tenth() {
        let of = |percent| Share::of_percent(percent).map(|share| share.0);
        assert_eq!([0.1, 3.0, 33.3, 100.0].map(of), [Some(1), Some(30), Some(333), Some(1000)]);
        assert_eq!([0.05, 100.1, -1.0, f64::NAN, f64::INFINITY].map(of), [None; 5]);
        assert_eq!(Share::of_percent(33.3).unwrap().percent(), 33.3);
    }

    #[test]
    fn weights_make_up_all_of_the_traffic() {
        let random = &mut Seeded::new(1);
        let (a, b) = (ServiceRevisionId::random(random), ServiceRevisionId::random(random));
        for tenths in 0..=1000 {
            let weights = Weights::split(Some(a), b, Share(tenths));
            assert_eq!(weights.iter().map(|(_, share)| share.0).sum::<u32>(), 1000);
            assert_eq!(weights.of(b), Share(tenths));
            assert!(weights.iter().all(|(_, share)| share > Share::NONE));
        }
        assert_eq!(Weights::split(None, b, Share::NONE), Weights::all_to(b));
        assert_eq!(Weights::split(Some(a), b, Share(1)).most(), Some(a));
        assert_eq!(Weights::default().most(), None);
    }
}
