//! Load balancers apart from the control plane: told by it what to do over a connection, they go on with what they know
//! while there is none, and give their sockets to the process that takes their place.

mod kept;
mod teller;

use crate::balancer;
use crate::config::balancers::LbListen;
use crate::own_addresses::OwnAddresses;
use anyhow::{Context, Result, anyhow, bail};
use gantry_agent::agent::OsRandom;
use gantry_agent::channel::{self, Incoming, Target};
use gantry_agent::client::Client;
use gantry_agent::protocol::backoff::Growth;
use gantry_decide::random::Random;
use gantry_decide::routing::HealthState;
use gantry_decide::routing::channel::{FromBalancer, Instructions, NAME, NAME_LENGTH, PATH, ToBalancer};
use gantry_decide::routing::config::TrustStoreArn;
use gantry_edge::balancer::hand_over::{self, Offer};
use gantry_edge::balancer::{Balancer, Inherited, TrustStore};
use gantry_wire::sigv4::Credentials;
use kept::Kept;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use teller::Teller;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// In the data directory: where the process that takes this one's place finds it.
const HAND_OVER_FILE: &str = "hand-over.sock";
/// How long connections may take to end after another process has taken over. Each is told with its next answer; those
/// that are idle, and those of layer 4, end only by themselves.
const DRAIN_MAX: Duration = Duration::from_secs(300);
/// How often what it was told is saved, where it changed, and how often it is looked whether the last connection has ended.
const TURN: Duration = Duration::from_millis(500);
/// For the first health checks, before the place of another process is taken; and how often it is looked.
const CHECKS_MAX: Duration = Duration::from_secs(5);
const CHECKS_LOOK: Duration = Duration::from_millis(20);
/// Messages between the balancer and its connection. What does not fit is told anew later.
const MESSAGES: usize = 64;
/// For the last word to the control plane.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What `gantry lb` runs.
pub struct LbConfig {
    /// The control plane, `http://HOST:PORT`.
    pub endpoint: String,
    pub region: String,
    pub credentials: Credentials,
    pub data_dir: PathBuf,
    pub listen: LbListen,
}

/// Carries traffic until `stop`, or until another process has taken over and the last connection has ended.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: LbConfig, stop: impl Future<Output = ()>) -> Result<()> {
    let client = Client::new(&config.endpoint, &config.region, config.credentials)?;
    let kept = Kept::open(&config.data_dir)?;
    let socket = config.data_dir.join(HAND_OVER_FILE);
    let asked = socket.clone();
    let before = spawn_blocking(move || hand_over::ask(&asked)).await?;
    let before =
        before.with_context(|| format!("the load balancer at {} gives no sockets", socket.display()))?;
    let (predecessor, inherited) = match before {
        Some((predecessor, inherited)) => (Some(predecessor), inherited),
        None => (None, Inherited::default()),
    };
    let teller = Arc::new(Teller::default());
    let logs = config.data_dir.join("access-logs");
    let balancer = Arc::new(balancer::start(config.listen, logs, teller.clone(), inherited)?);
    let own = Arc::new(Mutex::new(OwnAddresses::open(&config.data_dir)));
    let (changed, behind) = (false, false);
    let mut lb = Lb { balancer, teller, kept, own, trust_stores: BTreeMap::new(), changed, behind };
    if let Some(instructions) = lb.kept.read()? {
        lb.apply(instructions).await?;
        lb.changed = false;
    }
    if predecessor.is_some() {
        lb.first_checks().await;
    }
    lb.balancer.open();
    if let Some(predecessor) = predecessor {
        spawn_blocking(move || predecessor.replace()).await?.context("the load balancer before this one")?;
        // What it alone could have until now.
        lb.balancer.try_again();
        eprintln!("Took the place of the load balancer that ran on {}.", config.data_dir.display());
    }
    let offer = hand_over::offer(&socket).with_context(|| format!("cannot offer {}", socket.display()))?;
    let (told, replaced) = oneshot::channel();
    let giver = Arc::clone(&lb.balancer);
    // Ends with the process: nobody else can wake it.
    std::thread::Builder::new().name("hand-over".to_owned()).spawn(move || give(&offer, &giver, told))?;
    eprintln!("Carrying load balancers' traffic for {}.", config.endpoint);
    lb.serve(client, &config.endpoint, replaced, stop).await
}

/// Gives this process's sockets to the first one that takes them and serves.
fn give(offer: &Offer, balancer: &Balancer, told: oneshot::Sender<()>) {
    loop {
        let mut successor = match offer.wait() {
            Ok(successor) => successor,
            Err(error) => {
                tracing::error!(%error, "no other load balancer can take this one's place any more");
                return;
            }
        };
        match balancer.hand_over(&successor).and_then(|()| successor.serves()) {
            Ok(()) => {
                balancer.retire();
                // One that is gone by now has the sockets no more, and its clients are refused as if this one had ended.
                let _ = successor.closed();
                let _ = told.send(());
                return;
            }
            // It ended before it served: this one goes on.
            Err(error) => tracing::warn!(%error, "another load balancer did not take over"),
        }
    }
}

struct Lb {
    balancer: Arc<Balancer>,
    teller: Arc<Teller>,
    kept: Kept,
    own: Arc<Mutex<OwnAddresses>>,
    /// As far as they were told.
    trust_stores: BTreeMap<TrustStoreArn, Arc<TrustStore>>,
    /// What was told last is not on the disk yet.
    changed: bool,
    /// The control plane has not been told everything.
    behind: bool,
}

impl Lb {
    async fn serve(
        mut self,
        client: Client,
        endpoint: &str,
        mut replaced: oneshot::Receiver<()>,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        let (incoming, mut heard) = mpsc::channel(MESSAGES);
        let (say, outgoing) = mpsc::channel(MESSAGES);
        let base = format!("{}{}", endpoint.trim_end_matches('/'), PATH.trim_end_matches("/ws"));
        let query = format!("{NAME}={}", name());
        let target = move |_| {
            let target = Target { base: base.clone(), query: query.clone(), growth: Growth::BALANCER };
            std::future::ready(Ok(target))
        };
        let connection = tokio::spawn(channel::keep(
            "balancer",
            client,
            None,
            Box::new(OsRandom),
            target,
            incoming,
            outgoing,
        ));
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = pin!(stop);
        let mut retired: Option<Instant> = None;
        loop {
            tokio::select! {
                () = &mut stop => break,
                // Where nobody can take over any more, serving goes on.
                Ok(()) = &mut replaced, if !replaced.is_terminated() => {
                    eprintln!("Another load balancer has taken over; ending when the last connection has.");
                    retired = Some(Instant::now());
                }
                incoming = heard.recv() => match incoming {
                    Some(Incoming::Connected) => self.behind = true,
                    Some(Incoming::Text(text)) => self.hear(&text).await?,
                    None => bail!("the connection to the control plane cannot be kept"),
                },
                () = self.teller.news() => {
                    let news = self.teller.take();
                    self.say(&say, news);
                }
                _ = turns.tick() => {
                    if self.changed && retired.is_none() {
                        self.save().await;
                    }
                    let drained = |since: Instant| self.balancer.connections() == 0 || since.elapsed() > DRAIN_MAX;
                    if retired.is_some_and(drained) {
                        break;
                    }
                }
            }
            if std::mem::take(&mut self.behind) {
                let all = self.teller.all(&self.balancer.health());
                self.say(&say, all);
            }
        }
        if self.changed && retired.is_none() {
            self.save().await;
        }
        self.say(&say, vec![FromBalancer::Leaving]);
        drop(say);
        // A control plane that is away finds out by itself.
        let _ = timeout(FAREWELL_MAX, connection).await;
        // The thread that waits for a successor has it too, so that it is never dropped.
        let balancer = Arc::clone(&self.balancer);
        spawn_blocking(move || balancer.end()).await.context("the load balancers cannot end")?;
        if retired.is_none() {
            self.own.lock().leave();
        }
        Ok(())
    }

    /// Waits until every target was checked once: as long as none is known to be healthy, all would be asked, also those that
    /// the process before this one knows to be unwell.
    async fn first_checks(&self) {
        let unknown = || {
            let health = self.balancer.health();
            health.iter().any(|report| report.health.state == HealthState::Initial)
        };
        let begun = Instant::now();
        while unknown() && begun.elapsed() < CHECKS_MAX {
            sleep(CHECKS_LOOK).await;
        }
    }

    async fn hear(&mut self, text: &str) -> Result<()> {
        match serde_json::from_str(text) {
            Ok(ToBalancer::Serve(instructions)) => self.apply(*instructions).await,
            Ok(ToBalancer::TrustStore { arn, store }) => {
                self.trust_stores.insert(arn, store);
                Ok(())
            }
            Ok(ToBalancer::Alive) => Ok(()),
            Err(error) => {
                // A newer control plane may say what this one does not know; what is served goes on.
                tracing::warn!(%error, "the control plane's message is not understood");
                Ok(())
            }
        }
    }

    async fn apply(&mut self, mut instructions: Instructions) -> Result<()> {
        self.trust_stores.append(&mut instructions.trust_stores);
        let named = instructions.configuration.trust_stores.keys();
        instructions.trust_stores =
            named.filter_map(|arn| Some((arn.clone(), self.trust_stores.get(arn)?.clone()))).collect();
        let (balancer, teller) = (Arc::clone(&self.balancer), Arc::clone(&self.teller));
        let own = Arc::clone(&self.own);
        let generation = instructions.configuration.generation;
        let (taken, instructions) = spawn_blocking(move || {
            teller.learn(&instructions);
            own.lock().lead(instructions.configuration.own_addresses);
            (balancer.apply(&instructions.configuration), instructions)
        })
        .await
        .map_err(|error| anyhow!("a configuration could not be taken: {error}"))?;
        if taken {
            self.trust_stores.clone_from(&instructions.trust_stores);
            self.kept.put(instructions);
            self.changed = true;
        } else if self.kept.generation().is_some_and(|have| have > generation) {
            tracing::warn!(
                generation,
                file = %self.kept.path().display(),
                "the control plane's configuration is older than what is served; if it is another installation's, end \
                 this load balancer and remove the file"
            );
        }
        Ok(())
    }

    async fn save(&mut self) {
        self.changed = false;
        let save = self.kept.saving();
        // What is on the disk only matters at the next start.
        match spawn_blocking(save).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the configuration is not saved")
            }
            Err(error) => tracing::warn!(%error, "the configuration is not saved"),
        }
    }

    /// Tells the control plane, if there is one. What has no room is told with everything else, later.
    fn say(&mut self, to: &mpsc::Sender<String>, messages: Vec<FromBalancer>) {
        for message in messages {
            let Ok(text) = serde_json::to_string(&message) else { continue };
            if let Err(mpsc::error::TrySendError::Full(_)) = to.try_send(text) {
                self.behind = true;
                return;
            }
        }
    }
}

/// A name that no other process has.
fn name() -> String {
    let mut bytes = [0; NAME_LENGTH / 2];
    OsRandom.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
