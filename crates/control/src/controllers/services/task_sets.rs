//! Task sets: each is kept at its share of the service's desired count, on its own.

use super::census::{Census, Lens};
use super::steps::teller;
use super::{PLACE_AGAIN, Plan, forgiven, may_launch, starts};
use crate::services::ecs::deployments;
use crate::services::ecs::state::Service;
use crate::tx::{Tx, View};
use gantry_decide::deployment::events;
use gantry_decide::deployment::task_set::TaskSetStatus;
use gantry_decide::ids::DeploymentId;
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;

/// The next steps of all task sets of a service; says when to look again.
pub fn plan(
    view: View<'_>,
    service: &Service,
    plan: &mut Plan,
    random: &mut dyn Random,
) -> Option<Timestamp> {
    let mut until: Option<Timestamp> = None;
    plan.well.clear();
    for deployment in &service.deployments {
        let Some(set) = &deployment.task_set else { continue };
        let census = Census::take(view, service, Lens::Only(deployment.id));
        plan.well.extend(forgiven(Some(deployment), &census));
        let situation = census.situation(service, service.computed(set));
        let steps = situation.plan();
        plan.stop.extend(census.choose(view, service, steps, random));
        plan.blocked |= situation.is_blocked();
        if steps.start > 0 {
            // What ended may change how patient to be.
            let start = starts(view, deployment, steps.start);
            if plan.ended.is_empty() && may_launch(view, deployment) && start > 0 {
                plan.others.push((deployment.id, start));
            }
            let patience = deployment.launch_not_before.filter(|at| *at > view.now);
            let again = patience.unwrap_or(view.now + PLACE_AGAIN);
            until = Some(until.map_or(again, |known| known.min(again)));
        }
        if situation.is_steady() != set.steady {
            plan.steady_sets.push((deployment.id, situation.is_steady()));
        }
        let stays = mutant::is("deleted task sets stay");
        if set.status == TaskSetStatus::Draining && census.is_empty() && !stays {
            plan.finished.push(deployment.id);
        }
    }
    until
}

/// Notes which task sets are steady; those that have become so tell it.
pub fn note_steady(tx: &mut Tx<'_>, service: &mut Service, sets: &[(DeploymentId, bool)]) {
    for (id, steady) in sets {
        let Some(index) = service.deployments.iter().position(|deployment| deployment.id == *id) else {
            continue;
        };
        let Some(set) = service.deployments[index].task_set.as_mut() else { continue };
        set.steady = *steady;
        if *steady && set.status != TaskSetStatus::Draining {
            let message = events::steady_state(&teller(service, index));
            deployments::tell(tx, service, message);
        }
    }
}
