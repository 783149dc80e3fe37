//! Who started a task.

use gantry_decide::ids::DeploymentId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// In text it is `startedBy`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum StartedBy {
    /// Of a service. A task of no service may say the same; its group tells.
    Deployment(DeploymentId),
    /// A managed daemon's deployment, or whatever the caller of RunTask or StartTask says.
    Named(String),
}

impl From<String> for StartedBy {
    fn from(text: String) -> StartedBy {
        match text.parse::<DeploymentId>() {
            // Nobody's own words are changed.
            Ok(id) if id.to_string() == text => StartedBy::Deployment(id),
            _ => StartedBy::Named(text),
        }
    }
}

impl From<StartedBy> for String {
    fn from(by: StartedBy) -> String {
        by.to_string()
    }
}

impl fmt::Display for StartedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartedBy::Deployment(id) => write!(f, "{id}"),
            StartedBy::Named(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_is_changed(text in "(ecs-svc/)?[0-9a-z/-]{0,24}") {
            let by = StartedBy::from(text.clone());
            prop_assert_eq!(&by.to_string(), &text);
            prop_assert_eq!(serde_json::from_value::<StartedBy>(serde_json::json!(text)).unwrap(), by);
        }
    }

    #[test]
    fn deployments_are_known() {
        let id: DeploymentId = "ecs-svc/1234567890123456789".parse().unwrap();
        assert_eq!(StartedBy::from(id.to_string()), StartedBy::Deployment(id));
        assert_eq!(StartedBy::from("ecs-svc/007".to_owned()), StartedBy::Named("ecs-svc/007".to_owned()));
    }
}
