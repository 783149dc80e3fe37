//! Security groups, as the kernel enforces them.

use super::*;
use gantry_decide::network::{Ipv4Block as Block, Ports, Protocol};
use std::net::UdpSocket;

fn group(name: &str) -> SecurityGroupId {
    SecurityGroupId::derived(name)
}

fn on_port(protocol: Protocol, port: i32, peer: Peer) -> Allowed {
    Allowed { traffic: Traffic { protocol, ports: Some(Ports { from: port, to: port }) }, peer }
}

fn from_all() -> Peer {
    Peer::Ipv4(Block::ALL)
}

/// Long enough for a packet on one machine, short enough to wait for one that is dropped.
const SOON: Duration = Duration::from_millis(300);

impl Bench {
    /// Whether one can talk to a port of another, where somebody listens.
    fn reaches(&self, key: &str, address: Ipv4Addr, port: u16) -> bool {
        self.run(key, move || TcpStream::connect_timeout(&(address, port).into(), SOON).is_ok())
    }

    /// Listens on a port of a namespace from now on.
    fn listen_on(&self, key: &str, port: u16) -> TcpListener {
        self.run(key, move || TcpListener::bind(("0.0.0.0", port)).unwrap())
    }

    fn members(&self, group: SecurityGroupId, joined: &[Ipv4Addr], left: &[Ipv4Addr]) {
        let all = |addresses: &[Ipv4Addr]| addresses.iter().copied().map(IpAddr::from).collect();
        let news = GroupNews { allows: None, joined: all(joined), left: all(left) };
        self.hear(News { groups: BTreeMap::from([(group, news)]), ..News::default() });
    }
}

#[test]
fn only_what_a_group_allows_comes_in_and_connections_outlive_their_rule() {
    let Some(bench) = Bench::new("netg1", "10.231.4.0/24") else { return };
    let web = group("web");
    let server = bench.guarded("server", 5, &[web]);
    bench.task("client", 6);
    let (first, second) = (bench.listen_on("server", 80), bench.listen_on("server", 81));
    assert!(!bench.reaches("client", server, 80), "nobody has told of the group yet");
    bench.allow(web, [on_port(Protocol::Tcp, 80, from_all())]);
    assert!(bench.reaches("client", server, 80));
    assert!(!bench.reaches("client", server, 81));
    // The host itself is not asked.
    TcpStream::connect_timeout(&(server, 81).into(), SOON).unwrap();
    let mut stream = bench.run("client", move || TcpStream::connect((server, 80)).unwrap());
    drop(first.accept().unwrap());
    let mut served = first.accept().unwrap().0;
    bench.allow(web, [on_port(Protocol::Tcp, 81, from_all())]);
    assert!(!bench.reaches("client", server, 80));
    assert!(bench.reaches("client", server, 81));
    stream.write_all(b"still").unwrap();
    let mut buffer = [0; 5];
    served.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    served.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still");
    drop(second);
}

#[test]
fn a_rule_may_name_a_group_whose_members_change() {
    let Some(bench) = Bench::new("netg2", "10.231.5.0/24") else { return };
    let (db, app) = (group("db"), group("app"));
    bench.allow(db, [on_port(Protocol::Tcp, 5432, Peer::Group(app))]);
    bench.allow(app, []);
    let server = bench.guarded("server", 5, &[db]);
    let client = bench.guarded("client", 6, &[app]);
    let _listener = bench.listen_on("server", 5432);
    assert!(!bench.reaches("client", server, 5432));
    bench.members(app, &[client], &[]);
    assert!(bench.reaches("client", server, 5432));
    bench.members(app, &[], &[client]);
    assert!(!bench.reaches("client", server, 5432));
    // Two groups allow what either does.
    bench.network.detach("server").unwrap();
    let server = bench.guarded("server", 5, &[db, open()]);
    let _listener = bench.listen_on("server", 5432);
    assert!(bench.reaches("client", server, 5432));
}

#[test]
fn what_goes_out_is_guarded_too_and_nobody_speaks_by_another_address() {
    let Some(bench) = Bench::new("netg3", "10.231.6.0/24") else { return };
    let narrow = group("narrow");
    let server = bench.task("server", 5);
    let client = bench.guarded("client", 6, &[narrow]);
    let to_server = Peer::Ipv4(Block::around(server, 32).unwrap());
    let allows = Allowances { ingress: vec![], egress: vec![on_port(Protocol::Udp, 7000, to_server)] };
    let news = GroupNews { allows: Some(allows), ..GroupNews::default() };
    bench.hear(News { groups: BTreeMap::from([(narrow, news)]), ..News::default() });

    let sockets: Vec<UdpSocket> = [7000, 7001]
        .map(|port| bench.run("server", move || UdpSocket::bind(("0.0.0.0", port)).unwrap()))
        .into();
    for socket in &sockets {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
    let from = bench.run("client", || UdpSocket::bind("0.0.0.0:0").unwrap());
    from.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut buffer = [0; 16];
    from.send_to(b"one", (server, 7001)).unwrap();
    assert!(sockets[1].recv_from(&mut buffer).is_err(), "another port");
    from.send_to(b"two", (server, 7000)).unwrap();
    let (_, seen) = sockets[0].recv_from(&mut buffer).unwrap();
    assert_eq!(seen.ip(), client);
    // The answer belongs to what was let out.
    sockets[0].send_to(b"back", seen).unwrap();
    from.recv_from(&mut buffer).unwrap();
    // Nor to the host.
    let on_host = TcpListener::bind("0.0.0.0:0").unwrap();
    assert!(!bench.reaches("client", bench.gateway(), on_host.local_addr().unwrap().port()));

    let foreign = bench.tasks.address(9).unwrap();
    bench.run("client", move || {
        route::add_address(&mut Socket::route().unwrap(), route::index("eth0").unwrap(), foreign.into(), 32)
            .unwrap();
        UdpSocket::bind((foreign, 0)).unwrap().send_to(b"three", (server, 7000)).unwrap();
    });
    assert!(sockets[0].recv_from(&mut buffer).is_err(), "by an address that is not its own");
}

#[test]
fn rules_outlive_the_agent_and_a_lost_table() {
    let Some(bench) = Bench::new("netg4", "10.231.7.0/24") else { return };
    let web = group("web");
    bench.allow(web, [on_port(Protocol::Tcp, 80, from_all())]);
    let server = bench.guarded("server", 5, &[web]);
    bench.task("client", 6);
    let _listeners = [bench.listen_on("server", 80), bench.listen_on("server", 81)];
    let holds = || bench.reaches("client", server, 80) && !bench.reaches("client", server, 81);
    assert!(holds());
    // Somebody removes it; whatever comes next makes it anew.
    filter::Table::new("gantry-netg4".to_owned(), None).remove().unwrap();
    bench.task("other", 7);
    assert!(holds());
    let tasks = [("server", 5, web), ("client", 6, open()), ("other", 7, open())]
        .map(|(key, offset, group)| (key.to_owned(), Some(bench.interface(offset, &[group]))));
    let config = bench.network.0.config.clone();
    let _next = Network::open(config, BTreeMap::new(), &tasks.into()).unwrap();
    assert!(holds());
}
