//! The loop that drives the task engine: what happened goes in, what is to be done comes out.
//!
//! One task owns the engine; everything that takes time happens beside it and reports back through one bounded queue.

mod actions;
pub mod container;
mod hands;
mod known;
mod links;
mod messages;
pub mod pulls;
pub mod reach;
pub mod resolv;
mod saver;
mod seed;
mod snapshot;
mod stop_signal;
pub mod volumes;

pub use hands::{Hands, Tools};
pub use known::Known;
pub use saver::Saver;
pub use snapshot::{Asked, ContainerSnapshot, TaskSnapshot};

use crate::endpoints::Owner;
use crate::firelens;
use crate::health;
use crate::images::{Digest, LocalImage, Source};
use crate::lease::Lease;
use crate::network::{Bridged, TaskInterface};
use crate::protocol::manifest::Manifests;
use crate::runtime::{ContainerId, Runtime, RuntimeError, State};
use crate::secrets::log_options;
use crate::state::{Instance, SavedTask};
use container::{container_id, log_driver, log_path, pause_id, task_id};
use gantry_decide::task::NetworkMode;
use gantry_decide::task_engine::{
    Action, Event, Found, Health, NetworkBinding, PullTimes, Signal, Task, TaskArn, TaskEngine, TaskPhase,
};
use gantry_decide::time::Timestamp;
use gantry_wire::json;
use hands::Held;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Events that may wait. Who has one waits with it.
pub const EVENTS_MAX: usize = 1024;
/// What a task takes beyond its stop time-out when everything is to be stopped.
const STOP_SLACK: Duration = Duration::from_secs(15);
/// Terminals open at once on this host. ECS allows a thousand for one container; each is a process and a connection.
const EXEC_SESSIONS_MAX: usize = 256;
/// No timer: far enough away.
const IDLE: Duration = Duration::from_secs(3600);

/// What comes back to the loop.
pub enum Input {
    Event(Event),
    Image {
        task: TaskArn,
        container: String,
        image: Box<LocalImage>,
        pull: Option<PullTimes>,
    },
    Launched {
        task: TaskArn,
        container: String,
        pid: i32,
        bridged: Option<Bridged>,
        bindings: Vec<NetworkBinding>,
    },
    /// A health check's result. `life` counts the container's restarts: news of an earlier one come too late.
    Checked {
        task: TaskArn,
        container: String,
        life: u32,
        report: health::Report,
    },
    Asked(Asked, oneshot::Sender<Vec<TaskSnapshot>>),
}

/// What the loop keeps of a task beside the engine's own.
#[derive(Default)]
struct Entry {
    known: Option<Arc<Known>>,
    /// As it came, for the disk.
    payload: Option<String>,
    images: BTreeMap<String, Arc<LocalImage>>,
    /// The images of containers that an earlier run made, by the digest of their configuration.
    earlier_images: BTreeMap<String, Digest>,
    /// Of containers whose images say by which they end.
    stop_signals: BTreeMap<String, i32>,
    bridged: BTreeMap<String, Bridged>,
    /// By which containers ask their agent; nobody can guess them.
    keys: BTreeMap<String, String>,
    /// The first processes of containers that were started.
    pids: BTreeMap<String, i32>,
    health: BTreeMap<String, health::Report>,
    checks: BTreeMap<String, Held>,
    /// Containers that are being removed.
    removals: Vec<JoinHandle<()>>,
}

impl Entry {
    pub(in crate::driver) fn image_digests(&self) -> BTreeMap<String, Digest> {
        let mut digests = self.earlier_images.clone();
        digests.extend(self.images.iter().map(|(name, image)| (name.clone(), image.config_digest)));
        digests
    }
}

/// See the module.
pub struct Driver<R> {
    engine: TaskEngine,
    hands: Arc<Hands<R>>,
    inbox: mpsc::Receiver<Input>,
    saver: Saver,
    tasks: BTreeMap<TaskArn, Entry>,
    instance: Instance,
    manifests: Manifests,
    /// To the control plane; full or closed means that there is no connection to speak of.
    acs: mpsc::Sender<String>,
    wake: Option<Instant>,
    exec_sessions: Arc<Semaphore>,
}

/// How the loop was asked to end.
pub enum Ending {
    Leave,
    StopAll,
}

impl<R: Runtime> Driver<R> {
    pub fn new(
        engine: TaskEngine,
        (hands, inbox): (Arc<Hands<R>>, mpsc::Receiver<Input>),
        saver: Saver,
        instance: Instance,
        acs: mpsc::Sender<String>,
    ) -> Driver<R> {
        let manifests = Manifests::new(instance.timeline);
        Driver {
            engine,
            hands,
            inbox,
            saver,
            tasks: BTreeMap::new(),
            instance,
            manifests,
            acs,
            wake: None,
            exec_sessions: Arc::new(Semaphore::new(EXEC_SESSIONS_MAX)),
        }
    }

    /// Takes up what an earlier run left: its tasks, and the containers that the runtime knows. Containers of no task
    /// are removed.
    ///
    /// # Errors
    /// When the runtime cannot tell its containers.
    pub async fn recover(&mut self, saved: Vec<SavedTask>) -> Result<(), RuntimeError> {
        let mut containers: BTreeMap<ContainerId, State> =
            self.hands.runtime.list().await?.into_iter().collect();
        let mut held = Some(Vec::new());
        let docker_runs = self.hands.config.runtime.is_docker();
        for SavedTask { task, payload, bridged, keys, images, stop_signals } in saved {
            let arn = task.spec.arn.clone();
            let known = payload.as_deref().and_then(|payload| Known::read(payload).ok()).map(Arc::new);
            let mut entry = Entry {
                known,
                payload,
                bridged,
                keys,
                earlier_images: images,
                stop_signals,
                ..Entry::default()
            };
            if task.phase != TaskPhase::Stopped {
                containers.remove(&pause_id(&arn));
            }
            let mut found = BTreeMap::new();
            for container in &task.spec.containers {
                let id = container_id(&arn, &container.name);
                let Some(state) = containers.get(&id).copied() else { continue };
                if docker_runs && matches!(state, State::Running(_)) {
                    // Its address may be another since the engine was started again.
                    let bridged = self.hands.runtime.bridged(&id).await.ok();
                    entry.bridged.extend(bridged.map(|bridged| (container.name.clone(), bridged)));
                }
                let lost = matches!(state, State::Running(_))
                    && task.spec.network_mode == NetworkMode::Bridge
                    && !entry.bridged.contains_key(&container.name);
                if lost {
                    // It ran before its network was written down, which is gone now.
                    continue;
                }
                containers.remove(&id);
                held = held.zip(entry.earlier_images.get(&container.name)).map(|(mut held, image)| {
                    held.push((task_id(&arn), *image));
                    held
                });
                if let State::Running(started) = state {
                    entry.pids.insert(container.name.clone(), started.pid);
                }
                let payload = entry.known.as_ref().and_then(|known| known.container(&container.name));
                let bindings = payload.map_or_else(Vec::new, |payload| {
                    reach::bindings(task.spec.network_mode, payload, entry.bridged.get(&container.name))
                });
                let runtime_id = self.hands.runtime.runtime_id(&id);
                found.insert(
                    container.name.clone(),
                    match state {
                        State::Running(_) => Found::Running { runtime_id, bindings },
                        State::Exited(exit) => Found::Exited { runtime_id, exit },
                    },
                );
            }
            let running: Vec<String> = found
                .iter()
                .filter(|(_, f)| matches!(f, Found::Running { .. }))
                .map(|(name, _)| name.clone())
                .collect();
            tracing::info!(task = %arn, running = running.len(), "a task of an earlier run is taken up");
            let mut namespaces: Vec<String> =
                entry.bridged.keys().map(|name| container_id(&arn, name).to_string()).collect();
            if task.spec.network_mode == NetworkMode::Awsvpc {
                namespaces.push(task_id(&arn));
            }
            if docker_runs && task.spec.network_mode == NetworkMode::Bridge {
                namespaces.clear();
                if !running.is_empty() {
                    tokio::spawn(actions::listen_on_bridge_again(Arc::clone(&self.hands)));
                }
            }
            if !running.is_empty() {
                for key in namespaces {
                    tokio::spawn(actions::listen_again(
                        Arc::clone(&self.hands),
                        key,
                        Owner::Task(arn.clone()),
                    ));
                }
            }
            self.tasks.insert(arn.clone(), entry);
            for (name, state) in &found {
                self.follow_log(&arn, name);
                if matches!(state, Found::Exited { .. }) {
                    self.hands.logs.ended(&task_id(&arn), name);
                }
            }
            self.step(Event::Recovered { task: Box::new(task), containers: found });
            for name in running {
                self.keep_checking(&arn, &name);
                tokio::spawn(actions::watch(Arc::clone(&self.hands), arn.clone(), name));
            }
        }
        // One container whose image is not known is enough: it may be of any that was held.
        if let Some(held) = held {
            self.hands.images.settle(&held);
        }
        for id in containers.into_keys() {
            tracing::warn!(container = %id, "a container of no task is removed");
            self.hands.runtime.remove(&id).await?;
        }
        Ok(())
    }

    /// Drives until `ending` resolves.
    pub async fn run(
        &mut self,
        mut messages: mpsc::Receiver<crate::channel::Incoming>,
        lease: Option<&Lease>,
        ending: impl Future<Output = Ending>,
        mut told: impl FnMut(),
    ) {
        let mut ending = std::pin::pin!(ending);
        // Until when the end of tasks whose lease is over is waited for.
        let mut settles_by: Option<Instant> = None;
        loop {
            // Before anything else is begun: what was heard on a lease that is over counts no more.
            if settles_by.is_none() && lease.is_some_and(Lease::has_run_out) {
                tracing::error!("the lease on the tasks of this host is over: they end");
                settles_by = Some(Instant::now() + crate::lease::SETTLE_MAX);
                self.request_all_stops();
            }
            if let (Some(lease), Some(by)) = (lease, settles_by)
                && (Instant::now() >= by || self.engine.tasks().all(|task| task.phase == TaskPhase::Stopped))
            {
                lease.settled();
                settles_by = None;
            }
            let wake = self.wake.unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = run_out(lease), if settles_by.is_none() => {}
                () = tokio::time::sleep_until(settles_by.unwrap_or(wake)), if settles_by.is_some() => {}
                input = self.inbox.recv() => if let Some(input) = input { self.take(input) },
                message = messages.recv() => match message {
                    Some(crate::channel::Incoming::Connected) => tracing::info!("connected to the control plane"),
                    Some(crate::channel::Incoming::Text(text)) => {
                        if self.message(&text) {
                            told();
                        }
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => {
                    self.wake = None;
                    self.step(Event::Tick);
                }
                ending = &mut ending => match ending {
                    Ending::Leave => return,
                    Ending::StopAll => return self.stop_all().await,
                }
            }
        }
    }

    fn request_all_stops(&mut self) {
        let arns: Vec<TaskArn> = self.engine.tasks().map(|task| task.spec.arn.clone()).collect();
        for task in arns {
            self.step(Event::StopRequested { task });
        }
    }

    /// Says something on the connection to the control plane, if there is one.
    pub fn say(&self, text: String) {
        let _ = self.acs.try_send(text);
    }

    /// Stops every task, waits until the control plane knows, and removes all containers. Bounded in time.
    async fn stop_all(&mut self) {
        let deadline = Instant::now() + self.hands.config.stop_timeout + STOP_SLACK;
        self.request_all_stops();
        while self.engine.tasks().any(|task| task.phase != TaskPhase::Stopped || !task.is_told()) {
            let wake = self.wake.unwrap_or(deadline).min(deadline);
            tokio::select! {
                input = self.inbox.recv() => if let Some(input) = input { self.take(input) },
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= deadline {
                        tracing::warn!("not every task stopped in time; what is left is removed");
                        break;
                    }
                    self.wake = None;
                    self.step(Event::Tick);
                }
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.step(event),
            Input::Image { task, container, image, pull } => {
                // One that no registry gave has no digest that another host would find it by.
                let known = image.source == Source::Pulled;
                let digest = known.then(|| image.digest.to_string());
                if let Some(entry) = self.tasks.get_mut(&task) {
                    // One that there is none of is told when the container is to start.
                    let signal = stop_signal::of(&image.config).ok().flatten();
                    entry.stop_signals.extend(signal.map(|signal| (container.clone(), signal)));
                    entry.images.insert(container.clone(), Arc::from(image));
                }
                self.step(Event::ImageReady { task, container, digest, pull });
            }
            Input::Launched { task, container, pid, bridged, bindings } => {
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.bridged.extend(bridged.map(|bridged| (container.clone(), bridged)));
                    entry.pids.insert(container.clone(), pid);
                }
                let runtime_id = self.hands.runtime.runtime_id(&container_id(&task, &container));
                let (arn, name) = (task.clone(), container.clone());
                self.follow_log(&arn, &name);
                self.step(Event::ContainerStarted { task, container, runtime_id, bindings });
                self.keep_checking(&arn, &name);
                tokio::spawn(actions::watch(Arc::clone(&self.hands), arn, name));
            }
            Input::Checked { task, container, life, report } => {
                let known = self.engine.task(&task).and_then(|known| known.container(&container));
                if known.is_none_or(|known| known.restarts != life) {
                    return;
                }
                let (health, known_health) = (report.status, known.map(|known| known.health));
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.health.insert(container.clone(), report);
                }
                if known_health != Some(health) {
                    self.step(Event::HealthChanged { task, container, health });
                    self.hands.health_news.notify_one();
                }
            }
            // Who asked may have gone.
            Input::Asked(asked, reply) => drop(reply.send(self.describe(&asked))),
        }
    }

    /// Sends what a container writes to where its log driver says.
    fn follow_log(&self, task: &TaskArn, name: &str) {
        let Some(known) = self.known(task) else { return };
        let (config, id, container) = (&self.hands.config, task_id(task), name.to_owned());
        let log = log_path(&config.data_dir, task, name);
        let runtime_id = self.hands.runtime.runtime_id(&container_id(task, name));
        let fetches = known.container(name).is_some_and(|container| log_options(container).next().is_some());
        if fetches && !firelens::is_routed(known.log(name)) {
            let hands = Arc::clone(&self.hands);
            let driver = actions::log_driver(hands, Arc::clone(&known), task.clone(), container.clone());
            self.hands.logs.follow_once(id, container, log, driver);
        } else if let Ok(driver) = log_driver(config, &known, task, (name, &runtime_id), None) {
            // One that cannot be read was refused when the container was to be launched.
            self.hands.logs.follow(id, container, log, driver);
        }
    }

    /// Checks the health of a container that runs, if it has a check, until it ends.
    fn keep_checking(&mut self, task: &TaskArn, name: &str) {
        let Some(check) = self.known(task).and_then(|known| known.check(name)) else { return };
        let Some(container) = self.engine.task(task).and_then(|known| known.container(name)) else { return };
        let Some(started_at) = container.restarted_at.or(container.started_at) else { return };
        let (life, health) = (container.restarts, Health::resume(started_at, container.health));
        let (hands, runtime, id) =
            (Arc::clone(&self.hands), self.hands.runtime.clone(), container_id(task, name));
        let (arn, container) = (task.clone(), name.to_owned());
        let checking = tokio::spawn(async move {
            let tell = |report| {
                hands.tell(Input::Checked { task: arn.clone(), container: container.clone(), life, report })
            };
            health::keep_checking(runtime, id, check, health, tell).await;
        });
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.checks.insert(name.to_owned(), Held(checking.abort_handle()));
        }
    }

    fn step(&mut self, event: Event) {
        for action in self.engine.step(now(), event) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        let hands = Arc::clone(&self.hands);
        match action {
            Action::Persist { task } => {
                if let Some(saved) = self.saved(&task) {
                    self.saver.save(saved);
                }
            }
            Action::PrepareImage { task, container } => {
                let known = self.known(&task);
                tokio::spawn(actions::prepare_image(hands, task, container, known));
            }
            Action::SetUpNetwork { task } => {
                if let Some(known) = self.known(&task) {
                    tokio::spawn(actions::set_up_network(hands, task, known));
                }
            }
            Action::Launch { task, container } => {
                let Some(entry) = self.tasks.get(&task) else { return };
                if let (Some(known), Some(image)) =
                    (entry.known.clone(), entry.images.get(&container).cloned())
                {
                    let images = entry.images.clone();
                    let key = entry.keys.get(&container).cloned();
                    let start = actions::Launch { known, image, images, key, others: entry.bridged.clone() };
                    // What runs is known after any end of the agent: a task that nobody remembers would be removed,
                    // and run once more.
                    self.once_saved(actions::launch(hands, task, container, start));
                }
            }
            Action::Restart { task, container } => {
                let bindings = self.engine.task(&task).and_then(|known| known.container(&container));
                let bindings = bindings.map(|known| known.bindings.to_vec()).unwrap_or_default();
                tokio::spawn(actions::restart(hands, task, container, bindings));
            }
            Action::Signal { task, container, signal } => self.signal(&task, &container, signal),
            Action::TearDownNetwork { task } => {
                let entry = self.tasks.get(&task);
                let mode = entry.and_then(|entry| Some(entry.known.as_ref()?.mode()));
                let keys = match (mode, entry) {
                    (Some(NetworkMode::Awsvpc), _) => vec![task_id(&task)],
                    (Some(NetworkMode::Bridge), Some(entry)) => {
                        entry.bridged.keys().map(|name| container_id(&task, name).to_string()).collect()
                    }
                    _ => Vec::new(),
                };
                let known = self.known(&task);
                tokio::spawn(actions::tear_down_network(hands, task, keys, known));
            }
            Action::RemoveContainer { task, container } => {
                let id = container_id(&task, &container);
                let removal = tokio::spawn(async move { actions::remove(&hands.runtime, &id).await });
                if let Some(entry) = self.tasks.get_mut(&task) {
                    entry.removals.push(removal);
                }
            }
            Action::Submit(submission) => {
                self.once_saved(actions::submit(hands, submission));
            }
            Action::Forget { task } => {
                let removals = self.tasks.remove(&task).map(|entry| entry.removals).unwrap_or_default();
                self.saver.forget(task.clone());
                tokio::spawn(actions::forget(hands, task, removals));
            }
            Action::WakeAt(at) => {
                let wait = u64::try_from(at.as_millis() - now().as_millis()).unwrap_or(0);
                self.wake = Some(Instant::now() + Duration::from_millis(wait));
            }
        }
    }

    /// Does what must not be done, or told, before all that led to it is on the disk. An agent that cannot save ends.
    fn once_saved(&self, work: impl Future<Output = ()> + Send + 'static) {
        let saver = self.saver.clone();
        tokio::spawn(async move {
            if saver.saved().await {
                work.await;
            }
        });
    }

    fn signal(&self, task: &TaskArn, container: &str, signal: Signal) {
        let own = self.tasks.get(task).and_then(|entry| entry.stop_signals.get(container));
        let number = match signal {
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => own.copied().unwrap_or(libc::SIGTERM),
        };
        let (hands, id) = (Arc::clone(&self.hands), container_id(task, container));
        let known = self.known(task);
        let router = known.as_ref().and_then(|known| firelens::router(known.task())?.name.as_deref());
        let settle = (signal == Signal::Stop && router == Some(container)).then(|| task_id(task));
        tokio::spawn(async move {
            if let Some(task) = settle {
                hands.logs.settle(&task).await;
            }
            if let Err(error) = hands.runtime.signal(&id, number).await {
                tracing::warn!(container = %id, %error, "a container cannot be signalled");
            }
        });
    }

    fn known(&self, task: &TaskArn) -> Option<Arc<Known>> {
        self.tasks.get(task).and_then(|entry| entry.known.clone())
    }

    fn saved(&self, task: &TaskArn) -> Option<SavedTask> {
        let state: &Task = self.engine.task(task)?;
        let entry = self.tasks.get(task);
        Some(SavedTask {
            task: state.clone(),
            payload: entry.and_then(|entry| entry.payload.clone()),
            bridged: entry.map(|entry| entry.bridged.clone()).unwrap_or_default(),
            keys: entry.map(|entry| entry.keys.clone()).unwrap_or_default(),
            images: entry.map(Entry::image_digests).unwrap_or_default(),
            stop_signals: entry.map(|entry| entry.stop_signals.clone()).unwrap_or_default(),
        })
    }
}

/// Resolves when a lease is over.
async fn run_out(lease: Option<&Lease>) {
    match lease {
        Some(lease) => lease.run_out().await,
        None => std::future::pending().await,
    }
}

/// The networks that saved tasks still use: by container in bridge mode, and of the tasks those in awsvpc mode.
pub fn networks_of(
    saved: &[SavedTask],
) -> (BTreeMap<String, Bridged>, BTreeMap<String, Option<TaskInterface>>) {
    let mut bridged = BTreeMap::new();
    let mut tasks = BTreeMap::new();
    for saved in saved.iter().filter(|saved| saved.task.phase != TaskPhase::Stopped) {
        let arn = &saved.task.spec.arn;
        let payload = saved.payload.as_deref().and_then(|text| json::from_slice(text.as_bytes()).ok());
        let interface = payload.as_ref().and_then(reach::interface);
        tasks.insert(task_id(arn), interface.map(|(interface, _)| interface));
        bridged.extend(
            saved
                .bridged
                .iter()
                .map(|(name, bridged)| (container_id(arn, name).to_string(), bridged.clone())),
        );
    }
    (bridged, tasks)
}

pub fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}
