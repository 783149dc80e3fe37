//! Load balancers: each is told what to serve, and checks targets by what really runs on the hosts. They lie, are late and
//! die; what they see is brought together in the server's process, by what the real one does it with.

use super::plan::Wish;
use super::{Fleet, What};
use crate::agent::Container;
use gantry_control::engine::Input;
use gantry_control::routing::TargetNews;
use gantry_control::services::elbv2;
use gantry_decide::ids::{SubnetId, VpcId};
use gantry_decide::random::Random;
use gantry_decide::routing::config::{RoutingConfig, Target, TargetGroupArn, TargetKey};
use gantry_decide::routing::{HealthReport, HealthState, Observers, Reason, TargetHealth};
use gantry_decide::task_engine::TaskArn;
use gantry_decide::time::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NAMES: [&str; 2] = ["east", "west"];
/// How often each balancer looks at all of its targets.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How long what is deregistered has for its last requests: what the groups of this world say.
pub const DELAY: Duration = Duration::from_secs(120);
/// One in so many targets has a request that takes all of the delay.
const LASTING: u16 = 4;
/// How long a message is on its way.
const LATENCY: Duration = Duration::from_millis(5);
/// The first of the host ports that agents give away.
const FIRST_PORT: u16 = 32_768;

type Key = (TargetGroupArn, TargetKey);

/// What a balancer last said of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    Is(HealthState),
    Drained,
}

/// What a balancer says of a target.
#[derive(Debug)]
pub struct Saying {
    group: TargetGroupArn,
    target: TargetKey,
    word: Word,
    at: Timestamp,
}

#[derive(Debug, Default)]
pub struct Balancer {
    pub config: Arc<RoutingConfig>,
    /// The open connection.
    pub session: Option<u64>,
    /// What it last said of each target, and since when.
    pub said: BTreeMap<Key, (Word, Timestamp)>,
    /// What it has looked at since it began.
    checked: BTreeSet<Key>,
    /// When it last came, or went.
    pub moved: Timestamp,
    /// Until then it does nothing at all.
    dead: Timestamp,
    /// Until then what it finds is now and then the contrary of what is so.
    lies: Timestamp,
    /// Until then what it says takes so much longer.
    late: (Timestamp, Duration),
    /// When the last of it arrives: nothing overtakes on a connection.
    heard: Timestamp,
}

/// The balancers of a world and, of the server's process, what has to do with them.
pub struct Balancers {
    pub all: Vec<Balancer>,
    /// What the server has of them; gone with its process.
    observers: Observers,
    config: Arc<RoutingConfig>,
    /// When the server's process began: what it has not told since, balancers do not know.
    pub began: Timestamp,
    /// Which container has a port of a host. Ports are given away once.
    pub ports: BTreeMap<(usize, u16), (TaskArn, String)>,
    next_port: u16,
    /// Containers that run and do not answer.
    hung: BTreeSet<(TaskArn, String)>,
}

impl Default for Balancers {
    fn default() -> Balancers {
        Balancers {
            all: Vec::new(),
            observers: Observers::new(Timestamp::EPOCH, false),
            config: Arc::default(),
            began: Timestamp::EPOCH,
            ports: BTreeMap::new(),
            next_port: FIRST_PORT,
            hung: BTreeSet::new(),
        }
    }
}

/// The EC2 instance id of a host.
pub fn machine(agent: usize) -> String {
    format!("i-{:017x}", agent + 1)
}

fn agent_of(machine: &str) -> Option<usize> {
    usize::from_str_radix(machine.strip_prefix("i-")?, 16).ok()?.checked_sub(1)
}

/// What of a service's creation says how it is balanced.
pub struct Site {
    pub load_balancers: Value,
}

impl Fleet {
    /// A load balancer with two groups for each service that has one, and who serves it.
    pub(super) fn build_sites(&mut self) -> BTreeMap<&'static str, Site> {
        let mut sites = BTreeMap::new();
        let wishes: Vec<Wish> = self.script.wishes.iter().filter(|wish| wish.is_balanced).cloned().collect();
        if wishes.is_empty() {
            return sites;
        }
        let vpc = VpcId::derived(&format!("{} default VPC", self.scope));
        let subnets = ["eu-north-1a", "eu-north-1b"]
            .map(|zone| SubnetId::derived(&format!("{vpc} {zone}")).to_string());
        let balancer = self.balance("CreateLoadBalancer", &json!({"Name": "web", "Subnets": subnets}));
        let balancer = balancer["LoadBalancers"][0]["LoadBalancerArn"].clone();
        for (index, wish) in wishes.iter().enumerate() {
            let groups = ["blue", "green"].map(|color| {
                let made = self.balance(
                    "CreateTargetGroup",
                    &json!({"Name": format!("{}-{color}", wish.name), "Protocol": "HTTP", "Port": 80,
                        "VpcId": vpc.to_string(), "TargetType": "instance"}),
                );
                let group = made["TargetGroups"][0]["TargetGroupArn"].clone();
                let delay = DELAY.as_secs().to_string();
                let attributes = json!([{"Key": "deregistration_delay.timeout_seconds", "Value": delay}]);
                self.balance(
                    "ModifyTargetGroupAttributes",
                    &json!({"TargetGroupArn": group, "Attributes": attributes}),
                );
                group
            });
            let [blue, green] = groups;
            let actions = json!([{"Type": "forward", "TargetGroupArn": blue}]);
            let [production, test] = [80 + index, 8080 + index].map(|port| {
                let request = json!({"LoadBalancerArn": balancer, "Protocol": "HTTP", "Port": port, "DefaultActions": actions});
                let listener = self.balance("CreateListener", &request)["Listeners"][0]["ListenerArn"].clone();
                let conditions = json!([{"Field": "path-pattern", "Values": ["/*"]}]);
                let request =
                    json!({"ListenerArn": listener, "Priority": 1, "Conditions": conditions, "Actions": actions});
                self.balance("CreateRule", &request)["Rules"][0]["RuleArn"].clone()
            });
            let advanced = json!({"alternateTargetGroupArn": green, "productionListenerRule": production,
                "testListenerRule": test, "roleArn": "arn:aws:iam::123456789012:role/ecs"});
            let load_balancers = json!([{"targetGroupArn": blue, "containerName": Wish::SITE, "containerPort": 80,
                "advancedConfiguration": advanced}]);
            sites.insert(wish.name, Site { load_balancers });
        }
        self.balancers.all = NAMES.iter().map(|_| Balancer::default()).collect();
        for balancer in 0..NAMES.len() {
            self.after(0..1000, What::Dial { balancer });
        }
        self.after(0..1000, What::Probe);
        sites
    }

    fn balance(&mut self, operation: &'static str, request: &Value) -> Value {
        self.certain_of(&elbv2::SERVICE, operation, request)
    }

    /// A port of a host for a container.
    pub(super) fn give_port(&mut self, agent: usize, task: &TaskArn, container: &str) -> u16 {
        let port = self.balancers.next_port;
        self.balancers.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        self.balancers.ports.insert((agent, port), (task.clone(), container.to_owned()));
        port
    }

    fn serves(&self, agent: usize, port: u16) -> bool {
        let container = self.balancers.ports.get(&(agent, port));
        container.is_some_and(|container| {
            self.agents[agent].runtime.get(container) == Some(&Container::Running)
                && !self.balancers.hung.contains(container)
        })
    }

    /// A container of a host that answers balancers does so no more, and runs on.
    pub(super) fn hang(&mut self, agent: usize, random: &mut dyn Random) {
        if let Some(container) = self.any_container(agent, random).filter(|(_, name)| name == Wish::SITE) {
            self.count("containers hung");
            self.balancers.hung.insert(container);
        }
    }

    /// The server has something new for balancers.
    pub(super) fn route(&mut self, config: Arc<RoutingConfig>) {
        self.balancers.config = config;
        let targets = &self.balancers.config.target_groups;
        let is_target = |group: &TargetGroupArn, target: &TargetKey| {
            targets
                .iter()
                .any(|known| known.arn == *group && known.targets.iter().any(|one| one.key == *target))
        };
        self.balancers.observers.retain(is_target);
        for balancer in 0..self.balancers.all.len() {
            self.tell_balancer(balancer);
        }
    }

    fn tell_balancer(&mut self, balancer: usize) {
        let Some(session) = self.balancers.all[balancer].session else { return };
        let config = Arc::clone(&self.balancers.config);
        self.after(1..10, What::Serve { balancer, session, config });
    }

    pub(super) fn serve(&mut self, balancer: usize, session: u64, config: Arc<RoutingConfig>) {
        let balancer = &mut self.balancers.all[balancer];
        if balancer.session == Some(session) && balancer.config.generation <= config.generation {
            balancer.config = config;
        }
    }

    /// A balancer connects, or tries to.
    pub(super) fn dial_in(&mut self, balancer: usize) {
        let dead = self.balancers.all[balancer].dead;
        if self.balancers.all[balancer].session.is_some() {
            return;
        }
        if dead > self.now {
            return self.at(dead, What::Dial { balancer });
        }
        if self.server_down > self.now {
            return self.after(500..2000, What::Dial { balancer });
        }
        self.counter += 1;
        let session = self.counter;
        let known = &mut self.balancers.all[balancer];
        known.session = Some(session);
        known.moved = self.now;
        known.heard = self.now;
        // It tells everything once more.
        known.said.clear();
        self.balancers.observers.arrive(NAMES[balancer]);
        self.tell_balancer(balancer);
    }

    /// Everybody looks at all targets, and the server at who is away.
    pub(super) fn probe(&mut self) {
        for balancer in 0..self.balancers.all.len() {
            if self.balancers.all[balancer].dead <= self.now {
                self.probe_by(balancer);
            }
        }
        self.hear_news();
        self.judge_words();
        self.at(self.now + PROBE_EVERY, What::Probe);
    }

    fn probe_by(&mut self, balancer: usize) {
        let config = Arc::clone(&self.balancers.all[balancer].config);
        let mut sayings = Vec::new();
        for group in &config.target_groups {
            for target in &group.targets {
                let key = (group.arn.clone(), target.key.clone());
                let before = self.balancers.all[balancer].said.get(&key).map(|(word, _)| *word);
                let word = self.look_at(balancer, &group.arn, target, before);
                if before != Some(word) {
                    self.balancers.all[balancer].said.insert(key, (word, self.now));
                    let registered = target.registered;
                    let (group, target) = (group.arn.clone(), target.key.clone());
                    // It has heard of the registration, whatever the clocks say.
                    let at = self.now.max(registered);
                    sayings.push(Saying { group, target, word, at });
                }
            }
        }
        let known = |key: &(TargetGroupArn, TargetKey)| {
            let group = config.target_groups.iter().find(|group| group.arn == key.0);
            group.is_some_and(|group| group.targets.iter().any(|target| target.key == key.1))
        };
        let seen = &mut self.balancers.all[balancer];
        seen.said.retain(|key, _| known(key));
        seen.checked.retain(known);
        if let Some(session) = seen.session.filter(|_| !sayings.is_empty()) {
            let late = if seen.late.0 > self.now { seen.late.1 } else { Duration::ZERO };
            seen.heard = seen.heard.max(self.now + late + LATENCY);
            let at = seen.heard;
            self.at(at, What::Tells { balancer, session, sayings });
        }
    }

    fn look_at(
        &mut self,
        balancer: usize,
        group: &TargetGroupArn,
        target: &Target,
        before: Option<Word>,
    ) -> Word {
        if target.deregistered.is_some() {
            // Its last requests take until some later look.
            let draining = Word::Is(HealthState::Draining);
            let lasts = target.key.port.is_multiple_of(LASTING);
            let ends = before == Some(draining) && !lasts && self.random.below(3) > 0;
            return if ends || before == Some(Word::Drained) { Word::Drained } else { draining };
        }
        let key = (group.clone(), target.key.clone());
        if self.balancers.all[balancer].checked.insert(key) && before.is_none() {
            return Word::Is(HealthState::Initial);
        }
        let serves =
            agent_of(target.key.id.as_str()).is_some_and(|agent| self.serves(agent, target.key.port));
        let lies = self.balancers.all[balancer].lies > self.now && self.random.below(4) == 0;
        Word::Is(if serves != lies { HealthState::Healthy } else { HealthState::Unhealthy })
    }

    /// The server hears what a balancer says.
    pub(super) fn heard_of(&mut self, balancer: usize, session: u64, sayings: Vec<Saying>) {
        if self.balancers.all[balancer].session != Some(session) {
            return;
        }
        for Saying { group, target, word, at } in sayings {
            let observers = &mut self.balancers.observers;
            match word {
                Word::Is(state) => {
                    let reason = match state {
                        HealthState::Unhealthy => Some(Reason::FailedHealthChecks),
                        HealthState::Initial => Some(Reason::InitialHealthChecking),
                        _ => None,
                    };
                    let health = TargetHealth { state, reason };
                    observers.health(NAMES[balancer], &HealthReport { group, target, health, at });
                }
                Word::Drained => observers.drained(NAMES[balancer], &group, &target),
            }
        }
        self.hear_news();
    }

    fn hear_news(&mut self) {
        if self.server_down > self.now {
            return;
        }
        let news: Vec<TargetNews> = self.balancers.observers.news(self.now);
        news.into_iter().for_each(|news| self.step(Input::Target(news)));
    }

    /// The server's process has ended, and another has begun.
    pub(super) fn lose_server(&mut self) {
        self.balancers.observers = Observers::new(self.now, true);
        self.balancers.config = Arc::default();
        self.balancers.began = self.now.max(self.server_down);
        for balancer in 0..self.balancers.all.len() {
            self.balancers.all[balancer].session = None;
            self.balancers.all[balancer].moved = self.now;
            self.after(1..3000, What::Dial { balancer });
        }
    }

    /// A fault of some balancer's, if there is one.
    pub(super) fn ail_balancer(&mut self, random: &mut dyn Random) {
        if self.balancers.all.is_empty() {
            return;
        }
        let index = random.below(self.balancers.all.len());
        let until = self.now + Duration::from_secs(random.below(90) as u64);
        let long = self.now + Duration::from_secs(random.below(400) as u64);
        let long = long.min(self.peace_from);
        let balancer = &mut self.balancers.all[index];
        match random.below(4) {
            kind @ (0 | 3) => {
                let until = if kind == 0 { until } else { long };
                balancer.dead = until;
                balancer.moved = self.now;
                balancer.checked.clear();
                if balancer.session.take().is_some() {
                    self.balancers.observers.lose(NAMES[index], self.now);
                    self.at(until, What::Dial { balancer: index });
                }
                self.count("balancers died");
            }
            1 => {
                balancer.lies = until;
                self.count("balancers lied");
            }
            _ => {
                balancer.late = (until, Duration::from_millis(random.below(10_000) as u64));
                self.count("balancers were late");
            }
        }
    }
}
