//! On the real kernel, as root; elsewhere passed over.
#![allow(clippy::unwrap_used)]

use super::*;
use gantry_decide::network::firewall::{Allowances, Allowed, GroupNews};
use gantry_decide::network::{Peer, Traffic};
use gantry_decide::task::TransportProtocol;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

mod groups;
mod ipv6;
mod proxy;

/// A network of a test's own, removed at the end, also of a failed test.
struct Bench {
    network: Network,
    name: String,
    /// Addresses of tasks.
    tasks: Ipv4Block,
    _directory: tempfile::TempDir,
}

/// A group of the test that lets everything in.
fn open() -> SecurityGroupId {
    SecurityGroupId::derived("open")
}

/// Everything, to everywhere.
fn anything() -> Allowed {
    Allowed { traffic: Traffic::ALL, peer: Peer::Ipv4(gantry_decide::network::Ipv4Block::ALL) }
}

impl Bench {
    fn new(name: &str, block: &str) -> Option<Bench> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: networks need root");
            return None;
        }
        remove_all(name).unwrap();
        let (tasks, bridge_block) = block.parse::<Ipv4Block>().unwrap().halves().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = NetworkConfig {
            name: name.to_owned(),
            bridge_block,
            mtu: 1400,
            host_address: None,
            state: directory.path().to_owned(),
            resolvers: Vec::new(),
        };
        let network = Network::open(config, BTreeMap::new(), &BTreeMap::new()).unwrap();
        let bench = Bench { network, name: name.to_owned(), tasks, _directory: directory };
        bench.hear(News { complete: true, ..News::default() });
        bench.allow(open(), [anything()]);
        Some(bench)
    }

    fn hear(&self, news: News) {
        self.network.hear(news).unwrap();
    }

    /// Tells that a group lets this in, and everything out.
    fn allow(&self, group: SecurityGroupId, ingress: impl IntoIterator<Item = Allowed>) {
        let allows = Allowances { ingress: ingress.into_iter().collect(), egress: vec![anything()] };
        let news = GroupNews { allows: Some(allows), ..GroupNews::default() };
        self.hear(News { groups: BTreeMap::from([(group, news)]), ..News::default() });
    }

    fn interface(&self, offset: u32, groups: &[SecurityGroupId]) -> TaskInterface {
        TaskInterface {
            ipv6: None,
            proxy: None,
            address: self.tasks.address(offset).unwrap(),
            prefix_length: self.tasks.prefix_length(),
            gateway: self.tasks.gateway(),
            mac: [0x0a, 0x58, 10, 0, 0, offset as u8],
            security_groups: groups.to_vec(),
        }
    }

    /// A task that everybody may talk to.
    fn task(&self, key: &str, offset: u32) -> Ipv4Addr {
        self.guarded(key, offset, &[open()])
    }

    fn guarded(&self, key: &str, offset: u32, groups: &[SecurityGroupId]) -> Ipv4Addr {
        let interface = self.interface(offset, groups);
        drop(self.network.attach_task(key, &interface).unwrap());
        assert!(self.network.path(key).exists());
        interface.address
    }

    fn gateway(&self) -> Ipv4Addr {
        self.network.0.config.bridge_block.gateway()
    }

    /// Runs `work` in a namespace.
    fn run<T: Send>(&self, key: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = namespace::path(&self.network.namespace(key));
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                inside(&path);
                work()
            });
            run.join().unwrap()
        })
    }

    /// Answers one connection on a port inside a namespace with a greeting.
    fn serve(&self, key: &str, port: u16) -> std::thread::JoinHandle<()> {
        let path = namespace::path(&self.network.namespace(key));
        let (ready, wait) = std::sync::mpsc::channel();
        let served = std::thread::spawn(move || {
            inside(&path);
            let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
            ready.send(()).unwrap();
            listener.accept().unwrap().0.write_all(b"hello").unwrap();
        });
        wait.recv().unwrap();
        served
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove_all(&self.name).unwrap();
        assert_eq!(leftovers(&self.name), Vec::<String>::new());
    }
}

fn inside(path: &std::path::Path) {
    nix::sched::setns(fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

fn greeting(address: impl Into<SocketAddr>) -> String {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(3)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn tasks_reach_each_other_and_the_host_reaches_them() {
    let Some(bench) = Bench::new("nett1", "10.231.0.0/24") else { return };
    let first = bench.task("one", 5);
    bench.task("two", 6);
    let served = bench.serve("one", 80);
    assert_eq!(greeting((first, 80)), "hello");
    served.join().unwrap();
    let served = bench.serve("one", 80);
    let path = namespace::path(&bench.network.namespace("two"));
    let asked = std::thread::spawn(move || {
        inside(&path);
        greeting((first, 80))
    });
    assert_eq!(asked.join().unwrap(), "hello");
    served.join().unwrap();
    // The host, by the address of another network of its own.
    let outside = TcpListener::bind("0.0.0.0:0").unwrap();
    let gateway = bench.gateway();
    let port = outside.local_addr().unwrap().port();
    let path = namespace::path(&bench.network.namespace("two"));
    let asked = std::thread::spawn(move || {
        inside(&path);
        TcpStream::connect_timeout(&(gateway, port).into(), Duration::from_secs(3)).map(drop)
    });
    asked.join().unwrap().unwrap();
    bench.network.detach("one").unwrap();
    bench.network.detach("one").unwrap();
    assert!(!namespace::path(&bench.network.namespace("one")).exists());
    // Another network of this host has the address.
    bench.task("first", 7);
    let taken = bench.network.attach_task("second", &bench.interface(7, &[open()]));
    assert!(matches!(taken, Err(NetworkError::AddressInUse(_))), "{taken:?}");
    assert!(!namespace::path(&bench.network.namespace("second")).exists());
}

#[test]
fn published_ports_lead_to_containers() {
    let Some(bench) = Bench::new("nett2", "10.232.0.0/24") else { return };
    let request =
        |host_port| PortRequest { container_port: 80, host_port, protocol: TransportProtocol::Tcp, more: 0 };
    let (_, dynamic) = bench.network.attach_bridged("a", &[request(0)]).unwrap();
    let port = dynamic.ports[0].host_port;
    assert!(port >= 1024);
    for target in [Ipv4Addr::LOCALHOST, bench.gateway()] {
        let served = bench.serve("a", 80);
        assert_eq!(greeting((target, port)), "hello", "by {target}");
        served.join().unwrap();
    }
    // The container itself and its neighbours on the bridge, by the host's address.
    bench.network.attach_bridged("neighbour", &[]).unwrap();
    for key in ["a", "neighbour"] {
        let served = bench.serve("a", 80);
        let gateway = bench.gateway();
        assert_eq!(bench.run(key, || greeting((gateway, port))), "hello", "by {key}");
        served.join().unwrap();
    }
    // A task, too.
    bench.task("other", 9);
    let served = bench.serve("a", 80);
    let path = namespace::path(&bench.network.namespace("other"));
    let gateway = bench.gateway();
    let asked = std::thread::spawn(move || {
        inside(&path);
        greeting((gateway, port))
    });
    assert_eq!(asked.join().unwrap(), "hello");
    served.join().unwrap();
    assert!(matches!(bench.network.attach_bridged("b", &[request(port)]), Err(NetworkError::PortTaken(_))));
    // A restart of the agent takes it over; the ports of the agent that went are nobody's for a moment.
    bench.network.0.state.lock().ports = Ports::default();
    bench.network.0.doors.close(dynamic.ports[0]);
    let bridged = BTreeMap::from([("a".to_owned(), dynamic)]);
    let next = Network::open(
        bench.network.0.config.clone(),
        bridged,
        &BTreeMap::from([("other".to_owned(), Some(bench.interface(9, &[open()])))]),
    )
    .unwrap();
    let served = bench.serve("a", 80);
    assert_eq!(greeting((Ipv4Addr::LOCALHOST, port)), "hello");
    served.join().unwrap();
    assert!(matches!(next.attach_bridged("b", &[request(port)]), Err(NetworkError::PortTaken(_))));
    next.detach("a").unwrap();
    assert!(TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)).is_err());
    next.attach_bridged("b", &[request(port)]).unwrap();
}

#[test]
fn published_ports_are_reached_by_ipv6() {
    let Some(bench) = Bench::new("nett18", "10.243.0.0/24") else { return };
    let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return };
    let request = |host_port, protocol| PortRequest { container_port: 80, host_port, protocol, more: 0 };
    let taken = other.local_addr().unwrap().port();
    let refused = bench.network.attach_bridged("b", &[request(taken, TransportProtocol::Tcp)]);
    assert!(matches!(refused, Err(NetworkError::PortTaken(_))), "another program's by IPv6 alone");
    let requests = [request(0, TransportProtocol::Tcp), request(0, TransportProtocol::Udp)];
    let (_, bridged) = bench.network.attach_bridged("a", &requests).unwrap();
    let [tcp, udp] = [bridged.ports[0].host_port, bridged.ports[1].host_port];
    let local = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    // Nobody listens in the container yet.
    let mut early = TcpStream::connect(local(tcp)).unwrap();
    assert!(early.read(&mut [0]).map_or(true, |length| length == 0));
    let served = bench.serve("a", 80);
    assert_eq!(greeting(local(tcp)), "hello");
    served.join().unwrap();
    assert!(TcpListener::bind(local(tcp)).is_err());

    let echo = bench.run("a", || UdpSocket::bind("0.0.0.0:80").unwrap());
    let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.connect(local(udp)).unwrap();
    let mut buffer = [0; 16];
    for text in ["one", "two"] {
        client.send(text.as_bytes()).unwrap();
        let (length, from) = echo.recv_from(&mut buffer).unwrap();
        echo.send_to(&buffer[..length], from).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], text.as_bytes());
    }
    bench.network.detach("a").unwrap();
    assert_eq!(TcpStream::connect(local(tcp)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    TcpListener::bind(local(tcp)).unwrap();
}

/// The crash of an agent leaves a file without a namespace, or a link whose namespace a process still keeps.
#[test]
fn halves_of_namespaces_are_made_anew() {
    let Some(bench) = Bench::new("nett4", "10.234.0.0/24") else { return };
    fs::create_dir_all("/run/netns").unwrap();
    fs::write(namespace::path(&bench.network.namespace("one")), "").unwrap();
    let address = bench.task("one", 5);
    let served = bench.serve("one", 80);
    assert_eq!(greeting((address, 80)), "hello");
    served.join().unwrap();
    let kept = fs::File::open(namespace::path(&bench.network.namespace("one"))).unwrap();
    namespace::remove(&bench.network.namespace("one")).unwrap();
    bench.task("one", 5);
    let served = bench.serve("one", 80);
    assert_eq!(greeting((address, 80)), "hello");
    served.join().unwrap();
    drop(kept);
}

#[test]
fn a_container_that_is_attached_again_keeps_what_it_has() {
    let Some(bench) = Bench::new("nett5", "10.235.0.0/24") else { return };
    let request = PortRequest { container_port: 80, host_port: 0, protocol: TransportProtocol::Tcp, more: 0 };
    let first = bench.network.attach_bridged("a", &[request]).unwrap();
    assert_eq!(bench.network.attach_bridged("a", &[request]).unwrap(), first);
    let served = bench.serve("a", 80);
    assert_eq!(greeting((Ipv4Addr::LOCALHOST, first.1.ports[0].host_port)), "hello");
    served.join().unwrap();
}

#[test]
fn ports_are_withdrawn_though_one_is_gone_already() {
    let Some(bench) = Bench::new("nett6", "10.236.0.0/24") else { return };
    let request = PortRequest { container_port: 80, host_port: 0, protocol: TransportProtocol::Tcp, more: 0 };
    let (_, bridged) = bench.network.attach_bridged("a", &[request, request]).unwrap();
    bench.network.0.table.withdraw(&bridged.ports[..1]).unwrap();
    bench.network.detach("a").unwrap();
    // Still in the table, it could not be given to another address.
    let moved = Published { address: Ipv4Addr::new(10, 236, 0, 200), ..bridged.ports[1] };
    bench.network.0.table.publish(&[moved]).unwrap();
}

#[test]
fn a_restart_takes_over_thousands_of_ports() {
    let Some(bench) = Bench::new("nett7", "10.237.0.0/24") else { return };
    let ports = (0..20_000).map(|n| Published {
        protocol: TransportProtocol::Udp,
        host_port: 40_000 + n,
        address: Ipv4Addr::new(10, 237, 0, 130),
        container_port: 80,
    });
    let all: Vec<Published> = ports.collect();
    bench.network.0.table.install("gb-nett7", bench.network.0.config.bridge_block, &all).unwrap();
    // All of them are there: removal of one that is not would be refused.
    bench.network.0.table.remove_ports(&all).unwrap();
    assert!(bench.network.0.table.remove_ports(&all[..1]).is_err());
}

/// Two agents: neither takes the other's ports, and both see who speaks.
#[test]
fn two_agents_share_a_host() {
    let Some(one) = Bench::new("nett8", "10.238.0.0/24") else { return };
    let Some(other) = Bench::new("nett9", "10.239.0.0/24") else { return };
    let request =
        |host_port| PortRequest { container_port: 80, host_port, protocol: TransportProtocol::Tcp, more: 0 };
    let (_, bridged) = one.network.attach_bridged("a", &[request(0)]).unwrap();
    let port = bridged.ports[0].host_port;
    assert!(matches!(other.network.attach_bridged("b", &[request(port)]), Err(NetworkError::PortTaken(_))));
    // Nor does a program of the host get it.
    assert!(TcpListener::bind(("0.0.0.0", port)).is_err());

    other.task("away", 7);
    let served = one.serve("a", 80);
    let target = one.gateway();
    assert_eq!(other.run("away", move || greeting((target, port))), "hello");
    served.join().unwrap();

    let address = other.task("server", 8);
    let path = namespace::path(&other.network.namespace("server"));
    let (ready, wait) = std::sync::mpsc::channel();
    let seen = std::thread::spawn(move || {
        inside(&path);
        let listener = TcpListener::bind("0.0.0.0:80").unwrap();
        ready.send(()).unwrap();
        listener.accept().unwrap().1.ip()
    });
    wait.recv().unwrap();
    one.run("a", move || TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(3)).map(drop))
        .unwrap();
    assert_eq!(seen.join().unwrap(), bridged.address);
}

/// Load balancers listen at loopback addresses of their own, such as 127.64.0.1, whatever ports containers have.
#[test]
fn a_published_port_leaves_other_loopback_addresses_alone() {
    let Some(bench) = Bench::new("nett14", "10.246.0.0/24") else { return };
    let request = |host_port, protocol| PortRequest { container_port: 80, host_port, protocol, more: 0 };
    let balancer = Ipv4Addr::new(127, 64, 77, 1);
    let before = TcpListener::bind((balancer, 0)).unwrap();
    let port = before.local_addr().unwrap().port();
    let ports = [request(port, TransportProtocol::Tcp), request(port, TransportProtocol::Udp)];
    bench.network.attach_bridged("a", &ports).unwrap();
    let served = bench.serve("a", 80);
    assert_eq!(greeting((Ipv4Addr::LOCALHOST, port)), "hello");
    served.join().unwrap();
    let after = TcpListener::bind((Ipv4Addr::new(127, 64, 77, 2), port)).unwrap();
    for listener in [before, after] {
        let address = listener.local_addr().unwrap();
        let answered =
            std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"balancer").unwrap());
        assert_eq!(greeting(address), "balancer");
        answered.join().unwrap();
    }
    UdpSocket::bind((balancer, port)).unwrap();
    // Every other address is the container's.
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, bench.gateway()] {
        assert!(TcpListener::bind((address, port)).is_err(), "{address}");
        assert!(UdpSocket::bind((address, port)).is_err(), "{address}");
    }
}

#[test]
fn datagrams_reach_published_ports() {
    let Some(bench) = Bench::new("nett10", "10.240.0.0/24") else { return };
    let request = PortRequest { container_port: 53, host_port: 0, protocol: TransportProtocol::Udp, more: 0 };
    let (path, bridged) = bench.network.attach_bridged("a", &[request]).unwrap();
    let (ready, wait) = std::sync::mpsc::channel();
    let served = std::thread::spawn(move || {
        inside(&path);
        let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..length], from).unwrap();
    });
    wait.recv().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    client.send_to(b"ping", (Ipv4Addr::LOCALHOST, bridged.ports[0].host_port)).unwrap();
    let mut buffer = [0; 16];
    let (length, _) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ping");
    served.join().unwrap();
}

#[test]
fn a_failed_test_leaves_nothing() {
    struct OnPurpose;
    let mut found = Vec::new();
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let Some(bench) = Bench::new("nett11", "10.241.0.0/24") else { return };
        bench.task("one", 5);
        let request =
            PortRequest { container_port: 80, host_port: 0, protocol: TransportProtocol::Tcp, more: 0 };
        bench.network.attach_bridged("a", &[request]).unwrap();
        found = leftovers("nett11");
        std::panic::resume_unwind(Box::new(OnPurpose));
    }));
    let Err(failed) = failed else { return };
    assert!(failed.is::<OnPurpose>());
    assert_eq!(found.len(), 5, "two namespaces, the bridge, both tables: {found:?}");
    assert_eq!(leftovers("nett11"), Vec::<String>::new());
}

#[test]
fn a_task_asks_at_port_80_and_may_serve_there_itself() {
    let Some(bench) = Bench::new("nett13", "10.245.0.0/22") else { return };
    bench.task("asks", 10);
    let listener = bench.network.listen("asks").unwrap();
    listener.set_nonblocking(false).unwrap();
    let asked = SocketAddr::from((ENDPOINT_ADDRESS, 80));
    // On every address, as programs do.
    let serving = bench.serve("asks", 80);
    let answered = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"agent").unwrap());
    let ask = |address: SocketAddr| {
        let mut text = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(bench.run("asks", || ask(asked)), "agent");
    assert_eq!(bench.run("asks", || ask(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)))), "hello");
    answered.join().unwrap();
    serving.join().unwrap();
    // Again, as after a restart of the agent.
    drop(bench.network.listen("asks").unwrap());
}

/// Each is told of its own only, whoever the kernel was asked by; the others keep theirs.
#[test]
fn networks_that_go_together_are_gone_for_each() {
    const TASKS: u32 = 24;
    let Some(bench) = Bench::new("nett13", "10.246.0.0/22") else { return };
    let key = |task: u32| format!("t{task}");
    let link = |task: u32| link_name(&bench.network.namespace(&key(task)));
    (0..TASKS).for_each(|task| _ = bench.task(&key(task), 10 + task));
    std::thread::scope(|scope| {
        for task in (0..TASKS).step_by(2) {
            let (bench, link) = (&bench, &link);
            scope.spawn(move || {
                // Whoever is inside keeps the namespace, not its link.
                let _inside = fs::File::open(bench.network.path(&key(task))).unwrap();
                bench.network.detach(&key(task)).unwrap();
                assert!(route::index(&link(task)).is_err());
                assert!(!namespace::exists(&bench.network.namespace(&key(task))));
            });
        }
    });
    (1..TASKS).step_by(2).for_each(|task| _ = route::index(&link(task)).unwrap());
    // Its address can be had again at once.
    bench.task(&key(0), 10);
}

/// Prints how long many at once take, as when a service is stopped.
#[test]
#[ignore = "a measurement"]
fn measure_many() {
    const TASKS: u32 = 64;
    let Some(bench) = Bench::new("nett12", "10.242.0.0/22") else { return };
    let listeners = Mutex::new(Vec::new());
    for step in ["attach", "listen", "detach"] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for task in 0..TASKS {
                let (bench, listeners) = (&bench, &listeners);
                scope.spawn(move || match step {
                    "attach" => drop(bench.task(&format!("t{task}"), 10 + task)),
                    "listen" => {
                        let listener = bench.network.listen(&format!("t{task}")).unwrap();
                        listeners.lock().push(listener);
                    }
                    _ => bench.network.detach(&format!("t{task}")).unwrap(),
                });
            }
        });
        println!("{step} {TASKS} at once: {:?}", start.elapsed());
        if step == "listen" {
            listeners.lock().clear();
        }
    }
}

/// Prints how long it takes: `cargo test -p gantry-agent network -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(bench) = Bench::new("nett3", "10.233.0.0/22") else { return };
    let mut times: Vec<[Duration; 5]> = Vec::new();
    for round in 0..30 {
        let start = Instant::now();
        bench.task(&format!("m{round}"), 10 + round);
        let attached = start.elapsed();
        let request =
            PortRequest { container_port: 80, host_port: 0, protocol: TransportProtocol::Tcp, more: 0 };
        let start = Instant::now();
        bench.network.attach_bridged("bridged", &[request]).unwrap();
        let bridged = start.elapsed();
        let port = Published {
            protocol: TransportProtocol::Udp,
            host_port: 40_000,
            address: Ipv4Addr::new(10, 233, 2, 9),
            container_port: 80,
        };
        let start = Instant::now();
        bench.network.0.table.publish(&[port]).unwrap();
        let published = start.elapsed();
        bench.network.0.table.withdraw(&[port]).unwrap();
        let start = Instant::now();
        bench.network.detach("bridged").unwrap();
        let detached = start.elapsed();
        let start = Instant::now();
        bench.network.listen(&format!("m{round}")).unwrap();
        times.push([attached, bridged, published, detached, start.elapsed()]);
    }
    for (index, name) in
        ["attach a task", "attach a container and publish a port", "publish a port", "detach"]
            .iter()
            .enumerate()
    {
        let mut column: Vec<_> = times.iter().map(|row| row[index]).collect();
        column.sort();
        println!("{name}: median {:?}, p95 {:?}", column[15], column[28]);
    }
}
