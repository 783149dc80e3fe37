//! The AWS endpoint: one port for all services. Route, authenticate, hand the body's reader to [`Services`], encode
//! what comes back; every refusal in the shape of the protocol that the request speaks.

use crate::agents;
use crate::exec;
use crate::keys::{Auth, Keys, SigningKeys, open_account};
use crate::os::{self, OsRandom};
use crate::transport::{Body, Handler, Refusal, Request, Response};
use gantry_api::ecs;
pub use gantry_control::call::Caller;
use gantry_control::call::{Machine, Principal};
pub use gantry_control::engine::EngineStatus;
use gantry_control::roles::RoleSession;
use gantry_control::services::elbv2::links::FILES_PATH;
use gantry_decide::ids::{AccountId, ActivationId, RequestId, Scope};
use gantry_decide::routing::channel;
use gantry_decide::time::Timestamp;
use gantry_wire::data_channel;
use gantry_wire::route::{self, Target};
use gantry_wire::sigv4::{
    Claim, Payload, Refusal as BadSignature, SessionKey, SignedRequest, activation_code, machine_key,
    machine_of,
};
use gantry_wire::{ApiError, EpochMillis, Protocol, Secret, ServiceModel, Structure, event_stream, protocol};
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use hyper::body::Bytes;
use hyper::upgrade::OnUpgrade;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Says only that the server answers; needs no signature.
const HEALTH_PATH: &str = "/_gantry/health";
/// Says how the control plane does, to who signs with the root key, as for ECS.
pub const STATUS_PATH: &str = "/_gantry/status";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// Where awsQuery errors belong to when the service is not known.
const NO_NAMESPACE: &str = "https://webservices.amazon.com/";

/// An authenticated request for one operation.
#[derive(Clone, Debug)]
pub struct Call {
    pub caller: Caller,
    pub target: Target,
    pub request_id: RequestId,
    /// The base URL under which the caller reached us, `http://host:port`: agents are sent back to it.
    pub base_url: String,
}

/// What answers a request.
pub enum Answer {
    /// Not yet encoded.
    Response(Box<dyn Structure + Send>),
    /// The messages of a stream of events, for as long as they come.
    Stream(mpsc::Receiver<Bytes>),
}

/// An answer, or the error that is there instead.
pub type Answered = Result<Answer, ApiError>;
/// Fills a request structure from the body, in the protocol's own way.
pub type ReadRequest<'a> = dyn FnMut(&mut dyn Structure) -> Result<(), ApiError> + 'a;

/// The operations behind the endpoint.
pub trait Services: Send + Sync + 'static {
    /// The services served, for routing.
    fn models(&self) -> &[&'static ServiceModel];

    /// Answers a request to change to another protocol.
    ///
    /// # Errors
    /// The refusal, in the form that agents read.
    fn upgrade(&self, caller: Caller, parts: &Parts, upgrade: OnUpgrade) -> Result<Response, ApiError>;

    /// Lets one side of an ECS Exec session connect: an agent, whose request was signed, or a client, who is not known
    /// but by the session's token.
    ///
    /// # Errors
    /// When there is no such session, or the agent may not take part.
    fn data_channel(
        &self,
        caller: Option<Caller>,
        asked: &exec::Asked,
        parts: &Parts,
        upgrade: OnUpgrade,
    ) -> Result<Response, ApiError>;

    /// The file of a trust store at a location that was given to somebody. None when there is none, or none any more.
    fn file(&self, location: &str) -> Option<String>;

    /// How the control plane does.
    fn status(&self) -> Pin<Box<dyn Future<Output = Result<EngineStatus, ApiError>> + Send>>;

    /// Reads the request, authorises it and begins it; the future is its answer.
    fn call(&self, call: Call, read: &mut ReadRequest<'_>) -> Pin<Box<dyn Future<Output = Answered> + Send>>;
}

/// The endpoint over some services.
pub struct Endpoint<S> {
    pub services: S,
    pub keys: Arc<Keys>,
    /// Opens the tokens of tasks' credentials.
    pub session_key: SessionKey,
    pub auth: Auth,
    pub signing_keys: SigningKeys,
}

impl<S: Services> Endpoint<S> {
    async fn api(&self, request: &Request, request_id: RequestId) -> Response {
        let Request { parts, body, .. } = request;
        let headers = headers(parts);
        let payload = match Payload::read(&headers, body) {
            Ok(payload) => payload,
            Err(error) => return encode_error(spoken(parts), NO_NAMESPACE, &error, request_id),
        };
        let form = has_form(parts).then(|| payload.data());
        let header = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        let query_string = parts.uri.query().unwrap_or_default();
        let target = match route::target(self.services.models(), header, query_string, form) {
            Ok(target) => target,
            Err((protocol, error)) => return encode_error(protocol, NO_NAMESPACE, &error, request_id),
        };
        let service = target.service;
        let reply = match self.authenticate(parts, &headers, &payload, service, os::now()) {
            Ok(caller) => {
                let call = Call { caller, target: target.clone(), request_id, base_url: base_url(parts) };
                // An awsQuery request may stand in the query string, the body or both.
                let mut read = |structure: &mut dyn Structure| {
                    if service.protocol.has_forms() {
                        let form = protocol::form(query_string, form.unwrap_or_default());
                        service.protocol.read_request(structure, &form)
                    } else {
                        service.protocol.read_request(structure, payload.data())
                    }
                };
                self.services.call(call, &mut read).await
            }
            Err(error) => Err(error),
        };
        match reply {
            Ok(Answer::Response(response)) => encode(&target, response.as_ref(), request_id),
            Ok(Answer::Stream(messages)) => {
                let body = Body::stream(messages);
                respond(StatusCode::OK, event_stream::CONTENT_TYPE, body, request_id)
            }
            Err(error) => encode_error(service.protocol, service.xml_namespace, &error, request_id),
        }
    }

    async fn status(&self, parts: &Parts, request_id: RequestId) -> Response {
        let status = match self.signer(parts) {
            Ok(Caller { principal: Principal::Root, .. }) => self.services.status().await,
            Ok(_) => Err(ApiError::new("AccessDeniedException", "Only the root key may ask for the status.")),
            Err(error) => Err(error),
        };
        match status {
            Ok(status) => {
                let body = serde_json::to_vec(&status).unwrap_or_default();
                respond(StatusCode::OK, "application/json", body, request_id)
            }
            Err(error) => encode_error(Protocol::AwsJson("1.1"), NO_NAMESPACE, &error, request_id),
        }
    }

    /// Lets an agent open its connection, or tells it why not: as an object of the exception's name and its text.
    fn connect(&self, parts: &Parts, upgrade: OnUpgrade, request_id: RequestId) -> Response {
        let upgraded = match exec::Asked::read(parts.uri.path(), parts.uri.query().unwrap_or_default()) {
            Some(asked) => self.data_channel(&asked, parts, upgrade),
            None => self.signer(parts).and_then(|caller| self.services.upgrade(caller, parts, upgrade)),
        };
        match upgraded {
            Ok(response) => response,
            Err(error) => {
                let body = serde_json::json!({ error.code.as_ref(): error.message }).to_string();
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
                respond(status, "application/json", body.into_bytes(), request_id)
            }
        }
    }

    fn data_channel(
        &self,
        asked: &exec::Asked,
        parts: &Parts,
        upgrade: OnUpgrade,
    ) -> Result<Response, ApiError> {
        let signed = asked.is_agents().then(|| self.signer(parts));
        self.services.data_channel(signed.transpose()?, asked, parts, upgrade)
    }

    /// Who signed a request that has no body and is no operation, as one for ECS.
    fn signer(&self, parts: &Parts) -> Result<Caller, ApiError> {
        self.authenticate(parts, &headers(parts), &Payload::Whole(&[]), ecs::SERVICE, os::now())
    }

    /// Finds out who signed a request for `service`. Also for requests that are no operations, such as an agent's
    /// WebSocket upgrade.
    ///
    /// # Errors
    /// AWS's error for what is wrong with the signature or the key, as services of this protocol word it.
    fn authenticate(
        &self,
        parts: &Parts,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
        service: &ServiceModel,
        now: Timestamp,
    ) -> Result<Caller, ApiError> {
        let signed = SignedRequest {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers,
            body: payload.data(),
        };
        let caller = || {
            let claim = Claim::read(&signed)?;
            let (account, principal) = match self.auth {
                Auth::Open => (self.open_account(&claim), Principal::Root),
                Auth::Strict => self.verify(&claim, &signed, payload, service, now)?,
            };
            let region = claim.region.parse().map_err(|_| {
                BadSignature::Mismatch("Credential should be scoped to a valid region.".to_owned())
            })?;
            Ok(Caller { scope: Scope { account, region }, principal, access_key_id: claim.access_key_id })
        };
        caller().map_err(|refusal: BadSignature| refusal.in_protocol(service.protocol))
    }

    /// The account that an unverified claim means: that of its session, or the one that its key id names.
    fn open_account(&self, claim: &Claim) -> AccountId {
        match self.session(claim) {
            Ok(Some((session, _))) => session.task.scope.account,
            _ => open_account(&claim.access_key_id, self.keys.account),
        }
    }

    /// The session that a claim's token proves, and its secret. None for a claim without a token.
    fn session(&self, claim: &Claim) -> Result<Option<(RoleSession, Secret)>, BadSignature> {
        let Some(token) = &claim.session_token else { return Ok(None) };
        // Keys of this installation are permanent: a token with one is not ours.
        let (claims, secret) =
            self.session_key.open(&claim.access_key_id, token).ok_or(BadSignature::Unknown)?;
        let session = RoleSession::read(&claims).ok_or(BadSignature::Unknown)?;
        Ok(Some((session, secret)))
    }

    /// Whom a key speaks for that follows from an activation: an agent that is about to join, or a machine that has. That they
    /// are still known is checked later, against the state.
    fn activated(&self, access_key_id: &str) -> Option<(Secret, Principal)> {
        match machine_of(access_key_id) {
            None => {
                let id: ActivationId = access_key_id.parse().ok()?;
                Some((activation_code(&self.session_key, &id.to_string()), Principal::Activation(id)))
            }
            Some((activation, machine)) => {
                let (activation, id) = (activation.parse::<ActivationId>().ok()?, machine.parse().ok()?);
                let code = activation_code(&self.session_key, &activation.to_string());
                let key = machine_key(&activation.to_string(), &code, machine);
                Some((key.secret_access_key, Principal::Machine(Machine { id, activation })))
            }
        }
    }

    /// Whose key made this signature, and the account that it belongs to.
    fn verify(
        &self,
        claim: &Claim,
        signed: &SignedRequest<'_>,
        payload: &Payload<'_>,
        service: &ServiceModel,
        now: Timestamp,
    ) -> Result<(AccountId, Principal), BadSignature> {
        let (secret, account, principal) = match self.session(claim)? {
            Some((session, _)) if session.expires <= now => return Err(BadSignature::TokenExpired),
            Some((session, secret)) => {
                (secret, session.task.scope.account, Principal::Role(Arc::new(session)))
            }
            None if let Some((secret, principal)) = self.activated(&claim.access_key_id) => {
                (secret, self.keys.account, principal)
            }
            None => {
                let (pair, principal) = self.keys.find(&claim.access_key_id).ok_or(BadSignature::Unknown)?;
                (Secret::new(&pair.secret_access_key), self.keys.account, principal)
            }
        };
        let now = EpochMillis(now.as_millis());
        // A session's access key id stands for one secret only, as a permanent one does.
        match self.signing_keys.get(&claim.credential) {
            Some(key) => claim.verify(signed, payload, &key, now)?,
            None => {
                let key = claim.key(&secret);
                claim.verify(signed, payload, &key, now)?;
                self.signing_keys.keep(&claim.credential, key);
            }
        }
        if claim.service != service.signing_name {
            let message =
                format!("Credential should be scoped to correct service: '{}'.", service.signing_name);
            return Err(BadSignature::Mismatch(message));
        }
        Ok((account, principal))
    }
}

impl<S: Services> Handler for Endpoint<S> {
    async fn handle(&self, request: Request) -> Response {
        let request_id = RequestId::random(&mut OsRandom);
        if request.parts.method == Method::GET && request.parts.uri.path() == HEALTH_PATH {
            return respond(StatusCode::OK, "application/json", br#"{"status":"ok"}"#.to_vec(), request_id);
        }
        if request.parts.method == Method::GET && request.parts.uri.path() == STATUS_PATH {
            return self.status(&request.parts, request_id).await;
        }
        if request.parts.method == Method::GET
            && let Some(location) = request.parts.uri.path().strip_prefix(FILES_PATH)
        {
            return match self.services.file(location) {
                Some(file) => {
                    respond(StatusCode::OK, "application/x-pem-file", file.into_bytes(), request_id)
                }
                None => {
                    let error = ApiError::new("AccessDenied", "Request has expired").with_status(403);
                    encode_error(Protocol::AwsQuery, NO_NAMESPACE, &error, request_id)
                }
            };
        }
        match request {
            Request { parts, upgrade: Some(upgrade), .. }
                if agents::channel(parts.uri.path()).is_some()
                    || parts.uri.path() == channel::PATH
                    || parts.uri.path().starts_with(data_channel::PATH) =>
            {
                self.connect(&parts, upgrade, request_id)
            }
            request => self.api(&request, request_id).await,
        }
    }

    fn refuse(&self, parts: &Parts, refusal: Refusal) -> Response {
        let (code, message) = match refusal {
            Refusal::BodyTooLarge => ("RequestEntityTooLargeException", "The request is too large."),
            Refusal::BodyIncomplete => {
                ("RequestTimeoutException", "The request's body did not arrive in time.")
            }
            Refusal::Overloaded => ("ThrottlingException", "Rate exceeded"),
            Refusal::ForeignHost => {
                ("AccessDeniedException", "The Host header names another server. See the option --host-name.")
            }
            Refusal::ForeignOrigin => {
                ("AccessDeniedException", "A page of another site may not call this server.")
            }
            Refusal::Panicked => {
                ("ServerException", "An internal error occurred. It is in the server's log.")
            }
        };
        let error = ApiError::new(code, message).with_status(refusal.status().as_u16());
        encode_error(spoken(parts), NO_NAMESPACE, &error, RequestId::random(&mut OsRandom))
    }
}

/// Names in lower case. A value that is not text cannot have been signed; leaving it out makes the signature fail if
/// it was named.
fn headers(parts: &Parts) -> Vec<(&str, &str)> {
    parts.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect()
}

/// The protocol in which a request is refused of which nothing else is known.
fn spoken(parts: &Parts) -> Protocol {
    if has_form(parts) { Protocol::AwsQuery } else { Protocol::AwsJson("1.1") }
}

fn has_form(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/x-www-form-urlencoded")
}

/// The transport has seen to it that there is a host.
pub(crate) fn base_url(parts: &Parts) -> String {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}

fn encode(target: &Target, response: &dyn Structure, request_id: RequestId) -> Response {
    let body = target.service.response(target.operation, response, &request_id.to_string());
    respond(StatusCode::OK, target.service.protocol.content_type(), body, request_id)
}

fn encode_error(protocol: Protocol, namespace: &str, error: &ApiError, request_id: RequestId) -> Response {
    let body = protocol.error(namespace, error, &request_id.to_string());
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(status, protocol.content_type(), body, request_id)
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
    request_id: RequestId,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(request_id) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
    response
}

#[cfg(test)]
mod tests;
