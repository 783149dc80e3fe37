//! Where tasks run: launch types, capacity provider strategies, platform versions.

use super::errors::EcsError;
use super::ops::capacity_provider::read_strategy;
use super::state::{CapacityProvider, Cluster, Compute, LaunchType, StrategyItem};
use crate::tx::View;
use gantry_api::ecs;
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
        (None, [_, ..]) => read_strategy(view, strategy, &cluster.capacity_providers).map(Compute::Strategy),
        (None, []) if !cluster.default_strategy.is_empty() => {
            Ok(Compute::Strategy(cluster.default_strategy.clone()))
        }
        (None, []) => Ok(Compute::LaunchType(LaunchType::Ec2)),
    }
}

fn read_launch_type(launch_type: &ecs::LaunchType) -> Result<LaunchType, EcsError> {
    match launch_type.as_str() {
        "EC2" => Ok(LaunchType::Ec2),
        "FARGATE" => Ok(LaunchType::Fargate),
        "EXTERNAL" => Ok(LaunchType::External),
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
        }
    }

    /// The provider of each of `count` further tasks, beside the tasks that there are of each: the base first, the
    /// rest in proportion to the weights. All `None` for a launch type.
    pub fn distribute(
        &self,
        count: usize,
        existing: &BTreeMap<CapacityProviderName, usize>,
    ) -> Vec<Option<CapacityProviderName>> {
        let Compute::Strategy(items) = self else { return vec![None; count] };
        let mut have: Vec<usize> =
            items.iter().map(|item| existing.get(&item.capacity_provider).copied().unwrap_or(0)).collect();
        let mut chosen = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(index) = next(items, &have) else { break };
            have[index] += 1;
            chosen.push(Some(items[index].capacity_provider.clone()));
        }
        chosen
    }
}

/// Whose turn it is: who has not its base, else who has the fewest tasks beyond its base for its weight.
fn next(items: &[StrategyItem], have: &[usize]) -> Option<usize> {
    if let Some(index) = (0..items.len()).find(|i| have[*i] < items[*i].base as usize) {
        return Some(index);
    }
    // A lone provider gets everything, whatever its weight.
    if items.len() == 1 {
        return Some(0);
    }
    let beyond = |i: usize| have[i].saturating_sub(items[i].base as usize) as u64;
    let weight = |i: usize| u64::from(items[i].weight);
    (0..items.len()).filter(|i| items[*i].weight > 0).reduce(|best, i| {
        // beyond/weight compared without division.
        if beyond(i) * weight(best) < beyond(best) * weight(i) { i } else { best }
    })
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

    fn shares(items: Vec<StrategyItem>, count: usize) -> (usize, usize) {
        let chosen = Compute::Strategy(items).distribute(count, &BTreeMap::new());
        let of = |name: &str| chosen.iter().flatten().filter(|provider| provider.as_str() == name).count();
        (of("FARGATE"), of("FARGATE_SPOT"))
    }

    #[test]
    fn tasks_are_shared_by_base_and_weight() {
        assert_eq!(shares(vec![item("FARGATE", 1, 0), item("FARGATE_SPOT", 1, 0)], 10), (5, 5));
        assert_eq!(shares(vec![item("FARGATE", 1, 0), item("FARGATE_SPOT", 4, 0)], 10), (2, 8));
        assert_eq!(shares(vec![item("FARGATE", 1, 2), item("FARGATE_SPOT", 3, 0)], 10), (4, 6));
        assert_eq!(shares(vec![item("FARGATE", 0, 3), item("FARGATE_SPOT", 1, 0)], 10), (3, 7));
        assert_eq!(shares(vec![item("FARGATE", 0, 0)], 2), (2, 0));
    }

    #[test]
    fn replacements_restore_the_ratio() {
        let compute = Compute::Strategy(vec![item("FARGATE", 1, 0), item("FARGATE_SPOT", 1, 0)]);
        let existing = BTreeMap::from([("FARGATE".parse().unwrap(), 3)]);
        let chosen = compute.distribute(3, &existing);
        assert!(chosen.iter().flatten().all(|provider| provider.as_str() == "FARGATE_SPOT"));
    }
}
