//! The endpoint over real sockets, with our own signer as the client.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::keys;
use crate::server::ROLE_LIFETIME;
use crate::transport::{Options, Transport};
use gantry_api::{ecs, sts};
use gantry_control::roles::{RoleType, Roles};
use gantry_decide::arn::EcsArn;
use gantry_decide::ids::AccountId;
use gantry_wire::sigv4::{Credentials, sign};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Names the caller, and says back what page token a listing was asked for.
struct Parrot;

impl Services for Parrot {
    fn data_channel(
        &self,
        _: Option<Caller>,
        _: &exec::Asked,
        _: &Parts,
        _: OnUpgrade,
    ) -> Result<Response, ApiError> {
        Err(ApiError::new("NothingHere", "a parrot has no containers"))
    }

    fn file(&self, location: &str) -> Option<String> {
        (location == "good").then(|| "a file".to_owned())
    }

    fn upgrade(&self, _: Caller, _: &Parts, _: OnUpgrade) -> Result<Response, ApiError> {
        Err(ApiError::new("InactiveInstanceException", "not here"))
    }

    fn status(&self) -> Pin<Box<dyn Future<Output = Result<EngineStatus, ApiError>> + Send>> {
        let status = EngineStatus {
            last_batch: 7,
            durable_batch: 6,
            agents: 0,
            pulls: Vec::new(),
            controllers: Vec::new(),
        };
        Box::pin(std::future::ready(Ok(status)))
    }

    fn models(&self) -> &[&'static ServiceModel] {
        static MODELS: [&ServiceModel; 2] = [ecs::SERVICE, sts::SERVICE];
        &MODELS
    }

    fn call(&self, call: Call, read: &mut ReadRequest<'_>) -> Pin<Box<dyn Future<Output = Answered> + Send>> {
        let reply: Result<Box<dyn Structure + Send>, ApiError> = match call.target.operation.name {
            "ListClusters" => {
                let mut request = ecs::ListClustersRequest::default();
                read(&mut request).map(|()| {
                    let arns = Some(vec![format!("{} {:?}", call.caller.scope, call.caller.principal)]);
                    let response =
                        ecs::ListClustersResponse { cluster_arns: arns, next_token: request.next_token };
                    Box::new(response) as Box<dyn Structure + Send>
                })
            }
            "GetCallerIdentity" => {
                let account = Some(call.caller.scope.account.to_string());
                Ok(Box::new(sts::GetCallerIdentityResponse { account, ..Default::default() }))
            }
            other => panic!("nobody serves {other}"),
        };
        Box::pin(std::future::ready(reply.map(Answer::Response)))
    }
}

struct World {
    server: Transport,
    keys: Arc<Keys>,
    session_key: SessionKey,
    _directory: tempfile::TempDir,
}

async fn world(auth: Auth) -> World {
    let directory = tempfile::tempdir().unwrap();
    let keys = Arc::new(Keys::open_or_create(directory.path(), AccountId::DEFAULT).unwrap());
    let session_key = keys::open_or_create_session_key(directory.path()).unwrap();
    let endpoint = Arc::new(Endpoint {
        services: Parrot,
        keys: Arc::clone(&keys),
        session_key: session_key.clone(),
        auth,
        signing_keys: SigningKeys::default(),
    });
    let server =
        Transport::start("127.0.0.1:0".parse().unwrap(), endpoint, Options::default()).await.unwrap();
    World { server, keys, session_key, _directory: directory }
}

const TASK: &str = "arn:aws:ecs:eu-north-1:000000000042:task/default/0123456789abcdef0123456789abcdef";

/// A request that can be spoilt before or after it is signed.
#[derive(Clone)]
struct Draft {
    /// Method and path.
    line: (&'static str, &'static str),
    headers: Vec<(&'static str, String)>,
    body: String,
    key: (String, String),
    token: Option<Secret>,
    service: &'static str,
    /// Milliseconds that the client's clock is off.
    skew: i64,
}

impl World {
    fn ecs(&self, operation: &str, body: &str) -> Draft {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.draft("ecs", vec![("x-amz-target", target)], "application/x-amz-json-1.1", body)
    }

    fn sts(&self, body: &str) -> Draft {
        self.draft("sts", vec![], "application/x-www-form-urlencoded; charset=utf-8", body)
    }

    fn draft(
        &self,
        service: &'static str,
        mut headers: Vec<(&'static str, String)>,
        kind: &str,
        body: &str,
    ) -> Draft {
        headers.push(("host", self.server.address().to_string()));
        headers.push(("content-type", kind.to_owned()));
        let key = (self.keys.root.access_key_id.clone(), self.keys.root.secret_access_key.clone());
        Draft { line: ("POST", "/"), headers, body: body.to_owned(), key, token: None, service, skew: 0 }
    }

    /// A draft that a task's program signs, with credentials of `issued`.
    fn by_task(&self, mut draft: Draft, issued: Timestamp) -> Draft {
        let roles = Roles::new(self.session_key.clone(), ROLE_LIFETIME);
        let task: EcsArn = TASK.parse().unwrap();
        let role = "arn:aws:iam::000000000042:role/painter";
        let issued =
            roles.issue(issued, &task.scope, task.resource, role, RoleType::TaskApplication).unwrap();
        let secret = issued.secret_access_key.unwrap();
        draft.key = (issued.access_key_id.unwrap(), secret.expose().to_owned());
        draft.token = issued.session_token;
        draft
    }

    async fn send(&self, draft: &Draft) -> String {
        let (method, path) = draft.line;
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        for (name, value) in &draft.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{}", draft.body.len(), draft.body);
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap();
        answer
    }
}

impl Draft {
    fn signed(mut self) -> Draft {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let request = SignedRequest {
            method: self.line.0,
            path: self.line.1,
            query: "",
            headers: &headers,
            body: self.body.as_bytes(),
        };
        let credentials = Credentials {
            access_key_id: self.key.0.clone(),
            secret_access_key: Secret::new(&self.key.1),
            session_token: self.token.clone(),
        };
        let now = EpochMillis(os::now().as_millis() + self.skew);
        let added = sign(&request, &credentials, "eu-north-1", self.service, now);
        self.headers.extend(added);
        self
    }
}

fn is(answer: &str, status: u16, text: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{answer}");
    assert!(answer.contains("x-amzn-requestid: "), "{answer}");
}

#[tokio::test]
async fn signed_requests_are_answered_in_their_protocol() {
    let world = world(Auth::Strict).await;
    let answer = world.send(&world.ecs("ListClusters", r#"{"nextToken":"abc"}"#).signed()).await;
    is(&answer, 200, r#"{"clusterArns":["123456789012/eu-north-1 Root"],"nextToken":"abc"}"#);
    assert!(answer.contains("content-type: application/x-amz-json-1.1"), "{answer}");

    let answer = world.send(&world.sts("Action=GetCallerIdentity&Version=2011-06-15").signed()).await;
    is(&answer, 200, "<Account>123456789012</Account>");
    assert!(answer.contains("content-type: text/xml"), "{answer}");

    let mut agent = world.ecs("ListClusters", "{}");
    agent.key = (world.keys.agent.access_key_id.clone(), world.keys.agent.secret_access_key.clone());
    is(&world.send(&agent.signed()).await, 200, "Agent");
}

#[tokio::test]
async fn unproven_callers_get_awss_errors() {
    let world = world(Auth::Strict).await;
    let plain = world.ecs("ListClusters", "{}");
    is(&world.send(&plain).await, 400, "MissingAuthenticationTokenException");

    let mut forged = plain.clone();
    forged.key.1 = "0".repeat(40);
    is(&world.send(&forged.signed()).await, 400, "InvalidSignatureException");

    let mut unknown = plain.clone();
    unknown.key.0 = "AKIAIOSFODNN7EXAMPLE".to_owned();
    is(&world.send(&unknown.signed()).await, 400, "UnrecognizedClientException");

    let mut late = plain.clone();
    late.skew = -16 * 60 * 1000;
    is(&world.send(&late.signed()).await, 400, "Signature expired");

    let mut other = plain.clone();
    other.service = "sts";
    is(&world.send(&other.signed()).await, 400, "Credential should be scoped to correct service: 'ecs'");

    let mut token = plain.clone().signed();
    token.headers.push(("x-amz-security-token", "stolen".to_owned()));
    is(&world.send(&token).await, 400, "UnrecognizedClientException");

    let mut altered = plain.clone().signed();
    altered.body = "{ }".to_owned();
    is(&world.send(&altered).await, 400, "InvalidSignatureException");

    let mut beside = plain.clone().signed();
    beside.headers.push(("x-amz-meta", "1".to_owned()));
    is(&world.send(&beside).await, 400, "'x-amz-meta' must be a 'SignedHeader' in the AWS Authorization.");

    let mut framed = plain.clone();
    framed.headers.push(("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned()));
    is(&world.send(&framed.signed()).await, 400, "MissingContentLength");

    let sts = world.sts("Action=GetCallerIdentity&Version=2011-06-15");
    is(&world.send(&sts).await, 403, "<Code>MissingAuthenticationToken</Code>");
    let mut forged = sts.clone();
    forged.key.1 = "0".repeat(40);
    is(&world.send(&forged.signed()).await, 403, "<Code>SignatureDoesNotMatch</Code>");
}

#[tokio::test]
async fn a_kept_key_serves_its_holder_only() {
    let world = world(Auth::Strict).await;
    let plain = world.ecs("ListClusters", "{}");
    for _ in 0..2 {
        is(&world.send(&plain.clone().signed()).await, 200, "Root");
    }
    // The same credential, another secret: the key that was kept does not fit.
    let mut forged = plain.clone();
    forged.key.1 = "0".repeat(40);
    is(&world.send(&forged.signed()).await, 400, "InvalidSignatureException");
}

#[tokio::test]
async fn a_task_signs_with_its_roles_credentials_until_they_end() {
    let world = world(Auth::Strict).await;
    let now = os::now();
    let task = world.by_task(world.ecs("ListClusters", "{}"), now);
    for _ in 0..2 {
        let answer = world.send(&task.clone().signed()).await;
        is(&answer, 200, "000000000042/eu-north-1 Role(");
        assert!(answer.contains("painter") && answer.contains(TASK.rsplit('/').next().unwrap()), "{answer}");
    }

    let over = Timestamp::from_millis(now.as_millis()) - ROLE_LIFETIME - Duration::from_secs(1);
    let expired = world.by_task(world.ecs("ListClusters", "{}"), over);
    is(&world.send(&expired.signed()).await, 400, "ExpiredTokenException");
    let sts = || world.sts("Action=GetCallerIdentity&Version=2011-06-15");
    let answer = world.send(&world.by_task(sts(), over).signed()).await;
    is(&answer, 403, "<Code>ExpiredToken</Code>");
    assert!(answer.contains("The security token included in the request is expired"), "{answer}");

    // Known now, the key serves no request without its token, nor one with another's.
    let mut without = task.clone();
    without.token = None;
    is(&world.send(&without.signed()).await, 400, "UnrecognizedClientException");
    let mut others = task.clone();
    others.token = world.by_task(sts(), over).token;
    is(&world.send(&others.signed()).await, 400, "UnrecognizedClientException");
    let mut other_secret = task.clone();
    other_secret.key.1 = world.keys.root.secret_access_key.clone();
    is(&world.send(&other_secret.signed()).await, 400, "InvalidSignatureException");
    let mut forged = world.by_task(sts(), now);
    forged.token = Some(Secret::new(format!("A{}", forged.token.unwrap().expose())));
    is(&world.send(&forged.signed()).await, 403, "<Code>InvalidClientTokenId</Code>");

    // A token that was put in after signing is not part of what was signed.
    let mut unsigned = world.by_task(world.ecs("ListClusters", "{}"), now);
    let token = unsigned.token.take().unwrap();
    let mut unsigned = unsigned.signed();
    unsigned.headers.push(("x-amz-security-token", token.expose().to_owned()));
    is(&world.send(&unsigned).await, 400, "'x-amz-security-token' must be a 'SignedHeader'");
}

#[tokio::test]
async fn what_cannot_be_understood_is_a_4xx() {
    let world = world(Auth::Strict).await;
    let unknown = world.ecs("LaunchRocket", "{}").signed();
    is(&world.send(&unknown).await, 400, "UnknownOperationException");
    for body in ["{", "[]", r#"{"nextToken":7}"#, r#"{"maxResults":"many"}"#, "\u{0}"] {
        let answer = world.send(&world.ecs("ListClusters", body).signed()).await;
        is(&answer, 400, "__type");
    }
    is(&world.send(&world.draft("ecs", vec![], "text/plain", "hello").signed()).await, 400, "MissingAction");
    is(&world.send(&world.sts("Action=LaunchRocket").signed()).await, 400, "<Code>InvalidAction</Code>");
}

#[tokio::test]
async fn a_panic_is_answered_and_nothing_else_breaks() {
    let world = world(Auth::Strict).await;
    is(&world.send(&world.ecs("RunTask", "{}").signed()).await, 500, "ServerException");
    is(&world.send(&world.ecs("ListClusters", "{}").signed()).await, 200, "clusterArns");
}

#[tokio::test]
async fn open_takes_any_key_and_reads_accounts_from_it() {
    let world = world(Auth::Open).await;
    for (key, account) in [("000000000042", "000000000042"), ("test", "123456789012")] {
        let mut draft = world.ecs("ListClusters", "{}");
        draft.key = (key.to_owned(), "whatever".to_owned());
        is(&world.send(&draft.signed()).await, 200, &format!("{account}/eu-north-1 Root"));
    }
    let task = world.by_task(world.ecs("ListClusters", "{}"), os::now());
    is(&world.send(&task.signed()).await, 200, "000000000042/eu-north-1 Root");
}

#[tokio::test]
async fn only_the_root_key_sees_the_status() {
    let world = world(Auth::Strict).await;
    let mut draft = world.ecs("ListClusters", "");
    draft.line = ("GET", STATUS_PATH);
    is(&world.send(&draft.clone().signed()).await, 200, r#"{"last_batch":7,"durable_batch":6,"#);
    is(&world.send(&draft).await, 400, "MissingAuthenticationTokenException");
    draft.key = (world.keys.agent.access_key_id.clone(), world.keys.agent.secret_access_key.clone());
    is(&world.send(&draft.signed()).await, 400, "AccessDeniedException");
}

#[tokio::test]
async fn health_and_files_at_a_good_location_need_no_signature() {
    let world = world(Auth::Strict).await;
    for (path, status, text) in [
        ("/_gantry/health", 200, r#"{"status":"ok"}"#),
        ("/_gantry/trust-stores/good", 200, "a file"),
        ("/_gantry/trust-stores/ended", 403, "AccessDenied"),
    ] {
        let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        is(&answer, status, text);
    }
}
