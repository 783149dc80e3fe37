//! HTTP/1.1 through a running balancer: what targets get, what clients get, and what becomes of bad input.

#![allow(clippy::unwrap_used)]
mod common;

use common::{
    Server, World, body, exchange, forward, group, header, last_request, log_files, log_lines, read_answer,
    read_until, rule, status,
};
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::*;
use gantry_edge::balancer::{Balancer, Settings, StartError};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

#[test]
fn a_request_reaches_its_target_with_the_balancers_headers() {
    let server = Server::start();
    let mut world = World::of(&[&server]);
    let answer =
        world.get_with("/a/b?x=1", "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Port: 1\r\nTE: trailers\r\n");
    assert_eq!(status(&answer), 200, "{answer}");
    let got = body(&answer);
    assert!(got.contains("GET /a/b?x=1 HTTP/1.1\r\nHost: shop.example:8080\r\n"), "{got}");
    assert!(got.contains("X-Forwarded-For: 192.0.2.7, 127.0.0.1\r\n"), "{got}");
    assert!(got.contains("X-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\n"), "{got}");
    assert!(
        got.contains("X-Amzn-Trace-Id: Root=1-") && !got.contains("TE:") && !got.contains("Port: 1\r"),
        "{got}"
    );
    let absolute = "GET http://b/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(body(&world.send(absolute.as_bytes())).contains("GET /x HTTP/1.1\r\nHost: b:8080\r\n"));
    world.change(|config| config.load_balancers[0].attributes.preserve_host = true);
    assert!(body(&world.send(absolute.as_bytes())).contains("GET /x HTTP/1.1\r\nHost: a\r\n"));
    let traced =
        world.get_with("/", "X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678;Lineage=a\r\n");
    assert!(body(&traced).contains(";Root=1-67891233-abcdef012345678912345678;Lineage=a\r\n"), "{traced}");
    assert!(body(&traced).contains("X-Amzn-Trace-Id: Self=1-"), "{traced}");
}

#[test]
fn connections_are_kept_on_both_sides() {
    let server = Server::start();
    let world = World::of(&[&server]);
    let before = server.accepted.load(SeqCst);
    let mut client = world.connect();
    for n in 0..20 {
        // Two at once: the second waits in the balancer.
        write!(client, "GET /{n} HTTP/1.1\r\nHost: a\r\n\r\nHEAD /{n} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(read_answer(&mut client).contains(&format!("GET /{n} HTTP")));
        assert_eq!(status(&read_until(&mut client, "\r\n\r\n")), 200);
    }
    // Health checks connect, too: one each.
    let checks = world.balancer.samples().1[0].requests;
    assert_eq!(checks, 40);
    assert!(server.requests.load(SeqCst) == 40, "{before}");
}

#[test]
fn bodies_come_through_in_every_framing() {
    let server = Server::start();
    let world = World::of(&[&server]);
    let big = "b".repeat(300_000);
    let with_length = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{big}",
        big.len()
    );
    assert!(world.send(with_length.as_bytes()).ends_with(&big));
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert!(world.send(chunked.as_bytes()).ends_with("hello world"));
    let answer = world.get("/chunked/3");
    assert!(
        answer.contains("Transfer-Encoding: chunked") && answer.ends_with("8\r\nchunk 2\n\r\n0\r\n\r\n"),
        "{answer}"
    );
    // A client of HTTP/1.0 knows no chunks.
    let old = world.send(b"GET /chunked/3 HTTP/1.0\r\n\r\n");
    assert!(
        old.ends_with("\r\n\r\nchunk 0\nchunk 1\nchunk 2\n") && !old.contains("Transfer-Encoding"),
        "{old}"
    );
    assert_eq!(body(&world.get("/until-close/100000")).len(), 100_000);
    assert_eq!(body(&world.get("/bytes/3000000")).len(), 3_000_000);
    let expecting = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    let answer = world.send(expecting.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 100 ") && answer.ends_with("hi"), "{answer}");
    let early = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n{big}");
    assert_eq!(status(&world.send(early.as_bytes())), 413);
}

#[test]
fn rules_answer_redirect_and_forward() {
    let (one, two) = (Server::start(), Server::start());
    let fixed = Action::FixedResponse(FixedResponse {
        status: 418,
        content_type: Some("application/json".to_owned()),
        body: "{}".to_owned(),
    });
    let redirect = Redirect {
        permanent: true,
        protocol: "HTTPS".to_owned(),
        port: "443".to_owned(),
        ..Redirect::default()
    };
    let rules = vec![
        rule(1, "/fixed", fixed),
        rule(2, "/old/*", Action::Redirect(redirect)),
        rule(3, "/two/*", forward(&[("two", 1)])),
        rule(4, "/none", forward(&[("empty", 1)])),
        rule(5, "/zero", forward(&[("web", 0), ("two", 0)])),
    ];
    let groups = vec![group("web", &[one.address]), group("two", &[two.address]), group("empty", &[])];
    let world = World::with(groups, rules, |_| {});
    world.await_health(one.address, HealthState::Healthy);
    world.await_health(two.address, HealthState::Healthy);
    let answer = world.get("/fixed");
    assert_eq!(
        (status(&answer), header(&answer, "content-type"), body(&answer)),
        (418, Some("application/json"), "{}")
    );
    let answer = world.get("/old/x?y=1");
    assert_eq!(
        (status(&answer), header(&answer, "location")),
        (301, Some("https://shop.example:443/old/x?y=1"))
    );
    assert_eq!(header(&world.get("/two/x"), "x-target"), Some(two.address.to_string().as_str()));
    assert_eq!(header(&world.get("/"), "x-target"), Some(one.address.to_string().as_str()));
    let answer = world.get("/none");
    assert_eq!((status(&answer), header(&answer, "server")), (503, Some("awselb/2.0")));
    assert_eq!(status(&world.get("/zero")), 503);
    let (balancers, _) = world.balancer.samples();
    assert_eq!((balancers[0].elb_503, balancers[0].elb_3xx, balancers[0].elb_4xx), (2, 1, 1));
}

#[test]
fn transforms_rewrite_or_fail() {
    let server = Server::start();
    let rewrite = |path: &str, regex: &str, replace: &str, host: bool| {
        let rewrites = vec![Rewrite { regex: regex.to_owned(), replace: replace.to_owned() }];
        let transforms = vec![if host { Transform::Host(rewrites) } else { Transform::Url(rewrites) }];
        (path.to_owned(), transforms)
    };
    let rules = [
        rewrite("/a/*", "^/a/(.*)$", "/$1_b", false),
        rewrite("/none/*", "^/other", "", false),
        rewrite("/ill/*", "^/ill", "", false),
        rewrite("/worse/*", "^/worse(.*)$", "$1 x", false),
        rewrite("/host/*", "^shop\\.(.*)$", "$1.internal", true),
        rewrite("/empty/*", "^.*$", "", true),
        rewrite("/user/*", "^", "me@", true),
    ];
    let rules = (1..).zip(rules).map(|(priority, (path, transforms))| Rule {
        transforms,
        ..rule(priority, &path, forward(&[("web", 1)]))
    });
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(vec![group("web", &[server.address])], rules.collect(), |balancer| {
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.access_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
    });
    world.await_health(server.address, HealthState::Healthy);
    let asked = [
        ("/a/x", 200, "\"-\" \"/x_b\" \"TransformSuccess\""),
        ("/none/x", 200, "\"-\" \"-\" \"-\""),
        ("/ill", 200, "\"-\" \"-\" \"-\""),
        ("/ill/ill", 200, "\"-\" \"/ill\" \"TransformSuccess\""),
        ("/worse/x", 500, "\"-\" \"-\" \"TransformInvalidPath\""),
        ("/host/x", 200, "\"example.internal\" \"-\" \"TransformSuccess\""),
        ("/empty/x", 500, "\"-\" \"-\" \"TransformInvalidHost\""),
        ("/user/x", 500, "\"-\" \"-\" \"TransformInvalidHost\""),
    ];
    for (path, expected, _) in asked {
        assert_eq!(status(&world.get(path)), expected, "{path}");
    }
    assert!(body(&world.get("/a/x")).contains("GET /x_b HTTP/1.1\r\nHost: shop.example:8080\r\n"));
    assert!(body(&world.get("/host/x")).contains("\r\nHost: example.internal\r\n"));
    let mut lines = Vec::new();
    world.until("all lines are written", || {
        lines = log_lines(folder.path(), "");
        lines.len() == asked.len() + 2
    });
    for (line, (path, _, end)) in lines.iter().zip(asked) {
        assert!(line.contains(&format!(":8080{path} HTTP/1.1")) && line.ends_with(end), "{line}");
    }
}

#[test]
fn the_shared_listener_goes_by_host() {
    let server = Server::start();
    let world = World::of(&[&server]);
    let ask = |host: &str| {
        let stream = TcpStream::connect(world.balancer.shared_address().unwrap()).unwrap();
        status(&exchange(stream, last_request(host, "/", "").as_bytes()))
    };
    assert_eq!((ask("Web-1.elb.localhost:8000"), ask("other.localhost")), (200, 404));
}

#[test]
fn a_port_of_the_names_goes_by_host_and_then_to_the_only_balancer() {
    let (server, other) = (Server::start(), Server::start());
    let mut world = World::of(&[&server]);
    let shared = common::own_address();
    let mut second = world.config.load_balancers[0].clone();
    second.arn = LoadBalancerArn::new("second");
    second.host_names = vec!["other.elb.localhost".to_owned()];
    second.addresses[0].ip = common::own_address().into();
    second.listeners[0].arn = ListenerArn::new("second's");
    second.listeners[0].default_action = forward(&[("other", 1)]);
    let group = group("other", &[other.address]);
    drop(world.balancer);
    let settings = Settings { workers: 1, names: Some(shared.into()), ..Settings::default() };
    world.balancer = Balancer::start(&settings, world.told.clone()).unwrap();
    world.change(|config| {
        config.load_balancers.push(second);
        config.target_groups.push(group);
    });
    let port = world.address.port();
    let ask = |host: &str| {
        let mut stream = TcpStream::connect((shared, port)).unwrap();
        stream.write_all(last_request(host, "/", "").as_bytes()).unwrap();
        // At layer 4 nobody but the target could end the connection.
        header(&read_answer(&mut stream), "x-target").map(str::to_owned)
    };
    let of = |server: &Server| Some(server.address.to_string());
    world.until("both serve", || ask("other.elb.localhost") == of(&other));
    world.until("both serve", || ask("web-1.elb.localhost:8080") == of(&server));
    assert_eq!(ask("nobody.localhost"), None);
    // Alone on its port, a listener of layer 4 needs no name: nothing of it is read.
    world.change(|config| {
        config.load_balancers.remove(0);
        config.load_balancers[0].kind = LoadBalancerKind::Network;
        config.load_balancers[0].listeners[0].protocol = Protocol::Tcp;
    });
    world.until("it is found without a name", || ask("nobody.localhost") == of(&other));
}

#[tokio::test]
async fn a_shared_address_that_is_taken_is_told_to_who_starts() {
    let world = World::of(&[]);
    let settings = Settings { workers: 1, shared: world.balancer.shared_address(), ..Settings::default() };
    // Also where waiting is not allowed.
    assert!(matches!(Balancer::start(&settings, world.told), Err(StartError::Shared { .. })));
}

#[test]
fn a_failing_target_has_the_documented_statuses() {
    let server = Server::start();
    let world = World::of(&[&server]);
    assert_eq!(status(&world.get("/close")), 502);
    assert_eq!(status(&world.get("/bad")), 502);
    assert_eq!(status(&world.get("/huge-head")), 502);
    assert_eq!(status(&world.get("/status/503")), 503);
    // What has begun is cut where it breaks.
    assert!(world.get("/cut").ends_with("half"));
    let (balancers, groups) = world.balancer.samples();
    assert_eq!((balancers[0].elb_502, balancers[0].elb_5xx, groups[0].target_5xx), (3, 3, 1));
}

#[test]
fn waits_end() {
    let server = Server::start();
    let mut world = World::of(&[&server]);
    world.change(|config| {
        config.load_balancers[0].attributes.idle_timeout = Duration::from_millis(200);
    });
    assert_eq!(status(&world.get("/sleep/5000")), 504);
    // A body that does not come, and a head that drips.
    assert_eq!(status(&world.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")), 408);
    let mut slow = world.connect();
    let mut sent = 0;
    while sent < 1000 && slow.write_all(b"G").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
        sent += 1;
    }
    assert!(sent < 1000, "a head may drip for ever");
    // A connection that is silent is closed without a word.
    let mut silent = world.connect();
    let mut answer = Vec::new();
    silent.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty());
}

#[test]
fn bad_requests_are_answered_and_never_forwarded() {
    let server = Server::start();
    let world = World::of(&[&server]);
    for (expected, bytes) in [
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_owned()),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"
                .to_owned(),
        ),
        (400, format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(5000))),
        (405, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000))),
        (
            463,
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: {}1\r\n\r\n",
                "1, ".repeat(30)
            ),
        ),
        (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned()),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned()),
        (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
    ] {
        let answer = world.send(bytes.as_bytes());
        assert_eq!(status(&answer), expected, "{} -> {answer}", &bytes[..bytes.len().min(80)]);
    }
    // The chunked one was on its way when it broke; nothing of it was understood as a request.
    assert_eq!(server.requests.load(SeqCst), 0);
}

#[test]
fn a_smuggled_request_is_not_seen_as_one() {
    let server = Server::start();
    let mut world = World::of(&[&server]);
    let both = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = world.send(both);
    assert_eq!(status(&answer), 200);
    assert!(!body(&answer).to_ascii_lowercase().contains("content-length: 6"), "{answer}");
    assert!(!answer.contains("smuggled"), "the connection must end behind such a request: {answer}");
    assert_eq!(server.requests.load(SeqCst), 1);
    world.change(|config| config.load_balancers[0].attributes.desync = DesyncMode::Strictest);
    assert_eq!(status(&world.send(both)), 400);
}

#[test]
fn websockets_are_tunnels() {
    let server = Server::start();
    let world = World::of(&[&server]);
    let mut client = world.connect();
    client
        .write_all(
            b"GET /websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst",
        )
        .unwrap();
    let answer = read_until(&mut client, "FIRST");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    client.write_all(b"second").unwrap();
    let mut more = [0; 6];
    client.read_exact(&mut more).unwrap();
    assert_eq!(&more, b"SECOND");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut more).unwrap(), 0);
}

#[test]
fn cookies_keep_a_client_with_its_target() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let mut world = World::of(&servers.iter().collect::<Vec<_>>());
    world.change(|config| {
        config.target_groups[0].attributes.stickiness = Some(Stickiness::LbCookie(Duration::from_secs(60)));
    });
    let first = world.get("/");
    let cookie = header(&first, "set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("AWSALB=") && first.contains("Set-Cookie: AWSALBCORS="), "{first}");
    // To other sites' pages browsers give the twin alone.
    for cookie in [cookie.clone(), cookie.replace("AWSALB=", "AWSALB=gone; AWSALBCORS=")] {
        for _ in 0..10 {
            let again = world.get_with("/", &format!("Cookie: x=y; {cookie}\r\n"));
            assert_eq!(header(&again, "x-target"), header(&first, "x-target"));
        }
    }
    world.change(|config| {
        config.target_groups[0].attributes.stickiness =
            Some(Stickiness::AppCookie { name: "session".to_owned(), duration: Duration::from_secs(60) });
    });
    assert!(!world.get("/").contains("AWSALBAPP"));
    let set = world.get("/cookie");
    let ticket = set.lines().find_map(|line| line.strip_prefix("Set-Cookie: AWSALBAPP-0=")).unwrap();
    let ticket = ticket.split(';').next().unwrap();
    let sticks = |_| {
        let answer = world.get_with("/", &format!("Cookie: session=1; AWSALBAPP-0={ticket}\r\n"));
        header(&answer, "x-target").unwrap().to_owned()
    };
    let seen: std::collections::BTreeSet<String> = (0..10).map(sticks).collect();
    assert_eq!(seen.len(), 1);
}

#[test]
fn an_address_leads_to_its_zones_targets_where_requests_do_not_cross_zones() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let mut world = World::of(&servers.iter().collect::<Vec<_>>());
    let (here, elsewhere) = (ZoneName::new("eu-north-1a"), ZoneName::new("eu-north-1b"));
    let seen = |world: &World| {
        let who = |_| header(&world.get("/"), "x-target").unwrap().to_owned();
        (0..12).map(who).collect::<std::collections::BTreeSet<String>>()
    };
    let of = |places: &[usize]| places.iter().map(|place| servers[*place].address.to_string()).collect();
    world.change(|config| {
        let group = &mut config.target_groups[0];
        for (target, zone) in group.targets.iter_mut().zip([&here, &elsewhere, &here]) {
            target.zone = Some(zone.clone());
        }
    });
    assert_eq!(seen(&world), of(&[0, 1, 2]));
    world.change(|config| config.target_groups[0].attributes.cross_zone = false);
    assert_eq!(seen(&world), of(&[0, 2]));
    // A zone that has not enough is none that DNS leads to.
    world.change(|config| config.target_groups[0].attributes.zone_healthy_from.count = 3);
    assert_eq!(seen(&world), of(&[0, 1, 2]));
    world.change(|config| {
        let group = &mut config.target_groups[0];
        group.attributes.zone_healthy_from.count = 1;
        group.targets.iter_mut().for_each(|target| target.zone = Some(elsewhere.clone()));
    });
    assert_eq!(seen(&world), of(&[0, 1, 2]));
}

#[test]
fn health_decides_who_gets_requests() {
    let (good, bad) = (Server::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let gone = bad.local_addr().unwrap();
    drop(bad);
    let mut world = World::with(vec![group("web", &[good.address, gone])], Vec::new(), |_| {});
    world.await_health(good.address, HealthState::Healthy);
    world.await_health(gone, HealthState::Unhealthy);
    for _ in 0..10 {
        assert_eq!(status(&world.get("/")), 200);
    }
    world.change(|config| config.target_groups[0].health_check.matcher = Matcher(vec![(201, 299)]));
    world.await_health(good.address, HealthState::Unhealthy);
    // All unhealthy: every target is used; a refused connection is offered to another one.
    for _ in 0..10 {
        assert_eq!(status(&world.get("/")), 200);
    }
    world.change(|config| config.load_balancers[0].listeners[0].default_action = forward(&[("other", 1)]));
    world.await_health(good.address, HealthState::Unused);
    let codes: Vec<_> = world.told.reports.lock().unwrap().iter().map(|report| report.health.state).collect();
    assert!(codes.contains(&HealthState::Initial) && codes.contains(&HealthState::Unused), "{codes:?}");
}

#[test]
fn draining_lets_requests_end_and_then_cuts_them() {
    let (leaving, staying) = (Server::start(), Server::start());
    let mut world = World::of(&[&leaving]);
    let address = world.address;
    let slow = |millis: u32| {
        std::thread::spawn(move || {
            let request = last_request("a", &format!("/sleep/{millis}"), "");
            status(&exchange(TcpStream::connect(address).unwrap(), request.as_bytes()))
        })
    };
    let (short, long) = (slow(1500), slow(60_000));
    world.until("both requests are under way", || leaving.requests.load(SeqCst) == 2);
    let of = leaving.address;
    world.change(|config| {
        config.target_groups[0].targets[0].deregistered = Some(gantry_decide::time::Timestamp::EPOCH);
        config.target_groups[0].targets.push(common::target(staying.address));
    });
    assert_eq!(world.state(of), Some(HealthState::Draining));
    world.await_health(staying.address, HealthState::Healthy);
    for _ in 0..10 {
        assert_eq!(header(&world.get("/"), "x-target"), Some(staying.address.to_string().as_str()));
    }
    assert_eq!(short.join().unwrap(), 200);
    // The delay is over: the target is left out.
    world.change(|config| drop(config.target_groups[0].targets.remove(0)));
    assert_eq!(long.join().unwrap(), 502);
    assert_eq!(world.state(of), None);
}

#[test]
fn listeners_come_and_go() {
    let server = Server::start();
    let mut world = World::of(&[&server]);
    let mut kept = world.connect();
    write!(kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(status(&read_answer(&mut kept)), 200);
    assert!(!world.balancer.apply(&world.config), "the same generation is not news");
    let listeners = std::mem::take(&mut world.config.load_balancers[0].listeners);
    world.change(|_| {});
    world.until("nobody listens", || TcpStream::connect(world.address).is_err());
    // The kept connection has its last request.
    write!(kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let last = read_answer(&mut kept);
    assert_eq!(header(&last, "connection"), Some("close"), "{last}");
    world.change(|config| config.load_balancers[0].listeners = listeners);
    world.until("the listener is back", || TcpStream::connect(world.address).is_ok());
    assert_eq!(status(&world.get("/")), 200);
}

#[test]
fn what_cannot_be_served_is_told() {
    let server = Server::start();
    let mut world = World::of(&[&server]);
    let taken = TcpListener::bind((world.address.ip(), 9090)).unwrap();
    world.change(|config| {
        let balancer = &mut config.load_balancers[0];
        let mut second = balancer.listeners[0].clone();
        (second.arn, second.port) = (ListenerArn::new("second"), 9090);
        second.rules.push(Rule {
            conditions: vec![Condition::Path(vec![Pattern::Regex("(".to_owned())])],
            ..rule(1, "/", forward(&[("web", 1)]))
        });
        balancer.listeners.push(second);
    });
    let told = world.told.problems.lock().unwrap().join("; ");
    assert!(told.contains(":9090 for second") && told.contains("rule-1 is left out"), "{told}");
    assert_eq!(status(&world.get("/")), 200);
    // Once: a listener that stays as it is is not compiled anew.
    world.change(|config| config.target_groups[0].attributes.slow_start = Duration::from_secs(30));
    let told = world.told.problems.lock().unwrap().join("; ");
    assert_eq!(told.matches("rule-1 is left out").count(), 1, "{told}");
    // Once the address is free, it is taken.
    let second = taken.local_addr().unwrap();
    drop(taken);
    world.until("the second listener is there", || TcpStream::connect(second).is_ok());
}

#[test]
fn requests_are_logged_as_application_load_balancers_do() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let redirect = Redirect { path: "/new".to_owned(), ..Redirect::default() };
    let rules = vec![rule(7, "/old", Action::Redirect(redirect))];
    let world = World::with(vec![group("web", &[server.address])], rules, |balancer| {
        let prefix = folder.path().to_str().unwrap().to_owned();
        balancer.attributes.access_logs = Some(LogDestination { bucket: "logs".to_owned(), prefix });
    });
    world.await_health(server.address, HealthState::Healthy);
    world.get_with("/a?b=c", "User-Agent: \"x\"\r\n");
    world.get("/old");
    world.get("/close");
    let mut socket = world.connect();
    let asked = "GET /websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    socket.write_all(asked.as_bytes()).unwrap();
    let up = read_until(&mut socket, "\r\n\r\n").len();
    socket.write_all(b"twelve bytes").unwrap();
    read_until(&mut socket, "TWELVE BYTES");
    drop(socket);
    let page = world.send(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").len();
    let mut lines = Vec::new();
    world.until("five lines are written", || {
        lines = log_lines(folder.path(), "111122223333_elasticloadbalancing_eu-north-1_app.web.1_20");
        lines.len() == 5
    });
    lines.iter().for_each(|line| assert!(line.ends_with(" \"-\" \"-\" \"-\""), "{line}"));
    let (tunnel, refused) = (&lines[3], &lines[4]);
    assert!(
        tunnel.starts_with("ws ") && tunnel.contains(&format!(" 101 101 {} {} ", asked.len() + 12, up + 12)),
        "{tunnel}"
    );
    let dashes = format!(
        " - -1 -1 -1 405 - 29 {page} \"- http://{}- -\" \"-\" - - - \"-\" \"-\" \"-\" -1 20",
        world.address
    );
    assert!(refused.contains(&dashes), "{refused}");
    let node = format!("Z_{}_", world.address.ip());
    assert!(log_files(folder.path()).iter().all(|name| name.contains(&node)));
    let first = &lines[0];
    let target = server.address.to_string();
    assert!(first.starts_with("http 20") && first.contains(" app/web/1 127.0.0.1:"), "{first}");
    assert!(!first.contains(" -1 ") && first.contains(" 200 200 "), "{first}");
    assert!(
        first.contains("\"GET http://shop.example:8080/a?b=c HTTP/1.1\" \"\\x22x\\x22\" - - web \"Root=1-"),
        "{first}"
    );
    assert!(
        first.contains(" 0 20")
            && first.contains(&format!("\"forward\" \"-\" \"-\" \"{target}\" \"200\" \"-\" \"-\" TID_")),
        "{first}"
    );
    assert!(lines[1].contains(" - -1 -1 -1 302 - ") && lines[1].contains(" 7 20"), "{}", lines[1]);
    assert!(lines[1].contains("\"redirect\" \"http://shop.example:8080/new\""), "{}", lines[1]);
    assert!(lines[2].contains(&format!(" {target} -1 -1 -1 502 - ")), "{}", lines[2]);
}

#[test]
fn a_request_that_one_target_refuses_goes_to_another() {
    let server = Server::start();
    // Nobody listens there, and nobody looks.
    let refusing = SocketAddr::new(common::own_address().into(), 9);
    let mut web = group("web", &[refusing, server.address]);
    web.health_check.enabled = false;
    web.attributes.algorithm = Algorithm::WeightedRandom { anomaly_mitigation: false };
    let world = World::with(vec![web], Vec::new(), |_| {});
    let answered = (0..100).filter(|_| status(&world.get("/")) == 200).count();
    assert_eq!(answered, 100);
}

#[test]
fn a_target_that_fails_more_than_others_gets_less() {
    let servers = [Server::failing(), Server::start(), Server::start()];
    let mut world = World::of(&servers.iter().collect::<Vec<_>>());
    world.change(|config| {
        config.target_groups[0].attributes.algorithm = Algorithm::WeightedRandom { anomaly_mitigation: true };
    });
    let mut client = world.connect();
    let mut batch = || {
        (0..100)
            .filter(|_| {
                write!(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                status(&read_answer(&mut client)) == 503
            })
            .count()
    };
    assert!(batch() > 15, "it has a third of all requests at first");
    // Its share is then a seventeenth.
    world.until("it gets less", || batch() <= 15);
}
