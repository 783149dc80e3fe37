//! The log router sample: enough of Fluent Bit to see what FireLens does. It takes records by the forward protocol where
//! its configuration says, adds the fields that this names, and writes those that go to an output `stdout` as JSON.

use super::signals;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Where Fluent Bit's images have their configuration.
const CONFIGURATION: &str = "/fluent-bit/etc/fluent-bit.conf";
/// Bytes of a text, and entries of a list: what is beyond them is no record of a log.
const TEXT_MAX: usize = 1 << 20;
const LIST_MAX: usize = 1 << 16;
/// How deep values may lie in each other.
const DEPTH_MAX: usize = 16;

/// What log records are made of.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Number(i128),
    Text(String),
    List(Vec<Value>),
    Map(Record),
}

type Record = BTreeMap<String, Value>;

/// As JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            Value::Text(text) => quote(f, text),
            Value::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Value::Map(record) => {
                f.write_str("{")?;
                for (index, (name, value)) in record.iter().enumerate() {
                    f.write_str(if index > 0 { "," } else { "" })?;
                    quote(f, name)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(character))?,
            character => write!(f, "{character}")?,
        }
    }
    f.write_str("\"")
}

/// A section of the configuration: its kind, and its settings in order.
type Section = (String, Vec<(String, String)>);

pub fn main() -> io::Result<()> {
    signals::exit_on_stop(0, "no more records\n");
    let text = fs::read_to_string(CONFIGURATION)?;
    let sections = Arc::new(sections(&text));
    let mut listening = Vec::new();
    for (kind, settings) in sections.iter() {
        if kind != "INPUT" || setting(settings, "Name") != Some("forward") {
            continue;
        }
        let sections = Arc::clone(&sections);
        if let Some(path) = setting(settings, "unix_path") {
            if Path::new(path).exists() {
                fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            println!("listening at {path}");
            listening.push(thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let sections = Arc::clone(&sections);
                    thread::spawn(move || converse(stream, &sections));
                }
            }));
        } else if let (Some(host), Some(port)) = (setting(settings, "Listen"), setting(settings, "Port")) {
            let listener = TcpListener::bind(format!("{host}:{port}"))?;
            println!("listening at {host}:{port}");
            listening.push(thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let sections = Arc::clone(&sections);
                    thread::spawn(move || converse(stream, &sections));
                }
            }));
        }
    }
    for thread in listening {
        // One that panicked has nothing more to take.
        let _ = thread.join();
    }
    Ok(())
}

fn setting<'a>(settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn sections(text: &str) -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(kind) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            all.push((kind.to_owned(), Vec::new()));
        } else if let (Some((name, value)), Some(last)) = (line.split_once(' '), all.last_mut()) {
            last.1.push((name.to_owned(), value.to_owned()));
        }
    }
    all
}

/// Takes batches until the sender hangs up, or says what makes no sense.
fn converse(stream: impl Read + Write, sections: &[Section]) {
    let mut reader = BufReader::new(stream);
    while let Ok(Value::List(batch)) = value(&mut reader, 0) {
        let [Value::Text(tag), Value::List(entries), options @ ..] = batch.as_slice() else { return };
        for entry in entries {
            if let Value::List(entry) = entry
                && let Some(Value::Map(record)) = entry.get(1)
                && let Some(line) = routed(sections, tag, record.clone())
            {
                println!("{line}");
            }
        }
        if let Some(Value::Map(options)) = options.first()
            && let Some(Value::Text(chunk)) = options.get("chunk")
            && reader.get_mut().write_all(&acknowledgement(chunk)).is_err()
        {
            return;
        }
    }
}

/// Says that a batch of this name was taken.
fn acknowledgement(chunk: &str) -> Vec<u8> {
    let chunk = &chunk.as_bytes()[..chunk.len().min(usize::from(u8::MAX))];
    [b"\x81\xa3ack\xd9", &[chunk.len() as u8][..], chunk].concat()
}

/// A record as the router writes it, if it has an output for it.
fn routed(sections: &[Section], tag: &str, mut record: Record) -> Option<String> {
    let of = |kind: &'static str, name: &'static str| {
        sections.iter().filter(move |(known, settings)| {
            let matches = setting(settings, "Match").is_some_and(|pattern| matches(pattern, tag));
            known == kind && setting(settings, "Name") == Some(name) && matches
        })
    };
    for (_, settings) in of("FILTER", "record_modifier") {
        for (_, pair) in settings.iter().filter(|(name, _)| name == "Record") {
            let (name, value) = pair.split_once(' ')?;
            record.insert(name.to_owned(), Value::Text(value.to_owned()));
        }
    }
    of("OUTPUT", "stdout").next()?;
    record.insert("tag".to_owned(), Value::Text(tag.to_owned()));
    Some(Value::Map(record).to_string())
}

fn matches(pattern: &str, tag: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => tag.starts_with(start),
        None => tag == pattern,
    }
}

/// One MessagePack value, of the kinds that log records are made of. Times become null.
fn value(reader: &mut impl Read, depth: usize) -> io::Result<Value> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    if depth > DEPTH_MAX {
        return Err(bad());
    }
    let kind = number(reader, 1)?;
    let (size, kind) = match kind {
        0x00..=0x7f => return Ok(Value::Number(kind.into())),
        0xe0..=0xff => return Ok(Value::Number(i128::from(kind) - 0x100)),
        0xc0 => return Ok(Value::Null),
        0xc2 | 0xc3 => return Ok(Value::Bool(kind == 0xc3)),
        0xcc..=0xcf => return number(reader, 1 << (kind - 0xcc)).map(|n| Value::Number(n.into())),
        0xd6 | 0xd7 => {
            let bytes = if kind == 0xd6 { 5 } else { 9 };
            return bytes_of(reader, bytes).map(|_| Value::Null);
        }
        0x80..=0x8f => (kind & 0x0f, Kind::Map),
        0x90..=0x9f => (kind & 0x0f, Kind::List),
        0xa0..=0xbf => (kind & 0x1f, Kind::Text),
        0xc4..=0xc6 => (number(reader, 1 << (kind - 0xc4))?, Kind::Text),
        0xd9..=0xdb => (number(reader, 1 << (kind - 0xd9))?, Kind::Text),
        0xdc | 0xdd => (number(reader, 2 << (kind - 0xdc))?, Kind::List),
        0xde | 0xdf => (number(reader, 2 << (kind - 0xde))?, Kind::Map),
        _ => return Err(bad()),
    };
    let size = usize::try_from(size).map_err(|_| bad())?;
    match kind {
        Kind::Text if size <= TEXT_MAX => {
            bytes_of(reader, size).map(|bytes| Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Kind::List if size <= LIST_MAX => {
            (0..size).map(|_| value(reader, depth + 1)).collect::<io::Result<_>>().map(Value::List)
        }
        Kind::Map if size <= LIST_MAX => {
            let mut map = Record::new();
            for _ in 0..size {
                let Value::Text(name) = value(reader, depth + 1)? else { return Err(bad()) };
                map.insert(name, value(reader, depth + 1)?);
            }
            Ok(Value::Map(map))
        }
        Kind::Text | Kind::List | Kind::Map => Err(bad()),
    }
}

enum Kind {
    Text,
    List,
    Map,
}

fn number(reader: &mut impl Read, bytes: usize) -> io::Result<u64> {
    Ok(bytes_of(reader, bytes)?.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte)))
}

fn bytes_of(reader: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_are_read_and_go_where_the_configuration_says() {
        let sections = sections(
            "[INPUT]\n    Name forward\n    unix_path /s\n\n[FILTER]\n    Name record_modifier\n    Match *\n    \
             Record ecs_cluster a b\n\n@INCLUDE /x\n\n[OUTPUT]\n    Name stdout\n    Match app-firelens*\n",
        );
        let batch = b"\x92\xaeapp-firelens-1\xdd\0\0\0\x01\x92\xd7\0\0\0\0\x01\0\0\0\0\x81\xa3log\xa2hi";
        let Value::List(batch) = value(&mut &batch[..], 0).unwrap() else { panic!() };
        let [Value::Text(tag), Value::List(entries)] = batch.as_slice() else { panic!() };
        let Value::List(entry) = &entries[0] else { panic!() };
        let Value::Map(record) = &entry[1] else { panic!() };
        let line = routed(&sections, tag, record.clone()).unwrap();
        assert_eq!(line, r#"{"ecs_cluster":"a b","log":"hi","tag":"app-firelens-1"}"#);
        assert_eq!(routed(&sections, "web-firelens-1", record.clone()), None);
        let text = Value::List(vec![Value::Text("\"\\\n\u{1}é".to_owned()), Value::Number(-1), Value::Null]);
        assert_eq!(text.to_string(), r#"["\"\\\n\u0001é",-1,null]"#);
        for damaged in [&b"\x92\xae"[..], b"\xdb\xff\xff\xff\xff", b"\xc1", &[0x91; 40]] {
            assert!(value(&mut &damaged[..], 0).is_err());
        }
    }
}
