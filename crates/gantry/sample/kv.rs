//! The key-value sample: enough of the Redis protocol for `redis-cli` and for the API sample's visit counter.
//!
//! PING, ECHO, GET, SET, DEL, EXISTS, INCR, DBSIZE, COMMAND and QUIT, as RESP arrays or as plain lines.

use super::{clients, signals};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

const PORT: u16 = 6379;
/// A command is refused beyond these: it is a sample, not a database.
const MAX_WORDS: usize = 64;
const MAX_WORD: usize = 1 << 20;
const MAX_LINE: u64 = 64 << 10;
/// Keys and values together; the sample's memory stays within a small task's.
const MAX_BYTES: usize = 32 << 20;
const MAX_CLIENTS: usize = 256;

type Word = Vec<u8>;

#[derive(Default)]
struct Data {
    values: BTreeMap<Word, Word>,
    bytes: usize,
}

pub fn main() -> io::Result<()> {
    signals::exit_on_stop(0, "bye\n");
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("ready to accept connections on port {PORT}");
    serve(&listener)
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    let data = Arc::new(Mutex::new(Data::default()));
    clients::serve(listener, MAX_CLIENTS, move |stream| converse(stream, &data))
}

fn converse(stream: &TcpStream, data: &Mutex<Data>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let words = match read_command(&mut reader) {
            Ok(Some(words)) => words,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return writer.write_all(b"-ERR Protocol error\r\n");
            }
            Err(error) => return Err(error),
        };
        let quits = words.first().is_some_and(|w| w.eq_ignore_ascii_case(b"quit"));
        let reply = answer(&words, &mut data.lock().unwrap_or_else(PoisonError::into_inner));
        writer.write_all(&reply)?;
        if quits {
            return Ok(());
        }
    }
}

fn answer(words: &[Word], data: &mut Data) -> Word {
    let Some((command, arguments)) = words.split_first() else { return Word::new() };
    match (command.to_ascii_uppercase().as_slice(), arguments) {
        (b"PING", []) => b"+PONG\r\n".to_vec(),
        (b"PING" | b"ECHO", [text]) => bulk(text),
        (b"QUIT", _) => b"+OK\r\n".to_vec(),
        (b"GET", [key]) => data.values.get(key).map_or_else(|| b"$-1\r\n".to_vec(), |value| bulk(value)),
        (b"SET", [key, value]) => data.set(key, value.clone()).map_or_else(error, |()| b"+OK\r\n".to_vec()),
        (b"DEL", keys @ [_, ..]) => integer(keys.iter().filter(|key| data.remove(key)).count() as i64),
        (b"EXISTS", keys @ [_, ..]) => {
            integer(keys.iter().filter(|key| data.values.contains_key(*key)).count() as i64)
        }
        (b"INCR", [key]) => data.increment(key).map_or_else(error, integer),
        (b"DBSIZE", []) => integer(data.values.len() as i64),
        // redis-cli asks for the command table when it starts and is content with none.
        (b"COMMAND", _) => b"*0\r\n".to_vec(),
        (b"GET" | b"SET" | b"DEL" | b"EXISTS" | b"INCR" | b"ECHO" | b"PING" | b"DBSIZE", _) => {
            error("ERR wrong number of arguments")
        }
        _ => error("ERR unknown command"),
    }
}

impl Data {
    fn set(&mut self, key: &[u8], value: Word) -> Result<(), &'static str> {
        let old = self.values.get(key).map_or(0, |old| key.len() + old.len());
        let bytes = self.bytes - old + key.len() + value.len();
        if bytes > MAX_BYTES {
            return Err("OOM the sample keeps no more than 32 MiB");
        }
        self.bytes = bytes;
        self.values.insert(key.to_vec(), value);
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let Some(value) = self.values.remove(key) else { return false };
        self.bytes -= key.len() + value.len();
        true
    }

    fn increment(&mut self, key: &[u8]) -> Result<i64, &'static str> {
        const NOT_A_NUMBER: &str = "ERR value is not an integer or out of range";
        let old = match self.values.get(key) {
            Some(value) => {
                std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or(NOT_A_NUMBER)?
            }
            None => 0_i64,
        };
        let new = old.checked_add(1).ok_or(NOT_A_NUMBER)?;
        self.set(key, new.to_string().into_bytes())?;
        Ok(new)
    }
}

fn bulk(text: &[u8]) -> Word {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

fn integer(number: i64) -> Word {
    format!(":{number}\r\n").into_bytes()
}

fn error(text: &str) -> Word {
    format!("-{text}\r\n").into_bytes()
}

/// The next command's words; none at the connection's end.
fn read_command(reader: &mut impl BufRead) -> io::Result<Option<Vec<Word>>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let Some(line) = read_line(reader)? else { return Ok(None) };
    let Some(count) = line.strip_prefix(b"*") else {
        // A plain line, as typed into a raw connection.
        let words = line.split(|b| *b == b' ').filter(|w| !w.is_empty()).map(<[u8]>::to_vec);
        return Ok(Some(words.collect()));
    };
    let count = length(count).filter(|count| *count <= MAX_WORDS).ok_or_else(bad)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let line = read_line(reader)?.ok_or_else(bad)?;
        let size =
            line.strip_prefix(b"$").and_then(length).filter(|size| *size <= MAX_WORD).ok_or_else(bad)?;
        let mut word = vec![0; size + 2];
        reader.read_exact(&mut word)?;
        word.truncate(size);
        words.push(word);
    }
    Ok(Some(words))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Word>> {
    let mut line = Word::new();
    reader.take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(line))
}

fn length(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn talk(input: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(input).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn it_keeps_what_it_is_given() {
        let reply = talk(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\nget\r\n$1\r\nk\r\nGET none\r\nPING\r\n");
        assert_eq!(reply, "+OK\r\n$4\r\na\r\nb\r\n$-1\r\n+PONG\r\n");
        assert_eq!(
            talk(b"INCR n\r\nINCR n\r\nDEL n n\r\nDBSIZE\r\nQUIT\r\n"),
            ":1\r\n:2\r\n:1\r\n:0\r\n+OK\r\n"
        );
    }

    #[test]
    fn nonsense_is_answered() {
        assert_eq!(talk(b"FLY\r\n"), "-ERR unknown command\r\n");
        assert_eq!(talk(b"SET a\r\n"), "-ERR wrong number of arguments\r\n");
        assert_eq!(talk(b"SET a b\r\nINCR a\r\n"), "+OK\r\n-ERR value is not an integer or out of range\r\n");
        for bad in [&b"*99999999\r\n"[..], b"*1\r\n$99999999999\r\n", b"*1\r\nword\r\n", b"*-1\r\n", b"PING"]
        {
            assert_eq!(talk(bad), "-ERR Protocol error\r\n");
        }
    }
}
