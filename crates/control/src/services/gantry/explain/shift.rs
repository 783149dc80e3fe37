//! How far a deployment is that shifts traffic from one revision to another, and whom it waits for.

use super::Explanation;
use super::words::at;
use crate::services::ecs::deployments;
use crate::services::ecs::state::Service;
use crate::tx::View;
use gantry_decide::deployment::hooks::HookStatus;
use gantry_decide::deployment::stage::Stage;
use gantry_store::Record;

/// What a deployment that shifts traffic waits for, as the rest of a sentence: somebody, or the end of its stage.
pub struct Waits {
    /// A hook of the stage that nobody has answered.
    pub for_somebody: bool,
    pub words: String,
}

/// See [`Waits`]; nothing of a service whose newest attempt shifts none, or is over.
pub fn waits(view: View<'_>, service: &Service) -> Option<Waits> {
    let attempt = deployments::current(view, service).filter(|attempt| !attempt.status.is_over())?;
    let shift = attempt.shift.as_ref()?;
    let stage = shift.stage.as_str();
    let hook = shift.hooks.iter().find(|hook| hook.status_at(view.now) == HookStatus::AwaitingAction);
    let words = match hook {
        Some(hook) => format!("the deployment pauses at {stage} until somebody answers the hook {}", hook.id),
        None => format!("the deployment is in the stage {stage}: {}", meaning(shift.stage)),
    };
    Some(Waits { for_somebody: hook.is_some(), words })
}

/// Adds what there is to say of a service whose newest attempt shifts traffic and goes on.
pub fn explain(view: View<'_>, service: &Service, told: &mut Explanation) {
    let Some(attempt) = deployments::current(view, service).filter(|attempt| !attempt.status.is_over())
    else {
        return;
    };
    let Some(shift) = &attempt.shift else { return };
    let configuration = &attempt.configuration;
    let message = format!(
        "The {} deployment is in the stage {}{}, since {}: {}.",
        configuration.strategy.as_str(),
        shift.stage.as_str(),
        if shift.returning { ", on its way back" } else { "" },
        at(view.now, shift.since),
        meaning(shift.stage),
    );
    let finding = told.find("stage", message);
    let share = shift.traffic.production.of(shift.target).percent();
    finding.details.push(format!("{share} % of the production traffic is to go to the new revision"));
    if shift.stage == Stage::BakeTime {
        let until = at(view.now, shift.since + configuration.bake());
        finding.details.push(format!("both revisions stand side by side until {until}"));
    }
    for hook in shift.hooks.iter().filter(|hook| hook.status_at(view.now) == HookStatus::AwaitingAction) {
        told.find(
            "hook",
            format!(
                "The hook {} of this stage waits for somebody to say how it goes on; {} it is {}.",
                hook.id,
                at(view.now, hook.expires_at),
                hook.timeout_action.as_str(),
            ),
        );
        told.suggest(
            "Let the deployment go on, or back.",
            format!(
                "aws ecs continue-service-deployment --service-deployment-arn {} --hook-id {} --action CONTINUE",
                attempt.key().arn(view.scope),
                hook.id
            ),
        );
    }
}

fn meaning(stage: Stage) -> &'static str {
    match stage {
        Stage::ReconcileService => "revisions of deployments before give way, until only one is left",
        Stage::PreScaleUp => "the new revision has no tasks yet",
        Stage::ScaleUp => "the new revision gets its tasks, and waits until all of them are healthy",
        Stage::PostScaleUp => "the new revision has its tasks, and no traffic yet",
        Stage::TestTrafficShift => "test traffic goes over to the new revision",
        Stage::PostTestTrafficShift => "the new revision has the test traffic",
        Stage::PreProductionTrafficShift => "the next step of the production traffic has yet to go over",
        Stage::ProductionTrafficShift => "production traffic goes over to the new revision, step by step",
        Stage::PostProductionTrafficShift => "the new revision has the production traffic",
        Stage::BakeTime => "it has all the traffic, and the way back is kept open",
        Stage::CleanUp => "the revision that lost its traffic loses its tasks",
    }
}
