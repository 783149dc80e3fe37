//! The networks of tasks on one host.
//!
//! A task in awsvpc mode has a namespace of its own, with the address that the control plane chose on `eth0`. The host
//! is its router: one link leads there, with a route for the one address, so that all that tasks say to each other passes
//! the host's firewall, and tasks of one subnet may be on different hosts. A container in bridge mode has a namespace too,
//! on the agent's bridge, with an address that is chosen here and ports of the host that lead to it. Everything carries the agent's name, so that a later run finds and removes what an earlier one left.
//!
//! All calls block, some for tens of milliseconds (the kernel's wait when a link goes): they belong on a blocking thread.
//! Those for one key must follow each other; those for different keys may run at once.

mod block;
mod doors;
mod filter;
mod guard;
mod instance;
mod ipv6;
pub mod local;
mod machine;
mod namespace;
mod nat;
mod netlink;
mod nft;
mod overlay;
mod ports;
mod proxy;
mod removal;
mod route;

pub use block::{InvalidBlock, Ipv4Block};
pub use ipv6::is_possible as ipv6_is_possible;
pub use machine::MachineNetwork;
pub use namespace::DIRECTORY as NAMESPACES;
pub use nat::Published;
pub use ports::PortRequest;

use doors::Doors;
use gantry_decide::ids::SecurityGroupId;
use gantry_decide::network::Neighbours;
use gantry_decide::network::firewall::{Interface, News};
use gantry_decide::task::TransportProtocol;
use gantry_decide::task::proxy::ProxyRules;
use guard::Guard;
use namespace::Origin;
use nat::Table;
use netlink::Socket;
use overlay::Overlay;
use parking_lot::Mutex;
use ports::Ports;
use removal::Removal;
use route::{Route, Veth};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

/// Where tasks ask their agent, as on ECS.
pub const ENDPOINT_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);
/// The port that ECS's agent listens on, and reserves on every host. Tasks ask port 80, which stays their own to use.
pub const ENDPOINT_PORT: u16 = 51_679;

/// What a network is for.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Of the agent: 1 to 8 lower-case letters and digits.
    pub name: String,
    /// Addresses of containers in bridge mode.
    pub bridge_block: Ipv4Block,
    /// Bytes of the largest packet of tasks and containers.
    pub mtu: u32,
    /// By which other hosts reach this one, to carry what tasks say to each other.
    pub host_address: Option<Ipv4Addr>,
    /// Keeps what is known of security groups and of other hosts' tasks.
    pub state: PathBuf,
    /// The name servers that tasks are given.
    pub resolvers: Vec<IpAddr>,
}

/// The interface of a task in awsvpc mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInterface {
    pub address: Ipv4Addr,
    /// Its second address, with the bits of its subnet's prefix.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    pub prefix_length: u8,
    pub gateway: Ipv4Addr,
    pub mac: [u8; 6],
    pub security_groups: Vec<SecurityGroupId>,
    /// What leads to a proxy of the task's own.
    pub proxy: Option<ProxyRules>,
}

impl TaskInterface {
    fn guarded(&self) -> Interface {
        Interface { addresses: self.addresses().collect(), groups: self.security_groups.clone() }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let second = self.ipv6.map(|(address, _)| IpAddr::from(address));
        [IpAddr::from(self.address)].into_iter().chain(second)
    }
}

/// A container in bridge mode, as must be remembered to find it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridged {
    pub address: Ipv4Addr,
    pub ports: Vec<Published>,
}

/// The hardware address of a router's end of a task's link. Nobody else is on the link, so that all may have the same.
const ROUTER_MAC: [u8; 6] = [0x0a, 0x58, 0xa9, 0xfe, 0x01, 0x01];

/// A port of the host that nobody uses now, from the range of dynamic ports; the first, where `more` are to follow it.
pub fn free_port(protocol: TransportProtocol, more: u16) -> Option<u16> {
    let request = PortRequest { container_port: 0, host_port: 0, protocol, more };
    // Given up again at once: it is for somebody else to take.
    Ports::default().take(request, rand::random())
}

/// Why a network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("no address is left in {0}")]
    NoAddress(Ipv4Block),
    #[error("port {0} is already allocated")]
    PortTaken(u16),
    #[error("no dynamic port is left")]
    NoPort,
    #[error("this host has a route to {0} already: another network of it has the same addresses")]
    AddressInUse(IpAddr),
}

fn explain(error: &NetworkError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn io(doing: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Io { doing, source }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    config: NetworkConfig,
    table: Table,
    guard: Guard,
    overlay: Option<Overlay>,
    removal: Removal,
    bridge: u32,
    state: Mutex<State>,
    /// Published ports by IPv6.
    doors: Doors,
}

#[derive(Default)]
struct State {
    bridged: BTreeMap<String, Bridged>,
    addresses: BTreeSet<Ipv4Addr>,
    ports: Ports,
    /// Where the search for the next address and port begins: just behind the last.
    next: u64,
}

/// The bridge of an agent.
pub fn bridge_name(agent: &str) -> String {
    format!("gb-{agent}")
}

fn table(agent: &str) -> Table {
    Table::new(format!("gantry-{agent}"))
}

/// Of an agent that listens on the host for containers on an engine's bridge.
fn endpoints(agent: &str) -> Table {
    Table::new(format!("gantry-{agent}-endpoints"))
}

/// Of an agent that answers for the instance's metadata.
fn instance_table(agent: &str) -> Table {
    Table::new(instance::table(agent))
}

fn namespace_prefix(agent: &str) -> String {
    format!("gantry-{agent}-")
}

/// How the names of links to other hosts begin, of all agents.
const OVERLAY_PREFIX: &str = "gx-";

/// The link of an agent's that leads to other hosts.
pub fn overlay_name(agent: &str) -> String {
    format!("{OVERLAY_PREFIX}{agent}")
}

/// How the names of links to namespaces begin, of all agents.
const LINK_PREFIX: &str = "gv";
/// All of them, as firewalls name them.
pub const LINKS: &str = "gv+";

/// A name for a link: short, as the kernel wants it, and the same for the same namespace.
fn link_name(namespace: &str) -> String {
    let hash = namespace
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{LINK_PREFIX}{hash:08x}")
}

impl Network {
    /// Makes what all tasks share, or takes it over, with the containers in bridge mode and the tasks that run.
    /// Namespaces of others of this agent are removed: nobody is in them.
    ///
    /// # Errors
    /// When the kernel refuses; rights to administer the network are needed.
    pub fn open(
        config: NetworkConfig,
        bridged: BTreeMap<String, Bridged>,
        tasks: &BTreeMap<String, Option<TaskInterface>>,
    ) -> Result<Network, NetworkError> {
        let mut socket = Socket::route().map_err(io("opening a netlink socket"))?;
        let name = bridge_name(&config.name);
        let bridge = route::bridge(&mut socket, &name).map_err(io("making the bridge"))?;
        let block = config.bridge_block;
        route::add_address(&mut socket, bridge, block.gateway().into(), block.prefix_length())
            .map_err(io("giving the bridge its address"))?;
        forward(&name).map_err(io("switching on forwarding"))?;
        let mut state = State { next: u64::from(std::process::id()), ..State::default() };
        let mut published = Vec::new();
        for container in bridged.values() {
            state.addresses.insert(container.address);
            for port in &container.ports {
                state.ports.take_over(port.protocol, port.host_port);
                published.push(*port);
            }
        }
        let table = table(&config.name);
        table.install(&name, block, &published).map_err(io("installing the firewall rules"))?;
        let prefix = namespace_prefix(&config.name);
        let mut old = namespace::list(&prefix);
        old.retain(|namespace| {
            let key = namespace.strip_prefix(&prefix).unwrap_or_default();
            !tasks.contains_key(key) && !bridged.contains_key(key)
        });
        remove_namespaces(&old).map_err(io("removing old namespaces"))?;
        state.bridged = bridged;
        let guarded = tasks.iter().filter_map(|(key, interface)| {
            Some((link_name(&format!("{prefix}{key}")), interface.as_ref()?.guarded()))
        });
        let overlay = config.host_address.and_then(|own| {
            let (name, file) = (overlay_name(&config.name), config.state.join("neighbours.json"));
            Overlay::open(&name, own, config.mtu, file)
                .inspect_err(|error| {
                    tracing::warn!(reason = %explain(error), "tasks of this host do not reach those of other hosts");
                })
                .ok()
        });
        let link = overlay.as_ref().map(|_| (overlay_name(&config.name), overlay::PORT));
        let filter = filter::Table::new(table.name.clone(), link);
        let hosts = overlay.as_ref().map(Overlay::hosts).unwrap_or_default();
        let (file, resolvers) = (config.state.join("security-groups.json"), config.resolvers.clone());
        let guard = Guard::open(filter, file, resolvers, hosts, guarded)?;
        let (removal, state, doors) = (Removal::default(), Mutex::new(state), Doors::default());
        let parts = Inner { config, table, guard, overlay, removal, bridge, state, doors };
        let network = Network(Arc::new(parts));
        network.open_doors(&published);
        Ok(network)
    }

    /// Where the namespace of a task or container is, if it is there.
    pub fn path(&self, key: &str) -> PathBuf {
        namespace::path(&self.namespace(key))
    }

    fn namespace(&self, key: &str) -> String {
        format!("{}{key}", namespace_prefix(&self.0.config.name))
    }

    /// Listens for the questions of who is in a namespace.
    ///
    /// # Errors
    /// When it is not there, or the kernel refuses.
    pub fn listen(&self, key: &str) -> Result<TcpListener, NetworkError> {
        let listening = namespace::within(&self.namespace(key), || listen(&mut Socket::route()?));
        listening.map_err(io("listening in a network namespace"))
    }

    /// Listens on the host itself for the questions of containers on an engine's bridge, whose namespaces are made with
    /// the containers: what they ask of ECS's address goes the way of everything else that is not their neighbour. One
    /// agent of a host can.
    ///
    /// # Errors
    /// When another agent does, or the kernel refuses.
    pub fn listen_on_host(&self) -> Result<TcpListener, NetworkError> {
        let listening = || {
            route::add_address(&mut Socket::route()?, route::index("lo")?, ENDPOINT_ADDRESS.into(), 32)?;
            let listener = TcpListener::bind((ENDPOINT_ADDRESS, ENDPOINT_PORT))?;
            nat::install_endpoint(&endpoints(&self.0.config.name).name, ENDPOINT_ADDRESS, ENDPOINT_PORT)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        listening().map_err(io("listening for containers on Docker's bridge"))
    }

    /// Listens for the questions of the host's own programs for the instance's metadata, at the address that EC2 has for
    /// them. One agent of a host can.
    ///
    /// # Errors
    /// When another agent does, or the kernel refuses.
    pub fn listen_for_instance(&self) -> Result<TcpListener, NetworkError> {
        let listening = || {
            route::add_address(&mut Socket::route()?, route::index("lo")?, instance::ADDRESS.into(), 32)?;
            let listener = TcpListener::bind((instance::ADDRESS, instance::PORT))?;
            instance::install(&self.0.config.name)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        listening().map_err(io("listening for questions for the instance's metadata"))
    }

    /// Makes the namespace of a task in awsvpc mode, and listens for the questions of who is in it. One that is there
    /// already is taken as it is.
    ///
    /// # Errors
    /// When the kernel refuses, or something else on this host has the address. Nothing is left then.
    pub fn attach_task(&self, key: &str, interface: &TaskInterface) -> Result<TcpListener, NetworkError> {
        self.attach(key, interface, Origin::New)
    }

    /// Puts the interface of a task in awsvpc mode into the namespace of a process, which others join.
    ///
    /// # Errors
    /// As with [`attach_task`](Network::attach_task).
    pub fn attach_process(
        &self,
        key: &str,
        interface: &TaskInterface,
        pid: i32,
    ) -> Result<TcpListener, NetworkError> {
        if !namespace::is_of_process(&self.path(key), pid) {
            // What is there is of a process that has gone.
            self.remove(key).map_err(io("removing an old namespace"))?;
        }
        self.attach(key, interface, Origin::Process(pid))
    }

    fn attach(
        &self,
        key: &str,
        interface: &TaskInterface,
        origin: Origin,
    ) -> Result<TcpListener, NetworkError> {
        let mut interface = interface.clone();
        if interface.ipv6.is_some() && !ipv6_is_possible(self.0.config.mtu) {
            tracing::warn!(key, "this host has no IPv6: a task has its IPv4 address alone");
            interface.ipv6 = None;
        }
        let interface = &interface;
        let name = self.namespace(key);
        let link = link_name(&name);
        // Before there is anything to pass.
        self.0.guard.attach(&link, interface.guarded())?;
        if namespace::exists(&name) {
            return self.listen(key);
        }
        let ends = (None, Some(ROUTER_MAC), interface.mac);
        // Without IPv6 nobody is to be found by it: the router is the only other one on the link.
        let link_local = interface.ipv6.is_some();
        let made = self.pair((&name, origin), ends, link_local, |inside, eth0| {
            let gateway = interface.gateway.into();
            route::add_routed_address(inside, eth0, interface.address.into(), interface.prefix_length)?;
            route::set_up(inside, eth0)?;
            route::add_neighbour(inside, eth0, gateway, ROUTER_MAC)?;
            route::add_route(inside, Route { to: None, via: Some(gateway), link: eth0, source: None })?;
            interface.ipv6.map_or(Ok(()), |address| ipv6::inside(inside, eth0, address))?;
            interface.proxy.as_ref().map_or(Ok(()), proxy::install)?;
            listen(inside)
        });
        let made = made.map_err(io("making a network namespace"));
        let routed = made.and_then(|listener| self.lead(&link, interface).map(|()| listener));
        if routed.is_err() {
            // The first error is the one to tell.
            let _ = self.remove(key);
            let _ = self.0.guard.detach(&link);
        }
        routed
    }

    /// Leads what the host has for a task to its link.
    fn lead(&self, link: &str, interface: &TaskInterface) -> Result<(), NetworkError> {
        let prepared = || {
            pass_on(link)?;
            let (mut socket, link) = (Socket::route()?, route::index(link)?);
            if interface.ipv6.is_some() {
                ipv6::outside(&mut socket, link)?;
            }
            Ok((socket, link))
        };
        let (mut socket, link) = prepared().map_err(io("routing to a task"))?;
        for address in interface.addresses() {
            // In IPv6 by whichever the host speaks to others.
            let source = address.is_ipv4().then(|| self.0.config.bridge_block.gateway().into());
            route::add_neighbour(&mut socket, link, address, interface.mac)
                .map_err(io("routing to a task"))?;
            let led = route::add_route(&mut socket, Route { to: Some(address), via: None, link, source });
            led.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => NetworkError::AddressInUse(address),
                _ => io("routing to a task")(error),
            })?;
        }
        Ok(())
    }

    /// Makes the namespace of a container in bridge mode, and publishes its ports. One that is there already keeps what
    /// it has.
    ///
    /// # Errors
    /// When a port or address cannot be had, or the kernel refuses. Nothing is left then.
    pub fn attach_bridged(
        &self,
        key: &str,
        ports: &[PortRequest],
    ) -> Result<(PathBuf, Bridged), NetworkError> {
        let name = self.namespace(key);
        let known = self.0.state.lock().bridged.get(key).cloned();
        if let Some(bridged) = known {
            if namespace::exists(&name) {
                return Ok((namespace::path(&name), bridged));
            }
            self.detach(key)?;
        }
        // One that nobody knows the address of is of no use.
        self.remove(key).map_err(io("removing an old namespace"))?;
        let bridged = self.reserve(ports)?;
        let block = self.0.config.bridge_block;
        let octets = bridged.address.octets();
        // Locally administered, as Docker's, and as unique as the address.
        let mac = [0x02, 0x42, octets[0], octets[1], octets[2], octets[3]];
        let ends = (Some(self.0.bridge), None, mac);
        let made = self.pair((&name, Origin::New), ends, true, |inside, eth0| {
            route::add_address(inside, eth0, bridged.address.into(), block.prefix_length())?;
            route::set_up(inside, eth0)?;
            let gateway = Some(block.gateway().into());
            route::add_route(inside, Route { to: None, via: gateway, link: eth0, source: None })
        });
        let made = made.map_err(io("making a network namespace")).and_then(|()| {
            if !bridged.ports.is_empty() {
                self.0.table.publish(&bridged.ports).map_err(io("publishing ports"))?;
            }
            Ok(namespace::path(&name))
        });
        match made {
            Ok(path) => {
                self.open_doors(&bridged.ports);
                self.0.state.lock().bridged.insert(key.to_owned(), bridged.clone());
                Ok((path, bridged))
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.remove(key);
                self.free(&bridged);
                Err(error)
            }
        }
    }

    /// Takes a network away. One that is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses; what could be removed is gone.
    pub fn detach(&self, key: &str) -> Result<(), NetworkError> {
        let bridged = self.0.state.lock().bridged.remove(key);
        let withdrawn = match &bridged {
            Some(bridged) if !bridged.ports.is_empty() => self.0.table.withdraw(&bridged.ports),
            _ => Ok(()),
        };
        let removed = self.remove(key);
        if let Some(bridged) = &bridged {
            bridged.ports.iter().for_each(|port| self.0.doors.close(*port));
            self.free(bridged);
        }
        let unguarded = self.0.guard.detach(&link_name(&self.namespace(key)));
        withdrawn.map_err(io("withdrawing ports"))?;
        removed.map_err(io("removing a namespace"))?;
        unguarded
    }

    /// By which other hosts reach this one, if it carries packets to them.
    pub fn host_address(&self) -> Option<Ipv4Addr> {
        self.0.config.host_address.filter(|_| self.0.overlay.is_some())
    }

    /// What the control plane tells of other hosts' tasks, in its order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn meet(&self, news: Neighbours) -> Result<(), NetworkError> {
        let Some(overlay) = &self.0.overlay else { return Ok(()) };
        let met = overlay.hear(news);
        self.0.guard.hosts(overlay.hosts())?;
        met
    }

    /// What the control plane tells of security groups, in its order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn hear(&self, news: News) -> Result<(), NetworkError> {
        self.0.guard.hear(news)
    }

    fn remove(&self, key: &str) -> io::Result<()> {
        let namespace = self.namespace(key);
        // The pair goes at once with its end here, even while processes keep the namespace.
        let deleted = self.0.removal.delete(&link_name(&namespace));
        namespace::remove(&namespace)?;
        deleted
    }

    /// Makes a namespace, or takes a process's, with a link to the host, whose end there `fill` sets up. The link's: the
    /// bridge that the host's end is a port of, that end's hardware address, and the other's; and whether both ends have
    /// addresses of IPv6 for it alone.
    fn pair<T: Send>(
        &self,
        (name, origin): (&str, Origin),
        (bridge, mac, peer_mac): (Option<u32>, Option<[u8; 6]>, [u8; 6]),
        link_local: bool,
        fill: impl FnOnce(&mut Socket, u32) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let link = link_name(name);
        let host = || {
            let mut host = Socket::route()?;
            // Of a namespace that was lost in a crash, and that a process keeps or the kernel has yet to clear away.
            route::delete(&mut host, &link)?;
            Ok(host)
        };
        let bare = |socket: &mut Socket, link| {
            if link_local { Ok(()) } else { route::without_link_local(socket, link) }
        };
        let veth = Veth { name: &link, bridge, mac, peer_mac, mtu: self.0.config.mtu };
        namespace::create(name, origin, host, |mut host, namespace| {
            route::veth(&mut host, &veth, &namespace)?;
            let end = host.link(&link)?;
            bare(&mut host, end)?;
            match bridge {
                Some(_) => route::set_up_port(&mut host, end)?,
                None => route::set_up(&mut host, end)?,
            }
            let mut inside = Socket::route()?;
            route::set_up(&mut inside, LOOPBACK)?;
            let eth0 = inside.link("eth0")?;
            bare(&mut inside, eth0)?;
            fill(&mut inside, eth0)
        })
    }

    fn reserve(&self, requests: &[PortRequest]) -> Result<Bridged, NetworkError> {
        const RESERVED_FIRST: u32 = 2;
        let block = self.0.config.bridge_block;
        let mut state = self.0.state.lock();
        let state = &mut *state;
        let usable = u64::from(block.size() - RESERVED_FIRST - 1);
        let address = (0..usable)
            .map(|step| RESERVED_FIRST + ((state.next + step) % usable) as u32)
            .filter_map(|offset| block.address(offset))
            .find(|address| !state.addresses.contains(address))
            .ok_or(NetworkError::NoAddress(block))?;
        let mut ports: Vec<Published> = Vec::new();
        for request in requests {
            state.next = state.next.wrapping_add(1);
            let Some(host_port) = state.ports.take(*request, state.next) else {
                for port in &ports {
                    state.ports.release(port.protocol, port.host_port);
                }
                return Err(match request.host_port {
                    0 => NetworkError::NoPort,
                    port => NetworkError::PortTaken(port),
                });
            };
            let PortRequest { container_port, protocol, more, .. } = *request;
            ports.extend((0..=more).map(|step| Published {
                protocol,
                host_port: host_port + step,
                address,
                container_port: container_port.saturating_add(step),
            }));
        }
        state.addresses.insert(address);
        state.next = state.next.wrapping_add(1);
        Ok(Bridged { address, ports })
    }

    /// Lets published ports be reached by IPv6 too. Where that cannot be, IPv4 still leads there.
    fn open_doors(&self, ports: &[Published]) {
        for port in ports {
            let socket = self.0.state.lock().ports.ipv6(port.protocol, port.host_port);
            let opened = socket.map_or(Ok(()), |socket| self.0.doors.open(*port, socket));
            if let Err(error) = opened {
                tracing::warn!(port = port.host_port, %error, "a published port is not reached by IPv6");
            }
        }
    }

    fn free(&self, bridged: &Bridged) {
        let mut state = self.0.state.lock();
        state.addresses.remove(&bridged.address);
        for port in &bridged.ports {
            state.ports.release(port.protocol, port.host_port);
        }
    }
}

/// The first link of every namespace.
const LOOPBACK: u32 = 1;

/// Listens in the calling thread's namespace for the questions of who is in it.
fn listen(socket: &mut Socket) -> io::Result<TcpListener> {
    route::add_address(socket, LOOPBACK, ENDPOINT_ADDRESS.into(), 32)?;
    nat::install_endpoint(nat::ENDPOINTS, ENDPOINT_ADDRESS, ENDPOINT_PORT)?;
    let listener = TcpListener::bind((ENDPOINT_ADDRESS, ENDPOINT_PORT))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes namespaces and their links, those that processes keep too.
fn remove_namespaces(namespaces: &[String]) -> io::Result<()> {
    let links: Vec<String> = namespaces.iter().map(|namespace| link_name(namespace)).collect();
    let deleted = removal::delete(links.iter().map(String::as_str));
    namespaces.iter().try_for_each(|namespace| namespace::remove(namespace))?;
    deleted
}

/// Whether any task of any agent has a link to this host.
pub fn has_links() -> bool {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| name.starts_with(LINK_PREFIX))
}

/// Everything on this host that carries the agent's name.
pub fn leftovers(agent: &str) -> Vec<String> {
    let mut found: Vec<String> = namespace::list(&namespace_prefix(agent))
        .into_iter()
        .map(|name| format!("network namespace {name}"))
        .collect();
    let bridge = bridge_name(agent);
    for link in [bridge, overlay_name(agent)] {
        if route::index(&link).is_ok() {
            found.push(format!("link {link}"));
        }
    }
    let table = table(agent);
    let filter = filter::Table::new(table.name.clone(), None);
    if endpoints(agent).exists().unwrap_or(false) {
        found.push(format!("nf_tables table ip {}", endpoints(agent).name));
    }
    if instance_table(agent).exists().unwrap_or(false) {
        found.push(format!("nf_tables table ip {}", instance_table(agent).name));
    }
    for (family, exists) in [("ip", table.exists()), ("inet", filter.exists())] {
        if exists.unwrap_or(false) {
            found.push(format!("nf_tables table {family} {}", table.name));
        }
    }
    found
}

/// Removes everything on this host that carries the agent's name. Nothing there is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_all(agent: &str) -> Result<(), NetworkError> {
    let mut socket = Socket::route().map_err(io("opening a netlink socket"))?;
    let namespaces = namespace::list(&namespace_prefix(agent));
    remove_namespaces(&namespaces).map_err(io("removing namespaces"))?;
    let bridge = bridge_name(agent);
    let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
    for port in ports.into_iter().flatten().flatten() {
        if let Some(name) = port.file_name().to_str() {
            route::delete(&mut socket, name).map_err(io("removing a link"))?;
        }
    }
    route::delete(&mut socket, &bridge).map_err(io("removing the bridge"))?;
    route::delete(&mut socket, &overlay_name(agent)).map_err(io("removing the link to other hosts"))?;
    for (table, address) in [(endpoints(agent), ENDPOINT_ADDRESS), (instance_table(agent), instance::ADDRESS)]
    {
        if table.exists().map_err(io("looking for firewall rules"))? {
            table.remove().map_err(io("removing the firewall rules"))?;
            // Only one agent of a host can have had it.
            let lo = route::index("lo").map_err(io("finding the loopback"))?;
            let removed = route::remove_address(&mut socket, lo, address.into(), 32);
            removed.map_err(io("removing the endpoints' address"))?;
        }
    }
    let table = table(agent);
    let filter = filter::Table::new(table.name.clone(), None);
    table.remove().and_then(|()| filter.remove()).map_err(io("removing the firewall rules"))
}

/// Lets packets of a link pass, also where the host's settings came before the agent's.
fn pass_on(link: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
    if fs::read_to_string(&path)?.trim() == "1" { Ok(()) } else { fs::write(&path, "1") }
}

/// Lets packets pass between the bridge and the rest, and from loopback addresses to the bridge.
fn forward(bridge: &str) -> io::Result<()> {
    let settings = [
        "net/ipv4/ip_forward".to_owned(),
        format!("net/ipv4/conf/{bridge}/forwarding"),
        format!("net/ipv4/conf/{bridge}/route_localnet"),
    ];
    for setting in settings {
        let path = format!("/proc/sys/{setting}");
        if fs::read_to_string(&path)?.trim() != "1" {
            fs::write(&path, "1")?;
        }
    }
    // Docker drops what the host forwards and is not Docker's own; with the setting below, what a bridge passes too. An
    // accept in our table could not help: a packet has to pass the tables of all.
    if route::index("docker0").is_ok() {
        let filtered = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap_or_default();
        tracing::warn!(
            bridge,
            between_tasks = filtered.trim() == "1",
            "Docker on this host may drop the packets of tasks; let them pass with: \
             iptables -I DOCKER-USER -i {bridge} -j ACCEPT; iptables -I DOCKER-USER -o {bridge} -j ACCEPT"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
