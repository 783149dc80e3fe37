//! Listening, and from a request's path to its answer.

use super::api::{self, Body};
use super::document::{self, About, Version};
use super::limit::Limit;
use super::{protection, stats};
use crate::driver::{Asked, ContainerSnapshot, Hands, TaskSnapshot};
use crate::runtime::Runtime;
use gantry_api::ecs;
use gantry_decide::task::NetworkMode;
use gantry_decide::task_engine::{KnownStatus, TaskArn};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections of one task at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// For a request to arrive, and for an answer to be made.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Bytes of a body: the largest legal one has two members.
const BODY_MAX: usize = 4 << 10;
/// Bytes of a request's line and headers.
const HEAD_MAX: usize = 16 << 10;
/// How long a connection may last: SDKs keep theirs open.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// How long one that begins with another's address waits until the end of that other is heard of, and how often it looks.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
const SETTLED_AGAIN: Duration = Duration::from_millis(20);
/// After a failure of accept(2), most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What statistics are compared with: a sample that is at least so old.
const COMPARED_AFTER: Duration = Duration::from_secs(1);

/// Whose questions come in at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Task(TaskArn),
    /// All tasks in the host's namespace.
    Host,
    /// All tasks on an engine's bridge. Of a connection, the address that it comes from.
    Bridge(Option<IpAddr>),
}

impl Owner {
    /// The network of those who ask at a listener that is not one task's own.
    fn shared_by(&self) -> Option<NetworkMode> {
        match self {
            Owner::Task(_) => None,
            Owner::Host => Some(NetworkMode::Host),
            Owner::Bridge(_) => Some(NetworkMode::Bridge),
        }
    }

    /// The same for a connection from there.
    fn connected(&self, from: IpAddr) -> Owner {
        match self {
            Owner::Bridge(_) => Owner::Bridge(Some(from)),
            other => other.clone(),
        }
    }

    /// The tasks that have the address that a connection comes from, where addresses tell.
    async fn holders<R: Runtime>(&self, hands: &Hands<R>) -> Vec<TaskArn> {
        let Owner::Bridge(Some(IpAddr::V4(from))) = self else { return Vec::new() };
        hands.ask(Asked::Address(*from)).await.into_iter().map(|holder| holder.arn).collect()
    }

    /// Whether a task may ask over a shared listener. On an engine's bridge an id alone, which a program may have leaked,
    /// is of no use to another task: the address tells. A container's own is known some milliseconds after it has begun;
    /// until then nobody else may have it. `holders` were asked for after the task.
    fn may_be(&self, task: &TaskSnapshot, holders: &[TaskArn]) -> bool {
        if self.shared_by().is_some_and(|mode| task.known.mode() != mode) {
            return false;
        }
        let Owner::Bridge(Some(IpAddr::V4(_))) = self else { return true };
        may_have(&task.arn, begins(task), holders)
    }

    /// The same for who knows one of its ids. Its address may be that of another whose end was not heard of yet, which is
    /// waited for.
    async fn comes_to_be<R: Runtime>(&self, hands: &Hands<R>, task: &TaskSnapshot) -> bool {
        let mut task = task.clone();
        let deadline = Instant::now() + SETTLED_AFTER;
        loop {
            if self.may_be(&task, &self.holders(hands).await) {
                return true;
            }
            if !begins(&task) || Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(SETTLED_AGAIN).await;
            let now = hands.ask(Asked::Task(task.arn.clone())).await.into_iter().next();
            let Some(now) = now else { return false };
            task = now;
        }
    }
}

/// Whether one of its containers is not known to run yet.
fn begins(task: &TaskSnapshot) -> bool {
    task.containers.iter().any(|one| one.status < KnownStatus::Running)
}

/// Whether an address is a task's own. `begins`: one of its containers was not known to run. `holders`: who had the
/// address a moment later, when that container may have come to be known.
fn may_have(task: &TaskArn, begins: bool, holders: &[TaskArn]) -> bool {
    if holders.is_empty() { begins } else { holders.contains(task) }
}

/// Status and document.
pub type Answer = (StatusCode, Value);

/// Answers until it is dropped, or the agent ends.
pub async fn serve<R: Runtime>(listener: TcpListener, hands: Weak<Hands<R>>, owner: Owner) {
    let limit = Arc::new(Mutex::new(Limit::new(Instant::now())));
    let owner = Arc::new(owner);
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a task's connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(hands) = hands.upgrade() else { return };
        let (owner, limit) = (Arc::new(owner.connected(from.ip())), Arc::clone(&limit));
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (hands, owner, limit) = (Arc::clone(&hands), Arc::clone(&owner), Arc::clone(&limit));
                async move {
                    let request = match call(&hands, &owner, request).await {
                        Ok(answer) => return Ok::<_, Infallible>(answer),
                        Err(request) => request,
                    };
                    let allowed = limit.lock().take(Instant::now());
                    let answer = if allowed {
                        timeout(REQUEST_MAX, answer(&hands, &owner, request)).await.unwrap_or_else(|_| {
                            text(StatusCode::INTERNAL_SERVER_ERROR, "the agent did not answer in time")
                        })
                    } else {
                        text(StatusCode::TOO_MANY_REQUESTS, "too many requests")
                    };
                    Ok(respond(answer))
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(CONNECTION_MAX)
                .max_buf_size(HEAD_MAX)
                // Small clients close their half once they have asked.
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off has no one to tell.
            let _ = timeout(CONNECTION_MAX, connection).await;
        });
    }
}

/// Hands a call of an AWS API on, for a task that has a role to call it with; other requests come back. Those in the
/// host's namespace reach the control plane by themselves.
async fn call<R: Runtime>(
    hands: &Hands<R>,
    owner: &Owner,
    request: Request<Incoming>,
) -> Result<Response<Body>, Request<Incoming>> {
    let (parts, body) = request.into_parts();
    let asked = match owner {
        Owner::Task(arn) => Asked::Task(arn.clone()),
        Owner::Bridge(_) => Asked::Running,
        Owner::Host => return Err(Request::from_parts(parts, body)),
    };
    if api::is_call(&parts) {
        let tasks = hands.ask(asked).await;
        let holders = owner.holders(hands).await;
        if tasks.iter().any(|task| task.known.role_credentials().is_some() && owner.may_be(task, &holders)) {
            return Ok(hands.api.call(parts, body).await);
        }
    }
    Err(Request::from_parts(parts, body))
}

fn respond((status, document): Answer) -> Response<Body> {
    let mut response = Response::new(api::whole(document.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// An error in words.
fn text(status: StatusCode, text: &str) -> Answer {
    (status, Value::String(text.to_owned()))
}

fn not_found(what: &str) -> Answer {
    text(StatusCode::NOT_FOUND, what)
}

async fn answer<R: Runtime>(hands: &Hands<R>, owner: &Owner, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let reads = parts.method == Method::GET;
    match path[..] {
        ["api", key, "task-protection", "v1", "state"] => {
            let Some(task) = task_of_key(hands, owner, key).await else { return unknown() };
            let role = task.known.role_credentials().and_then(|id| hands.credentials.keys(&task.arn, id));
            let Some(role) = role else { return protection::no_role(&task) };
            let (client, cluster) = (hands.client.with_credentials(role), &hands.config.cluster);
            if reads {
                return protection::get(&client, cluster, &task).await;
            }
            if parts.method != Method::PUT {
                return text(StatusCode::METHOD_NOT_ALLOWED, "GET or PUT");
            }
            match Limited::new(body, BODY_MAX).collect().await {
                Ok(body) => protection::put(&client, cluster, &task, &body.to_bytes()).await,
                Err(_) => text(StatusCode::BAD_REQUEST, "the body does not read"),
            }
        }
        _ if !reads => text(StatusCode::METHOD_NOT_ALLOWED, "GET"),
        ["v2", "credentials", id] => credentials(hands, owner, Some(id)).await,
        ["v2", "credentials"] => credentials(hands, owner, None).await,
        ["v1", "credentials"] => {
            let query = parts.uri.query().unwrap_or_default();
            let id = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "id");
            credentials(hands, owner, id.as_ref().map(|(_, id)| id.as_ref())).await
        }
        ["v2", ref rest @ ..] => {
            let Owner::Task(arn) = owner else { return not_found("version 2 is for tasks in awsvpc mode") };
            let found = hands.ask(Asked::Task(arn.clone())).await.into_iter().next();
            match found.filter(|task| task.known.mode() == NetworkMode::Awsvpc) {
                Some(task) => version_two(hands, &task, rest).await,
                None => not_found("version 2 is for tasks in awsvpc mode"),
            }
        }
        ["v3", key, ref rest @ ..] => by_key(hands, owner, Version::Three, key, rest).await,
        ["v4", key, ref rest @ ..] => by_key(hands, owner, Version::Four, key, rest).await,
        _ => not_found("404 page not found"),
    }
}

fn unknown() -> Answer {
    not_found("the id is not one of a container here")
}

/// The task with this id, if it may ask at this listener.
async fn task_of_key<R: Runtime>(hands: &Hands<R>, owner: &Owner, key: &str) -> Option<TaskSnapshot> {
    let asked = match owner {
        Owner::Task(arn) => Asked::Task(arn.clone()),
        Owner::Host | Owner::Bridge(_) => Asked::Key(key.to_owned()),
    };
    let task = hands.ask(asked).await.into_iter().next()?;
    (task.of_key(key).is_some() && owner.comes_to_be(hands, &task).await).then_some(task)
}

async fn by_key<R: Runtime>(
    hands: &Hands<R>,
    owner: &Owner,
    version: Version,
    key: &str,
    rest: &[&str],
) -> Answer {
    let Some(task) = task_of_key(hands, owner, key).await else { return unknown() };
    let Some(one) = task.of_key(key) else { return unknown() };
    match rest {
        [] => (StatusCode::OK, document::container(about(hands), &task, one, version)),
        ["task"] => (StatusCode::OK, document::task(about(hands), &task, version)),
        ["taskWithTags"] => (StatusCode::OK, with_tags(hands, &task, version).await),
        ["stats"] => match container_stats(hands, &task, one, version).await {
            Some(found) => (StatusCode::OK, found),
            None => not_found("the container does not run"),
        },
        ["task", "stats"] => (StatusCode::OK, task_stats(hands, &task, version).await),
        // Devices of kinds that tasks here do not have.
        ["associations", _] => (StatusCode::OK, json!({"associations": []})),
        _ => not_found("404 page not found"),
    }
}

async fn version_two<R: Runtime>(hands: &Hands<R>, task: &TaskSnapshot, rest: &[&str]) -> Answer {
    let version = Version::Two;
    let named = |id: &str| task.containers.iter().find(|container| container.runtime_id == id);
    match rest {
        ["metadata"] => (StatusCode::OK, document::task(about(hands), task, version)),
        ["metadataWithTags"] => (StatusCode::OK, with_tags(hands, task, version).await),
        ["metadata", id] => match named(id) {
            Some(one) => (StatusCode::OK, document::container(about(hands), task, one, version)),
            None => unknown(),
        },
        ["stats"] => (StatusCode::OK, task_stats(hands, task, version).await),
        ["stats", id] => match named(id) {
            Some(one) => match container_stats(hands, task, one, version).await {
                Some(found) => (StatusCode::OK, found),
                None => not_found("the container does not run"),
            },
            None => unknown(),
        },
        _ => not_found("404 page not found"),
    }
}

fn about<R>(hands: &Hands<R>) -> About<'_> {
    About { config: &hands.config, availability_zone: hands.availability_zone.as_deref() }
}

async fn container_stats<R: Runtime>(
    hands: &Hands<R>,
    task: &TaskSnapshot,
    one: &ContainerSnapshot,
    version: Version,
) -> Option<Value> {
    // One that ends meanwhile has no statistics any more.
    let now = hands.usage.look(&one.id, task.pid_of_own_network(one)).await.ok()?;
    let before = hands.usage.before(&one.id, now.at, COMPARED_AFTER);
    Some(stats::document(one, &now, before.as_ref(), version == Version::Four))
}

async fn task_stats<R: Runtime>(hands: &Hands<R>, task: &TaskSnapshot, version: Version) -> Value {
    let mut all = Map::new();
    for one in &task.containers {
        let found = container_stats(hands, task, one, version).await;
        all.insert(one.runtime_id.clone(), found.unwrap_or(Value::Null));
    }
    Value::Object(all)
}

/// The task's document with the tags of the task and of its instance. What cannot be had is told in it.
async fn with_tags<R: Runtime>(hands: &Hands<R>, task: &TaskSnapshot, version: Version) -> Value {
    let mut document = document::task(about(hands), task, version);
    let mut errors = Vec::new();
    for (member, arn) in [("TaskTags", &task.arn.0), ("ContainerInstanceTags", &hands.instance_arn)] {
        let request = ecs::ListTagsForResourceRequest { resource_arn: arn.clone() };
        match hands.client.ecs::<ecs::ListTagsForResource>(&request).await {
            Ok(found) => {
                let tags: Map<String, Value> = found
                    .tags
                    .into_iter()
                    .flatten()
                    .map(|tag| (tag.key.unwrap_or_default(), Value::String(tag.value.unwrap_or_default())))
                    .collect();
                if !tags.is_empty() {
                    document[member] = Value::Object(tags);
                }
            }
            Err(error) => errors.push(json!({
                "ErrorField": member,
                "ErrorCode": error.code().unwrap_or("ServerException"),
                "ErrorMessage": error.to_string(),
                "ResourceARN": arn,
            })),
        }
    }
    if version == Version::Four && !errors.is_empty() {
        document["Errors"] = Value::Array(errors);
    }
    document
}

async fn credentials<R: Runtime>(hands: &Hands<R>, owner: &Owner, id: Option<&str>) -> Answer {
    let problem = |status: StatusCode, code: &str, message: &str| {
        (status, json!({"code": code, "message": message, "HTTPErrorCode": status.as_u16()}))
    };
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "NoIdInRequest",
            "CredentialsV2Request: No ID in the request",
        );
    };
    let asked = match owner {
        Owner::Task(arn) => Asked::Task(arn.clone()),
        Owner::Host | Owner::Bridge(_) => Asked::Running,
    };
    let tasks = hands.ask(asked).await;
    let task = tasks.iter().find(|task| task.known.has_credentials(id));
    let own = match task {
        Some(task) => owner.comes_to_be(hands, task).await,
        None => false,
    };
    let Some(task) = task.filter(|_| own) else {
        let message = "CredentialsV2Request: Credentials not found";
        return problem(StatusCode::BAD_REQUEST, "InvalidIdInRequest", message);
    };
    match hands.credentials.document(&task.arn, id) {
        Some(document) => (StatusCode::OK, document),
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "CredentialsUninitialized",
            "CredentialsV2Request: Credentials uninitialized for ID",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_holders_and_until_it_is_known_a_beginners() {
        let [own, other] = ["own", "other"].map(|arn| TaskArn(arn.to_owned()));
        let (only_own, only_other) = ([own.clone()], [other.clone()]);
        assert!(may_have(&own, true, &[]));
        assert!(!may_have(&own, false, &[]));
        assert!(!may_have(&own, true, &only_other));
        // Its start was heard of between the two questions.
        assert!(may_have(&own, true, &only_own));
        // The other's end was not heard of yet.
        assert!(may_have(&own, false, &[other, own.clone()]));
    }
}
