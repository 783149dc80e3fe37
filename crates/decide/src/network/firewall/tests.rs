//! Random groups, interfaces and changes of them; the changes are applied to a model of a packet filter that is as
//! strict as the kernel's, and what it lets pass is compared with what the groups say, read naively.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::network::{Ipv4Block, Ports, Protocol};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A packet filter: what `Change`s make.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    sets: BTreeMap<String, (Family, BTreeSet<IpAddr>)>,
    chains: BTreeMap<String, Vec<Rule>>,
    bound: BTreeSet<(Side, String)>,
}

impl Default for Filter {
    fn default() -> Filter {
        let sets = Family::BOTH.map(|family| (task_set(family), (family, BTreeSet::new())));
        Filter { sets: sets.into(), chains: BTreeMap::new(), bound: BTreeSet::new() }
    }
}

impl Filter {
    /// Applies changes; panics where the kernel would refuse.
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::MakeSet(name, family) => {
                    assert!(
                        self.sets.insert(name.clone(), (family, BTreeSet::new())).is_none(),
                        "{name} is there"
                    );
                }
                Change::DropSet(name, family) => {
                    let used = self.rules().any(|rule| {
                        rule.matches.iter().any(|m| matches!(m, Match::PeerIn(_, _, set) if *set == name))
                    });
                    assert!(!used, "{name} is in use");
                    assert_eq!(self.sets.remove(&name).unwrap().0, family);
                }
                Change::Add(name, addresses) => {
                    let (family, set) = self.sets.get_mut(&name).unwrap();
                    for address in addresses {
                        assert_eq!(Family::of(address), *family);
                        assert!(set.insert(address), "{address} is in {name}");
                    }
                }
                Change::Remove(name, addresses) => {
                    let (_, set) = self.sets.get_mut(&name).unwrap();
                    for address in addresses {
                        assert!(set.remove(&address), "{address} is not in {name}");
                    }
                }
                Change::MakeChain(name) => {
                    assert!(self.chains.insert(name.clone(), Vec::new()).is_none(), "{name} is there");
                }
                Change::Fill(name, rules) => {
                    for rule in &rules {
                        if let Verdict::Jump(to) = &rule.verdict {
                            assert!(self.chains.contains_key(to), "{name} leads to {to}");
                        }
                        for one in &rule.matches {
                            if let Match::PeerIn(_, family, set) = one {
                                assert_eq!(self.sets[set].0, *family);
                            }
                        }
                    }
                    *self.chains.get_mut(&name).unwrap() = rules;
                }
                Change::DropChain(name) => {
                    let jumped = self.rules().any(|rule| rule.verdict == Verdict::Jump(name.clone()));
                    assert!(
                        !jumped
                            && !self.bound.iter().any(|(side, link)| interface_chain(*side, link) == name)
                    );
                    assert!(self.chains.remove(&name).is_some());
                }
                Change::Bind(side, link) => {
                    assert!(self.chains.contains_key(&interface_chain(side, &link)));
                    assert!(self.bound.insert((side, link)));
                }
                Change::Unbind(side, link) => assert!(self.bound.remove(&(side, link))),
            }
        }
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.chains.values().flatten()
    }

    fn passes(&self, side: Side, link: &str, packet: &Packet) -> bool {
        !self.bound.contains(&(side, link.to_owned()))
            || self.decides(&interface_chain(side, link), packet) == Some(true)
    }

    fn decides(&self, chain: &str, packet: &Packet) -> Option<bool> {
        self.chains[chain].iter().find_map(|rule| {
            rule.matches.iter().all(|one| self.holds(one, packet)).then_some(())?;
            match &rule.verdict {
                Verdict::Accept => Some(true),
                Verdict::Drop => Some(false),
                Verdict::Jump(to) => self.decides(to, packet),
            }
        })
    }

    fn holds(&self, one: &Match, packet: &Packet) -> bool {
        let peer = |side: &Side| if *side == Side::In { packet.from } else { packet.to };
        match one {
            Match::Family(family) => Family::of(packet.from) == *family,
            Match::NotFrom(address) => packet.from != *address,
            Match::Peer4(side, block) => matches!(peer(side), IpAddr::V4(peer) if block.contains(peer)),
            Match::Peer6(side, block) => matches!(peer(side), IpAddr::V6(peer) if block.contains(peer)),
            Match::PeerIn(side, _, set) => self.sets[set].1.contains(&peer(side)),
            Match::Protocol(number) => packet.protocol == *number,
            Match::Ports(first, last) => (*first..=*last).contains(&packet.port),
            Match::IcmpType(kind) => packet.icmp.0 == *kind,
            Match::IcmpCode(code) => packet.icmp.1 == *code,
        }
    }
}

#[derive(Clone, Debug)]
struct Packet {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    port: u16,
    icmp: (u8, u8),
}

/// What EC2 says of a packet, read from the groups as they were last told.
struct Oracle {
    groups: BTreeMap<SecurityGroupId, (Allowances, BTreeSet<IpAddr>)>,
    interfaces: BTreeMap<String, Interface>,
}

impl Oracle {
    fn passes(&self, side: Side, link: &str, packet: &Packet) -> bool {
        let Some(interface) = self.interfaces.get(link) else { return true };
        if side == Side::Out && !interface.addresses.contains(&packet.from) {
            return false;
        }
        interface.groups.iter().filter_map(|id| self.groups.get(id)).any(|(allows, _)| {
            let (list, peer) = match side {
                Side::In => (&allows.ingress, packet.from),
                Side::Out => (&allows.egress, packet.to),
            };
            list.iter().any(|allowed| {
                let known = match (&allowed.peer, peer) {
                    (Peer::Ipv4(block), IpAddr::V4(peer)) => block.contains(peer),
                    (Peer::Ipv6(block), IpAddr::V6(peer)) => block.contains(peer),
                    (Peer::Group(id), peer) => {
                        self.groups.get(id).is_some_and(|(_, members)| members.contains(&peer))
                    }
                    _ => false,
                };
                let ports = allowed.traffic.ports;
                let within =
                    |number: u16| ports.is_none_or(|p| p.from <= number.into() && p.to >= number.into());
                let is = |wanted: i32, is: u8| wanted == -1 || wanted == i32::from(is);
                let icmp = ports
                    .is_none_or(|p| p.from == -1 || is(p.from, packet.icmp.0) && is(p.to, packet.icmp.1));
                known
                    && match allowed.traffic.protocol {
                        Protocol::All => true,
                        Protocol::Tcp => packet.protocol == 6 && within(packet.port),
                        Protocol::Udp => packet.protocol == 17 && within(packet.port),
                        Protocol::Icmp => packet.protocol == 1 && icmp,
                        Protocol::Icmpv6 => packet.protocol == 58 && icmp,
                        Protocol::Number(number) => packet.protocol == number,
                    }
            })
        })
    }
}

const GROUPS: usize = 4;
const LINKS: usize = 4;

fn group_id(number: usize) -> SecurityGroupId {
    SecurityGroupId::derived(&number.to_string())
}

/// Of a handful, so that they meet.
fn address() -> impl Strategy<Value = IpAddr> {
    (0..5_u8, any::<bool>()).prop_map(|(last, v6)| match v6 {
        false => Ipv4Addr::new(10, 0, 0, last).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let protocol = prop_oneof![
        Just(Protocol::All),
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp),
        Just(Protocol::Icmpv6),
        Just(Protocol::Number(50)),
    ];
    (protocol, -1..4_i32, 0..4_i32).prop_map(|(protocol, from, more)| {
        let ports = match protocol {
            Protocol::Tcp | Protocol::Udp => Some(Ports { from: from.max(0), to: from.max(0) + more }),
            Protocol::Icmp | Protocol::Icmpv6 => Some(Ports { from, to: more - 1 }),
            Protocol::Number(_) | Protocol::All => None,
        };
        Traffic { protocol, ports }
    })
}

fn allowed() -> impl Strategy<Value = Allowed> {
    let peer = prop_oneof![
        (address(), 0..=128_u8).prop_map(|(address, bits)| match address {
            IpAddr::V4(address) => Peer::Ipv4(Ipv4Block::around(address, 32 - bits % 4).unwrap()),
            IpAddr::V6(address) =>
                Peer::Ipv6(crate::network::Ipv6Block::around(address, 128 - bits % 4).unwrap()),
        }),
        Just(Peer::Ipv4(Ipv4Block::ALL)),
        (0..GROUPS).prop_map(|number| Peer::Group(group_id(number))),
    ];
    (traffic(), peer).prop_map(|(traffic, peer)| Allowed { traffic, peer })
}

fn allowances() -> impl Strategy<Value = Allowances> {
    let list = || prop::collection::vec(allowed(), 0..4);
    (list(), list()).prop_map(|(ingress, egress)| Allowances { ingress, egress })
}

#[derive(Clone, Debug)]
enum Step {
    Attach(usize, Vec<IpAddr>, Vec<usize>),
    Detach(usize),
    Allow(usize, Allowances),
    Join(usize, BTreeSet<IpAddr>, BTreeSet<IpAddr>),
    Forget(usize),
    /// All is told anew of these groups, and none of the others.
    Anew(Vec<(usize, Allowances, BTreeSet<IpAddr>)>),
    /// The host's table is lost.
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || prop::collection::btree_set(address(), 0..4);
    let step = prop_oneof![
        3 => (0..LINKS, prop::collection::btree_set(address(), 1..3), prop::collection::btree_set(0..GROUPS, 1..4))
            .prop_map(|(link, addresses, groups)| {
                Step::Attach(link, addresses.into_iter().collect(), groups.into_iter().collect())
            }),
        1 => (0..LINKS).prop_map(Step::Detach),
        3 => (0..GROUPS, allowances()).prop_map(|(group, allows)| Step::Allow(group, allows)),
        3 => (0..GROUPS, some(), some()).prop_map(|(group, joined, left)| Step::Join(group, joined, left)),
        1 => (0..GROUPS).prop_map(Step::Forget),
        1 => prop::collection::vec((0..GROUPS, allowances(), some()), 0..4).prop_map(Step::Anew),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 1..24)
}

fn packet() -> impl Strategy<Value = Packet> {
    let protocol = prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(50), Just(51)];
    (address(), address(), protocol, 0..8_u16, (0..4_u8, 0..4_u8))
        .prop_map(|(from, to, protocol, port, icmp)| Packet { from, to, protocol, port, icmp })
}

fn link(number: usize) -> String {
    format!("gv{number}")
}

proptest! {
    #[test]
    fn what_passes_is_what_the_groups_allow(steps in steps(), packets in prop::collection::vec(packet(), 40)) {
        let mut firewall = Firewall::default();
        let mut filter = Filter::default();
        let mut oracle = Oracle { groups: BTreeMap::new(), interfaces: BTreeMap::new() };
        for step in steps {
            match step {
                Step::Attach(number, addresses, groups) => {
                    // An address is on one link at a time, as the control plane sees to.
                    let used: BTreeSet<IpAddr> = oracle.interfaces.iter()
                        .filter(|(other, _)| **other != link(number))
                        .flat_map(|(_, interface)| interface.addresses.iter().copied()).collect();
                    let addresses = addresses.into_iter().filter(|address| !used.contains(address)).collect();
                    let interface = Interface { addresses, groups: groups.into_iter().map(group_id).collect() };
                    filter.apply(firewall.attach(&link(number), interface.clone()));
                    oracle.interfaces.insert(link(number), interface);
                }
                Step::Detach(number) => {
                    filter.apply(firewall.detach(&link(number)));
                    oracle.interfaces.remove(&link(number));
                }
                Step::Allow(number, allows) => {
                    let news = GroupNews { allows: Some(allows.clone()), ..GroupNews::default() };
                    let groups = BTreeMap::from([(group_id(number), news)]);
                    filter.apply(firewall.hear(News { groups, ..News::default() }));
                    oracle.groups.entry(group_id(number)).or_default().0 = allows;
                }
                Step::Join(number, joined, left) => {
                    let news = GroupNews { allows: None, joined: joined.clone(), left: left.clone() };
                    let groups = BTreeMap::from([(group_id(number), news)]);
                    filter.apply(firewall.hear(News { groups, ..News::default() }));
                    let members = &mut oracle.groups.entry(group_id(number)).or_default().1;
                    members.retain(|address| !left.contains(address));
                    members.extend(joined);
                }
                Step::Forget(number) => {
                    let gone = BTreeSet::from([group_id(number)]);
                    filter.apply(firewall.hear(News { gone, ..News::default() }));
                    oracle.groups.remove(&group_id(number));
                }
                Step::Anew(all) => {
                    oracle.groups = all.into_iter()
                        .map(|(number, allows, members)| (group_id(number), (allows, members))).collect();
                    let groups = oracle.groups.iter().map(|(id, (allows, joined))| {
                        (*id, GroupNews { allows: Some(allows.clone()), joined: joined.clone(), left: BTreeSet::new() })
                    });
                    filter.apply(firewall.hear(News { complete: true, groups: groups.collect(), ..News::default() }));
                }
                Step::Rebuild => {
                    let text = serde_json::to_string(&firewall).unwrap();
                    let mut read: Firewall = serde_json::from_str(&text).unwrap();
                    for (link, interface) in &oracle.interfaces {
                        read.attach(link, interface.clone());
                    }
                    assert_eq!(read, firewall, "all of it is written but the interfaces");
                    let mut anew = Filter::default();
                    anew.apply(firewall.whole());
                    assert_eq!(anew, filter, "made at once or step by step, it is the same");
                }
            }
            for packet in packets.iter().filter(|packet| Family::of(packet.from) == Family::of(packet.to)) {
                for number in 0..LINKS {
                    for side in Side::BOTH {
                        let (link, seen) = (link(number), filter.passes(side, &link(number), packet));
                        assert_eq!(seen, oracle.passes(side, &link, packet), "{side:?} {link} {packet:?}");
                    }
                }
            }
        }
        // Nothing is left of what has gone.
        for number in 0..LINKS {
            filter.apply(firewall.detach(&link(number)));
        }
        filter.apply(firewall.hear(News { complete: true, ..News::default() }));
        assert_eq!(filter, Filter::default());
    }
}
