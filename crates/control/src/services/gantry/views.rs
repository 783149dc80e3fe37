//! Explanations, events and alarms as the API shows them.

use super::explain::Explanation;
use crate::bulk::logs::Found;
use crate::feed::FeedEvent;
use crate::services::cloudwatch::state::Alarm;
use gantry_api::gantry;
use gantry_decide::arn::EcsResource;
use gantry_decide::deployment::alarms::AlarmState;
use gantry_decide::ids::Scope;
use gantry_wire::EpochMillis;

pub fn explanation(scope: &Scope, resource: EcsResource, told: Explanation) -> gantry::ExplainResponse {
    let kind = match &resource {
        EcsResource::Task(..) => gantry::SubjectKind::Task,
        EcsResource::ContainerInstance(..) => gantry::SubjectKind::ContainerInstance,
        _ => gantry::SubjectKind::Service,
    };
    let findings = told.findings.into_iter().map(|finding| gantry::Finding {
        topic: finding.topic.to_owned(),
        message: finding.message,
        details: Some(finding.details).filter(|details| !details.is_empty()),
    });
    let suggestions = told
        .suggestions
        .into_iter()
        .map(|suggestion| gantry::Suggestion { message: suggestion.message, command: suggestion.command });
    gantry::ExplainResponse {
        resource_arn: Some(scope.ecs(resource).text()),
        kind: Some(kind),
        verdict: Some(told.verdict),
        findings: Some(findings.collect()),
        suggestions: Some(suggestions.collect()),
        history: None,
        next_token: None,
    }
}

/// An event, with the place in the store for its id; `found` is where it was read from.
pub fn event(scope: &Scope, found: &Found, event: FeedEvent) -> gantry::Event {
    let arn = |resource: EcsResource| scope.ecs(resource).text();
    gantry::Event {
        event_id: format!("{:020}{:012}", found.at.as_millis().max(0), found.number),
        created_at: EpochMillis(event.at.as_millis()),
        type_: event.kind.as_str().to_owned(),
        resource_arn: Some(arn(event.subject)),
        related_arns: Some(event.related.into_iter().map(arn).collect()),
        message: event.message,
    }
}

pub fn alarm(alarm: &Alarm) -> gantry::Alarm {
    let state_value = match alarm.state {
        AlarmState::Ok => gantry::AlarmStateValue::Ok,
        AlarmState::Alarm => gantry::AlarmStateValue::Alarm,
        AlarmState::InsufficientData => gantry::AlarmStateValue::InsufficientData,
    };
    gantry::Alarm {
        alarm_name: alarm.name.to_string(),
        state_value,
        state_reason: Some(alarm.reason.clone()).filter(|reason| !reason.is_empty()),
        state_updated_at: Some(EpochMillis(alarm.since.as_millis())),
    }
}
