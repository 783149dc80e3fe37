//! Alarms that fail a deployment: which of them it watches, and what their states mean for it.

use crate::ids::AlarmName;
use serde::{Deserialize, Serialize};

/// What an alarm says: CloudWatch's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AlarmState {
    Ok,
    Alarm,
    InsufficientData,
}

impl AlarmState {
    pub const ALL: [AlarmState; 3] = [AlarmState::Ok, AlarmState::Alarm, AlarmState::InsufficientData];

    pub fn as_str(self) -> &'static str {
        match self {
            AlarmState::Ok => "OK",
            AlarmState::Alarm => "ALARM",
            AlarmState::InsufficientData => "INSUFFICIENT_DATA",
        }
    }
}

/// As a service configures it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentAlarms {
    pub enable: bool,
    /// A deployment that failed gives way to the one before it.
    pub rollback: bool,
    pub names: Vec<AlarmName>,
}

impl DeploymentAlarms {
    /// ECS keeps none.
    pub fn is_unset(&self) -> bool {
        *self == DeploymentAlarms::default()
    }
}

/// How one deployment watches its alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Watch {
    #[default]
    Disabled,
    Monitoring,
    /// These were in ALARM, and it failed.
    Triggered(Vec<AlarmName>),
}

impl Watch {
    /// A deployment begins. One whose alarms say ALARM already would fail by what it has not caused: ECS watches none then.
    pub fn begin(alarms: &DeploymentAlarms, state: impl Fn(&AlarmName) -> Option<AlarmState>) -> Watch {
        match alarms.enable && in_alarm(alarms, state).is_empty() {
            true => Watch::Monitoring,
            false => Watch::Disabled,
        }
    }

    /// The alarms that fail a deployment that goes on: none if all is well, or nobody watches.
    pub fn triggered(
        &self,
        alarms: &DeploymentAlarms,
        state: impl Fn(&AlarmName) -> Option<AlarmState>,
    ) -> Vec<AlarmName> {
        match self {
            Watch::Monitoring => in_alarm(alarms, state),
            Watch::Disabled | Watch::Triggered(_) => Vec::new(),
        }
    }
}

/// Those that say ALARM. One that nobody knows says nothing, as ECS takes it.
fn in_alarm(alarms: &DeploymentAlarms, state: impl Fn(&AlarmName) -> Option<AlarmState>) -> Vec<AlarmName> {
    alarms.names.iter().filter(|name| state(name) == Some(AlarmState::Alarm)).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_comes_to_alarm_during_the_deployment_fails_it() {
        let names: Vec<AlarmName> = ["errors", "latency"].map(|name| name.parse().unwrap()).into();
        let alarms = DeploymentAlarms { enable: true, rollback: true, names: names.clone() };
        let calm = |_: &AlarmName| Some(AlarmState::Ok);
        let unknown = |_: &AlarmName| None;
        let late = |name: &AlarmName| (*name == names[1]).then_some(AlarmState::Alarm);
        assert_eq!(Watch::begin(&alarms, calm), Watch::Monitoring);
        assert_eq!(Watch::begin(&alarms, unknown), Watch::Monitoring);
        assert_eq!(Watch::begin(&alarms, late), Watch::Disabled);
        assert_eq!(
            Watch::begin(&DeploymentAlarms { enable: false, ..alarms.clone() }, calm),
            Watch::Disabled
        );
        assert_eq!(Watch::Monitoring.triggered(&alarms, late), [names[1].clone()]);
        assert!(Watch::Monitoring.triggered(&alarms, calm).is_empty());
        assert!(Watch::Disabled.triggered(&alarms, late).is_empty());
    }
}
