//! Tasks with a second address.

use super::*;
use gantry_decide::network::Ipv6Block;
use std::net::{Ipv6Addr, UdpSocket};

const BITS: u8 = 64;

fn address(bench: &Bench, host: u16) -> Ipv6Addr {
    let network = u32::from(bench.tasks.base());
    Ipv6Addr::new(0xfd12, 0x3456, (network >> 16) as u16, network as u16, 0, 0, 0, host)
}

fn dual(bench: &Bench, host: u16, groups: &[SecurityGroupId]) -> TaskInterface {
    let ipv6 = Some((address(bench, host), BITS));
    TaskInterface { ipv6, ..bench.interface(host.into(), groups) }
}

fn possible(bench: &Bench) -> bool {
    let possible = ipv6_is_possible(bench.network.0.config.mtu);
    if !possible {
        eprintln!("skipped: this host has no IPv6");
    }
    possible
}

/// Answers connections on a port of every address of a namespace with the address of who asks.
fn serve(bench: &Bench, key: &str, port: u16, times: usize) -> std::thread::JoinHandle<()> {
    let path = namespace::path(&bench.network.namespace(key));
    let (ready, wait) = std::sync::mpsc::channel();
    let served = std::thread::spawn(move || {
        inside(&path);
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        ready.send(()).unwrap();
        for _ in 0..times {
            let (mut stream, from) = listener.accept().unwrap();
            stream.write_all(from.ip().to_string().as_bytes()).unwrap();
        }
    });
    wait.recv().unwrap();
    served
}

fn connects(target: Ipv6Addr, port: u16) -> bool {
    TcpStream::connect_timeout(&(target, port).into(), Duration::from_secs(1)).is_ok()
}

#[test]
fn tasks_and_their_host_reach_each_other_by_ipv6_as_groups_allow() {
    let Some(bench) = Bench::new("nett15", "10.247.0.0/24") else { return };
    if !possible(&bench) {
        return;
    }
    let web = SecurityGroupId::derived("web");
    let others = |port| Allowed {
        traffic: Traffic::read("tcp", Some(port), Some(port)).unwrap(),
        peer: Peer::Ipv6(Ipv6Block::around(address(&bench, 6), 128).unwrap()),
    };
    let everywhere = Allowed { traffic: Traffic::ALL, peer: Peer::Ipv6(Ipv6Block::ALL) };
    let allows = |ingress| Allowances { ingress, egress: vec![everywhere.clone()] };
    let news = |group, allows| {
        let news = GroupNews { allows: Some(allows), ..GroupNews::default() };
        News { groups: BTreeMap::from([(group, news)]), ..News::default() }
    };
    bench.hear(news(web, allows(vec![others(80)])));
    bench.hear(news(open(), allows(vec![everywhere.clone()])));
    bench.network.attach_task("server", &dual(&bench, 5, &[web])).unwrap();
    for (key, host) in [("friend", 6), ("stranger", 7)] {
        bench.network.attach_task(key, &dual(&bench, host, &[open()])).unwrap();
    }
    let (server, friend) = (address(&bench, 5), address(&bench, 6));
    let served = serve(&bench, "server", 80, 2);
    assert_eq!(bench.run("friend", move || greeting((server, 80))), friend.to_string());
    assert!(!bench.run("stranger", move || connects(server, 80)), "its address is not allowed");
    // The machine's owner looks at a page.
    greeting((server, 80));
    served.join().unwrap();
    // Nobody speaks by another's address.
    bench.run("stranger", move || {
        let mut socket = Socket::route().unwrap();
        let eth0 = route::index("eth0").unwrap();
        route::add_routed_address(&mut socket, eth0, Ipv6Addr::from(u128::from(friend) + 0x100).into(), 128)
            .unwrap();
    });
    let heard = UdpListener::new(&bench, "friend");
    let stolen = Ipv6Addr::from(u128::from(friend) + 0x100);
    for from in [address(&bench, 7), stolen] {
        bench.run("stranger", move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            // A packet that the firewall drops is no error to who sends it.
            let _ = socket.send_to(from.to_string().as_bytes(), (friend, 9));
        });
        let expected = (from != stolen).then(|| from.to_string());
        assert_eq!(heard.next(), expected, "from {from}");
    }
    // Its addresses go with it, and another may have them.
    bench.network.detach("friend").unwrap();
    bench.network.attach_task("heir", &dual(&bench, 6, &[open()])).unwrap();
    let taken = bench
        .network
        .attach_task("thief", &TaskInterface { ipv6: Some((friend, BITS)), ..bench.interface(9, &[open()]) });
    assert!(matches!(taken, Err(NetworkError::AddressInUse(IpAddr::V6(_)))), "{taken:?}");
}

/// What arrives at UDP port 9 in a namespace.
struct UdpListener(UdpSocket);

impl UdpListener {
    fn new(bench: &Bench, key: &str) -> UdpListener {
        let socket = bench.run(key, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 9)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        UdpListener(socket)
    }

    fn next(&self) -> Option<String> {
        let mut buffer = [0; 64];
        let (length, _) = self.0.recv_from(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

#[test]
fn a_task_without_ipv6_has_none_on_its_link() {
    let Some(bench) = Bench::new("nett19", "10.230.0.0/24") else { return };
    if !possible(&bench) {
        return;
    }
    bench.task("without", 5);
    bench.network.attach_task("with", &dual(&bench, 6, &[open()])).unwrap();
    let on = |link: &str, addresses: &str| addresses.lines().any(|line| line.ends_with(link));
    for (key, has) in [("without", false), ("with", true)] {
        let inside = bench.run(key, || fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
        assert_eq!((on("lo", &inside), on("eth0", &inside)), (true, has), "{key}: {inside}");
        let host = fs::read_to_string("/proc/net/if_inet6").unwrap();
        assert_eq!(on(&link_name(&bench.network.namespace(key)), &host), has, "{key}: {host}");
    }
}

#[test]
fn what_leaves_by_ipv6_has_the_host_s_address() {
    let Some(bench) = Bench::new("nett16", "10.248.0.0/24") else { return };
    if !possible(&bench) {
        return;
    }
    let everywhere = Allowed { traffic: Traffic::ALL, peer: Peer::Ipv6(Ipv6Block::ALL) };
    let allows = Allowances { ingress: vec![], egress: vec![everywhere] };
    let news = GroupNews { allows: Some(allows), ..GroupNews::default() };
    bench.hear(News { groups: BTreeMap::from([(open(), news)]), ..News::default() });
    bench.network.attach_task("asks", &dual(&bench, 5, &[open()])).unwrap();
    // Another machine of the host's network: a namespace behind a link that is none of the agent's.
    let outside = Outside::new(&bench);
    let target = outside.address;
    let listener = outside.listen();
    let asked = bench.run("asks", move || {
        TcpStream::connect_timeout(&(target, 80).into(), Duration::from_secs(3)).map(drop)
    });
    asked.unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::from(outside.host));
}

struct Outside {
    namespace: &'static str,
    host: Ipv6Addr,
    address: Ipv6Addr,
}

impl Outside {
    const LINK: &'static str = "tx-nett16";

    fn new(bench: &Bench) -> Outside {
        let namespace = "test-nett16-outside";
        let (host, address) =
            (Ipv6Addr::new(0xfd99, 0, 0, 1, 0, 0, 0, 1), Ipv6Addr::new(0xfd99, 0, 0, 1, 0, 0, 0, 2));
        let outside = Outside { namespace, host, address };
        let veth = Veth {
            name: Self::LINK,
            bridge: None,
            mac: Some(ROUTER_MAC),
            peer_mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
        };
        namespace::create(namespace, Origin::New, Socket::route, |mut here, there| {
            route::veth(&mut here, &veth, &there)?;
            let mut inside = Socket::route()?;
            let eth0 = route::index("eth0")?;
            route::add_routed_address(&mut inside, eth0, address.into(), 64)?;
            route::set_up(&mut inside, eth0)?;
            route::add_neighbour(&mut inside, eth0, host.into(), ROUTER_MAC)?;
            route::add_route(
                &mut inside,
                Route { to: Some(host.into()), via: None, link: eth0, source: None },
            )
        })
        .unwrap();
        let mut here = Socket::route().unwrap();
        let link = route::index(Self::LINK).unwrap();
        route::set_up(&mut here, link).unwrap();
        route::add_routed_address(&mut here, link, host.into(), 64).unwrap();
        route::add_neighbour(&mut here, link, address.into(), [2, 0, 0, 0, 0, 2]).unwrap();
        let there = Route { to: Some(address.into()), via: None, link, source: Some(host.into()) };
        route::add_route(&mut here, there).unwrap();
        assert!(bench.network.path("asks").exists());
        outside
    }

    fn listen(&self) -> TcpListener {
        let address = self.address;
        namespace::within(self.namespace, || TcpListener::bind((address, 80))).unwrap()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        route::delete(&mut Socket::route().unwrap(), Self::LINK).unwrap();
        namespace::remove(self.namespace).unwrap();
    }
}
