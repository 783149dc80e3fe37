//! The control engine behind the endpoint: reads run on the published snapshot, on the caller's own task and without
//! a lock; writes go to the writer loop and are answered once durable.

use crate::agents::{self, Agents};
use crate::balancers::Balancers;
use crate::endpoint::{self, Answer, Answered, ReadRequest, Services};
use crate::exec::{self, DataChannels};
use crate::live_tail;
use crate::logs::{Keep, LogStore};
use crate::objects::{Fetcher, ObjectSource};
use crate::os;
use crate::transport::Response;
use crate::writer::{Inbox, Machine, Rejected, Step};
use arc_swap::ArcSwap;
use gantry_control::bulk::logs::Request as LogsRequest;
use gantry_control::bulk::{self, Plan};
use gantry_control::call::Call;
use gantry_control::engine::{CallId, Effect, Engine, EngineStatus, Input, Write};
use gantry_control::feed;
use gantry_control::fetch::Fetch;
use gantry_control::service::{Prepared, Reply};
use gantry_control::services::{SERVICES, elbv2, logs, ssm};
use gantry_control::state::State;
use gantry_control::tx::View;
use gantry_decide::ids::Scope;
use gantry_decide::routing::channel;
use gantry_decide::routing::config::RoutingConfig;
use gantry_decide::time::Timestamp;
use gantry_wire::{ApiError, ServiceModel};
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};

impl Machine for Engine {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Timestamp, inputs: Vec<Input>) -> Vec<Step<Effect>> {
        let effects = Engine::step(self, now, inputs).into_iter();
        effects
            .map(|effect| match effect {
                Effect::Persist(batch) => Step::Persist(batch),
                Effect::WakeAt(at) => Step::WakeAt(at),
                other => Step::Perform(other),
            })
            .collect()
    }

    fn durable(seq: u64) -> Input {
        Input::Durable(seq)
    }

    fn tick() -> Input {
        Input::Tick
    }
}

/// What callers and the writer's thread share.
pub struct Shared {
    snapshot: ArcSwap<State>,
    /// Callers that wait. Bounded by the writer's inbox.
    waiting: Mutex<HashMap<CallId, oneshot::Sender<Reply>>>,
    inquiring: Mutex<HashMap<CallId, oneshot::Sender<EngineStatus>>>,
    agents: Arc<Agents>,
    /// What balancers are told.
    routing: watch::Sender<Arc<RoutingConfig>>,
    /// Tells that another snapshot was published.
    publications: watch::Sender<()>,
    /// Tells what has no end of its own that the server ends.
    ending: watch::Sender<()>,
}

impl Shared {
    pub fn new(state: State) -> Arc<Shared> {
        let snapshot = ArcSwap::from_pointee(state);
        let (waiting, inquiring) = Default::default();
        let (routing, _) = watch::channel(Arc::default());
        let (publications, _) = watch::channel(());
        let (ending, _) = watch::channel(());
        let agents = Arc::default();
        Arc::new(Shared { snapshot, waiting, inquiring, agents, routing, publications, ending })
    }

    /// What the store of log events is to keep, by the state at the time of asking: log groups as they say, events of
    /// the feed for `feed_retention`.
    pub fn keep_log_events(self: &Arc<Self>, feed_retention: Duration) -> Keep {
        let shared = Arc::clone(self);
        Box::new(move || {
            let (state, now) = (shared.snapshot.load(), os::now());
            let mut kept = logs::links::kept_events(&state, now);
            kept.extend(feed::kept(&state, now, feed_retention));
            kept
        })
    }

    /// The state as published last.
    pub fn published(&self) -> Arc<State> {
        self.snapshot.load_full()
    }

    /// What balancers are told, as it changes.
    pub fn routing(&self) -> watch::Receiver<Arc<RoutingConfig>> {
        self.routing.subscribe()
    }

    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Tells of every snapshot that is published from now on.
    pub(crate) fn publications(&self) -> watch::Receiver<()> {
        self.publications.subscribe()
    }

    /// Resolves when the server ends.
    pub(crate) fn ending(&self) -> watch::Receiver<()> {
        self.ending.subscribe()
    }

    /// Closes what has no end of its own.
    pub fn end(&self) {
        self.agents.close_all();
        self.ending.send_replace(());
    }

    /// The answer to a call that is about to be handed over.
    pub(crate) fn expect(&self, id: CallId) -> oneshot::Receiver<Reply> {
        let (caller, reply) = oneshot::channel();
        self.waiting.lock().insert(id, caller);
        reply
    }

    /// Performs the engine's effects, on the writer's thread.
    pub fn perform(&self, effect: Effect) {
        match effect {
            Effect::Publish(state) => {
                self.snapshot.store(Arc::new(state));
                self.publications.send_replace(());
            }
            Effect::Reply { id, reply } => {
                if let Some(caller) = self.waiting.lock().remove(&id) {
                    // The caller may have hung up.
                    let _ = caller.send(reply);
                }
            }
            Effect::Status { id, status } => {
                if let Some(caller) = self.inquiring.lock().remove(&id) {
                    // As above.
                    let _ = caller.send(status);
                }
            }
            Effect::Session { id, output } => self.agents.perform(id, output),
            Effect::Route(config) => drop(self.routing.send_replace(config)),
            Effect::Persist(_) | Effect::WakeAt(_) => unreachable!("the writer loop keeps these"),
        }
    }

    /// Nothing more will be answered: callers that wait, and agents, are told so.
    pub fn abandon(&self) {
        self.waiting.lock().clear();
        self.inquiring.lock().clear();
        self.end();
    }
}

/// Reads of bulk data at the same time; others wait. Each unpacks a block and gathers a page of a MiB or two, and keeps a
/// core busy.
const BULK_READS_MAX: usize = 8;

/// The services of one cell.
pub struct Cell {
    shared: Arc<Shared>,
    inbox: Inbox<Input>,
    next_call: AtomicU64,
    models: Vec<&'static ServiceModel>,
    data_channels: Arc<DataChannels>,
    balancers: Arc<Balancers>,
    log_events: Arc<LogStore>,
    bulk_reads: Arc<Semaphore>,
    fetcher: Fetcher,
}

impl Cell {
    pub fn new(
        shared: Arc<Shared>,
        inbox: Inbox<Input>,
        (log_events, balancers, data_channels): (Arc<LogStore>, Arc<Balancers>, Arc<DataChannels>),
        objects: Arc<dyn ObjectSource>,
    ) -> Cell {
        Cell {
            balancers,
            shared,
            inbox,
            next_call: AtomicU64::new(1),
            models: SERVICES.iter().map(|service| service.model).collect(),
            data_channels,
            log_events,
            bulk_reads: Arc::new(Semaphore::new(BULK_READS_MAX)),
            fetcher: Fetcher::new(objects),
        }
    }

    fn prepare(&self, call: endpoint::Call, read: &mut ReadRequest<'_>) -> Result<Prepared, ApiError> {
        let service = SERVICES.iter().find(|service| std::ptr::eq(service.model, call.target.service));
        let service = service.expect("the router was given the models of these services");
        let operation = service.operation(call.target.operation.name)?;
        let call = Call { caller: call.caller, request_id: call.request_id, endpoint: call.base_url };
        (operation.prepare)(call, read)
    }

    fn writes(&self) -> Writes {
        Writes { shared: Arc::clone(&self.shared), inbox: self.inbox.clone(), id: self.next_call() }
    }

    fn inquire(&self) -> Result<oneshot::Receiver<EngineStatus>, ApiError> {
        let id = self.next_call();
        let (caller, status) = oneshot::channel();
        self.shared.inquiring.lock().insert(id, caller);
        self.inbox.offer(Input::Status(id)).map_err(|rejected| {
            self.shared.inquiring.lock().remove(&id);
            refused(rejected)
        })?;
        Ok(status)
    }

    fn next_call(&self) -> CallId {
        CallId(self.next_call.fetch_add(1, Ordering::Relaxed))
    }
}

/// What one write needs of a cell.
struct Writes {
    shared: Arc<Shared>,
    inbox: Inbox<Input>,
    id: CallId,
}

impl Writes {
    fn write(self, scope: Scope, write: Write) -> Result<oneshot::Receiver<Reply>, ApiError> {
        // A panic in one handler loses its transaction, not the writer.
        let write: Write = Box::new(move |tx| {
            catch_unwind(AssertUnwindSafe(|| write(tx))).unwrap_or_else(|_| {
                let message = "An internal error occurred. It is in the server's log.";
                Err(ApiError::new("ServerException", message).with_status(500))
            })
        });
        let Writes { shared, inbox, id } = self;
        let reply = shared.expect(id);
        inbox.offer(Input::Call { id, scope, write }).map_err(|rejected| {
            shared.waiting.lock().remove(&id);
            refused(rejected)
        })?;
        Ok(reply)
    }
}

/// What a write answers once it is durable.
async fn durable(reply: oneshot::Receiver<Reply>) -> Answered {
    reply.await.unwrap_or_else(|_| Err(stopping())).map(Answer::Response)
}

fn refused(rejected: Rejected) -> ApiError {
    match rejected {
        Rejected::Full => ApiError::new("ThrottlingException", "Rate exceeded"),
        Rejected::Stopped => stopping(),
    }
}

/// Carries out a plan on bulk data.
async fn bulk(store: Arc<LogStore>, reads: Arc<Semaphore>, plan: Plan) -> Reply {
    let bulk::Request::Logs(request) = plan.request;
    let answer = match request {
        LogsRequest::Append(append) => {
            let (done, answer) = oneshot::channel();
            // The caller may have hung up when the answer comes.
            store.append(append, Box::new(move |result| drop(done.send(result))));
            answer.await.unwrap_or(Err(bulk::Error::Unavailable))
        }
        request => {
            let Ok(permit) = reads.acquire_owned().await else { return Err(stopping()) };
            let read = tokio::task::spawn_blocking(move || {
                let answer = store.read(&request);
                drop(permit);
                answer
            });
            read.await.unwrap_or(Err(bulk::Error::Unavailable))
        }
    };
    (plan.reply)(answer.map(bulk::Answer::Logs))
}

fn stopping() -> ApiError {
    ApiError::new("ServiceUnavailableException", "The server is stopping.").with_status(503)
}

impl Services for Cell {
    fn models(&self) -> &[&'static ServiceModel] {
        &self.models
    }

    fn upgrade(
        &self,
        caller: endpoint::Caller,
        parts: &Parts,
        upgrade: OnUpgrade,
    ) -> Result<Response, ApiError> {
        if parts.uri.path() == channel::PATH {
            return self.balancers.accept(&caller, parts, upgrade);
        }
        let channel = agents::channel(parts.uri.path()).ok_or_else(|| {
            ApiError::new("UnknownOperationException", "No connection is served at this path.")
        })?;
        let state = self.shared.snapshot.load().snapshot(&caller.scope);
        let view = View { scope: &caller.scope, state: &state, now: os::now() };
        ssm::links::check_caller(view, &caller)?;
        self.shared.agents.accept(view, &self.inbox, &caller, channel, parts, upgrade)
    }

    fn data_channel(
        &self,
        caller: Option<endpoint::Caller>,
        asked: &exec::Asked,
        parts: &Parts,
        upgrade: OnUpgrade,
    ) -> Result<Response, ApiError> {
        let state = self.shared.snapshot.load().snapshot(&asked.scope);
        let view = View { scope: &asked.scope, state: &state, now: os::now() };
        if let Some(caller) = &caller {
            ssm::links::check_caller(view, caller)?;
        }
        self.data_channels.accept(view, &self.inbox, caller.as_ref(), asked, parts, upgrade)
    }

    fn file(&self, location: &str) -> Option<String> {
        elbv2::links::file(&self.shared.published(), location, os::now())
    }

    fn status(&self) -> Pin<Box<dyn Future<Output = Result<EngineStatus, ApiError>> + Send>> {
        let status = self.inquire();
        Box::pin(async { status?.await.map_err(|_| stopping()) })
    }

    fn call(
        &self,
        call: endpoint::Call,
        read: &mut ReadRequest<'_>,
    ) -> Pin<Box<dyn Future<Output = Answered> + Send>> {
        let scope = call.caller.scope.clone();
        let ready = |reply: Reply| Box::pin(std::future::ready(reply.map(Answer::Response)));
        let state = self.shared.snapshot.load().snapshot(&scope);
        let view = View { scope: &scope, state: &state, now: os::now() };
        if let Err(error) = ssm::links::check_caller(view, &call.caller) {
            return ready(Err(error));
        }
        match self.prepare(call, read) {
            Err(error) => ready(Err(error)),
            Ok(Prepared::Read(handler)) => ready(handler(view)),
            Ok(Prepared::Bulk(handler)) => match handler(view) {
                Err(error) => ready(Err(error)),
                Ok(plan) => {
                    let done = bulk(Arc::clone(&self.log_events), Arc::clone(&self.bulk_reads), plan);
                    Box::pin(async { done.await.map(Answer::Response) })
                }
            },
            Ok(Prepared::Follow(handler)) => {
                let begun = handler(view).and_then(|tail| {
                    let tap = self.log_events.follow(tail.groups()).map_err(|_| {
                        ApiError::new("LimitExceededException", "Too many sessions follow log groups.")
                    })?;
                    Ok(live_tail::begin(tail, tap, scope.clone(), Arc::clone(&self.shared)))
                });
                Box::pin(std::future::ready(begun.map(Answer::Stream)))
            }
            Ok(Prepared::Fetch(handler)) => match handler(view) {
                Err(error) => ready(Err(error)),
                Ok(Fetch { objects, write }) => {
                    let (fetcher, writes) = (self.fetcher.clone(), self.writes());
                    Box::pin(async move {
                        let found = fetcher.fetch(&scope.region, &objects).await;
                        let write: Write = Box::new(move |tx| write(tx, found));
                        durable(writes.write(scope, write)?).await
                    })
                }
            },
            Ok(Prepared::Write(handler)) => match self.writes().write(scope, handler) {
                Err(error) => ready(Err(error)),
                Ok(reply) => Box::pin(durable(reply)),
            },
        }
    }
}
