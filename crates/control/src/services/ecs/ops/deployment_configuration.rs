//! How deployments of a service shall go, as a request says it: read and checked.

use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{DeploymentConfiguration, Service};
use gantry_api::ecs;
use gantry_decide::deployment::alarms::DeploymentAlarms;
use gantry_decide::deployment::breaker::{CircuitBreaker, Threshold};
use gantry_decide::deployment::hooks::{Hook, HookAction, MINUTES_DEFAULT, MINUTES_MAX};
use gantry_decide::deployment::rolling::EarlySuccess;
use gantry_decide::deployment::stage::Stage;
use gantry_decide::deployment::strategy::{
    BAKE_MINUTES_MAX, CANARY_BAKE_MINUTES, CANARY_SHARE, LINEAR_BAKE_MINUTES, LINEAR_STEP, LINEAR_STEP_MIN,
    Strategy,
};
use gantry_decide::deployment::traffic::Share;
use gantry_decide::ids::{AlarmName, InvalidId};

/// Larger maxima than 200 are accepted by ECS too.
const MAXIMUM_PERCENT_MAX: i32 = 10_000;
/// Hooks of a service: enough for two at each stage.
const HOOKS_MAX: usize = 20;
/// Alarms of a service or a daemon: ECS asks CloudWatch for them in one call, which takes so many names.
const ALARMS_MAX: usize = 100;
/// How long a rolling deployment watches its alarms when all of its tasks are there, unless told otherwise. ECS computes
/// it from the alarms' periods, below five minutes: three of CloudWatch's usual ones of a minute.
const ALARM_BAKE_MINUTES: u32 = 3;

/// Takes over a request's deployment configuration; what it leaves out stays.
pub fn configure(
    service: &mut Service,
    given: Option<&ecs::DeploymentConfiguration>,
) -> Result<(), EcsError> {
    let Some(given) = given else { return Ok(()) };
    let is_daemon = service.is_daemon();
    let configuration = &mut service.configuration;
    if let Some(number) = given.minimum_healthy_percent {
        configuration.minimum_healthy_percent = within(number, "minimumHealthyPercent", 0..=100)?;
    }
    if let Some(number) = given.maximum_percent {
        if is_daemon && number != 100 {
            return Err(EcsError::invalid(
                "maximumPercent must be 100 for services of the DAEMON scheduling strategy.",
            ));
        }
        configuration.maximum_percent = within(number, "maximumPercent", 100..=MAXIMUM_PERCENT_MAX)?;
    }
    if let Some(breaker) = &given.deployment_circuit_breaker {
        configuration.circuit_breaker = circuit_breaker(breaker)?;
    }
    if let Some(early) = &given.early_success_criteria {
        configuration.early_success = early_success(early, configuration.minimum_healthy_percent)?;
    }
    if let Some(hooks) = &given.lifecycle_hooks {
        if hooks.len() > HOOKS_MAX {
            return Err(EcsError::invalid(format!(
                "A service can have at most {HOOKS_MAX} lifecycle hooks."
            )));
        }
        configuration.hooks = hooks.iter().map(hook).collect::<Result<_, _>>()?;
    }
    strategy(configuration, given)?;
    if let Some(given_alarms) = &given.alarms {
        alarms(configuration, given_alarms, given.bake_time_in_minutes)?;
    }
    fits_together(configuration, is_daemon)
}

/// The strategy and what belongs to it. A strategy that is named again without its parameters has the defaults.
fn strategy(
    configuration: &mut DeploymentConfiguration,
    given: &ecs::DeploymentConfiguration,
) -> Result<(), EcsError> {
    let known = configuration.strategy.as_str();
    let name = given.strategy.as_ref().map_or(known, |strategy| strategy.as_str());
    let foreign = [
        (given.linear_configuration.is_some() && name != "LINEAR", "linearConfiguration", "LINEAR"),
        (given.canary_configuration.is_some() && name != "CANARY", "canaryConfiguration", "CANARY"),
    ];
    if let Some((_, member, of)) = foreign.into_iter().find(|(foreign, ..)| *foreign) {
        return Err(EcsError::invalid(format!("{member} is only valid for the {of} deployment strategy.")));
    }
    let chosen = match name {
        "BLUE_GREEN" => Strategy::BlueGreen,
        "LINEAR" => match (&given.linear_configuration, configuration.strategy) {
            (None, known @ Strategy::Linear { .. }) => known,
            (None, _) => linear(&ecs::LinearConfiguration::default())?,
            (Some(linear_configuration), _) => linear(linear_configuration)?,
        },
        "CANARY" => match (&given.canary_configuration, configuration.strategy) {
            (None, known @ Strategy::Canary { .. }) => known,
            (None, _) => canary(&ecs::CanaryConfiguration::default())?,
            (Some(canary_configuration), _) => canary(canary_configuration)?,
        },
        _ => Strategy::Rolling,
    };
    let changes = chosen.as_str() != known;
    if chosen == Strategy::BlueGreen && changes && given.bake_time_in_minutes.is_none() {
        return Err(EcsError::invalid(
            "bakeTimeInMinutes must be specified for the BLUE_GREEN deployment strategy.",
        ));
    }
    if changes && !chosen.shifts_traffic() {
        // What only the other strategies know does not outlive them, unless it is asked for.
        configuration.bake_minutes = if configuration.alarms.enable { ALARM_BAKE_MINUTES } else { 0 };
        if given.lifecycle_hooks.is_none() {
            configuration.hooks.clear();
        }
    }
    if let Some(minutes) = given.bake_time_in_minutes {
        configuration.bake_minutes = bake("bakeTimeInMinutes", minutes)?;
    }
    configuration.strategy = chosen;
    Ok(())
}

fn linear(given: &ecs::LinearConfiguration) -> Result<Strategy, EcsError> {
    Ok(Strategy::Linear {
        step: share(given.step_percent, "stepPercent", LINEAR_STEP, LINEAR_STEP_MIN)?,
        bake_minutes: given
            .step_bake_time_in_minutes
            .map_or(Ok(LINEAR_BAKE_MINUTES), |minutes| bake("stepBakeTimeInMinutes", minutes))?,
    })
}

fn canary(given: &ecs::CanaryConfiguration) -> Result<Strategy, EcsError> {
    Ok(Strategy::Canary {
        share: share(given.canary_percent, "canaryPercent", CANARY_SHARE, Share::of_tenths(1))?,
        bake_minutes: given
            .canary_bake_time_in_minutes
            .map_or(Ok(CANARY_BAKE_MINUTES), |minutes| bake("canaryBakeTimeInMinutes", minutes))?,
    })
}

fn share(given: Option<f64>, name: &str, default: Share, least: Share) -> Result<Share, EcsError> {
    let Some(percent) = given else { return Ok(default) };
    Share::of_percent(percent).filter(|share| *share >= least).ok_or_else(|| {
        let least = least.percent();
        EcsError::invalid(format!("{name} must be a multiple of 0.1 between {least:.1} and 100.0."))
    })
}

fn bake(name: &str, minutes: i32) -> Result<u32, EcsError> {
    let most = i32::try_from(BAKE_MINUTES_MAX).unwrap_or(i32::MAX);
    within(minutes, name, 0..=most)
}

fn hook(given: &ecs::DeploymentLifecycleHook) -> Result<Hook, EcsError> {
    let pauses = given.target_type == Some(ecs::DeploymentLifecycleHookTargetType::Pause);
    if !pauses {
        return Err(EcsError::UnsupportedFeature(
            "Gantry has no AWS Lambda: a lifecycle hook of a deployment can only be of the target type PAUSE.".to_owned(),
        ));
    }
    if given.hook_target_arn.is_some() || given.role_arn.is_some() {
        return Err(EcsError::invalid(
            "hookTargetArn and roleArn are not applicable to PAUSE lifecycle hooks.",
        ));
    }
    let named = given.lifecycle_stages.as_deref().unwrap_or_default();
    if named.is_empty() {
        return Err(EcsError::invalid("lifecycleStages must be specified for a lifecycle hook."));
    }
    let mut stages = Vec::new();
    for name in named {
        let stage = Stage::ALL.into_iter().find(|stage| stage.as_str() == name.as_str());
        let stage = stage.filter(|stage| stage.takes_pauses()).ok_or_else(|| {
            EcsError::invalid(format!("PAUSE lifecycle hooks cannot be configured at {}.", name.as_str()))
        })?;
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    let timeout = given.timeout_configuration.clone().unwrap_or_default();
    let most = i32::try_from(MINUTES_MAX).unwrap_or(i32::MAX);
    Ok(Hook {
        stages,
        timeout_minutes: match timeout.timeout_in_minutes {
            Some(minutes) => within(minutes, "timeoutInMinutes", 1..=most)?,
            None => MINUTES_DEFAULT,
        },
        timeout_action: timeout.action.as_ref().map(action).unwrap_or_default(),
    })
}

/// What is asked for a hook.
pub fn action(given: &ecs::DeploymentLifecycleHookAction) -> HookAction {
    match given {
        ecs::DeploymentLifecycleHookAction::Continue => HookAction::Continue,
        ecs::DeploymentLifecycleHookAction::Rollback => HookAction::Rollback,
    }
}

/// What contradicts itself.
fn fits_together(configuration: &DeploymentConfiguration, is_daemon: bool) -> Result<(), EcsError> {
    let shifts = configuration.strategy.shifts_traffic();
    let name = configuration.strategy.as_str();
    let message = if shifts && is_daemon {
        format!("The {name} deployment strategy is not supported with the DAEMON scheduling strategy.")
    } else if shifts && configuration.early_success.is_some() {
        format!("earlySuccessCriteria is not supported with the {name} deployment strategy.")
    } else if !shifts && !configuration.hooks.is_empty() {
        "Lifecycle hooks are not supported with the ROLLING deployment strategy.".to_owned()
    } else if !shifts && configuration.bake_minutes > 0 && !configuration.alarms.enable {
        "bakeTimeInMinutes is not supported with the ROLLING deployment strategy without alarms.".to_owned()
    } else {
        return Ok(());
    };
    Err(EcsError::invalid(message))
}

fn within(number: i32, name: &str, range: std::ops::RangeInclusive<i32>) -> Result<u32, EcsError> {
    u32::try_from(number).ok().filter(|_| range.contains(&number)).ok_or_else(|| {
        EcsError::invalid(format!("{name} must be between {} and {}.", range.start(), range.end()))
    })
}

/// Alarms, and how long a rolling deployment watches them in the end. That they exist is not asked, as ECS does not.
fn alarms(
    configuration: &mut DeploymentConfiguration,
    given: &ecs::DeploymentAlarms,
    bake: Option<i32>,
) -> Result<(), EcsError> {
    let names = alarm_names(given.enable, &given.alarm_names)?;
    let enabled = given.enable && !configuration.alarms.enable;
    configuration.alarms = DeploymentAlarms { enable: given.enable, rollback: given.rollback, names };
    if !configuration.strategy.shifts_traffic() && bake.is_none() {
        match given.enable {
            true if enabled => configuration.bake_minutes = ALARM_BAKE_MINUTES,
            true => {}
            false => configuration.bake_minutes = 0,
        }
    }
    Ok(())
}

/// The names of alarms that deployments watch.
///
/// # Errors
/// For none although they are watched, for too many, and for what can name none.
pub fn alarm_names(enable: bool, given: &[String]) -> Result<Vec<AlarmName>, EcsError> {
    if enable && given.is_empty() {
        return Err(EcsError::invalid("alarmNames must be specified when deployment alarms are enabled."));
    }
    if given.len() > ALARMS_MAX {
        return Err(EcsError::invalid(format!("There can be at most {ALARMS_MAX} deployment alarms.")));
    }
    let name = |text: &String| text.parse().map_err(|error: InvalidId| EcsError::invalid(error.to_string()));
    given.iter().map(name).collect()
}

fn circuit_breaker(given: &ecs::DeploymentCircuitBreaker) -> Result<CircuitBreaker, EcsError> {
    let threshold = match &given.threshold_configuration {
        None => Threshold::default(),
        Some(threshold) => {
            let percent = || within(threshold.value, "A threshold in percent", 1..=100);
            match threshold.type_ {
                ecs::ThresholdType::BoundedPercent => Threshold::BoundedPercent(percent()?),
                ecs::ThresholdType::UnboundedPercent => Threshold::UnboundedPercent(percent()?),
                ecs::ThresholdType::Count => {
                    Threshold::Count(within(threshold.value, "A threshold in tasks", 1..=i32::MAX)?)
                }
            }
        }
    };
    Ok(CircuitBreaker {
        enable: given.enable,
        rollback: given.rollback,
        threshold,
        reset_on_healthy_task: given.reset_on_healthy_task.unwrap_or(true),
    })
}

fn early_success(
    given: &ecs::DeploymentEarlySuccessCriteria,
    minimum_healthy_percent: u32,
) -> Result<Option<EarlySuccess>, EcsError> {
    if !given.enable {
        return Ok(None);
    }
    let least = i32::try_from(minimum_healthy_percent).unwrap_or(100);
    let healthy_percent = match given.healthy_percent {
        Some(percent) => within(percent, "healthyPercent", least..=100)?,
        None => 100,
    };
    let deferred = given.source_service_revision_cleanup == Some(ecs::ServiceRevisionCleanup::Deferred);
    Ok(Some(EarlySuccess { healthy_percent, blocking: !deferred }))
}
