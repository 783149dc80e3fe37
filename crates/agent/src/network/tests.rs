//! On the real kernel, as root; elsewhere passed over.
#![allow(clippy::unwrap_used)]

use super::*;
use gantry_decide::task::TransportProtocol;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A network of a test's own, removed at the end, also of a failed test.
struct Bench {
    network: Network,
    name: String,
}

impl Bench {
    fn new(name: &str, block: &str) -> Option<Bench> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: networks need root");
            return None;
        }
        remove_all(name).unwrap();
        let (task_block, bridge_block) = block.parse::<Ipv4Block>().unwrap().halves().unwrap();
        let config = NetworkConfig { name: name.to_owned(), task_block, bridge_block };
        let network = Network::open(config, BTreeMap::new(), &BTreeSet::new()).unwrap();
        Some(Bench { network, name: name.to_owned() })
    }

    fn task(&self, key: &str, offset: u32) -> Ipv4Addr {
        let block = self.network.0.config.task_block;
        let address = block.address(offset).unwrap();
        let interface = TaskInterface {
            address,
            prefix_length: block.prefix_length(),
            gateway: block.gateway(),
            mac: [0x0a, 0x58, 10, 0, 0, offset as u8],
        };
        let path = self.network.attach_task(key, interface).unwrap();
        assert!(path.exists());
        address
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
    let gateway = bench.network.0.config.bridge_block.gateway();
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
    let foreign = TaskInterface {
        address: "10.9.9.9".parse().unwrap(),
        prefix_length: 24,
        gateway: first,
        mac: [2; 6],
    };
    assert!(matches!(bench.network.attach_task("x", foreign), Err(NetworkError::ForeignAddress { .. })));
}

#[test]
fn published_ports_lead_to_containers() {
    let Some(bench) = Bench::new("nett2", "10.232.0.0/24") else { return };
    let request = |host_port| PortRequest { container_port: 80, host_port, protocol: TransportProtocol::Tcp };
    let (_, dynamic) = bench.network.attach_bridged("a", &[request(0)]).unwrap();
    let port = dynamic.ports[0].host_port;
    assert!(port >= 1024);
    for target in [Ipv4Addr::LOCALHOST, bench.network.0.config.task_block.gateway()] {
        let served = bench.serve("a", 80);
        assert_eq!(greeting((target, port)), "hello", "by {target}");
        served.join().unwrap();
    }
    // Another container, by the host's address.
    bench.task("other", 9);
    let served = bench.serve("a", 80);
    let path = namespace::path(&bench.network.namespace("other"));
    let gateway = bench.network.0.config.task_block.gateway();
    let asked = std::thread::spawn(move || {
        inside(&path);
        greeting((gateway, port))
    });
    assert_eq!(asked.join().unwrap(), "hello");
    served.join().unwrap();
    assert!(matches!(bench.network.attach_bridged("b", &[request(port)]), Err(NetworkError::PortTaken(_))));
    // A restart of the agent takes it over.
    let bridged = BTreeMap::from([("a".to_owned(), dynamic)]);
    let next = Network::open(bench.network.0.config.clone(), bridged, &BTreeSet::from(["other".to_owned()]))
        .unwrap();
    let served = bench.serve("a", 80);
    assert_eq!(greeting((Ipv4Addr::LOCALHOST, port)), "hello");
    served.join().unwrap();
    assert!(matches!(next.attach_bridged("b", &[request(port)]), Err(NetworkError::PortTaken(_))));
    next.detach("a").unwrap();
    assert!(TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)).is_err());
    next.attach_bridged("b", &[request(port)]).unwrap();
}

/// Prints how long it takes: `cargo test -p gantry-agent network -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(bench) = Bench::new("nett3", "10.233.0.0/22") else { return };
    let mut times: Vec<[Duration; 3]> = Vec::new();
    for round in 0..30 {
        let start = Instant::now();
        bench.task(&format!("m{round}"), 10 + round);
        let attached = start.elapsed();
        let request = PortRequest { container_port: 80, host_port: 0, protocol: TransportProtocol::Tcp };
        let start = Instant::now();
        bench.network.attach_bridged("bridged", &[request]).unwrap();
        let bridged = start.elapsed();
        let start = Instant::now();
        bench.network.detach("bridged").unwrap();
        times.push([attached, bridged, start.elapsed()]);
    }
    for (index, name) in
        ["attach a task", "attach a container and publish a port", "detach"].iter().enumerate()
    {
        let mut column: Vec<_> = times.iter().map(|row| row[index]).collect();
        column.sort();
        println!("{name}: median {:?}, p95 {:?}", column[15], column[28]);
    }
}
