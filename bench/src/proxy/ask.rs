//! What is asked of the proxies as fast as they answer, by wrk and h2load.

use super::output_of;
use anyhow::{Context, Result, bail, ensure};
use std::io::Write as _;
use std::process::Command;

const MIB: f64 = 1024.0 * 1024.0;

/// Who asks.
#[derive(Clone, Copy)]
pub enum Tool {
    Wrk,
    /// HTTP/2: so many requests of a connection at a time.
    H2load {
        streams: u32,
    },
}

/// What is asked for, in which way.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub tool: Tool,
    pub scheme: &'static str,
    pub path: &'static str,
    pub connections: u32,
    /// A connection for each request.
    pub close: bool,
    /// MiB rather than requests count.
    pub bulk: bool,
    /// Turns of each proxy, of one second.
    pub rounds: usize,
}

const CASE: Case = Case {
    name: "64 B, kept connections",
    tool: Tool::Wrk,
    scheme: "http",
    path: "/small",
    connections: 64,
    close: false,
    bulk: false,
    rounds: 9,
};

pub const KEPT: [Case; 4] = [
    CASE,
    Case { name: "10 KiB, kept connections", path: "/middle", rounds: 4, ..CASE },
    Case { name: "1 MiB, kept connections", path: "/large", bulk: true, rounds: 4, ..CASE },
    Case { name: "64 B, a connection each", close: true, rounds: 4, ..CASE },
];

pub const SECURE: [Case; 4] = [
    Case { name: "TLS, 64 B, kept connections", scheme: "https", ..CASE },
    Case { name: "TLS, 10 KiB, kept connections", scheme: "https", path: "/middle", rounds: 5, ..CASE },
    Case {
        name: "TLS, 1 MiB, kept connections",
        scheme: "https",
        path: "/large",
        bulk: true,
        rounds: 5,
        ..CASE
    },
    Case {
        name: "TLS, 64 B, a connection and its handshake each",
        scheme: "https",
        close: true,
        rounds: 5,
        ..CASE
    },
];

pub const SECOND: [Case; 3] = [
    Case {
        name: "HTTP/2, 64 B, 16 connections of 16 requests at a time",
        tool: Tool::H2load { streams: 16 },
        scheme: "https",
        connections: 16,
        ..CASE
    },
    Case {
        name: "HTTP/2, 10 KiB, 16 connections of 16 requests at a time",
        tool: Tool::H2load { streams: 16 },
        scheme: "https",
        path: "/middle",
        connections: 16,
        rounds: 5,
        ..CASE
    },
    Case {
        name: "HTTP/2, 1 MiB, 16 connections of 4 requests at a time",
        tool: Tool::H2load { streams: 4 },
        scheme: "https",
        path: "/large",
        connections: 16,
        bulk: true,
        rounds: 5,
        ..CASE
    },
];

pub const LAYER4: [Case; 4] = [
    Case {
        name: "layer 4, 64 MiB, 8 connections",
        path: "/huge",
        connections: 8,
        bulk: true,
        rounds: 6,
        ..CASE
    },
    Case { name: "layer 4, 1 MiB, kept connections", path: "/large", bulk: true, rounds: 5, ..CASE },
    Case { name: "layer 4, 64 B, kept connections", rounds: 4, ..CASE },
    Case { name: "layer 4, 64 B, a connection each", close: true, rounds: 4, ..CASE },
];

/// What came of one turn.
pub struct Turn {
    /// Requests, or MiB.
    pub count: f64,
    pub seconds: f64,
    /// How long requests took: the half, 99 and 99.9 of 100, in milliseconds.
    pub quantiles: [f64; 3],
}

/// Has wrk say more of how long requests took than it does by itself, in microseconds.
const QUANTILES: &str = r#"
done = function(summary, latency)
  io.write(string.format("quantiles: %f %f %f\n", latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"#;

impl Case {
    /// Asks for a second.
    ///
    /// # Errors
    /// When a request fails.
    pub fn ask(&self, port: u16) -> Result<Turn> {
        let url = format!("{}://127.0.0.1:{port}{}", self.scheme, self.path);
        match self.tool {
            Tool::Wrk => self.wrk(&url),
            Tool::H2load { streams } => self.h2load(&url, streams),
        }
    }

    fn wrk(&self, url: &str) -> Result<Turn> {
        let mut script = tempfile::NamedTempFile::new()?;
        script.write_all(QUANTILES.as_bytes())?;
        let mut command = Command::new("wrk");
        command.args(["-t1", "-d1s", "-c", &self.connections.to_string(), "-s"]).arg(script.path());
        if self.close {
            command.args(["-H", "Connection: close"]);
        }
        let text = output_of(command.arg(url), "wrk")?;
        ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "requests failed:\n{text}");
        let total = text.lines().find(|line| line.contains(" requests in ")).with_context(|| text.clone())?;
        // `  38221 requests in 1.10s, 9.11MB read`
        let words: Vec<&str> = total.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        let [requests, _, _, time, bytes, _] = words[..] else { bail!("{text}") };
        let quantiles = text.lines().find_map(|line| line.strip_prefix("quantiles: "));
        let quantiles = quantiles.with_context(|| text.clone())?.split(' ').map(str::parse::<f64>);
        let [half, most, nearly_all] = quantiles.collect::<Result<Vec<f64>, _>>()?[..] else {
            bail!("{text}")
        };
        Ok(Turn {
            count: if self.bulk { bytes_of(bytes)? / MIB } else { requests.parse()? },
            seconds: milliseconds(time)? / 1000.0,
            quantiles: [half, most, nearly_all].map(|micros| micros / 1000.0),
        })
    }

    fn h2load(&self, url: &str, streams: u32) -> Result<Turn> {
        let log = tempfile::NamedTempFile::new()?;
        let mut command = Command::new("h2load");
        command.args(["-t1", "-D1", "-c", &self.connections.to_string(), "-m", &streams.to_string()]);
        command.arg("--log-file").arg(log.path());
        let text = output_of(command.arg(url), "nghttp2-client")?;
        let line =
            |mark: &str| text.lines().find_map(|line| line.strip_prefix(mark)).with_context(|| text.clone());
        // `requests: 23456 total, 23466 started, 23456 done, 23456 succeeded, 0 failed, 0 errored, 0 timeout`
        let of = |name: &str| {
            let part = line("requests: ")?.split(", ").find_map(|part| part.strip_suffix(name));
            part.and_then(|number| number.trim().parse::<f64>().ok()).with_context(|| text.clone())
        };
        ensure!(of("failed")? == 0.0, "requests failed:\n{text}");
        let time = line("finished in ")?.split(',').next().unwrap_or_default();
        // Each line: when it began, the status, microseconds until its end.
        let log = std::fs::read_to_string(log.path())?;
        let mut took: Vec<f64> =
            log.lines().filter_map(|line| line.rsplit('\t').next()?.parse().ok()).collect();
        took.sort_by(f64::total_cmp);
        ensure!(!took.is_empty(), "{text}");
        let quantiles = [500, 990, 999].map(|of_thousand| took[took.len() * of_thousand / 1000] / 1000.0);
        let done = of("succeeded")?;
        // `traffic: 22.98MB (24092184) total, 228.48KB (233960) headers (space savings 94.44%), 22.36MB (23444480) data`
        let data = line("traffic: ")?.rsplit_once('(').and_then(|(_, rest)| rest.split(')').next());
        let data: f64 = data.unwrap_or_default().parse().with_context(|| text.clone())?;
        let count = if self.bulk { data / MIB } else { done };
        Ok(Turn { count, seconds: milliseconds(time)? / 1000.0, quantiles })
    }
}

/// `1.20ms`, `310.00us`, `2.01s`.
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)] {
        if let Some(Ok(number)) = text.strip_suffix(unit).map(str::parse::<f64>) {
            return Ok(number * factor);
        }
    }
    bail!("no duration: {text}")
}

/// `9.11MB`, as wrk means it: 1,024 to the power of two.
fn bytes_of(text: &str) -> Result<f64> {
    for (unit, factor) in [("TB", MIB * MIB), ("GB", MIB * 1024.0), ("MB", MIB), ("KB", 1024.0), ("B", 1.0)] {
        if let Some(Ok(number)) = text.strip_suffix(unit).map(str::parse::<f64>) {
            return Ok(number * factor);
        }
    }
    bail!("no size: {text}")
}
