//! A balancer under test, targets that do as the path says, and a client that sees every byte.

#![allow(clippy::unwrap_used, dead_code)]

use gantry_decide::routing::config::*;
use gantry_decide::routing::{HealthReport, HealthState};
use gantry_decide::time::Timestamp;
use gantry_edge::balancer::{Balancer, Observer, Pem, Problem, Settings, TrustStore};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a condition is waited for on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server of one target. The path says what it does.
pub struct Server {
    pub address: SocketAddr,
    pub accepted: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

impl Server {
    pub fn start() -> Server {
        Server::serve(TcpListener::bind("127.0.0.1:0").unwrap(), false)
    }

    /// Healthy, and answers everything else with 503.
    pub fn failing() -> Server {
        Server::serve(TcpListener::bind("127.0.0.1:0").unwrap(), true)
    }

    fn serve(listener: TcpListener, failing: bool) -> Server {
        let address = listener.local_addr().unwrap();
        let (accepted, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (accepted.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (accepted, requests) = counts.clone();
                std::thread::spawn(move || {
                    accepted.fetch_add(1, SeqCst);
                    let _ = talk(&stream, address, failing, &requests);
                });
            }
        });
        Server { address, accepted, requests }
    }
}

fn talk(
    stream: &TcpStream,
    address: SocketAddr,
    failing: bool,
    requests: &AtomicUsize,
) -> std::io::Result<()> {
    // It writes in small pieces.
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut steps = path.trim_start_matches('/').split(['/', '?']);
        let what = steps.next().unwrap_or_default();
        let number: usize = steps.next().and_then(|text| text.parse().ok()).unwrap_or_default();
        if what == "early" {
            (&*stream)
                .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Ok(());
        }
        if head.to_ascii_lowercase().contains("expect: 100-continue") {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = read_body(&mut reader, &head)?;
        if what != "health" {
            requests.fetch_add(1, SeqCst);
        }
        let mut out = stream;
        match what {
            what if failing && what != "health" => {
                write!(out, "HTTP/1.1 503 Failing\r\nContent-Length: 0\r\n\r\n")?;
            }
            "status" => write!(out, "HTTP/1.1 {number} Text\r\nContent-Length: 0\r\n\r\n")?,
            "sleep" => {
                std::thread::sleep(Duration::from_millis(number as u64));
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nslept")?;
            }
            "close" => return Ok(()),
            "bad" => write!(out, "HTTP/1.1 nonsense\r\n\r\n")?,
            "huge-head" => write!(out, "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(40_000))?,
            "cut" => {
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
                return Ok(());
            }
            "chunked" => {
                write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for n in 0..number {
                    let text = format!("chunk {n}\n");
                    write!(out, "{:x}\r\n{text}\r\n", text.len())?;
                }
                write!(out, "0\r\n\r\n")?;
            }
            "until-close" => {
                write!(out, "HTTP/1.1 200 OK\r\n\r\n{}", "z".repeat(number))?;
                return Ok(());
            }
            "bytes" => {
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n")?;
                out.write_all(&vec![b'x'; number])?;
            }
            "cookie" => {
                write!(out, "HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: 0\r\n\r\n")?;
            }
            "websocket" => {
                write!(
                    out,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                )?;
                let mut buffer = [0; 1024];
                loop {
                    let count = reader.read(&mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    out.write_all(&buffer[..count].to_ascii_uppercase())?;
                }
            }
            // What the target got, and who it is.
            _ => {
                let text = format!("{address}\n{head}{}", String::from_utf8_lossy(&body));
                let text = if head.starts_with("HEAD") { String::new() } else { text };
                write!(
                    out,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Target: {address}\r\n\r\n{text}",
                    text.len()
                )?;
            }
        }
    }
}

fn read_body(reader: &mut impl BufRead, head: &str) -> std::io::Result<Vec<u8>> {
    let head = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
                .unwrap_or_default();
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.lines().next().unwrap_or_default().parse().unwrap_or_default();
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    }
    Ok(body)
}

#[derive(Default)]
pub struct Told {
    pub reports: Mutex<Vec<HealthReport>>,
    pub problems: Mutex<Vec<String>>,
    pub drained: Mutex<Vec<TargetKey>>,
    /// What is found under any ARN.
    pub trust_store: Mutex<Option<Arc<TrustStore>>>,
}

impl Observer for Told {
    fn health(&self, report: HealthReport) {
        self.reports.lock().unwrap().push(report);
    }

    fn drained(&self, _group: &TargetGroupArn, target: &TargetKey) {
        self.drained.lock().unwrap().push(target.clone());
    }

    fn certificate(&self, arn: &CertificateArn) -> Option<Pem> {
        let both = match arn.as_str() {
            "one" => include_str!("one.pem"),
            "two" => include_str!("two.pem"),
            _ => return None,
        };
        Some(Pem { chain: both.to_owned(), key: both.to_owned() })
    }

    fn trust_store(&self, _: &TrustStoreArn) -> Option<Arc<TrustStore>> {
        self.trust_store.lock().unwrap().clone()
    }

    fn problem(&self, problem: Problem) {
        self.problems.lock().unwrap().push(problem.to_string());
    }
}

/// A balancer with one load balancer of one listener.
pub struct World {
    pub balancer: Balancer,
    pub told: Arc<Told>,
    pub config: RoutingConfig,
    pub address: SocketAddr,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// An address of the loopback network that no other test has.
pub fn own_address() -> Ipv4Addr {
    let number = NEXT.fetch_add(1, SeqCst);
    let process = std::process::id();
    Ipv4Addr::new(127, (process % 199) as u8 + 50, (process / 199 % 250) as u8, number as u8)
}

pub fn group(name: &str, targets: &[SocketAddr]) -> TargetGroup {
    TargetGroup {
        arn: TargetGroupArn::new(name),
        ticket: name.bytes().fold(7, |ticket, byte| ticket * 31 + u64::from(byte)),
        protocol: Protocol::Http,
        protocol_version: ProtocolVersion::Http1,
        attributes: TargetGroupAttributes::default(),
        health_check: HealthCheck {
            enabled: true,
            protocol: Protocol::Http,
            port: HealthCheckPort::Traffic,
            path: "/health".to_owned(),
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            matcher: Matcher(vec![(200, 200)]),
        },
        targets: targets.iter().map(|address| target(*address)).collect(),
    }
}

pub fn target(address: SocketAddr) -> Target {
    Target {
        key: TargetKey { id: TargetId::new(&address.ip().to_string()), port: address.port() },
        ticket: u64::from(address.port()),
        ip: Some(address.ip()),
        zone: None,
        registered: Timestamp::EPOCH,
        deregistered: None,
    }
}

pub fn forward(groups: &[(&str, u16)]) -> Action {
    let weighted =
        |(name, weight): &(&str, u16)| WeightedGroup { group: TargetGroupArn::new(name), weight: *weight };
    let groups = groups.iter().map(weighted).collect();
    Action::Forward(Forward { groups, stickiness: None, unused_stickiness: None })
}

pub fn rule(priority: u32, path: &str, action: Action) -> Rule {
    Rule {
        arn: RuleArn::new(&format!("rule-{priority}")),
        priority,
        conditions: vec![Condition::Path(vec![Pattern::Wildcard(path.to_owned())])],
        transforms: Vec::new(),
        action,
    }
}

/// TLS as listeners have it, with the certificate `one`.
pub fn tls() -> ListenerTls {
    ListenerTls {
        policy: "ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned(),
        default_certificate: CertificateArn::new("one"),
        certificates: Vec::new(),
        alpn: AlpnPolicy::None,
        client_certificates: ClientCertificates::Off,
    }
}

/// Has a load balancer's listener speak HTTPS.
pub fn https(balancer: &mut LoadBalancer) {
    balancer.listeners[0].protocol = Protocol::Https;
    balancer.listeners[0].tls = Some(tls());
}

impl World {
    /// Forwards everything to these targets, which are healthy when this returns.
    pub fn of(targets: &[&Server]) -> World {
        World::serving(targets, |_| {})
    }

    /// The same by HTTPS.
    pub fn https(targets: &[&Server], change: impl FnOnce(&mut LoadBalancer)) -> World {
        World::serving(targets, |balancer| {
            https(balancer);
            change(balancer);
        })
    }

    fn serving(targets: &[&Server], change: impl FnOnce(&mut LoadBalancer)) -> World {
        let addresses: Vec<_> = targets.iter().map(|server| server.address).collect();
        let world = World::with(vec![group("web", &addresses)], Vec::new(), change);
        addresses.iter().for_each(|address| world.await_health(*address, HealthState::Healthy));
        world
    }

    pub fn with(groups: Vec<TargetGroup>, rules: Vec<Rule>, change: impl FnOnce(&mut LoadBalancer)) -> World {
        let ip = IpAddr::V4(own_address());
        let port = 8080;
        let mut load_balancer = LoadBalancer {
            arn: LoadBalancerArn::new(
                "arn:aws:elasticloadbalancing:eu-north-1:111122223333:loadbalancer/app/web/1",
            ),
            kind: LoadBalancerKind::Application,
            addresses: vec![Address { ip, zone: ZoneName::new("eu-north-1a") }],
            host_names: vec!["web-1.elb.localhost".to_owned()],
            attributes: LoadBalancerAttributes::default(),
            listeners: vec![Listener {
                arn: ListenerArn::new("listener"),
                port,
                protocol: Protocol::Http,
                tls: None,
                attributes: ListenerAttributes::default(),
                rules,
                default_action: forward(&[("web", 1)]),
            }],
        };
        change(&mut load_balancer);
        let mut folder = None;
        let LoadBalancerAttributes { access_logs, connection_logs, .. } = &mut load_balancer.attributes;
        for logs in [access_logs, connection_logs].into_iter().flatten() {
            // A test names its folder as the prefix, and the prefix is then `p`.
            folder = Some(std::mem::replace(&mut logs.prefix, "p".to_owned()).into());
        }
        let config = RoutingConfig {
            generation: 1,
            load_balancers: vec![load_balancer],
            target_groups: groups,
            ..RoutingConfig::default()
        };
        let told = Arc::new(Told::default());
        let settings = Settings {
            workers: 2,
            shared: Some(SocketAddr::new(ip, 0)),
            names: None,
            logs: folder,
            log_interval: Duration::from_millis(200),
        };
        let balancer = Balancer::start(&settings, told.clone()).unwrap();
        assert!(balancer.apply(&config));
        let world = World { balancer, told, config, address: SocketAddr::new(ip, port) };
        world.until("the listener is there", || TcpStream::connect(world.address).is_ok());
        world
    }

    /// Changes the configuration and has it applied.
    pub fn change(&mut self, change: impl FnOnce(&mut RoutingConfig)) {
        change(&mut self.config);
        self.config.generation += 1;
        assert!(self.balancer.apply(&self.config));
    }

    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}; {:?}", self.balancer.health());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn state(&self, address: SocketAddr) -> Option<HealthState> {
        let of = |report: &HealthReport| {
            report.target.id.as_str() == address.ip().to_string() && report.target.port == address.port()
        };
        self.balancer.health().into_iter().find(of).map(|report| report.health.state)
    }

    pub fn await_health(&self, address: SocketAddr, state: HealthState) {
        self.until(&format!("{address} is {state:?}"), || self.state(address) == Some(state));
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own, and reads until the balancer closes.
    pub fn send(&self, bytes: &[u8]) -> String {
        exchange(self.connect(), bytes)
    }

    pub fn get(&self, path: &str) -> String {
        self.get_with(path, "")
    }

    pub fn get_with(&self, path: &str, headers: &str) -> String {
        self.send(last_request("shop.example", path, headers).as_bytes())
    }

    /// Asks by TLS.
    pub fn get_secure(&self, headers: &str) -> String {
        self.get_by(client_config(&[]), headers)
    }

    /// The same, by a configuration of one's own.
    pub fn get_by(&self, config: Arc<rustls::ClientConfig>, headers: &str) -> String {
        let stream = secure_by(self.connect(), "one.example", config).0;
        exchange(stream, last_request("one.example", "/x", headers).as_bytes())
    }
}

/// A request that is its connection's last.
pub fn last_request(host: &str, path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
}

/// Sends bytes, and reads until the other side closes.
pub fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until what was read ends so, or nothing more comes.
pub fn read_until(stream: &mut impl Read, end: &str) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(end.as_bytes()) && stream.read(&mut byte).unwrap_or(0) == 1 {
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// The status of an answer; 0 when there is none.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The first header of that name.
pub fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|line| line.0.eq_ignore_ascii_case(name))
        .map(|line| line.1)
}

/// What comes behind the head.
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Reads one answer with a length from a kept connection.
pub fn read_answer(stream: &mut impl Read) -> String {
    let head = read_until(stream, "\r\n\r\n");
    let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0_usize);
    let mut content = vec![0; length];
    stream.read_exact(&mut content).unwrap();
    head + &String::from_utf8_lossy(&content)
}

/// A TLS connection to the balancer, and the certificate that it showed.
pub fn secure(
    stream: TcpStream,
    name: &str,
) -> (rustls::StreamOwned<rustls::ClientConnection, TcpStream>, Vec<u8>) {
    secure_by(stream, name, client_config(&[]))
}

/// The same, by a configuration of one's own.
pub fn secure_by(
    stream: TcpStream,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> (rustls::StreamOwned<rustls::ClientConnection, TcpStream>, Vec<u8>) {
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, stream);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
    (stream, shown)
}

/// A client that shows the certificate and the key of a PEM file.
pub fn client_showing(pem: &str) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let chain = vec![certificate(pem).into()];
    Arc::new(any_server().with_client_auth_cert(chain, key).unwrap())
}

fn any_server() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
}

/// A client that takes any certificate.
pub fn client_config(alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
    let mut config = any_server().with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// The certificate of a PEM file.
pub fn certificate(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[derive(Debug)]
struct Any(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The names of all complete log files below a folder.
pub fn log_files(folder: &std::path::Path) -> Vec<String> {
    let of = |entry: std::fs::DirEntry| match entry.path() {
        path if path.is_dir() => log_files(&path),
        path => vec![path.file_name().unwrap().to_string_lossy().into_owned()],
    };
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().flat_map(of).collect();
    names.retain(|name| name.ends_with(".gz"));
    names
}

/// All lines of all complete log files below a folder, by their second field. The names of files begin so.
pub fn log_lines(folder: &std::path::Path, begin: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            lines.extend(log_lines(&path, begin));
        } else if path.extension().is_some_and(|extension| extension == "gz") {
            assert!(
                path.to_string_lossy()
                    .contains("logs/p/AWSLogs/111122223333/elasticloadbalancing/eu-north-1/20")
            );
            assert!(path.file_name().unwrap().to_string_lossy().starts_with(begin), "{path:?}");
            let mut text = String::new();
            flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
                .read_to_string(&mut text)
                .unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
    lines
}
