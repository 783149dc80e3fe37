//! Machines for Auto Scaling groups and for Managed Instances: what the state wants of them is done by an instance provider, and what became of it
//! is reported.
//!
//! Level-triggered, like controllers: each look compares the published snapshot with what is under way. A want stands
//! in the state until its report is durable, so that a crash at any instant only means that it is done again; providers
//! must take that. What a provider has and the state does not know is destroyed.

use crate::cell::Shared;
use crate::writer::Inbox;
use gantry_api::autoscaling::SetInstanceHealthResponse;
use gantry_control::engine::{CallId, Input, Write};
use gantry_control::machines::{self, MachineSpec, Report, Want};
use gantry_control::service::Reply;
use gantry_decide::ids::{Ec2InstanceId, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Calls of the provider at the same time: machines are made in parallel, but not so many that a host chokes on it.
const CALLS_MAX: usize = 8;
/// Between two looks: changes come in bursts.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How often the provider is asked what it has.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// Before a destruction that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Calls of this part of the server have numbers of their own.
const FIRST_CALL: u64 = 1 << 63;

/// Why a provider did not do what was wanted, for who wanted it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProviderError(pub String);

/// What a provider answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// A machine to be made.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Never given twice.
    pub id: Ec2InstanceId,
    /// Whose it is.
    pub scope: Scope,
    pub spec: MachineSpec,
}

/// A machine that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// By which others reach it, where that is known.
    pub address: Option<String>,
}

/// Whoever makes machines and destroys them.
pub trait InstanceProvider: Send + Sync + 'static {
    /// Makes a machine that joins by itself. Done again with the same id, it makes no second one.
    fn create(&self, machine: Machine) -> Answer<'_, Made>;
    /// Destroys a machine with all that runs there. One that is not there is no error.
    fn destroy(&self, id: Ec2InstanceId) -> Answer<'_, ()>;
    /// The machines that it made for this installation and did not destroy, as far as they still run.
    fn list(&self) -> Answer<'_, BTreeSet<Ec2InstanceId>>;
}

/// The provider of an installation that has none.
pub struct NoProvider;

impl InstanceProvider for NoProvider {
    fn create(&self, _machine: Machine) -> Answer<'_, Made> {
        let message = "No instance provider is configured: start Gantry with --instance-provider.";
        Box::pin(std::future::ready(Err(ProviderError(message.to_owned()))))
    }

    fn destroy(&self, _id: Ec2InstanceId) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn list(&self) -> Answer<'_, BTreeSet<Ec2InstanceId>> {
        // What another provider made may run on, as far as anybody knows.
        Box::pin(std::future::ready(Err(ProviderError(String::new()))))
    }
}

type Key = (Scope, Ec2InstanceId);

/// What a call of the provider came to.
enum Outcome {
    Machine(Key, Result<Report, ProviderError>),
    /// A machine that nobody knows is gone, or not.
    Stranger(Ec2InstanceId, Result<(), ProviderError>),
    List(Result<BTreeSet<Ec2InstanceId>, ProviderError>),
}

/// The loop that does so.
pub(crate) struct Instances {
    shared: Arc<Shared>,
    inbox: Inbox<Input>,
    provider: Arc<dyn InstanceProvider>,
    calls: JoinSet<Outcome>,
    /// Machines that a call is about.
    busy: BTreeSet<Ec2InstanceId>,
    /// Machines whose destruction failed, and when it is tried again.
    later: BTreeMap<Ec2InstanceId, Instant>,
    /// Machines that the last list did not have although they are to be kept.
    missed: BTreeSet<Ec2InstanceId>,
    next_list: Instant,
    listing: bool,
    next_call: u64,
}

impl Instances {
    pub fn new(shared: Arc<Shared>, inbox: Inbox<Input>, provider: Arc<dyn InstanceProvider>) -> Instances {
        Instances {
            shared,
            inbox,
            provider,
            calls: JoinSet::new(),
            busy: BTreeSet::new(),
            later: BTreeMap::new(),
            missed: BTreeSet::new(),
            next_list: Instant::now(),
            listing: false,
            next_call: FIRST_CALL,
        }
    }

    /// Runs until the writer has ended or this is dropped.
    pub async fn run(mut self, mut published: watch::Receiver<()>) {
        loop {
            // What is published from here on is for the next look.
            published.borrow_and_update();
            self.look();
            let retry = self.later.values().min().copied();
            let wake = retry.map_or(self.next_list, |at| at.min(self.next_list));
            let idle = self.listing || self.calls.len() >= CALLS_MAX;
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                Some(outcome) = self.calls.join_next() => {
                    // A call that panicked has been logged; its machine stays busy, which is the safe side.
                    let Ok(outcome) = outcome else { continue };
                    if self.take(outcome).await.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(wake), if !idle => {}
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Starts what is wanted and not under way.
    fn look(&mut self) {
        let now = Instant::now();
        self.later.retain(|_, at| *at > now);
        let state = self.shared.published();
        for (scope, state) in state.scopes() {
            for (id, want) in machines::machines(state) {
                if self.calls.len() >= CALLS_MAX {
                    return;
                }
                if self.busy.contains(&id) || self.later.contains_key(&id) {
                    continue;
                }
                match want {
                    Want::Create(spec) => self.create(scope, id, *spec),
                    Want::Destroy => self.destroy(scope, id),
                    Want::Keep => {}
                }
            }
        }
        if now >= self.next_list && !self.listing {
            self.listing = true;
            let provider = Arc::clone(&self.provider);
            self.calls.spawn(async move { Outcome::List(provider.list().await) });
        }
    }

    fn create(&mut self, scope: &Scope, id: Ec2InstanceId, spec: MachineSpec) {
        self.busy.insert(id);
        let (provider, scope) = (Arc::clone(&self.provider), scope.clone());
        self.calls.spawn(async move {
            let machine = Machine { id, scope: scope.clone(), spec };
            let report = match provider.create(machine).await {
                Ok(Made { address }) => Report::Running { address },
                Err(error) => {
                    // Half a machine is of no use. What cannot be removed now is a stranger later.
                    if let Err(error) = provider.destroy(id).await {
                        tracing::warn!(%id, %error, "what is left of a machine cannot be removed yet");
                    }
                    tracing::warn!(%id, %error, "a machine could not be made");
                    Report::Failed(error.to_string())
                }
            };
            Outcome::Machine((scope, id), Ok(report))
        });
    }

    fn destroy(&mut self, scope: &Scope, id: Ec2InstanceId) {
        self.busy.insert(id);
        let (provider, scope) = (Arc::clone(&self.provider), scope.clone());
        self.calls.spawn(async move {
            let gone = provider.destroy(id).await.map(|()| Report::Gone);
            Outcome::Machine((scope, id), gone)
        });
    }

    /// Takes in what a call came to. An error: the writer has ended.
    async fn take(&mut self, outcome: Outcome) -> Result<(), ()> {
        match outcome {
            Outcome::Machine((scope, id), Ok(report)) => {
                // Only then does the snapshot say so, and the machine is not busy any more.
                self.report(scope, id, report).await?;
                self.busy.remove(&id);
            }
            Outcome::Machine((_, id), Err(error)) | Outcome::Stranger(id, Err(error)) => {
                tracing::warn!(%id, %error, "a machine could not be destroyed; trying again");
                self.busy.remove(&id);
                self.later.insert(id, Instant::now() + RETRY);
            }
            Outcome::Stranger(id, Ok(())) => {
                self.busy.remove(&id);
            }
            Outcome::List(list) => {
                self.listing = false;
                self.next_list = Instant::now() + LIST_EVERY;
                if let Ok(list) = list {
                    self.compare(&list).await?;
                }
            }
        }
        Ok(())
    }

    /// Destroys what nobody knows, and reports what is missing in two lists one after the other: a machine that was
    /// just made may not be in the first.
    async fn compare(&mut self, list: &BTreeSet<Ec2InstanceId>) -> Result<(), ()> {
        let state = self.shared.published();
        let (mut known, mut missing) = (BTreeSet::new(), Vec::new());
        for (scope, state) in state.scopes() {
            for (id, want) in machines::machines(state) {
                known.insert(id);
                if want == Want::Keep && !list.contains(&id) && !self.busy.contains(&id) {
                    missing.push((scope.clone(), id));
                }
            }
        }
        for id in list {
            if known.contains(id) || !self.busy.insert(*id) {
                continue;
            }
            let (provider, id) = (Arc::clone(&self.provider), *id);
            tracing::warn!(%id, "a machine that nobody wants is destroyed");
            self.calls.spawn(async move { Outcome::Stranger(id, provider.destroy(id).await) });
        }
        let before = std::mem::take(&mut self.missed);
        for (scope, id) in missing {
            if before.contains(&id) {
                self.report(scope, id, Report::Lost("The machine is gone.".to_owned())).await?;
            } else {
                self.missed.insert(id);
            }
        }
        Ok(())
    }

    /// Reports, and waits until that is durable and published.
    async fn report(&mut self, scope: Scope, id: Ec2InstanceId, report: Report) -> Result<(), ()> {
        let write: Write = Box::new(move |tx| -> Reply {
            machines::report(tx, id, report);
            // Nothing is answered but that it was taken.
            Ok(Box::new(SetInstanceHealthResponse::default()))
        });
        let call = CallId(self.next_call);
        self.next_call += 1;
        let reply = self.shared.expect(call);
        self.inbox.hand_over(Input::Call { id: call, scope, write }).await.map_err(|_| ())?;
        reply.await.map(drop).map_err(|_| ())
    }
}
