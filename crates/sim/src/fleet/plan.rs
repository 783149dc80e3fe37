//! What a run is made of, all drawn from its seed: hosts, services, and the steps of users and of misfortune.

use gantry_decide::lease::Terms;
use gantry_decide::random::{Random, Seeded};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Hosts, a quarter of them in the Fargate pool.
    pub agents: usize,
    /// How long users and faults are at work, in virtual seconds.
    pub turmoil: u64,
    /// Mean seconds between what users do.
    pub calls_every: u64,
    /// Mean seconds between faults; none at 0.
    pub faults_every: u64,
    /// Tasks of the largest service.
    pub tasks: usize,
    pub terms: Terms,
    /// How long an image takes at most.
    pub pull_millis: u64,
}

impl Plan {
    pub const SMALL: Plan = Plan {
        agents: 6,
        turmoil: 600,
        calls_every: 12,
        faults_every: 8,
        tasks: 12,
        terms: super::leases::SLOW,
        pull_millis: 3000,
    };
}

/// A seed, and which of its steps are taken: all, or those that a failure was shrunk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub seed: u64,
    pub only: Option<BTreeSet<usize>>,
}

impl Case {
    pub fn of(seed: u64) -> Case {
        Case { seed, only: None }
    }
}

/// What happens from outside at some time. Its choices come from its own seed, so that they stay what they are when
/// other steps are left out.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Milliseconds from the start.
    pub at: u64,
    pub seed: u64,
    pub is_fault: bool,
}

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    pub is_fargate: bool,
    pub cpu: i64,
    pub memory: i64,
    pub zone: &'static str,
    pub rack: &'static str,
    /// Its agent ends its tasks when it gets no lease.
    pub holds_leases: bool,
}

/// A container program, by what it does on a host. Simulated agents know them by their container's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Runs.
    Well,
    /// Its image is nowhere.
    Missing,
    /// Its image is there, and no container can be made of it.
    Broken,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Program::Well => "app",
            Program::Missing => "missing",
            Program::Broken => "broken",
        }
    }
}

/// A service as it is first asked for. What of it placement has to honour never changes.
#[derive(Clone, Debug)]
pub struct Wish {
    pub name: &'static str,
    pub is_daemon: bool,
    pub is_fargate: bool,
    /// Users make its task sets.
    pub is_external: bool,
    /// A load balancer sends requests to its tasks.
    pub is_balanced: bool,
    pub distinct: bool,
    /// Only on hosts of this rack.
    pub rack: Option<&'static str>,
    /// The port that each task takes of its host.
    pub port: Option<u16>,
    pub strategy: Vec<Value>,
    pub cpu: i64,
    pub memory: i64,
    pub minimum: u32,
    pub maximum: u32,
    pub breaker: bool,
    pub rollback: bool,
    /// Its images are named by their digests: no task has to find these out for the others.
    pub pinned: bool,
    pub manner: Manner,
}

/// How deployments of a service replace one revision by the next, and what they wait for on their way.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Of a deployment configuration, what says so.
    pub strategy: Value,
    pub hooks: Value,
}

impl Manner {
    /// A few tasks at a time, at once.
    pub fn rolling() -> Manner {
        Manner { strategy: json!({"strategy": "ROLLING"}), hooks: json!([]) }
    }

    /// Any that shifts traffic. Its pauses are short against [`super::ending::BY_ITSELF`], all of them together.
    fn shifting(random: &mut Seeded) -> Manner {
        let minutes = |random: &mut Seeded| json!(random.below(4));
        let mut strategy = match random.below(3) {
            0 => json!({"strategy": "BLUE_GREEN"}),
            1 => json!({"strategy": "LINEAR", "linearConfiguration":
                {"stepPercent": pick(random, &[25.0, 33.3, 60.0]), "stepBakeTimeInMinutes": minutes(random)}}),
            _ => json!({"strategy": "CANARY", "canaryConfiguration":
                {"canaryPercent": pick(random, &[5.0, 50.0]), "canaryBakeTimeInMinutes": minutes(random)}}),
        };
        strategy["bakeTimeInMinutes"] = minutes(random);
        let hooks: Vec<Value> = (0..random.below(3))
            .map(|_| {
                let stages = [pick(random, &PAUSES), pick(random, &PAUSES)];
                json!({"targetType": "PAUSE", "lifecycleStages": stages, "timeoutConfiguration":
                    {"timeoutInMinutes": 1 + random.below(4), "action": pick(random, &["CONTINUE", "CONTINUE", "ROLLBACK"])}})
            })
            .collect();
        Manner { strategy, hooks: json!(hooks) }
    }

    /// Any.
    pub fn any(random: &mut Seeded) -> Manner {
        if random.below(2) == 0 { Manner::rolling() } else { Manner::shifting(random) }
    }

    /// The members of a deployment configuration.
    pub fn put(&self, configuration: &mut Value) {
        for (name, value) in self.strategy.as_object().into_iter().flatten() {
            configuration[name] = value.clone();
        }
        configuration["lifecycleHooks"] = self.hooks.clone();
    }
}

/// Where deployments may pause.
const PAUSES: [&str; 6] = [
    "RECONCILE_SERVICE",
    "PRE_SCALE_UP",
    "POST_SCALE_UP",
    "POST_TEST_TRAFFIC_SHIFT",
    "PRE_PRODUCTION_TRAFFIC_SHIFT",
    "POST_PRODUCTION_TRAFFIC_SHIFT",
];

const NAMES: [&str; 4] = ["one", "two", "three", "four"];
const RACKS: [&str; 2] = ["left", "right"];
const ZONES: [&str; 3] = ["eu-north-1a", "eu-north-1b", "eu-north-1c"];
/// Percentages of which each lets every service of one task or more be deployed.
const PERCENTAGES: [(u32, u32); 7] =
    [(100, 200), (50, 200), (0, 100), (75, 200), (0, 150), (33, 200), (100, 250)];
/// Those of daemons: they start no more than one on each host.
const DAEMON_PERCENTAGES: [(u32, u32); 3] = [(0, 100), (50, 100), (25, 100)];

/// What is missing from the beginning of peace until users mend what only they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// This host is dead.
    Host(usize),
    /// This instance is being drained.
    Drained(usize),
}

/// Whom faults befall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// It dies, or its disk fails.
    Server,
    /// It is slow, or its disk is.
    Pace,
    Clock,
    Agents,
    Network,
    Registry,
    Balancers,
    Containers,
}

impl Victim {
    /// Containers die in every world.
    const SPARED: [Victim; 7] = [
        Victim::Server,
        Victim::Pace,
        Victim::Clock,
        Victim::Agents,
        Victim::Network,
        Victim::Registry,
        Victim::Balancers,
    ];
}

/// All that a seed says.
pub struct Script {
    pub without: Without,
    /// To whom nothing happens: nobody in half of the worlds. What one fault does over minutes is not seen where
    /// another one ends it all the time.
    pub spared: Vec<Victim>,
    pub hosts: Vec<Host>,
    pub wishes: Vec<Wish>,
    pub steps: Vec<Step>,
}

fn pick<T: Copy>(random: &mut Seeded, from: &[T]) -> T {
    from[random.below(from.len())]
}

impl Script {
    pub fn of(seed: u64, plan: Plan) -> Script {
        let mut random = Seeded::new(seed ^ 0x5c71_9f00);
        let random = &mut random;
        let pool = if plan.agents >= 4 { plan.agents / 4 } else { 0 };
        let hosts = (0..plan.agents).map(|index| Host {
            is_fargate: index < pool,
            cpu: pick(random, &[2048, 4096]),
            memory: if index < pool { 4096 } else { pick(random, &[1000, 1500, 2000]) },
            // Interfaces come from a subnet of the first zone.
            zone: if index < pool { ZONES[0] } else { pick(random, &ZONES) },
            rack: RACKS[index % 2],
            holds_leases: random.below(4) > 0,
        });
        let hosts = hosts.collect();
        let count = 2 + random.below(NAMES.len() - 1);
        let wishes = NAMES[..count].iter().enumerate();
        let wishes = wishes.map(|(index, name)| wish(random, index, name, pool > 0));
        let mut wishes: Vec<Wish> = wishes.collect();
        let host = pool + random.below(plan.agents - pool);
        let without = match random.below(6) {
            0 => Without::Host(host),
            1 => Without::Drained(host),
            _ => Without::Nothing,
        };
        if without != Without::Nothing {
            // Only what can be anywhere else fits for certain.
            for wish in &mut wishes {
                (wish.rack, wish.port, wish.distinct) = (None, None, false);
                // A daemon's task leaves an instance that is drained, and waits for a host that is dead.
                if without == Without::Host(host) && std::mem::take(&mut wish.is_daemon) {
                    (wish.minimum, wish.maximum) = (100, 200);
                }
            }
        }
        if wishes.iter().any(|wish| wish.is_daemon) {
            // Nothing keeps room for daemons: what is asked for has to leave it on every host.
            let others = wishes.iter_mut().filter(|wish| !wish.is_fargate);
            others.for_each(|wish| wish.memory = wish.memory.min(100));
        }
        let mut steps = Vec::new();
        for (every, is_fault) in [(plan.calls_every, false), (plan.faults_every, true)] {
            let mut at = random.below(2000) as u64;
            // What goes wrong has passed when peace comes.
            let end = if is_fault { plan.turmoil.saturating_sub(120) } else { plan.turmoil };
            while every > 0 && at < end * 1000 {
                steps.push(Step { at, seed: random.next_u64(), is_fault });
                at += random.below(usize::try_from(every * 2000).unwrap_or(1)) as u64;
            }
        }
        steps.sort_by_key(|step| step.at);
        Script { without, spared: spared(seed), hosts, wishes, steps }
    }
}

fn spared(seed: u64) -> Vec<Victim> {
    // Drawn apart: all else of a world is as if nobody were spared.
    let random = &mut Seeded::new(seed ^ 0x59a2_ed00);
    if random.below(2) == 0 {
        return Vec::new();
    }
    Victim::SPARED.into_iter().filter(|_| random.below(2) == 0).collect()
}

fn wish(random: &mut Seeded, index: usize, name: &'static str, pool: bool) -> Wish {
    let is_daemon = random.below(4) == 0;
    let is_fargate = pool && !is_daemon && random.below(4) == 0;
    let free = !is_daemon && !is_fargate;
    let port = (!is_fargate && random.below(4) == 0).then(|| 8000 + u16::try_from(index).unwrap_or(0));
    let strategy = match random.below(5) {
        0 => vec![json!({"type": "binpack", "field": "memory"})],
        1 => vec![json!({"type": "random"})],
        2 => vec![json!({"type": "spread", "field": "instanceId"})],
        3 => vec![
            json!({"type": "spread", "field": "attribute:ecs.availability-zone"}),
            json!({"type": "binpack", "field": "cpu"}),
        ],
        _ => Vec::new(),
    };
    let (minimum, maximum) = pick(random, if is_daemon { &DAEMON_PERCENTAGES[..] } else { &PERCENTAGES[..] });
    let breaker = random.below(2) == 0;
    // Side by side they need room that ports and instances of their own do not leave.
    let shifts = !is_daemon && random.below(3) == 0;
    let manner = if shifts { Manner::shifting(random) } else { Manner::rolling() };
    let is_external = free && !shifts && random.below(5) == 0;
    Wish {
        name,
        is_daemon,
        is_fargate,
        is_external,
        is_balanced: free && !is_external && port.is_none() && random.below(2) == 0,
        distinct: free && random.below(5) == 0,
        rack: (!is_fargate && random.below(5) == 0).then(|| pick(random, &RACKS)),
        port,
        strategy: if free { strategy } else { Vec::new() },
        cpu: if is_fargate { 256 } else { pick(random, &[0, 128, 256]) },
        memory: if is_fargate { 512 } else { pick(random, &[50, 100, 200]) },
        minimum,
        maximum,
        breaker,
        rollback: breaker && random.below(3) > 0,
        pinned: random.below(2) == 0,
        manner,
    }
}

impl Wish {
    /// The container of a balanced service that gets requests.
    pub const SITE: &str = "site";
    /// What another container of such a task takes of its memory, in MiB.
    const BESIDE: i64 = 10;

    /// The families that the service deploys: two that run, and two that never do.
    pub fn families(&self) -> [(String, Program); 4] {
        let family = |end: &str| format!("{}-{end}", self.name);
        [
            (family("a"), Program::Well),
            (family("b"), Program::Well),
            (family("missing"), Program::Missing),
            (family("broken"), Program::Broken),
        ]
    }

    /// One of them, those that run more often.
    pub fn any_family(&self, random: &mut Seeded) -> String {
        self.families()[[0, 0, 0, 1, 1, 1, 2, 3][random.below(8)]].0.clone()
    }

    /// Whether no task of a family of the service ever runs.
    pub fn is_hopeless(&self, family: &str) -> bool {
        self.families().iter().any(|(known, program)| known == family && *program != Program::Well)
    }

    pub fn definition(&self, family: &str, program: Program) -> Value {
        let image = if self.pinned { format!("app@sha256:{}", "5".repeat(64)) } else { "app:1".to_owned() };
        let mut container =
            json!({"name": program.name(), "image": image, "memory": self.memory, "cpu": self.cpu});
        let mut definition = json!({"family": family, "networkMode": "none"});
        if let Some(port) = self.port {
            definition["networkMode"] = json!("host");
            container["portMappings"] = json!([{"containerPort": port, "hostPort": port}]);
        }
        if self.is_fargate {
            definition = json!({"family": family, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
                "cpu": self.cpu.to_string(), "memory": self.memory.to_string()});
            container = json!({"name": program.name(), "image": image});
        }
        definition["containerDefinitions"] = json!([container]);
        if self.is_balanced {
            definition["networkMode"] = json!("bridge");
            let mut site = json!({"name": Self::SITE, "image": image, "memory": self.memory, "cpu": self.cpu,
                "portMappings": [{"containerPort": 80}]});
            definition["containerDefinitions"] = if program == Program::Well {
                json!([site])
            } else {
                // It starts, and the one beside it never does.
                site["memory"] = json!(self.memory - Self::BESIDE);
                (container["memory"], container["cpu"]) = (json!(Self::BESIDE), json!(0));
                json!([site, container])
            };
        }
        definition
    }

    /// `balanced` says how it is balanced, if it is.
    pub fn creation(&self, count: usize, subnet: &str, balanced: Option<&Value>) -> Value {
        let mut request = json!({"serviceName": self.name});
        if let Some(balanced) = balanced {
            request["loadBalancers"] = balanced.clone();
            request["healthCheckGracePeriodSeconds"] = json!(30);
        }
        if self.is_external {
            request["deploymentController"] = json!({"type": "EXTERNAL"});
        } else {
            request["taskDefinition"] = json!(self.families()[0].0);
            request["deploymentConfiguration"] = self.configuration();
        }
        if self.is_daemon {
            request["schedulingStrategy"] = json!("DAEMON");
        } else {
            request["desiredCount"] = json!(count);
            request["placementStrategy"] = json!(self.strategy);
        }
        let mut constraints = Vec::new();
        if self.distinct {
            constraints.push(json!({"type": "distinctInstance"}));
        }
        if let Some(rack) = self.rack {
            constraints.push(json!({"type": "memberOf", "expression": format!("attribute:rack == {rack}")}));
        }
        request["placementConstraints"] = json!(constraints);
        if self.is_fargate {
            request["launchType"] = json!("FARGATE");
            request["networkConfiguration"] = json!({"awsvpcConfiguration": {"subnets": [subnet]}});
        }
        request
    }

    pub fn configuration(&self) -> Value {
        let mut configuration = json!({"minimumHealthyPercent": self.minimum, "maximumPercent": self.maximum,
            "deploymentCircuitBreaker": {"enable": self.breaker, "rollback": self.rollback}});
        if !self.is_daemon {
            self.manner.put(&mut configuration);
        }
        configuration
    }
}
