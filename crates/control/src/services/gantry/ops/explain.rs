//! Explanations: of what is there from the tables, with what happened to it from the feed; of what is gone from the feed
//! alone.

use super::{PAGE_BYTES_MAX, read_token, token};
use crate::bulk::logs::{Answer, Direction, Found, Page, Place, Request, Scan};
use crate::bulk::{self, Plan};
use crate::call::Call;
use crate::feed::{self, FeedEvent, FeedKind};
use crate::services::gantry::check::{self, Meant, Subject};
use crate::services::gantry::errors::GantryError;
use crate::services::gantry::explain::{self, Explanation, Finding};
use crate::services::gantry::views;
use crate::tx::View;
use gantry_api::gantry;
use gantry_decide::arn::EcsResource;
use gantry_decide::log_filter::Pattern;
use gantry_decide::time::Timestamp;
use std::collections::BTreeSet;

/// Events of a history, the newest: who wants more asks for the events themselves.
const HISTORY_MAX: usize = 30;

/// What the events of a history are looked up by.
enum Sought {
    /// Events that happened to it or concern it.
    Resource(EcsResource),
    /// Events whose subject's name is this text, or whose subject's id begins with it.
    Text(String),
}

impl Sought {
    /// Narrows the search; [`Sought::is_in`] decides.
    fn pattern(&self) -> Result<Pattern, GantryError> {
        Ok(match self {
            Sought::Resource(resource) => Pattern::parse(&format!("\"{resource}\""))?,
            // Names and ids have none of the characters that mean something.
            Sought::Text(text) => Pattern::parse(&format!("%^[A-Z_]+\\s[a-z-]+\\/[A-Za-z0-9_-]+\\/{text}%"))?,
        })
    }

    fn is_in(&self, event: &FeedEvent) -> bool {
        match (self, &event.subject) {
            (Sought::Resource(resource), _) => event.concerns(resource),
            (Sought::Text(text), EcsResource::Service(_, name)) => name.as_str() == text,
            (Sought::Text(text), EcsResource::Task(_, id)) => id.to_string().starts_with(text),
            (Sought::Text(text), EcsResource::ContainerInstance(_, id)) => id.to_string().starts_with(text),
            (Sought::Text(_), _) => false,
        }
    }
}

pub fn explain(view: View<'_>, _call: &Call, request: gantry::ExplainRequest) -> Result<Plan, GantryError> {
    let cluster = check::cluster(view, request.cluster.as_deref())?;
    let (sought, known) = match check::subject(view, cluster.as_ref(), &request.subject)? {
        Meant::Known(subject) => {
            let told = match subject {
                Subject::Service(service) => explain::service::explain(view, service),
                Subject::Task(task) => explain::task::explain(view, task),
                Subject::Instance(instance) => explain::instance::explain(view, instance),
            };
            (Sought::Resource(subject.resource()), Some((subject.resource(), told)))
        }
        Meant::Gone(resource) => (Sought::Resource(resource), None),
        Meant::Unknown(text) => (Sought::Text(text), None),
    };
    let scope = view.scope.clone();
    let scan = Scan {
        group: feed::group(&scope),
        streams: cluster.map(|cluster| BTreeSet::from([feed::stream(&cluster)])),
        from: Place::START.at,
        until: Timestamp::NEVER,
        place: request.next_token.as_deref().map_or(Ok(Place::END), read_token)?,
        direction: Direction::Backward,
        pattern: Some(sought.pattern()?),
        events_max: HISTORY_MAX,
        bytes_max: PAGE_BYTES_MAX,
    };
    let text = request.subject;
    let reply = move |answer: Result<bulk::Answer, bulk::Error>| {
        let page = match answer {
            Ok(bulk::Answer::Logs(Answer::Page(page))) => Ok(page),
            Ok(_) => Err(GantryError::Unavailable),
            Err(error) => Err(error.into()),
        };
        let (page, unread) = match (page, &known) {
            (Ok(page), _) => (page, None),
            // What the tables say is worth telling without a history.
            (Err(error), Some(_)) => (Page::default(), Some(error)),
            (Err(error), None) => return Err(error.into()),
        };
        let history: Vec<(&Found, FeedEvent)> = page
            .events
            .iter()
            .filter_map(|found| Some((found, FeedEvent::read(found.at, &found.message)?)))
            .filter(|(_, event)| sought.is_in(event))
            .collect();
        let (resource, mut told) = match known {
            Some(known) => known,
            None if history.is_empty() && page.next.is_some() => {
                // The whole of the feed is long: the caller goes on from the token.
                let next_token = page.next.map(token);
                return Ok(Box::new(gantry::ExplainResponse { next_token, ..Default::default() }) as _);
            }
            None => gone(&text, &sought, &history)?,
        };
        if let Some(error) = unread {
            told.findings.push(Finding {
                topic: "history",
                message: format!("What happened before cannot be read now: {error}"),
                details: Vec::new(),
            });
        }
        let mut response = views::explanation(&scope, resource, told);
        let shown = history.into_iter().map(|(found, event)| views::event(&scope, found, event));
        response.history = Some(shown.collect());
        response.next_token = page.next.map(token);
        Ok(Box::new(response) as _)
    };
    Ok(Plan { request: bulk::Request::Logs(Request::Scan(scan)), reply: Box::new(reply) })
}

/// What the feed says of something that the tables know no more.
fn gone(
    text: &str,
    sought: &Sought,
    history: &[(&Found, FeedEvent)],
) -> Result<(EcsResource, Explanation), GantryError> {
    let mut subjects: BTreeSet<&EcsResource> = BTreeSet::new();
    match sought {
        Sought::Resource(resource) if !history.is_empty() => drop(subjects.insert(resource)),
        Sought::Resource(_) => {}
        Sought::Text(_) => subjects.extend(history.iter().map(|(_, event)| &event.subject)),
    }
    let mut all = subjects.iter();
    let resource = match (all.next(), all.next()) {
        (Some(one), None) => (*one).clone(),
        (None, _) => return Err(GantryError::SubjectNotFound(text.chars().take(256).collect())),
        (Some(_), Some(_)) => return Err(check::ambiguous(text, subjects.into_iter().cloned())),
    };
    let ends = [FeedKind::TaskStopped, FeedKind::ServiceDeleted, FeedKind::InstanceDeregistered];
    let own = || history.iter().rev().map(|(_, event)| event).filter(|event| event.subject == resource);
    let last = own().find(|event| ends.contains(&event.kind)).or_else(|| own().next());
    let what = match &resource {
        EcsResource::Task(_, id) => format!("The task {id}"),
        EcsResource::ContainerInstance(_, id) => format!("The instance {id}"),
        EcsResource::Service(_, name) => format!("The service {name}"),
        other => other.to_string(),
    };
    let verdict = match last {
        Some(event) => format!(
            "{what} is not there any more. The last that is known: {}.",
            event.message.trim_end_matches('.')
        ),
        None => format!("{what} is not there any more."),
    };
    Ok((resource, Explanation { verdict, ..Explanation::default() }))
}
