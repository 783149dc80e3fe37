//! Access logs in the format of Application Load Balancers: a line for each request. And the files that they and connection
//! logs are in: by interval and load balancer, compressed, at the paths that they have in a bucket.

use super::http::{Client, Outcome, Rewritten, civil};
use super::tables::Table;
use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_decide::arn::Arn;
use gantry_decide::routing::config::{CertificateArn, LoadBalancerArn, LogDestination, TargetGroupArn};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Lines between the workers and the disk. When it falls behind, lines are lost: access logs are best effort, as
/// documented, and requests do not wait for them.
const QUEUE: usize = 16 * 1024;
/// Text of a request line or user agent, as documented for the latter; longer ones are cut.
const MAX_TEXT: usize = 8 * 1024;

/// What a line says of a request, as far as it is known before the request is served.
#[derive(Debug)]
pub struct Entry {
    pub begun: Instant,
    pub created: SystemTime,
    /// `"METHOD scheme://host:port/path HTTP/1.1"`, without the quotes.
    pub request: String,
    pub user_agent: String,
    pub spoken: Spoken,
    pub trace: String,
    /// 0 for the default rule, -1 when the request came to none.
    pub priority: i64,
    /// `forward`, `redirect`, `fixed-response`; empty for none.
    pub action: &'static str,
    pub redirect: String,
    pub class: &'static str,
    pub reason: &'static str,
    pub rewritten: Rewritten,
}

/// What client and target speak of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Http,
    /// Where the target agrees.
    WebSocket,
    Http2,
    Grpc,
}

/// What a line says of how it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub status: u16,
    pub group: Option<TargetGroupArn>,
    pub target: Option<SocketAddr>,
    pub target_status: Option<u16>,
    /// When the request was sent to the target, and when its answer's head was there.
    pub sent: Option<Instant>,
    pub answered: Option<Instant>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// Logs that load balancers write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Access,
    Connection,
}

impl Kind {
    /// What the names of its files begin with.
    fn prefix(self) -> &'static str {
        match self {
            Kind::Access => "",
            Kind::Connection => "conn_log.",
        }
    }
}

/// A line, and the log that it belongs to.
#[derive(Debug)]
pub struct Line {
    pub kind: Kind,
    pub balancer: LoadBalancerArn,
    pub destination: LogDestination,
    /// The load balancer's address that it is of, where files are by those.
    pub node: Option<IpAddr>,
    pub text: String,
}

/// Where lines are handed over.
#[derive(Clone, Debug)]
pub struct Sink(SyncSender<Line>);

impl Sink {
    pub fn send(&self, line: Line) {
        if self.0.try_send(line).is_err() {
            tracing::debug!("a log line is lost: the disk is behind");
        }
    }
}

impl Entry {
    /// For a request that was not understood.
    pub fn refused(client: &Client, begun: Instant) -> Entry {
        Entry {
            begun,
            created: SystemTime::now(),
            request: format!("- {}://{}- -", client.scheme(), client.local),
            user_agent: String::new(),
            spoken: Spoken::Http,
            trace: String::new(),
            priority: -1,
            action: "",
            redirect: String::new(),
            class: "-",
            reason: "-",
            rewritten: Rewritten::default(),
        }
    }

    /// Hands the line over, where its load balancer has logs.
    pub fn log(&self, table: &Table, logs: Option<&Sink>, client: &Client, report: &Report) {
        let Some((destination, logs)) = table.attributes.access_logs.as_ref().zip(logs) else { return };
        let balancer = table.balanced.arn.clone();
        logs.send(Line {
            kind: Kind::Access,
            text: self.line(&balancer, client, report),
            node: Some(client.local.ip()),
            balancer,
            destination: destination.clone(),
        });
    }

    /// The line.
    fn line(&self, balancer: &LoadBalancerArn, client: &Client, report: &Report) -> String {
        let now = Instant::now();
        let kind = match (self.spoken, client.tls.is_some()) {
            (Spoken::Grpc, _) => "grpcs",
            (Spoken::Http2, _) => "h2",
            (Spoken::WebSocket, false) if report.status == 101 => "ws",
            (Spoken::WebSocket, true) if report.status == 101 => "wss",
            (Spoken::Http | Spoken::WebSocket, false) => "http",
            (Spoken::Http | Spoken::WebSocket, true) => "https",
        };
        let seconds = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => format!("{:.3}", to.saturating_duration_since(from).as_secs_f64()),
            _ => "-1".to_owned(),
        };
        let dispatched = report.answered.and(report.sent);
        let or_dash =
            |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
        let target = or_dash(report.target.map(|target| target.to_string()));
        let target_status = or_dash(report.target_status.map(|status| status.to_string()));
        let tls = client.tls.as_ref();
        let quoted =
            |text: &str| format!("\"{}\"", if text.is_empty() { "-".to_owned() } else { escape(text) });
        let fields = [
            kind.to_owned(),
            time(SystemTime::now()),
            balancer.tail().to_owned(),
            client.peer.to_string(),
            target.clone(),
            seconds(dispatched.map(|_| self.begun), dispatched),
            seconds(dispatched, report.answered),
            seconds(report.answered, report.answered.map(|_| now)),
            report.status.to_string(),
            target_status.clone(),
            report.received_bytes.to_string(),
            report.sent_bytes.to_string(),
            quoted(&self.request),
            quoted(&self.user_agent),
            tls.map_or("-", |tls| tls.cipher).to_owned(),
            tls.map_or("-", |tls| tls.version).to_owned(),
            or_dash(report.group.as_ref().map(ToString::to_string)),
            quoted(&self.trace),
            quoted(tls.and_then(|tls| tls.name.as_deref()).unwrap_or_default()),
            quoted(tls.and_then(|tls| tls.shown.as_ref()).map_or("", CertificateArn::as_str)),
            self.priority.to_string(),
            time(self.created),
            quoted(self.action),
            quoted(&self.redirect),
            "\"-\"".to_owned(),
            quoted(if target == "-" { "" } else { &target }),
            quoted(if target_status == "-" { "" } else { &target_status }),
            quoted(if self.class == "-" { "" } else { self.class }),
            quoted(if self.reason == "-" { "" } else { self.reason }),
            client.trace.to_string(),
            quoted(self.rewritten.host.as_deref().unwrap_or_default()),
            quoted(&self.rewritten.url.as_deref().map(String::from_utf8_lossy).unwrap_or_default()),
            quoted(self.rewritten.outcome.map_or("", Outcome::as_str)),
        ];
        fields.join(" ") + "\n"
    }
}

/// As logs show what a client sent: nothing in it ends the field or the line.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes().take(MAX_TEXT) {
        match byte {
            b'"' | b'\\' => {
                let _ = write!(out, "\\x{byte:02x}");
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out
}

/// `2018-07-02T22:23:00.186641Z`.
pub fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Starts the thread that writes logs below `root`, a file for each `interval`. It ends, with its files complete, when
/// the last sink is dropped.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(root: PathBuf, interval: Duration) -> io::Result<(Sink, JoinHandle<()>)> {
    let (sender, lines) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new()
        .name("edge-logs".to_owned())
        .spawn(move || run(&root, interval, &lines))?;
    Ok((Sink(sender), thread))
}

struct Open {
    file: GzEncoder<File>,
    /// Until it is complete, under another name.
    part: PathBuf,
    path: PathBuf,
    since: Instant,
}

fn run(root: &Path, interval: Duration, lines: &Receiver<Line>) {
    let mut files: BTreeMap<(Kind, LoadBalancerArn, LogDestination, Option<IpAddr>), Open> = BTreeMap::new();
    let wait = interval.min(Duration::from_secs(1));
    loop {
        let received = lines.recv_timeout(wait);
        let over = matches!(received, Err(RecvTimeoutError::Disconnected));
        if let Ok(line) = received {
            let key = (line.kind, line.balancer, line.destination, line.node);
            let written = match files.remove(&key) {
                Some(open) => Ok(open),
                None => open(root, key.0, &key.1, &key.2, key.3),
            }
            .and_then(|mut open| {
                open.file.write_all(line.text.as_bytes())?;
                Ok(open)
            });
            match written {
                Ok(open) => drop(files.insert(key, open)),
                Err(error) => tracing::warn!(%error, balancer = %key.1, "a log cannot be written"),
            }
        }
        let due: Vec<_> = files
            .iter()
            .filter(|(_, open)| over || open.since.elapsed() >= interval)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            if let Some(open) = files.remove(&key)
                && let Err(error) = open.file.finish().and_then(|_| fs::rename(&open.part, &open.path))
            {
                tracing::warn!(%error, balancer = %key.1, "a log cannot be completed");
            }
        }
        if over {
            return;
        }
    }
}

fn open(
    root: &Path,
    kind: Kind,
    balancer: &LoadBalancerArn,
    destination: &LogDestination,
    node: Option<IpAddr>,
) -> io::Result<Open> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let arn: Arn = balancer.as_str().parse().map_err(|_| invalid())?;
    let stamp = time(SystemTime::now());
    let (date, clock) = stamp.split_once('T').ok_or_else(invalid)?;
    let plain = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let name = format!(
        "{}{}_elasticloadbalancing_{}_{}_{}T{}Z_{}{:08x}.log.gz",
        kind.prefix(),
        arn.account,
        arn.region,
        balancer.tail().replace('/', "."),
        plain(date),
        plain(&clock[..5]),
        node.map(|node| format!("{node}_")).unwrap_or_default(),
        rand::random::<u32>()
    );
    let below = Path::new(&destination.bucket)
        .join(&destination.prefix)
        .join("AWSLogs")
        .join(&arn.account)
        .join("elasticloadbalancing")
        .join(&arn.region)
        .join(date.replace('-', "/"));
    // A prefix names no place outside of its bucket.
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(invalid());
    }
    let folder = root.join(below);
    fs::create_dir_all(&folder)?;
    let part = folder.join(format!(".{name}.part"));
    let file = GzEncoder::new(File::create(&part)?, Compression::fast());
    Ok(Open { file, part, path: folder.join(name), since: Instant::now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_break_a_line() {
        assert_eq!(escape("a\"b\\\n\u{e9}"), "a\\x22b\\x5c\\x0a\\xc3\\xa9");
        assert_eq!(escape(&"x".repeat(10_000)).len(), MAX_TEXT);
    }

    #[test]
    fn a_prefix_stays_within_its_bucket() {
        let arn = LoadBalancerArn::new(
            "arn:aws:elasticloadbalancing:eu-north-1:111122223333:loadbalancer/app/web/1",
        );
        let root = std::env::temp_dir().join("gantry-edge-no-such-folder");
        for prefix in ["../x", "/etc", "a/../../b"] {
            let destination = LogDestination { bucket: "logs".to_owned(), prefix: prefix.to_owned() };
            assert!(open(&root, Kind::Access, &arn, &destination, None).is_err(), "{prefix}");
        }
        assert!(!root.exists());
    }
}
