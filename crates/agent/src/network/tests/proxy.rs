//! Tasks with a proxy of their own.

use super::*;
use gantry_decide::task::proxy::ProxyRules;

/// Listens inside a namespace, and answers each connection with a name.
fn answer(
    bench: &Bench,
    key: &str,
    port: u16,
    name: &'static str,
    times: usize,
) -> std::thread::JoinHandle<()> {
    let listener = bench.run(key, move || TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for _ in 0..times {
            listener.accept().unwrap().0.write_all(name.as_bytes()).unwrap();
        }
    })
}

/// The effective user of the calling thread alone: a test's others go on as they are.
fn become_user(uid: u32) {
    // SAFETY: takes numbers only. The system call, unlike the library's function, is for one thread.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    assert_eq!(done, 0);
}

#[test]
fn connections_lead_to_the_proxy_but_for_its_own_and_what_is_ignored() {
    let Some(bench) = Bench::new("nett17", "10.249.0.0/24") else { return };
    let away = bench.task("away", 6);
    let ignored = bench.task("ignored", 7);
    let properties = [
        ("IgnoredUID", "1337".to_owned()),
        ("ProxyIngressPort", "15000".to_owned()),
        ("ProxyEgressPort", "15001".to_owned()),
        ("AppPorts", "80,81".to_owned()),
        ("EgressIgnoredPorts", "90".to_owned()),
        ("EgressIgnoredIPs", ignored.to_string()),
    ];
    let read = |name: &str| properties.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    let proxy = Some(ProxyRules::read(read).unwrap());
    let interface = TaskInterface { proxy, ..bench.interface(5, &[open()]) };
    bench.network.attach_task("meshed", &interface).unwrap();
    let meshed = interface.address;
    let servers = [
        answer(&bench, "meshed", 80, "application", 1),
        answer(&bench, "meshed", 82, "other", 1),
        answer(&bench, "meshed", 15000, "ingress", 2),
        answer(&bench, "meshed", 15001, "egress", 1),
        answer(&bench, "away", 80, "away", 1),
        answer(&bench, "away", 90, "ignored port", 1),
        answer(&bench, "ignored", 80, "ignored address", 1),
    ];
    // What comes from elsewhere for the application, and what does not.
    assert_eq!(bench.run("away", move || greeting((meshed, 80))), "ingress");
    assert_eq!(greeting((meshed, 81)), "ingress", "nobody listens there but the proxy");
    assert_eq!(greeting((meshed, 82)), "other");
    // What the application says to others, and to itself.
    assert_eq!(bench.run("meshed", move || greeting((away, 80))), "egress");
    assert_eq!(bench.run("meshed", || greeting((Ipv4Addr::LOCALHOST, 80))), "application");
    assert_eq!(bench.run("meshed", move || greeting((away, 90))), "ignored port");
    assert_eq!(bench.run("meshed", move || greeting((ignored, 80))), "ignored address");
    // What the proxy itself says.
    let own = bench.run("meshed", move || {
        become_user(1337);
        greeting((away, 80))
    });
    assert_eq!(own, "away");
    servers.into_iter().for_each(|server| server.join().unwrap());
}
