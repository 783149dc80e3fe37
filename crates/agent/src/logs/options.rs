//! Log drivers and their options, as a task definition names them and the payload carries them.

use super::address::Address;
use super::fluentd::Fluentd;
use super::syslog::{Format, Syslog};
use crate::protocol::docker::LogConfig;
use regex::Regex;
use std::collections::BTreeMap;

/// Where a container's output goes.
#[derive(Clone, Debug)]
pub enum LogDriver {
    /// To files of this host, for `gantry logs`.
    File {
        max_bytes: u64,
        max_files: u32,
    },
    /// Nowhere.
    None,
    /// To CloudWatch Logs, by way of files of this host, as the others below.
    Awslogs(Awslogs),
    Syslog(Syslog),
    Fluentd(Fluentd),
    /// Where the container engine's own driver of this name sends them; files of this host have them too.
    Engine,
}

/// The container whose driver it is.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The agent's own region.
    pub region: &'a str,
    pub id: &'a str,
    pub name: &'a str,
}

/// What a payload asks for that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("logger: no log driver named '{0}' is registered")]
    Driver(String),
    #[error("unknown log opt '{option}' for {driver} log driver")]
    Unknown { driver: &'static str, option: String },
    #[error("must specify a value for log opt '{0}'")]
    Missing(&'static str),
    #[error("invalid value for log opt '{option}': {value}")]
    Value { option: &'static str, value: String },
    #[error("invalid value for log opt '{option}', which is a secret")]
    Secret { option: &'static str },
}

/// The options of the driver `awslogs`.
#[derive(Clone, Debug)]
pub struct Awslogs {
    pub region: String,
    pub group: String,
    pub stream: String,
    /// Make the group if it is not there: unless that is forbidden, since a definition that runs on AWS, where somebody
    /// made its group long ago, is to run here as it is.
    pub create_group: bool,
    pub multiline: Option<Multiline>,
    /// Bytes kept on this host while they cannot be sent; the oldest go first.
    pub buffer: u64,
}

/// How the lines of one event are found.
#[derive(Clone, Debug)]
pub struct Multiline(Regex);

impl Multiline {
    /// By a pattern of the first line.
    pub fn pattern(pattern: &str) -> Option<Multiline> {
        // A pattern's program may be large; what a task definition says must not take a host's memory.
        let regex = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
        regex.ok().map(Multiline)
    }

    /// By a date in the first line, in the form of strftime(3).
    pub fn datetime(format: &str) -> Option<Multiline> {
        let mut pattern = String::new();
        let mut rest = format.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
                continue;
            }
            // Those that ECS documents.
            pattern.push_str(match rest.next()? {
                'a' => "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
                'A' => "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
                'w' => "[0-6]",
                'd' | 'm' | 'y' | 'H' | 'I' | 'M' | 'S' => r"\d{2}",
                'b' => "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
                'B' => {
                    "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
                }
                'Y' => r"\d{4}",
                'p' => "[AP]M",
                'f' => r"\d{6}",
                'L' => r"\.\d{3}",
                'z' => r"[+-]\d{4}",
                'Z' => "[A-Z]{1,4}T",
                'j' => r"\d{3}",
                '%' => "%",
                _ => return None,
            });
        }
        Multiline::pattern(&pattern)
    }

    /// Whether an event begins with this line.
    pub fn begins(&self, line: &str) -> bool {
        self.0.is_match(line)
    }
}

/// What is kept of a container's output, unless its options say otherwise: five files of 20 MiB.
const FILE_BYTES: u64 = 20 << 20;
const FILES: u32 = 5;
/// `max-buffer-size` by default: Docker's.
const BUFFER: u64 = 10 << 20;
/// What `mode=blocking` keeps. A container is never blocked here: the disk takes what cannot be sent, so much of it.
const BLOCKING_BUFFER: u64 = 1 << 30;
/// Where receivers listen unless their addresses say otherwise.
const SYSLOG_PORT: u16 = 514;
const FLUENTD_PORT: u16 = 24_224;
/// The largest size that an option may name.
const SIZE_MAX: u64 = 64 << 30;
/// Files that a log may be rotated through.
const FILES_MAX: u32 = 100;

impl LogDriver {
    /// Reads a container's log configuration.
    ///
    /// # Errors
    /// For drivers and options that are not known here, in Docker's words.
    pub fn read(config: Option<&LogConfig>, writer: Writer<'_>) -> Result<LogDriver, OptionError> {
        let none = BTreeMap::new();
        let options = config.and_then(|config| config.config.as_ref()).unwrap_or(&none);
        match config.and_then(|config| config.driver.as_deref()).unwrap_or_default() {
            "" | "json-file" => file("json-file", options),
            "local" => file("local", options),
            "none" => Ok(LogDriver::None),
            "awslogs" => awslogs(options, writer).map(LogDriver::Awslogs),
            "syslog" => syslog(options, writer).map(LogDriver::Syslog),
            "fluentd" => fluentd(options, writer).map(LogDriver::Fluentd),
            other => Err(OptionError::Driver(other.chars().take(64).collect())),
        }
    }

    /// Bytes of a file and number of files in which output is kept on this host.
    pub fn files(&self) -> (u64, u32) {
        match self {
            LogDriver::File { max_bytes, max_files } => (*max_bytes, *max_files),
            LogDriver::None => (0, 0),
            LogDriver::Syslog(_) | LogDriver::Fluentd(_) | LogDriver::Engine => (FILE_BYTES, FILES),
            LogDriver::Awslogs(awslogs) => {
                let more = awslogs.buffer.div_ceil(FILE_BYTES).min(u64::from(FILES_MAX));
                (FILE_BYTES, FILES.max(more as u32 + 1))
            }
        }
    }
}

fn file(driver: &'static str, options: &BTreeMap<String, String>) -> Result<LogDriver, OptionError> {
    let (mut max_bytes, mut max_files) = (FILE_BYTES, FILES);
    for (name, value) in options {
        match name.as_str() {
            "max-size" => max_bytes = size("max-size", value)?,
            "max-file" => {
                let wrong = || OptionError::Value { option: "max-file", value: value.clone() };
                max_files =
                    value.parse().ok().filter(|files| (1..=FILES_MAX).contains(files)).ok_or_else(wrong)?;
            }
            // They change what stands beside the lines in Docker's files; these are ours.
            "mode" | "max-buffer-size" | "compress" | "labels" | "labels-regex" | "env" | "env-regex"
            | "tag" => {}
            other => return Err(OptionError::Unknown { driver, option: other.to_owned() }),
        }
    }
    Ok(LogDriver::File { max_bytes, max_files })
}

fn awslogs(options: &BTreeMap<String, String>, writer: Writer<'_>) -> Result<Awslogs, OptionError> {
    let text = |name: &'static str| {
        options.get(name).filter(|value| !value.is_empty()).cloned().ok_or(OptionError::Missing(name))
    };
    let create_group = match options.get("awslogs-create-group").map(String::as_str) {
        None | Some("" | "true") => true,
        Some("false") => false,
        Some(value) => {
            return Err(OptionError::Value { option: "awslogs-create-group", value: value.to_owned() });
        }
    };
    let mut read = Awslogs {
        region: options.get("awslogs-region").cloned().unwrap_or_else(|| writer.region.to_owned()),
        group: text("awslogs-group")?,
        // Docker's default.
        stream: text("awslogs-stream").unwrap_or_else(|_| writer.id.to_owned()),
        create_group,
        multiline: None,
        buffer: BUFFER,
    };
    let mut blocking = false;
    for (name, value) in options {
        let wrong = |option: &'static str| OptionError::Value { option, value: value.clone() };
        match name.as_str() {
            // ECS documents that of the two the date counts.
            "awslogs-datetime-format" => {
                let multiline = Multiline::datetime(value);
                read.multiline = Some(multiline.ok_or_else(|| wrong("awslogs-datetime-format"))?);
            }
            "awslogs-multiline-pattern" if !options.contains_key("awslogs-datetime-format") => {
                let multiline = Multiline::pattern(value);
                read.multiline = Some(multiline.ok_or_else(|| wrong("awslogs-multiline-pattern"))?);
            }
            "max-buffer-size" => read.buffer = size("max-buffer-size", value)?,
            "mode" => {
                blocking = match value.as_str() {
                    "blocking" => true,
                    "non-blocking" => false,
                    _ => return Err(wrong("mode")),
                };
            }
            "awslogs-group"
            | "awslogs-region"
            | "awslogs-stream"
            | "awslogs-create-group"
            | "awslogs-multiline-pattern" => {}
            // The control plane's endpoint is the agent's own; streams are always made; how often is sent is our matter.
            "awslogs-endpoint"
            | "awslogs-create-stream"
            | "awslogs-credentials-endpoint"
            | "awslogs-force-flush-interval-seconds"
            | "awslogs-max-buffered-events"
            | "tag" => {}
            other => return Err(OptionError::Unknown { driver: "awslogs", option: other.to_owned() }),
        }
    }
    if blocking {
        read.buffer = read.buffer.max(BLOCKING_BUFFER);
    }
    Ok(read)
}

/// Docker's facilities, by their numbers.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const FACILITY_DAEMON: u8 = 3;

fn syslog(options: &BTreeMap<String, String>, writer: Writer<'_>) -> Result<Syslog, OptionError> {
    let mut read = Syslog {
        address: Address::Unix("/dev/log".into()),
        facility: FACILITY_DAEMON,
        format: Format::Unix,
        tag: short_id(writer).to_owned(),
    };
    for (name, value) in options {
        let wrong = |option: &'static str| OptionError::Value { option, value: value.clone() };
        match name.as_str() {
            "syslog-address" => {
                read.address = Address::read(value, SYSLOG_PORT).ok_or_else(|| wrong("syslog-address"))?;
            }
            "syslog-facility" => {
                let named = FACILITIES.iter().position(|facility| !facility.is_empty() && facility == value);
                let number = named.or_else(|| value.parse().ok().filter(|number| *number < FACILITIES.len()));
                let number = number.and_then(|number| u8::try_from(number).ok());
                read.facility = number.ok_or_else(|| wrong("syslog-facility"))?;
            }
            "syslog-format" => {
                read.format = match value.as_str() {
                    "" => Format::Unix,
                    "rfc3164" => Format::Rfc3164,
                    "rfc5424" => Format::Rfc5424,
                    "rfc5424micro" => Format::Rfc5424Micro,
                    _ => return Err(wrong("syslog-format")),
                };
            }
            "tag" => read.tag = tag(value, writer)?,
            // The files of this host are the buffer.
            "mode" | "max-buffer-size" => {}
            other => return Err(OptionError::Unknown { driver: "syslog", option: other.to_owned() }),
        }
    }
    Ok(read)
}

fn fluentd(options: &BTreeMap<String, String>, writer: Writer<'_>) -> Result<Fluentd, OptionError> {
    let mut read = Fluentd {
        address: Address::Tcp(format!("127.0.0.1:{FLUENTD_PORT}")),
        tag: short_id(writer).to_owned(),
        container_id: writer.id.to_owned(),
        container_name: format!("/{}", writer.name),
        sub_second: false,
        ack: false,
    };
    let flag = |option: &'static str, value: &str| match value {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        other => Err(OptionError::Value { option, value: other.to_owned() }),
    };
    for (name, value) in options {
        match name.as_str() {
            "fluentd-address" => {
                let full = if value.contains("://") { value.clone() } else { format!("tcp://{value}") };
                let address = Address::read(&full, FLUENTD_PORT);
                let stream = address.filter(|address| matches!(address, Address::Tcp(_) | Address::Unix(_)));
                let wrong = || OptionError::Value { option: "fluentd-address", value: value.clone() };
                read.address = stream.ok_or_else(wrong)?;
            }
            "tag" => read.tag = tag(value, writer)?,
            "fluentd-sub-second-precision" => read.sub_second = flag("fluentd-sub-second-precision", value)?,
            "fluentd-request-ack" => read.ack = flag("fluentd-request-ack", value)?,
            // Containers never wait for the receiver here; what it does not take now is kept and tried again.
            "fluentd-async"
            | "fluentd-async-connect"
            | "fluentd-async-reconnect-interval"
            | "fluentd-buffer-limit"
            | "fluentd-retry-wait"
            | "fluentd-max-retries"
            | "mode"
            | "max-buffer-size" => {}
            other => return Err(OptionError::Unknown { driver: "fluentd", option: other.to_owned() }),
        }
    }
    Ok(read)
}

/// What Docker shows of an id.
fn short_id<'a>(writer: Writer<'a>) -> &'a str {
    writer.id.get(..12).unwrap_or(writer.id)
}

/// A tag with what Docker's templates say of a container.
fn tag(template: &str, writer: Writer<'_>) -> Result<String, OptionError> {
    let filled = template
        .replace("{{.ID}}", short_id(writer))
        .replace("{{.FullID}}", writer.id)
        .replace("{{.Name}}", writer.name);
    if filled.contains("{{") {
        return Err(OptionError::Value { option: "tag", value: template.to_owned() });
    }
    Ok(if filled.is_empty() { short_id(writer).to_owned() } else { filled })
}

/// A size as Docker writes it: a number with `k`, `m` or `g`, with `b` behind it or without.
fn size(option: &'static str, text: &str) -> Result<u64, OptionError> {
    let wrong = || OptionError::Value { option, value: text.to_owned() };
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if lower.ends_with('k') => (digits, 1 << 10),
        Some(digits) if lower.ends_with('m') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (lower, 1_u64),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| (1..=SIZE_MAX).contains(bytes)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WRITER: Writer<'static> = Writer { region: "eu-north-1", id: "0123456789abcdef", name: "web" };

    fn read(driver: &str, options: &[(&str, &str)]) -> Result<LogDriver, OptionError> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = LogConfig { driver: Some(driver.to_owned()), config: Some(options) };
        LogDriver::read(Some(&config), WRITER)
    }

    fn awslogs(options: &[(&str, &str)]) -> Result<Awslogs, OptionError> {
        let mut all = vec![("awslogs-group", "g"), ("awslogs-stream", "p/app/1")];
        all.extend(options);
        match read("awslogs", &all)? {
            LogDriver::Awslogs(awslogs) => Ok(awslogs),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_have_sizes() {
        assert_eq!(LogDriver::read(None, WRITER).unwrap().files(), (20 << 20, 5));
        let driver = read("json-file", &[("max-size", "10m"), ("max-file", "3")]).unwrap();
        assert_eq!(driver.files(), (10 << 20, 3));
        for (text, bytes) in [("512", 512), ("1k", 1024), ("2KB", 2048), ("1g", 1 << 30)] {
            assert_eq!(size("max-size", text), Ok(bytes));
        }
        for wrong in ["", "0", "-1", "m", "1t", "99999999999999999999g"] {
            assert!(size("max-size", wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            read("json-file", &[("max-life", "1")]).unwrap_err().to_string(),
            "unknown log opt 'max-life' for json-file log driver"
        );
        assert_eq!(
            read("gelf", &[]).unwrap_err().to_string(),
            "logger: no log driver named 'gelf' is registered"
        );
    }

    #[test]
    fn awslogs_options_are_read() {
        let plain = awslogs(&[]).unwrap();
        assert_eq!((plain.region.as_str(), plain.create_group, plain.buffer), ("eu-north-1", true, 10 << 20));
        let full = awslogs(&[
            ("awslogs-region", "us-east-1"),
            ("awslogs-create-group", "false"),
            ("mode", "blocking"),
        ]);
        let full = full.unwrap();
        assert_eq!((full.region.as_str(), full.create_group, full.buffer), ("us-east-1", false, 1 << 30));
        assert_eq!(LogDriver::Awslogs(full).files(), (20 << 20, 53));
        assert_eq!(read("awslogs", &[]).unwrap_err(), OptionError::Missing("awslogs-group"));
        assert_eq!(awslogs(&[("awslogs-stream", "")]).unwrap().stream, WRITER.id);
        for wrong in [
            ("awslogs-create-group", "yes"),
            ("mode", "x"),
            ("awslogs-multiline-pattern", "("),
            ("nope", "1"),
        ] {
            assert!(awslogs(&[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn receivers_are_read() {
        let LogDriver::Syslog(syslog) = read(
            "syslog",
            &[
                ("syslog-address", "tcp://10.0.0.1"),
                ("syslog-facility", "local3"),
                ("tag", "{{.Name}}/{{.ID}}"),
            ],
        )
        .unwrap() else {
            panic!()
        };
        assert_eq!(syslog.address, Address::Tcp("10.0.0.1:514".to_owned()));
        assert_eq!((syslog.facility, syslog.tag.as_str()), (19, "web/0123456789ab"));
        let LogDriver::Fluentd(fluentd) = read("fluentd", &[("fluentd-address", "logs:9000")]).unwrap()
        else {
            panic!()
        };
        assert_eq!(fluentd.address, Address::Tcp("logs:9000".to_owned()));
        assert_eq!((fluentd.tag.as_str(), fluentd.container_name.as_str()), ("0123456789ab", "/web"));
        for (driver, option, value) in [
            ("syslog", "syslog-address", "tcp+tls://h"),
            ("syslog", "syslog-address", "10.0.0.1"),
            ("syslog", "syslog-facility", "24"),
            ("syslog", "syslog-tls-cert", "/x"),
            ("syslog", "tag", "{{.ImageName}}"),
            ("fluentd", "fluentd-address", "udp://h"),
            ("fluentd", "fluentd-request-ack", "maybe"),
            ("fluentd", "labels", "a"),
        ] {
            assert!(read(driver, &[(option, value)]).is_err(), "{driver} {option}={value}");
        }
        assert_eq!(Address::read("udp://[::1]", 514), Some(Address::Udp("[::1]:514".to_owned())));
        assert_eq!(Address::read("unix:///run/log", 1), Some(Address::Unix("/run/log".into())));
    }

    #[test]
    fn dates_begin_events() {
        let both = awslogs(&[
            ("awslogs-datetime-format", "%Y-%m-%d %H:%M:%S%L"),
            ("awslogs-multiline-pattern", "^x"),
        ]);
        let multiline = both.unwrap().multiline.unwrap();
        assert!(multiline.begins("[2026-11-21 08:00:01.250] hello"));
        assert!(!multiline.begins("x"), "the pattern is ignored beside a date");
        assert!(Multiline::datetime("%b %d, %Y").unwrap().begins("Nov 21, 2026 ..."));
        assert!(Multiline::datetime("%q").is_none());
        assert!(Multiline::datetime("100%").is_none());
    }
}
