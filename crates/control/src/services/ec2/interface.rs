//! Network interfaces: EC2 keeps none of its own here, it shows those of ECS's tasks.

use super::filter::{Described, Fact};
use super::state::{Ec2State, Tags};
use crate::services::ecs::links;
use crate::tx::View;
use gantry_decide::ids::{EniId, VpcId};
use gantry_decide::time::Timestamp;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A network interface of a task.
#[derive(Clone, Debug)]
pub struct Interface {
    pub id: EniId,
    /// Older tasks' may be one that nobody made.
    pub subnet: String,
    /// `None` for a subnet that nobody made.
    pub vpc: Option<VpcId>,
    pub zone: Option<String>,
    /// Ids, and the names of those that exist.
    pub groups: Vec<(String, Option<String>)>,
    pub mac: String,
    pub address: Ipv4Addr,
    pub ipv6: Option<Ipv6Addr>,
    pub dns_name: String,
    /// The ARN of the task's attachment, as ECS describes its interfaces.
    pub description: String,
    pub on_fargate: bool,
    pub since: Timestamp,
    /// Those that ECS gives what it manages: there is no way to give others.
    pub tags: Tags,
}

/// The interfaces of a scope's tasks. `ec2` is the same scope's state, as seen.
pub fn all(view: View<'_>, ec2: &Ec2State) -> Vec<Interface> {
    let read = |task: links::TaskInterface<'_>| {
        let eni = task.eni;
        let subnet = eni.subnet.parse().ok().and_then(|id| ec2.subnet(&id));
        let group = |id: &String| {
            let known = id.parse().ok().and_then(|id| ec2.security_group(&id));
            (id.clone(), known.map(|group| group.name.clone()))
        };
        Interface {
            id: eni.id,
            subnet: eni.subnet.clone(),
            vpc: subnet.map(|subnet| subnet.vpc),
            zone: subnet.map(|subnet| subnet.zone.clone()).or_else(|| task.zone.map(str::to_owned)),
            groups: eni.security_groups.iter().map(group).collect(),
            mac: eni.mac.clone(),
            address: eni.address,
            ipv6: eni.ipv6.map(|ipv6| ipv6.address),
            dns_name: eni.private_dns_name.clone(),
            description: task.attachment,
            on_fargate: task.on_fargate,
            since: task.since,
            tags: task.tags,
        }
    };
    links::task_interfaces(view).map(read).collect()
}

fn groups(interface: &Interface) -> impl Iterator<Item = &String> {
    interface.groups.iter().map(|(id, _)| id)
}

impl Described for Interface {
    const FACTS: &'static [Fact<Self>] = &[
        ("addresses.private-ip-address", |_, interface| vec![interface.address.to_string()]),
        ("attachment.status", |_, _| vec!["attached".to_owned()]),
        ("availability-zone", |_, interface| interface.zone.iter().cloned().collect()),
        ("description", |_, interface| vec![interface.description.clone()]),
        ("group-id", |_, interface| groups(interface).cloned().collect()),
        ("group-name", |_, interface| interface.groups.iter().filter_map(|(_, name)| name.clone()).collect()),
        ("interface-type", |_, _| vec!["interface".to_owned()]),
        ("ipv6-addresses.ipv6-address", |_, interface| {
            interface.ipv6.iter().map(ToString::to_string).collect()
        }),
        ("mac-address", |_, interface| vec![interface.mac.clone()]),
        ("network-interface-id", |_, interface| vec![interface.id.to_string()]),
        ("owner-id", |scope, _| vec![scope.account.to_string()]),
        ("private-dns-name", |_, interface| vec![interface.dns_name.clone()]),
        ("private-ip-address", |_, interface| vec![interface.address.to_string()]),
        ("requester-managed", |_, _| vec!["true".to_owned()]),
        ("status", |_, _| vec!["in-use".to_owned()]),
        ("subnet-id", |_, interface| vec![interface.subnet.clone()]),
        ("vpc-id", |_, interface| interface.vpc.iter().map(ToString::to_string).collect()),
        // Instances have none of these interfaces.
        ("attachment.attachment-id", |_, interface| vec![super::views::attachment_id(interface)]),
        ("attachment.instance-id", |_, _| Vec::new()),
        ("attachment.instance-owner-id", |scope, interface| {
            vec![super::views::attachment_owner(scope, interface)]
        }),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
