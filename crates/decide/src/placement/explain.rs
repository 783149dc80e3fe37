//! What an instance lacks for a task, check by check and with figures: for people who ask why nothing is placed there.
//!
//! Placement itself stops at the first check that fails; see [`Host::refuses`].

use super::{Constraint, Host, Protocol, Refusal, Request};
use std::fmt;

/// One check that an instance fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// DRAINING, or no longer registered.
    Inactive,
    /// The agent's connection is down.
    Agent,
    Attribute {
        name: String,
        /// The value asked for, where it is not the presence alone.
        wanted: Option<String>,
        /// Outer: whether the instance has the attribute. Inner: its value, which capabilities have none of.
        found: Option<Option<String>>,
    },
    /// A constraint's expression, as the query language writes it.
    MemberOf(String),
    /// Tasks of the same group are here.
    DistinctInstance {
        group: String,
        tasks: u32,
    },
    /// CPU units.
    Cpu {
        wanted: u32,
        free: i64,
    },
    /// MiB.
    Memory {
        wanted: u32,
        free: i64,
    },
    /// A port of the host that is reserved, or that a task holds.
    Port(Protocol, u16),
    Gpu {
        wanted: u32,
        free: i64,
    },
}

impl Shortfall {
    /// The refusal that placement answers when this is the first check that fails.
    pub fn refusal(&self) -> Refusal {
        match self {
            Shortfall::Inactive => Refusal::Inactive,
            Shortfall::Agent => Refusal::Agent,
            Shortfall::Attribute { .. } => Refusal::Attribute,
            Shortfall::MemberOf(_) => Refusal::MemberOf,
            Shortfall::DistinctInstance { .. } => Refusal::DistinctInstance,
            Shortfall::Cpu { .. } => Refusal::Cpu,
            Shortfall::Memory { .. } => Refusal::Memory,
            Shortfall::Port(..) => Refusal::Ports,
            Shortfall::Gpu { .. } => Refusal::Gpu,
        }
    }

    /// Whether another task's end, or a smaller task, could mend it: the instance is of the right kind.
    pub fn is_of_room(&self) -> bool {
        matches!(
            self,
            Shortfall::Cpu { .. } | Shortfall::Memory { .. } | Shortfall::Port(..) | Shortfall::Gpu { .. }
        )
    }
}

impl Host {
    /// Every check that the instance fails; none exactly when it takes the task. In the order of the checks, but that a
    /// `distinctInstance` stands where the request names it among its constraints.
    pub fn shortfalls(&self, request: &Request) -> Vec<Shortfall> {
        let mut found = Vec::new();
        let profile = &self.profile;
        if !profile.active {
            found.push(Shortfall::Inactive);
        }
        if !profile.connected {
            found.push(Shortfall::Agent);
        }
        for (name, wanted) in &request.attributes {
            let own = profile.attributes.get(name);
            if !own.is_some_and(|own| wanted.is_none() || own == wanted) {
                let (name, wanted, found_value) = (name.clone(), wanted.clone(), own.cloned());
                found.push(Shortfall::Attribute { name, wanted, found: found_value });
            }
        }
        let now = self.site().with(request, 0);
        for constraint in &request.constraints {
            match constraint {
                Constraint::MemberOf(query) if !query.matches(&now) => {
                    found.push(Shortfall::MemberOf(query.to_string()));
                }
                Constraint::DistinctInstance if now.tasks_of_group() > 0 => {
                    let (group, tasks) = (request.group.clone(), now.tasks_of_group());
                    found.push(Shortfall::DistinctInstance { group, tasks });
                }
                Constraint::MemberOf(_) | Constraint::DistinctInstance => {}
            }
        }
        if self.free_cpu < i64::from(request.cpu) {
            found.push(Shortfall::Cpu { wanted: request.cpu, free: self.free_cpu });
        }
        if self.free_memory < i64::from(request.memory) {
            found.push(Shortfall::Memory { wanted: request.memory, free: self.free_memory });
        }
        let taken = request.ports.iter().filter(|port| self.used_ports.contains(port));
        found.extend(taken.map(|(protocol, port)| Shortfall::Port(*protocol, *port)));
        if self.free_gpus < i64::from(request.gpus) {
            found.push(Shortfall::Gpu { wanted: request.gpus, free: self.free_gpus });
        }
        found
    }
}

/// As the rest of a sentence about the instance.
impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacks = |f: &mut fmt::Formatter<'_>, what: &str, wanted: u32, free: i64| {
            // Less than nothing is free where room is kept, or an instance registered again with less than its tasks hold.
            let free = free.max(0);
            let missing = i64::from(wanted) - free;
            write!(f, "has {free} {what} free of the {wanted} that the task needs: {missing} too few")
        };
        match self {
            Shortfall::Inactive => f.write_str("is draining or deregistered: it takes no new tasks"),
            Shortfall::Agent => f.write_str("has no connection to its agent"),
            Shortfall::Attribute { name, wanted, found } => match (wanted, found) {
                (None, _) => write!(f, "lacks the attribute {name}"),
                (Some(wanted), None) => write!(f, "lacks the attribute {name}, which has to be {wanted}"),
                (Some(wanted), Some(None)) => {
                    write!(f, "has the attribute {name} without a value: it has to be {wanted}")
                }
                (Some(wanted), Some(Some(value))) => {
                    write!(f, "has {value} for the attribute {name}: it has to be {wanted}")
                }
            },
            Shortfall::MemberOf(expression) => {
                write!(f, "does not satisfy the placement constraint memberOf {expression}")
            }
            Shortfall::DistinctInstance { group, tasks } => {
                let plural = if *tasks == 1 { "task" } else { "tasks" };
                write!(
                    f,
                    "has {tasks} {plural} of the group {group} already, and distinctInstance allows none"
                )
            }
            Shortfall::Cpu { wanted, free } => lacks(f, "CPU units", *wanted, *free),
            Shortfall::Memory { wanted, free } => lacks(f, "MiB of memory", *wanted, *free),
            Shortfall::Gpu { wanted, free } => lacks(f, "GPUs", *wanted, *free),
            Shortfall::Port(protocol, port) => {
                let protocol = match protocol {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                };
                write!(f, "has its {protocol} port {port} in use or reserved")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::placement::Profile;
    use crate::query::Query;
    use crate::time::Timestamp;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn host(attributes: &[(&str, Option<&str>)]) -> Host {
        let attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
        let profile = Profile {
            active: true,
            connected: true,
            attributes: attributes.collect(),
            agent_version: "1.86.3".to_owned(),
            ec2_instance_id: None,
            registered_at: Timestamp::EPOCH,
        };
        Host {
            profile: profile.into(),
            free_cpu: 512,
            free_memory: 1_024,
            free_gpus: 0,
            used_ports: BTreeSet::from([(Protocol::Tcp, 80)]).into(),
            groups: BTreeMap::from([("service:web".into(), 2)]).into(),
        }
    }

    fn told(host: &Host, request: &Request) -> Vec<String> {
        host.shortfalls(request).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_that_is_missing_is_told_with_figures() {
        let host = host(&[("rack", Some("a")), ("bare", None)]);
        let request = Request {
            cpu: 1_024,
            memory: 4_096,
            gpus: 1,
            ports: BTreeSet::from([(Protocol::Tcp, 80), (Protocol::Udp, 80)]),
            attributes: BTreeMap::from([
                ("bare".to_owned(), Some("x".to_owned())),
                ("disk".to_owned(), None),
                ("rack".to_owned(), Some("b".to_owned())),
            ]),
            constraints: vec![
                Constraint::DistinctInstance,
                Constraint::MemberOf(Query::parse("runningTasksCount < 2").unwrap()),
            ],
            group: "service:web".to_owned(),
            ..Request::default()
        };
        let expected = [
            "has the attribute bare without a value: it has to be x",
            "lacks the attribute disk",
            "has a for the attribute rack: it has to be b",
            "has 2 tasks of the group service:web already, and distinctInstance allows none",
            "does not satisfy the placement constraint memberOf runningTasksCount < 2",
            "has 512 CPU units free of the 1024 that the task needs: 512 too few",
            "has 1024 MiB of memory free of the 4096 that the task needs: 3072 too few",
            "has its TCP port 80 in use or reserved",
            "has 0 GPUs free of the 1 that the task needs: 1 too few",
        ];
        assert_eq!(told(&host, &request), expected);
        assert!(told(&host, &Request { group: "service:web".to_owned(), ..Request::default() }).is_empty());
    }

    prop_compose! {
        fn hosts()(active in prop::bool::weighted(0.8), connected in prop::bool::weighted(0.8), cpu in -10i64..300,
            memory in -10i64..300, gpus in 0i64..2, rack in prop::option::of("[ab]"), tasks in 0u32..2) -> Host {
            let mut host = host(&[]);
            let profile = std::sync::Arc::make_mut(&mut host.profile);
            profile.active = active;
            profile.connected = connected;
            if let Some(rack) = rack {
                profile.attributes.insert("rack".to_owned(), Some(rack));
            }
            (host.free_cpu, host.free_memory, host.free_gpus) = (cpu, memory, gpus);
            let groups: BTreeMap<_, _> = (tasks > 0).then(|| ("service:web".into(), tasks)).into_iter().collect();
            host.groups = groups.into();
            host
        }
    }

    prop_compose! {
        fn requests()(cpu in 0u32..300, memory in 0u32..300, gpus in 0u32..2, port in prop::option::of(79u16..82),
            rack in prop::option::of(prop::option::of("[ab]")),
            constraints in prop::collection::vec(prop::sample::select(vec![
                "distinctInstance", "attribute:rack == a", "runningTasksCount < 1", "task:group == 'service:web'",
            ]), 0..3)) -> Request {
            let constraint = |text: &str| match text {
                "distinctInstance" => Constraint::DistinctInstance,
                text => Constraint::MemberOf(Query::parse(text).unwrap()),
            };
            Request {
                cpu, memory, gpus,
                ports: port.map(|port| (Protocol::Tcp, port)).into_iter().collect(),
                attributes: rack.map(|value| ("rack".to_owned(), value)).into_iter().collect(),
                constraints: constraints.into_iter().map(constraint).collect(),
                group: "service:web".to_owned(),
                ..Request::default()
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_refuses(host in hosts(), request in requests()) {
            let told: Vec<Refusal> = host.shortfalls(&request).iter().map(Shortfall::refusal).collect();
            match host.refuses(&request) {
                None => prop_assert!(told.is_empty(), "{told:?}"),
                Some(refusal) => prop_assert!(told.contains(&refusal), "{refusal:?} is not in {told:?}"),
            }
        }
    }
}
