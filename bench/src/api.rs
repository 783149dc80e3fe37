//! The API: signed reads and durable writes per second; puts of etcd on the same disk beside the writes.

use crate::host::Host;
use crate::load::{Outcome, drive};
use crate::table::{Row, print};
use anyhow::Result;
use base64::Engine;
use gantry_api::ecs;
use gantry_wire::sigv4::{SignedRequest, sign};
use gantry_wire::{EpochMillis, Structure, json};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One measurement.
const TIME: Duration = Duration::from_secs(2);
const PAIRS: usize = 10;
const CONNECTIONS: [usize; 2] = [1, 16];

pub async fn run() -> Result<()> {
    let host = Host::up()?;
    let client = host.client()?;
    let definition = ecs::RegisterTaskDefinitionRequest {
        family: "bench".to_owned(),
        network_mode: Some(ecs::NetworkMode::None),
        container_definitions: vec![ecs::ContainerDefinition {
            name: Some("app".to_owned()),
            image: Some("nginx:latest".to_owned()),
            memory: Some(64),
            ..Default::default()
        }],
        ..Default::default()
    };
    let registered = client.ecs::<ecs::RegisterTaskDefinition>(&definition).await?;
    let arn = registered.task_definition.and_then(|d| d.task_definition_arn).unwrap_or_default();
    let run = ecs::RunTaskRequest { task_definition: "bench".to_owned(), ..Default::default() };
    let task = client.ecs::<ecs::RunTask>(&run).await?.tasks.unwrap_or_default();
    let task = task.first().and_then(|task| task.task_arn.clone()).unwrap_or_default();
    let describe = ecs::DescribeTasksRequest { tasks: vec![task], ..Default::default() };
    let tag = ecs::TagResourceRequest {
        resource_arn: arn,
        tags: vec![ecs::Tag { key: Some("k".to_owned()), value: Some("v".to_owned()) }],
    };
    let read = signed(&host, "DescribeTasks", &describe);
    let write = signed(&host, "TagResource", &tag);
    let etcd = Etcd::start()?;
    for connections in CONNECTIONS {
        let mut columns: [(Vec<f64>, Vec<f64>); 3] = Default::default();
        for _ in 0..PAIRS {
            let mut keep = |index: usize, outcome: Outcome| {
                columns[index].0.push(outcome.per_second);
                columns[index].1.extend(outcome.latencies);
            };
            keep(0, drive(host.address(), read.clone(), connections, TIME).await?);
            keep(1, drive(host.address(), write.clone(), connections, TIME).await?);
            if let Some(etcd) = &etcd {
                keep(2, drive(&etcd.address, put(), connections, TIME).await?);
            }
        }
        let names = ["signed DescribeTasks", "signed TagResource, durable", "etcd put, durable"];
        let mut rows = Vec::new();
        for (name, (rates, latencies)) in names.into_iter().zip(columns) {
            if !rates.is_empty() {
                rows.push(Row::new(format!("{name}, per second"), "/s", rates));
                rows.push(Row::new(format!("{name}, latency"), "ms", latencies));
            }
        }
        print(&format!("{connections} connections"), &rows);
    }
    Ok(())
}

/// A signed request, ready to be written to a connection.
pub fn signed(host: &Host, operation: &str, request: &dyn Structure) -> Vec<u8> {
    let body = json::to_vec(request);
    let target = format!("{}.{operation}", ecs::SERVICE.target_prefix);
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("host", host.address()),
        ("x-amz-target", target.as_str()),
    ];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = EpochMillis(i64::try_from(now.as_millis()).unwrap_or(0));
    let signed = SignedRequest { method: "POST", path: "/", query: "", headers: &headers, body: &body };
    let added = sign(&signed, &host.credentials, "us-east-1", "ecs", now);
    let mut text = "POST / HTTP/1.1\r\n".to_owned();
    for (name, value) in headers.iter().copied().chain(added.iter().map(|(n, v)| (*n, v.as_str()))) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [text.into_bytes(), body].concat()
}

/// A put of etcd's, through its HTTP gateway.
fn put() -> Vec<u8> {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let body = format!(r#"{{"key":"{}","value":"{}"}}"#, encode("bench/key"), encode(&"v".repeat(200)));
    format!("POST /v3/kv/put HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// An etcd of the benchmark's own, where it is installed.
struct Etcd {
    address: String,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Result<Option<Etcd>> {
        let directory = tempfile::tempdir()?;
        let free = || anyhow::Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        let (client, peer) = (free()?, free()?);
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("etcd"))
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("etcd is not installed (Debian's etcd-server): no peer for the writes");
            return Ok(None);
        };
        std::thread::sleep(Duration::from_secs(3));
        Ok(Some(Etcd { address: client.to_string(), child, _directory: directory }))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // What has ended already needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
