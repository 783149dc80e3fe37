//! What the server writes into a payload, the agent reads out of it: both halves over a real connection.
#![allow(clippy::unwrap_used)]

use futures_util::StreamExt;
use gantry_agent::client::Client;
use gantry_agent::protocol::payload::{CompiledTask, compile};
use gantry_api::{acs, ecs};
use gantry_decide::ids::AccountId;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task::{ContainerCondition, NetworkMode, TransportProtocol};
use gantry_decide::task_engine::HostPort;
use gantry_server::keys::Auth;
use gantry_server::server::{Config, EVENT_RETENTION, ROLE_LIFETIME, Server};
use gantry_server::transport::Options;
use gantry_wire::envelope::Frame;
use gantry_wire::sigv4::Credentials;
use gantry_wire::{Operation, Secret, json};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Far above what anything here takes: only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    _directory: tempfile::TempDir,
    server: Server,
    client: Client,
}

impl World {
    async fn start() -> World {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            objects: std::sync::Arc::new(gantry_server::objects::NoObjects),
            data_dir: directory.path().to_owned(),
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
            transport: Options::default(),
        };
        let server = Server::start(config).await.unwrap();
        let root = &server.keys().root;
        let credentials = Credentials {
            access_key_id: root.access_key_id.clone(),
            secret_access_key: Secret::new(&root.secret_access_key),
            session_token: None,
        };
        let endpoint = format!("http://{}", server.address());
        let client = Client::new(&endpoint, "eu-north-1", credentials).unwrap();
        World { _directory: directory, server, client }
    }

    async fn call<O: Operation>(&self, request: Value) -> O::Response
    where
        O::Request: Default,
    {
        let request: O::Request = json::from_slice(request.to_string().as_bytes()).unwrap();
        self.client.ecs::<O>(&request).await.unwrap()
    }

    /// Opens the connection of an instance as its agent does.
    async fn connect(&self, instance: &str) -> WebSocketStream<TcpStream> {
        let host = self.server.address().to_string();
        let query = format!("containerInstanceArn={}", instance.replace(':', "%3A").replace('/', "%2F"));
        let mut request = format!("ws://{host}/acs/ws?{query}").into_client_request().unwrap();
        for (name, value) in self.client.sign_upgrade(&host, "/acs/ws", &query) {
            request
                .headers_mut()
                .insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        }
        let stream = TcpStream::connect(self.server.address()).await.unwrap();
        client_async(request, stream).await.unwrap().0
    }
}

/// The next payload's tasks, as the agent understands them.
async fn payload(socket: &mut WebSocketStream<TcpStream>) -> Vec<CompiledTask> {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        let text = message.into_text().unwrap();
        let frame = Frame::open(&text).unwrap();
        if frame.kind == "PayloadMessage" {
            let message: acs::PayloadMessage = frame.message().unwrap();
            return message.tasks.unwrap().iter().map(|task| compile(task).unwrap()).collect();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_what_the_definition_says() {
    let world = World::start().await;
    let definition = json!({
        "family": "full",
        "containerDefinitions": [
            {
                "name": "app", "image": "app:1", "cpu": 128, "memory": 256, "memoryReservation": 100,
                "user": "1000", "workingDirectory": "/srv", "hostname": "blue", "dockerLabels": {"team": "red"},
                "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "udp"}],
                "dependsOn": [{"containerName": "db", "condition": "COMPLETE"}],
                "startTimeout": 30, "stopTimeout": 7, "readonlyRootFilesystem": true, "privileged": false,
                "dnsServers": ["10.0.0.2"], "extraHosts": [{"hostname": "cache", "ipAddress": "10.0.0.9"}],
                "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 4096}],
                "systemControls": [{"namespace": "net.core.somaxconn", "value": "1024"}],
                "linuxParameters": {
                    "capabilities": {"add": ["NET_ADMIN"], "drop": ["MKNOD"]}, "initProcessEnabled": true,
                    "sharedMemorySize": 64, "tmpfs": [{"containerPath": "/run", "size": 16}],
                },
                "logConfiguration": {"logDriver": "awslogs",
                    "options": {"awslogs-group": "app", "awslogs-stream-prefix": "web"}},
            },
            {"name": "db", "image": "db:1", "memory": 64, "essential": false},
        ],
    });
    world.call::<ecs::CreateCluster>(json!({"clusterName": "default"})).await;
    let registered = world.call::<ecs::RegisterTaskDefinition>(definition).await.task_definition.unwrap();
    let attributes: Vec<Value> = registered
        .requires_attributes
        .unwrap()
        .iter()
        .map(|attribute| json!({"name": attribute.name}))
        .collect();
    let instance = world
        .call::<ecs::RegisterContainerInstance>(json!({
            "cluster": "default", "attributes": attributes,
            "totalResources": [
                {"name": "CPU", "type": "INTEGER", "integerValue": 4096},
                {"name": "MEMORY", "type": "INTEGER", "integerValue": 7800},
            ],
        }))
        .await;
    let instance = instance.container_instance.unwrap().container_instance_arn.unwrap();
    let mut socket = world.connect(&instance).await;
    let listed = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap().into_text().unwrap();
    assert_eq!(Frame::open(&listed).unwrap().kind, "TaskManifestMessage", "now it counts as connected");
    let ran = world.call::<ecs::RunTask>(json!({"taskDefinition": "full"})).await;
    assert_eq!(ran.failures.unwrap_or_default(), []);
    let arn = ran.tasks.unwrap()[0].task_arn.clone().unwrap();

    let task = payload(&mut socket).await.remove(0);
    assert_eq!((task.spec.arn.0.as_str(), task.desired), (arn.as_str(), DesiredStatus::Running));
    assert_eq!((task.spec.network_mode, task.spec.waits_for_resources), (NetworkMode::Bridge, true));
    // A reservation goes before a limit.
    assert_eq!((task.spec.cpu, task.spec.memory), (128, 100 + 64));
    assert_eq!(task.spec.host_ports, [HostPort { protocol: TransportProtocol::Tcp, port: 8080 }]);
    let [app, db] = &task.spec.containers[..] else { panic!("{:?}", task.spec.containers) };
    assert_eq!((app.essential, db.essential), (true, false));
    assert_eq!(app.start_timeout, Some(Duration::from_secs(30)));
    assert_eq!(app.stop_timeout, Some(Duration::from_secs(7)));
    let waits: Vec<_> = app.depends_on.iter().map(|on| (on.container.as_str(), on.condition)).collect();
    assert_eq!(waits, [("db", ContainerCondition::Complete)]);
    let config = &task.containers["app"].config;
    assert_eq!((config.user.as_deref(), config.working_dir.as_deref()), (Some("1000"), Some("/srv")));
    assert_eq!(config.hostname.as_deref(), Some("blue"));
    assert_eq!(config.labels.as_ref().unwrap()["team"], "red");
    let host = &task.containers["app"].host_config;
    assert_eq!((host.readonly_rootfs, host.privileged, host.init), (Some(true), Some(false), Some(true)));
    assert_eq!(host.dns.as_deref().unwrap(), ["10.0.0.2"]);
    assert_eq!(host.extra_hosts.as_deref().unwrap(), ["cache:10.0.0.9"]);
    let limit = &host.ulimits.as_ref().unwrap()[0];
    assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("nofile", 1024, 4096));
    assert_eq!(host.sysctls.as_ref().unwrap()["net.core.somaxconn"], "1024");
    assert_eq!(host.cap_add.as_deref().unwrap(), ["NET_ADMIN"]);
    assert_eq!(host.cap_drop.as_deref().unwrap(), ["MKNOD"]);
    assert_eq!((host.shm_size, host.memory_reservation), (Some(64 << 20), Some(100 << 20)));
    assert_eq!(host.tmpfs.as_ref().unwrap()["/run"], "size=16m");
    let log = host.log_config.as_ref().unwrap();
    let stream = format!("web/app/{}", arn.rsplit('/').next().unwrap());
    assert_eq!(log.driver.as_deref(), Some("awslogs"));
    assert_eq!(log.config.as_ref().unwrap()["awslogs-stream"], stream);

    world.call::<ecs::StopTask>(json!({"task": arn})).await;
    let stop = payload(&mut socket).await.remove(0);
    assert_eq!((stop.spec.arn, stop.desired), (task.spec.arn, DesiredStatus::Stopped));
    world.server.shutdown().await.unwrap();
}
