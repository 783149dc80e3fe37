//! Where tasks run: launch types, capacity provider strategies, platform versions.

use super::errors::EcsError;
use super::ops::capacity_provider::read_strategy;
use super::state::{CapacityProvider, Cluster, Compute, LaunchType, StrategyItem};
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::capacity::split::{self, Share};
use gantry_decide::ids::CapacityProviderName;
use std::collections::BTreeMap;

/// What LATEST means on Linux.
const LATEST: &str = "1.4.0";
/// The platform versions that can still be asked for.
const PLATFORM_VERSIONS: [&str; 2] = ["1.3.0", LATEST];

/// What a request's two members mean together, with the cluster's default.
///
/// # Errors
/// For both at once, an unknown launch type, or a strategy against the rules.
pub fn choose(
    view: View<'_>,
    cluster: &Cluster,
    launch_type: Option<&ecs::LaunchType>,
    strategy: Option<&[ecs::CapacityProviderStrategyItem]>,
) -> Result<Compute, EcsError> {
    let strategy = strategy.unwrap_or_default();
    match (launch_type, strategy) {
        (Some(_), [_, ..]) => Err(EcsError::invalid(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
        )),
        (Some(launch_type), []) => read_launch_type(launch_type).map(Compute::LaunchType),
        (None, [_, ..]) => {
            let items = read_strategy(view, strategy, &cluster.capacity_providers)?;
            Ok(of_strategy(view, items))
        }
        (None, []) if !cluster.default_strategy.is_empty() => {
            Ok(of_strategy(view, cluster.default_strategy.clone()))
        }
        (None, []) => Ok(Compute::LaunchType(LaunchType::Ec2)),
    }
}

/// What a strategy means, whose providers are all of one kind.
fn of_strategy(view: View<'_>, items: Vec<StrategyItem>) -> Compute {
    let first = items.first().and_then(|item| view.state.ecs.capacity_provider(&item.capacity_provider));
    match first.map(|provider| provider.kind.launch_type()) {
        Some(LaunchType::ManagedInstances) => Compute::ManagedInstances(items),
        _ => Compute::Strategy(items),
    }
}

fn read_launch_type(launch_type: &ecs::LaunchType) -> Result<LaunchType, EcsError> {
    match launch_type.as_str() {
        "EC2" => Ok(LaunchType::Ec2),
        "FARGATE" => Ok(LaunchType::Fargate),
        "EXTERNAL" => Ok(LaunchType::External),
        "MANAGED_INSTANCES" => Err(EcsError::invalid(
            "Tasks run on Managed Instances by a capacity provider strategy. Specify one in place of the launch type.",
        )),
        other => {
            Err(EcsError::UnsupportedFeature(format!("Gantry does not serve the launch type {other} yet.")))
        }
    }
}

impl Compute {
    /// The launch type of the tasks that it makes. All providers of a strategy are of one kind, and only Fargate's own
    /// can be named as they are.
    pub fn launch_type(&self) -> LaunchType {
        match self {
            Compute::LaunchType(launch_type) => *launch_type,
            Compute::Strategy(items) => {
                let mut names = items.iter().map(|item| &item.capacity_provider);
                if names.all(|name| CapacityProvider::built_in(name).is_some()) {
                    LaunchType::Fargate
                } else {
                    LaunchType::Ec2
                }
            }
            Compute::ManagedInstances(_) => LaunchType::ManagedInstances,
        }
    }

    /// The strategy, unless it is a launch type.
    pub fn strategy(&self) -> Option<&[StrategyItem]> {
        match self {
            Compute::LaunchType(_) => None,
            Compute::Strategy(items) | Compute::ManagedInstances(items) => Some(items),
        }
    }

    /// How many of `count` further tasks go to each provider, beside the tasks that there are of each. All to `None` for a
    /// launch type.
    pub fn distribute(
        &self,
        count: usize,
        existing: &BTreeMap<CapacityProviderName, usize>,
    ) -> Vec<(Option<CapacityProviderName>, usize)> {
        let Some(items) = self.strategy() else { return vec![(None, count)] };
        let more = split::grow(&shares(items), &counts(items, existing), count);
        let shares = items.iter().map(|item| Some(item.capacity_provider.clone())).zip(more);
        shares.filter(|(_, share)| *share > 0).collect()
    }

    /// How many of `count` tasks to stop are each provider's, of the tasks that there are of each. `None` for a launch
    /// type, whose tasks are alike.
    pub fn withdraw(
        &self,
        count: usize,
        existing: &BTreeMap<CapacityProviderName, usize>,
    ) -> Option<BTreeMap<CapacityProviderName, usize>> {
        let items = self.strategy()?;
        let fewer = split::shrink(&shares(items), &counts(items, existing), count);
        Some(items.iter().map(|item| item.capacity_provider.clone()).zip(fewer).collect())
    }
}

fn shares(items: &[StrategyItem]) -> Vec<Share> {
    items.iter().map(|item| Share { weight: item.weight, base: item.base }).collect()
}

fn counts(items: &[StrategyItem], existing: &BTreeMap<CapacityProviderName, usize>) -> Vec<usize> {
    items.iter().map(|item| existing.get(&item.capacity_provider).copied().unwrap_or(0)).collect()
}

/// The platform version of tasks on `launch_type`.
///
/// # Errors
/// `PlatformUnknownException`; and for one given where there are no platforms.
pub fn platform_version(launch_type: LaunchType, given: Option<&str>) -> Result<Option<String>, EcsError> {
    let given = given.filter(|text| !text.is_empty());
    if launch_type != LaunchType::Fargate {
        return match given {
            None => Ok(None),
            Some(_) => Err(EcsError::invalid(
                "The platform version must be null when specifying an EC2 or EXTERNAL launch type.",
            )),
        };
    }
    match given {
        None | Some("LATEST") => Ok(Some(LATEST.to_owned())),
        Some(version) if PLATFORM_VERSIONS.contains(&version) => Ok(Some(version.to_owned())),
        Some(_) => Err(EcsError::PlatformUnknown),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn item(name: &str, weight: u32, base: u32) -> StrategyItem {
        StrategyItem { capacity_provider: name.parse().unwrap(), weight, base }
    }

    #[test]
    fn providers_without_a_share_are_left_out() {
        let compute = Compute::Strategy(vec![item("FARGATE", 1, 2), item("FARGATE_SPOT", 3, 0)]);
        let named = |name: &str, share| (Some(name.parse().unwrap()), share);
        assert_eq!(compute.distribute(2, &BTreeMap::new()), [named("FARGATE", 2)]);
        assert_eq!(compute.distribute(10, &BTreeMap::new()), [named("FARGATE", 4), named("FARGATE_SPOT", 6)]);
        assert_eq!(Compute::LaunchType(LaunchType::Ec2).distribute(3, &BTreeMap::new()), [(None, 3)]);
    }

    #[test]
    fn replacements_and_scale_in_restore_the_ratio() {
        let compute = Compute::Strategy(vec![item("FARGATE", 1, 0), item("FARGATE_SPOT", 1, 0)]);
        let (fargate, spot) = ("FARGATE".parse().unwrap(), "FARGATE_SPOT".parse().unwrap());
        let existing = BTreeMap::from([(fargate, 3)]);
        assert_eq!(compute.distribute(3, &existing), [(Some(spot), 3)]);
        let existing =
            BTreeMap::from([("FARGATE".parse().unwrap(), 4), ("FARGATE_SPOT".parse().unwrap(), 1)]);
        let fewer = compute.withdraw(3, &existing).unwrap();
        assert_eq!(fewer.values().copied().collect::<Vec<_>>(), [3, 0]);
    }
}
