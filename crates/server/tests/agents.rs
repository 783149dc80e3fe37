//! Agents' connections over real sockets: signed upgrades, messages both ways, refusals, and how connections end.
#![allow(clippy::unwrap_used)]

use futures_util::{SinkExt, StreamExt};
use gantry_decide::ids::AccountId;
use gantry_server::keys::Auth;
use gantry_server::os;
use gantry_server::server::{Config, EVENT_RETENTION, ROLE_LIFETIME, Server};
use gantry_server::transport::Options;
use gantry_wire::sigv4::{Credentials, SignedRequest, sign};
use gantry_wire::{EpochMillis, Secret};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Far above what anything here takes: only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start(data_dir: &Path) -> Server {
    let config = Config {
        data_dir: data_dir.to_owned(),
        address: "127.0.0.1:0".parse().unwrap(),
        account: AccountId::DEFAULT,
        role_lifetime: ROLE_LIFETIME,
        event_retention: EVENT_RETENTION,
        leases: gantry_decide::lease::Terms::USUAL,
        auth: Auth::Strict,
        quotas: Default::default(),
        balancer_addresses: Default::default(),
        loopback_targets: false,
        default_vpc: Default::default(),
        exec_return: gantry_server::server::EXEC_RETURN,
        objects: std::sync::Arc::new(gantry_server::objects::NoObjects),
        transport: Options::default(),
    };
    Server::start(config).await.unwrap()
}

fn credentials(server: &Server, agent: bool) -> Credentials {
    let keys = server.keys();
    let pair = if agent { &keys.agent } else { &keys.root };
    Credentials {
        access_key_id: pair.access_key_id.clone(),
        secret_access_key: Secret::new(&pair.secret_access_key),
        session_token: None,
    }
}

fn signature(request: &SignedRequest<'_>, credentials: &Credentials) -> Vec<(&'static str, String)> {
    sign(request, credentials, "eu-north-1", "ecs", EpochMillis(os::now().as_millis()))
}

/// Calls an operation; the status and the answer.
async fn call(server: &Server, agent: bool, operation: &str, body: &Value) -> (u16, Value) {
    let (host, body) = (server.address().to_string(), body.to_string());
    let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
    let headers =
        [("content-type", "application/x-amz-json-1.1"), ("host", &host), ("x-amz-target", &target)];
    let request =
        SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: body.as_bytes() };
    let added = signature(&request, &credentials(server, agent));
    let mut text = "POST / HTTP/1.1\r\nconnection: close\r\n".to_owned();
    for (name, value) in
        headers.iter().map(|(n, v)| (*n, *v)).chain(added.iter().map(|(n, v)| (*n, v.as_str())))
    {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

async fn ok(server: &Server, operation: &str, body: Value) -> Value {
    let (status, answer) = call(server, false, operation, &body).await;
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

/// Registers an instance with the agents' key, as the stock agent does; its ARN.
async fn register(server: &Server) -> String {
    let request = json!({
        "cluster": "default",
        "attributes": [
            {"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"},
            {"name": "ecs.os-type", "value": "linux"},
        ],
        "totalResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": 4096},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 7800},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22"]},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []},
        ],
        "instanceIdentityDocument": "", "instanceIdentityDocumentSignature": "",
        "clientToken": "0d6c0f1e-4b0c-4a49-9d7e-3a5d1c2b9f00",
    });
    let (status, answer) = call(server, true, "RegisterContainerInstance", &request).await;
    assert_eq!(status, 200, "{answer}");
    answer["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned()
}

type Socket = WebSocketStream<TcpStream>;

/// Opens a connection at a path, signed as agents do: over host and date only. Or the refusal: status and body.
async fn open(
    server: &Server,
    path: &str,
    query: &[(&str, &str)],
    credentials: Option<&Credentials>,
) -> Result<Socket, (u16, String)> {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let query = query.replace('+', "%20");
    let host = server.address().to_string();
    let mut request = format!("ws://{host}{path}?{query}").into_client_request().unwrap();
    if let Some(credentials) = credentials {
        let headers = [("host", host.as_str())];
        let signed = SignedRequest { method: "GET", path, query: &query, headers: &headers, body: &[] };
        for (name, value) in signature(&signed, credentials) {
            let value = HeaderValue::from_str(&value).unwrap();
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    let stream = TcpStream::connect(server.address()).await.unwrap();
    match timeout(PATIENCE, client_async(request, stream)).await.unwrap() {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err((response.status().as_u16(), String::from_utf8(body).unwrap()))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn connect(server: &Server, instance: &str) -> Result<Socket, (u16, String)> {
    let query = [
        ("agentHash", "a8b3e7d3"),
        ("agentVersion", "1.105.1"),
        ("clusterArn", "default"),
        ("containerInstanceArn", instance),
        ("dockerVersion", "DockerVersion: 20.10.24+dfsg1"),
        ("protocolVersion", "2"),
        ("seqNum", "1"),
        ("sendCredentials", "true"),
    ];
    open(server, "/acs/ws", &query, Some(&credentials(server, true))).await
}

async fn connect_telemetry(server: &Server, instance: &str) -> Result<Socket, (u16, String)> {
    let query = [("cluster", "default"), ("containerInstance", instance), ("dockerVersion", "20.10")];
    open(server, "/tcs/ws", &query, Some(&credentials(server, true))).await
}

/// The next message: its type and content; of a close, `close` and its code.
async fn hear(socket: &mut Socket) -> (String, Value) {
    match timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap() {
        Message::Text(text) => {
            let mut frame: Value = serde_json::from_str(&text).unwrap();
            (frame["type"].as_str().unwrap().to_owned(), frame["message"].take())
        }
        Message::Close(frame) => ("close".to_owned(), json!(u16::from(frame.unwrap().code))),
        other => panic!("{other:?}"),
    }
}

async fn say(socket: &mut Socket, kind: &str, message: Value) {
    let frame = json!({"type": kind, "message": message}).to_string();
    socket.send(Message::text(frame)).await.unwrap();
}

/// Describes the instance until its agent counts as connected, or not.
async fn until_connected(server: &Server, instance: &str, connected: bool) -> Value {
    let describe = json!({"containerInstances": [instance]});
    for _ in 0..500 {
        let described = ok(server, "DescribeContainerInstances", describe.clone()).await;
        if described["containerInstances"][0]["agentConnected"] == connected {
            return described["containerInstances"][0].clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("agentConnected does not become {connected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_told_of_tasks_and_reports_them() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path()).await;
    ok(&server, "CreateCluster", json!({"clusterName": "default"})).await;
    let definition =
        json!({"family": "app", "containerDefinitions": [{"name": "app", "image": "app:1", "memory": 64}]});
    ok(&server, "RegisterTaskDefinition", definition).await;
    let instance = register(&server).await;
    assert_eq!(register(&server).await, instance, "the same client token");

    let (_, found) =
        call(&server, true, "DiscoverPollEndpoint", &json!({"containerInstance": instance})).await;
    let base = format!("http://{}", server.address());
    assert_eq!(found["endpoint"], format!("{base}/acs"));
    assert_eq!(found["telemetryEndpoint"], format!("{base}/tcs"));

    let mut acs = connect(&server, &instance).await.unwrap();
    assert_eq!(hear(&mut acs).await.0, "TaskManifestMessage");
    let described = until_connected(&server, &instance, true).await;
    let docker = "DockerVersion: 20.10.24+dfsg1";
    assert_eq!(
        described["versionInfo"],
        json!({"agentVersion": "1.105.1", "agentHash": "a8b3e7d3", "dockerVersion": docker})
    );

    let ran = ok(&server, "RunTask", json!({"taskDefinition": "app"})).await;
    let task = ran["tasks"][0]["taskArn"].clone();
    let (kind, payload) = hear(&mut acs).await;
    assert_eq!((kind.as_str(), &payload["tasks"][0]["arn"]), ("PayloadMessage", &task));
    say(&mut acs, "AckRequest", json!({"messageId": payload["messageId"]})).await;
    let report = json!({"cluster": "default", "task": task, "status": "RUNNING", "reason": "",
        "containers": [{"containerName": "app", "status": "RUNNING", "runtimeId": "r"}]});
    assert_eq!(call(&server, true, "SubmitTaskStateChange", &report).await.0, 200);
    let shown = ok(&server, "DescribeTasks", json!({"tasks": [task]})).await;
    assert_eq!(shown["tasks"][0]["lastStatus"], "RUNNING");

    let mut tcs = connect_telemetry(&server, &instance).await.unwrap();
    let envelope = json!({"type": "PublishMetricsRequest", "message": {"metadata": {"idle": true}}});
    tcs.send(Message::text(format!("Authorization: AWS4\r\nHost: h\r\n\r\n{envelope}"))).await.unwrap();
    assert_eq!(hear(&mut tcs).await.0, "AckPublishMetric");

    // A connection that breaks off leaves the task alone.
    drop(acs);
    until_connected(&server, &instance, false).await;
    let mut acs = connect(&server, &instance).await.unwrap();
    let (kind, manifest) = hear(&mut acs).await;
    assert_eq!((kind.as_str(), &manifest["tasks"][0]["taskArn"]), ("TaskManifestMessage", &task));
    assert_eq!(hear(&mut acs).await.0, "PayloadMessage");

    let force = json!({"containerInstance": instance, "force": true});
    ok(&server, "DeregisterContainerInstance", force).await;
    let (kind, payload) = hear(&mut acs).await;
    assert_eq!((kind.as_str(), &payload["tasks"][0]["desiredStatus"]), ("PayloadMessage", &json!("STOPPED")));
    assert_eq!(hear(&mut acs).await, ("close".to_owned(), json!(1000)));
    assert_eq!(hear(&mut tcs).await, ("close".to_owned(), json!(1008)));
    for refused in [connect(&server, &instance).await, connect_telemetry(&server, &instance).await] {
        let (status, body) = refused.unwrap_err();
        assert!(status == 400 && body.starts_with(r#"{"InactiveInstanceException":"#), "{status} {body}");
    }
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_in_words_that_agents_know() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path()).await;
    ok(&server, "CreateCluster", json!({"clusterName": "default"})).await;
    let instance = register(&server).await;
    let query = [("containerInstanceArn", instance.as_str())];
    let mut forged = credentials(&server, true);
    forged.secret_access_key = Secret::new("not the secret");
    for (who, code) in [(None, "MissingAuthenticationToken"), (Some(&forged), "InvalidSignatureException")] {
        let (status, body) = open(&server, "/acs/ws", &query, who).await.unwrap_err();
        assert!((400..500).contains(&status) && body.contains(code), "{status} {body}");
    }
    let nobody = instance.replace(&instance[instance.len() - 32..], &"0".repeat(32));
    for unknown in [nobody.as_str(), "", "x", "arn:aws:ecs:eu-north-1:1:container-instance/a/b"] {
        let (status, body) = connect(&server, unknown).await.unwrap_err();
        assert!(status == 400 && body.contains("InvalidInstanceException"), "{status} {body}");
    }
    let known = credentials(&server, true);
    let (status, body) = open(&server, "/elsewhere/ws", &query, Some(&known)).await.unwrap_err();
    assert!((400..500).contains(&status), "{status} {body}");
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_sends_agents_away_and_keeps_them_in_mind() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path()).await;
    ok(&server, "CreateCluster", json!({"clusterName": "default"})).await;
    let instance = register(&server).await;
    let mut older = connect(&server, &instance).await.unwrap();
    assert_eq!(hear(&mut older).await.0, "TaskManifestMessage");
    let mut newer = connect(&server, &instance).await.unwrap();
    assert_eq!(hear(&mut newer).await.0, "TaskManifestMessage");
    assert_eq!(hear(&mut older).await, ("close".to_owned(), json!(1008)));

    let ending = tokio::spawn(server.shutdown());
    assert_eq!(hear(&mut newer).await, ("close".to_owned(), json!(1001)));
    drop(newer);
    timeout(PATIENCE, ending).await.unwrap().unwrap().unwrap();
    let server = start(directory.path()).await;
    until_connected(&server, &instance, true).await;
    let mut again = connect(&server, &instance).await.unwrap();
    assert_eq!(hear(&mut again).await.0, "TaskManifestMessage");
    server.shutdown().await.unwrap();
}
