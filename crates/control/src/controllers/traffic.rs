//! The rules of services whose deployments shift traffic: their weights follow what the deployment asks for.
//!
//! Whoever else changes such a rule's weights finds them set back: between deployments, too, a service's tasks are in one of
//! its two groups alone.

use super::{Controller, LookAgain};
use crate::services::ecs::advanced::{self, Due};
use crate::services::ecs::state::{Service, ServiceKey, ServiceStatus};
use crate::services::elbv2::links;
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_store::Record;
use std::collections::BTreeSet;
use std::sync::Arc;

/// See the module.
pub struct TrafficRules;

/// The rules whose weights are to be others.
pub struct Plan(Vec<Due>);

fn is_advanced(service: &Service) -> bool {
    service.load_balancers.iter().any(|one| one.advanced.is_some())
}

impl Controller for TrafficRules {
    const NAME: &'static str = "traffic_rules";
    type Key = ServiceKey;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<ServiceKey>) {
        match change {
            Change::Service(key) if view.state.ecs.service(key).is_some_and(is_advanced) => {
                keys.insert(key.clone());
            }
            Change::Routing => keys.extend(TrafficRules::all(view)),
            _ => {}
        }
    }

    fn all(view: View<'_>) -> Vec<ServiceKey> {
        let of_rules = |service: &&Arc<Service>| is_advanced(service);
        view.state.ecs.services().values().filter(of_rules).map(|service| service.key()).collect()
    }

    fn plan(view: View<'_>, key: &ServiceKey, _random: &mut dyn Random) -> (Option<Plan>, LookAgain) {
        let active = |service: &&Service| service.status == ServiceStatus::Active;
        let Some(service) = view.state.ecs.service(key).filter(active) else { return (None, None) };
        let mut due = advanced::due(view, service);
        due.retain(|due| !links::has_weights(view, &due.sender, &due.weights));
        due.retain(|_| !mutant::is("rules keep their weights"));
        ((!due.is_empty()).then_some(Plan(due)), None)
    }

    fn apply(tx: &mut Tx<'_>, _key: &ServiceKey, plan: Plan) {
        for due in plan.0 {
            links::set_weights(tx, &due.sender, &due.weights);
        }
    }
}
