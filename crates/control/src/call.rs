//! Who asks, and what may be asked: the caller of a request and the demand it makes on authorisation.

use crate::roles::RoleSession;
use gantry_decide::arn::Arn;
use gantry_decide::ids::{ActivationId, ManagedInstanceId, RequestId, Scope};
use gantry_wire::ApiError;
use std::sync::Arc;

/// Who signed a request. IAM users join this enum with the IAM service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The account itself: may do everything in its own account.
    Root,
    /// A container agent that the operator gave a key: may do what agents do, nothing else.
    Agent,
    /// A load balancer on another host: may learn what to serve, with certificates' keys, and tell how targets are.
    Balancer,
    /// A role, taken on for a task.
    Role(Arc<RoleSession>),
    /// An agent that is about to register its machine by an activation: may do that, nothing else.
    Activation(ActivationId),
    /// A machine that joined by an activation: may do what agents do.
    Machine(Machine),
}

/// A machine of the user's own, by the key that it signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub id: ManagedInstanceId,
    pub activation: ActivationId,
}

/// The authenticated caller of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Account of the key, and the region named in the signature's credential scope.
    pub scope: Scope,
    pub principal: Principal,
    pub access_key_id: String,
}

impl Caller {
    /// The ARN that `GetCallerIdentity` and `registeredBy` show.
    pub fn arn(&self) -> String {
        let resource = match &self.principal {
            Principal::Root => "root".to_owned(),
            Principal::Agent => "user/gantry-agent".to_owned(),
            Principal::Balancer => "user/gantry-balancer".to_owned(),
            Principal::Role(session) => return session.arn(),
            Principal::Activation(id) => format!("activation/{id}"),
            Principal::Machine(machine) => format!("managed-instance/{}", machine.id),
        };
        let account = self.scope.account.to_string();
        Arn { service: "iam".to_owned(), region: String::new(), account, resource }.to_string()
    }
}

/// One request as handlers see it.
#[derive(Clone, Debug)]
pub struct Call {
    pub caller: Caller,
    pub request_id: RequestId,
    /// The base URL under which the caller reached us, `http://host:port`: agents are sent back to it.
    pub endpoint: String,
}

/// What an operation asks of IAM: one action on some resources. Condition keys join with the IAM service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// `service:Operation`.
    pub action: &'static str,
    /// ARNs, or `*` where the action knows no resource.
    pub resources: Vec<String>,
}

impl Demand {
    pub fn on_all(action: &'static str) -> Demand {
        Demand { action, resources: vec!["*".to_owned()] }
    }

    pub fn on(action: &'static str, resource: impl ToString) -> Demand {
        Demand { action, resources: vec![resource.to_string()] }
    }
}

/// The actions that an agent's own key allows: those that the ECS agent calls, and reads of what it was given.
const AGENT_ACTIONS: &[&str] = &[
    "ecs:CreateCluster",
    "ecs:DiscoverPollEndpoint",
    "ecs:GetTaskProtection",
    "ecs:ListTagsForResource",
    "ecs:Poll",
    "ecs:RegisterContainerInstance",
    "ecs:StartTelemetrySession",
    "ecs:SubmitAttachmentStateChanges",
    "ecs:SubmitContainerStateChange",
    "ecs:SubmitTaskStateChange",
    "ecs:UpdateContainerInstancesState",
    "ecs:UpdateTaskProtection",
    // What containers write, by the driver `awslogs`.
    "logs:CreateLogGroup",
    "logs:CreateLogStream",
    "logs:DescribeLogStreams",
    "logs:PutLogEvents",
    "sts:GetCallerIdentity",
];

/// The actions that a balancer's key allows.
const BALANCER_ACTIONS: &[&str] = &[CARRY_TRAFFIC, "sts:GetCallerIdentity"];
/// Being told what load balancers serve. An action of ours: AWS's balancers are its own.
pub const CARRY_TRAFFIC: &str = "gantry:CarryTraffic";

/// Decides whether `caller` may do what is demanded. Deny by default.
///
/// # Errors
/// `AccessDeniedException` in the words AWS uses.
pub fn permit(caller: &Caller, demand: &Demand) -> Result<(), ApiError> {
    let allowed = match &caller.principal {
        Principal::Root => true,
        Principal::Balancer => BALANCER_ACTIONS.contains(&demand.action),
        Principal::Agent | Principal::Machine(_) => AGENT_ACTIONS.contains(&demand.action),
        Principal::Activation(_) => demand.action == "ecs:RegisterContainerInstance",
        Principal::Role(session) => session.allows(demand),
    };
    if allowed {
        return Ok(());
    }
    let resource = demand.resources.first().map_or("*", String::as_str);
    let action = demand.action;
    let message = format!(
        "User: {} is not authorized to perform: {action} on resource: {resource} because no identity-based policy \
         allows the {action} action",
        caller.arn(),
    );
    if action.starts_with("ec2:") {
        let message = format!("You are not authorized to perform this operation. {message}");
        return Err(ApiError::new("UnauthorizedOperation", message).with_status(403));
    }
    if action.starts_with("elasticloadbalancing:") {
        return Err(ApiError::new("AccessDenied", message).with_status(403));
    }
    Err(ApiError::new("AccessDeniedException", message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_decide::ids::AccountId;

    #[test]
    fn an_agent_may_report_but_not_run() {
        let scope = Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().unwrap() };
        let agent = Caller { scope, principal: Principal::Agent, access_key_id: "AKIA".to_owned() };
        assert!(permit(&agent, &Demand::on_all("ecs:SubmitTaskStateChange")).is_ok());
        let denied = permit(&agent, &Demand::on_all("ecs:RunTask")).unwrap_err();
        assert_eq!(denied.code, "AccessDeniedException");
        assert!(denied.message.contains("is not authorized to perform: ecs:RunTask"));
    }
}
