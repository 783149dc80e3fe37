//! The whole server over a real socket: what was answered is there after a restart.
#![allow(clippy::unwrap_used)]

use gantry_decide::ids::AccountId;
use gantry_server::keys::Auth;
use gantry_server::os;
use gantry_server::server::{Config, EVENT_RETENTION, ROLE_LIFETIME, Server};
use gantry_server::transport::Options;
use gantry_wire::sigv4::{Credentials, SignedRequest, sign};
use gantry_wire::{EpochMillis, Secret};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

async fn ecs(server: &Server, operation: &str, body: &str) -> String {
    let host = server.address().to_string();
    let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
    let headers =
        [("content-type", "application/x-amz-json-1.1"), ("host", &host), ("x-amz-target", &target)];
    let request =
        SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: body.as_bytes() };
    let root = &server.keys().root;
    let credentials = Credentials {
        access_key_id: root.access_key_id.clone(),
        secret_access_key: Secret::new(&root.secret_access_key),
        session_token: None,
    };
    let added = sign(&request, &credentials, "eu-north-1", "ecs", EpochMillis(os::now().as_millis()));
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
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_cluster_is_described_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path()).await;
    let answer = ecs(&server, "CreateCluster", r#"{"clusterName":"blue"}"#).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("cluster/blue"), "{answer}");
    let describe = r#"{"clusters":["blue"]}"#;
    let before = ecs(&server, "DescribeClusters", describe).await;
    assert!(before.contains(r#""status":"ACTIVE""#), "published before it was answered: {before}");
    let refused = ecs(&server, "CreateCluster", r#"{"clusterName":"not a name!"}"#).await;
    assert!(
        refused.starts_with("HTTP/1.1 400") && refused.contains("InvalidParameterException"),
        "{refused}"
    );
    server.shutdown().await.unwrap();

    let server = start(directory.path()).await;
    let after = ecs(&server, "DescribeClusters", describe).await;
    let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(body(&after), body(&before));
    server.shutdown().await.unwrap();
}
