//! What an agent tells of its tasks over the telemetry connection: what they use, how healthy they are, and that the
//! container runtime works. The stock agent's messages at the stock agent's times; a change of health does not wait.

mod metrics;
mod usage;

#[cfg(test)]
pub use usage::Traffic;
pub use usage::{Sample, Usage, cores};

use crate::agent::{INCOMING_MAX, OUTGOING_MAX, OsRandom, VERSION, plain, poll_endpoints};
use crate::channel::{self, Incoming, Target};
use crate::driver::{Asked, Hands, TaskSnapshot};
use crate::protocol::backoff::Growth;
use crate::runtime::Runtime;
use crate::state::Instance;
use gantry_api::tcs;
use gantry_decide::ids::RequestId;
use gantry_decide::task_engine::KnownStatus;
use gantry_wire::EpochMillis;
use gantry_wire::envelope::{Frame, seal, seal_signed};
use metrics::Reported;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

/// Between reports, as with the stock agent.
const REPORT_EVERY: Duration = Duration::from_secs(20);
/// Between two looks at a container. The stock agent looks every second; four looks in a report cost a host with five
/// hundred containers some percent of a core less, and show as much.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Tasks in one message: the control plane takes no more.
const TASKS_PER_MESSAGE: usize = 10;

/// Keeps the telemetry connection, and reports on it.
pub async fn keep<R: Runtime>(hands: Arc<Hands<R>>, instance: Instance) {
    let (incoming, mut messages) = mpsc::channel(INCOMING_MAX);
    let (outgoing, to_send) = mpsc::channel(OUTGOING_MAX);
    let target = {
        let (hands, instance) = (Arc::clone(&hands), instance.clone());
        move |_first| {
            let (hands, instance) = (Arc::clone(&hands), instance.clone());
            async move {
                let found = poll_endpoints(&hands.client, &hands.config, &instance).await?;
                let query = form_urlencoded::Serializer::new(String::new())
                    .append_pair("agentHash", "gantry")
                    .append_pair("agentVersion", VERSION)
                    .append_pair("cluster", &hands.config.cluster)
                    .append_pair("containerInstance", &instance.container_instance_arn)
                    .append_pair("dockerVersion", &hands.runtime.version())
                    .finish();
                let base = found.telemetry_endpoint.unwrap_or_default();
                Ok(Target { base, query: plain(&query), growth: Growth::TCS })
            }
        }
    };
    let client = hands.client.clone();
    let connection = channel::keep("tcs", client, None, Box::new(OsRandom), target, incoming, to_send);
    let mut reporter =
        Reporter { hands: Arc::clone(&hands), instance, outgoing, reported: Reported::default() };
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut report = interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    None => return,
                    Some(Incoming::Connected) => {
                        reporter.status().await;
                        reporter.metrics().await;
                        reporter.health().await;
                    }
                    Some(Incoming::Text(text)) => {
                        if Frame::open(&text).is_some_and(|frame| frame.kind == "HeartbeatMessage") {
                            reporter.status().await;
                        }
                    }
                },
                _ = look.tick() => reporter.look().await,
                _ = report.tick() => {
                    reporter.metrics().await;
                    reporter.health().await;
                }
                () = hands.health_news.notified() => reporter.health().await,
            }
        }
    };
    tokio::select! {
        () = connection => {}
        () = work => {}
    }
}

struct Reporter<R> {
    hands: Arc<Hands<R>>,
    instance: Instance,
    outgoing: mpsc::Sender<String>,
    reported: Reported,
}

impl<R: Runtime> Reporter<R> {
    /// Looks what the running containers use.
    async fn look(&self) {
        let tasks = self.hands.ask(Asked::Running).await;
        let mut running = BTreeMap::new();
        for task in &tasks {
            let containers = task.containers.iter().filter(|one| one.status == KnownStatus::Running);
            running.extend(containers.map(|one| (one.id.clone(), task.pid_of_own_network(one))));
        }
        for (id, pid) in &running {
            self.hands.usage.sample(id, *pid).await;
            // Each look reads a dozen small files; others have their turn in between.
            tokio::task::yield_now().await;
        }
        self.hands.usage.retain(|id| running.contains_key(id));
    }

    async fn metrics(&mut self) {
        let tasks = self.hands.ask(Asked::Running).await;
        let all = self.reported.since_last(&self.hands.usage, &tasks);
        let message_id = RequestId::random(&mut OsRandom).to_string();
        let idle = all.is_empty();
        let mut messages: Vec<_> = all.chunks(TASKS_PER_MESSAGE).map(<[_]>::to_vec).collect();
        if idle {
            messages.push(Vec::new());
        }
        let last = messages.len() - 1;
        for (index, tasks) in messages.into_iter().enumerate() {
            let message = tcs::PublishMetricsRequest {
                metadata: Some(tcs::MetricsMetadata {
                    cluster: Some(self.hands.config.cluster.clone()),
                    container_instance: Some(self.instance.container_instance_arn.clone()),
                    idle: Some(idle),
                    message_id: Some(message_id.clone()),
                    fin: Some(index == last),
                }),
                task_metrics: Some(tasks).filter(|tasks| !tasks.is_empty()),
                timestamp: now(),
            };
            self.send("PublishMetricsRequest", &message);
        }
    }

    /// Tells the health of containers that are checked; nothing when there are none.
    async fn health(&self) {
        let tasks: Vec<_> = self.hands.ask(Asked::Running).await.iter().filter_map(health).collect();
        let message_id = RequestId::random(&mut OsRandom).to_string();
        let messages = tasks.chunks(TASKS_PER_MESSAGE);
        let last = messages.len();
        for (index, tasks) in messages.enumerate() {
            let message = tcs::PublishHealthRequest {
                metadata: Some(tcs::HealthMetadata {
                    cluster: Some(self.hands.config.cluster.clone()),
                    container_instance: Some(self.instance.container_instance_arn.clone()),
                    message_id: Some(message_id.clone()),
                    fin: Some(index + 1 == last),
                }),
                tasks: Some(tasks.to_vec()),
                timestamp: now(),
            };
            self.send("PublishHealthRequest", &message);
        }
    }

    /// Tells whether the container runtime works.
    async fn status(&self) {
        let status = if self.hands.runtime.is_well().await { "OK" } else { "IMPAIRED" };
        let message = tcs::PublishInstanceStatusRequest {
            metadata: Some(tcs::InstanceStatusMetadata {
                cluster: Some(self.hands.config.cluster.clone()),
                container_instance: Some(self.instance.container_instance_arn.clone()),
                request_id: None,
            }),
            statuses: Some(vec![tcs::InstanceStatus {
                type_: Some("ContainerRuntime".to_owned()),
                status: Some(status.to_owned()),
                last_updated: now(),
                last_status_change: None,
            }]),
            timestamp: now(),
        };
        self.send("PublishInstanceStatusRequest", &message);
    }

    fn send(&self, kind: &str, message: &dyn gantry_wire::Structure) {
        let envelope = seal(kind, message);
        let host = "telemetry";
        let headers = self.hands.client.sign_message(host, "/tcs/ws", "", envelope.as_bytes());
        let all = headers.iter().map(|(name, value)| (*name, value.as_str())).chain([("host", host)]);
        // No connection, no news.
        let _ = self.outgoing.try_send(seal_signed(all, &envelope));
    }
}

fn health(task: &TaskSnapshot) -> Option<tcs::TaskHealth> {
    let containers = task.containers.iter().filter_map(|container| {
        let health = container.health.as_ref()?;
        Some(tcs::ContainerHealth {
            container_name: Some(container.name.clone()),
            health_status: Some(health.status.as_str().to_owned()),
            status_since: Some(EpochMillis(health.since.as_millis())),
        })
    });
    let containers: Vec<_> = containers.collect();
    let payload = task.known.task();
    (!containers.is_empty()).then(|| tcs::TaskHealth {
        task_arn: Some(task.arn.0.clone()),
        task_definition_family: payload.family.clone(),
        task_definition_version: payload.version.clone(),
        containers: Some(containers),
    })
}

fn now() -> Option<EpochMillis> {
    Some(EpochMillis(crate::driver::now().as_millis()))
}
