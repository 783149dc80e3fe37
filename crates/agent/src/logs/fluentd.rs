//! The driver `fluentd`: sends a container's lines by Fluentd's forward protocol, with the record that Docker makes.

use super::address::{Address, Connection};
use super::assemble::Event;
use super::local::Receiver;
use crate::runtime::logs::Stream;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The options of the driver `fluentd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fluentd {
    pub address: Address,
    pub tag: String,
    pub container_id: String,
    pub container_name: String,
    /// Times with nanoseconds, which older receivers do not know.
    pub sub_second: bool,
    /// Each batch is to be acknowledged.
    pub ack: bool,
}

pub struct FluentdReceiver {
    to: Fluentd,
    connection: Option<Connection>,
    /// Numbers batches.
    chunk: u64,
}

impl FluentdReceiver {
    pub fn new(to: Fluentd) -> FluentdReceiver {
        FluentdReceiver { to, connection: None, chunk: 0 }
    }
}

impl Receiver for FluentdReceiver {
    async fn transmit(&mut self, events: &[Event]) -> io::Result<()> {
        if self.connection.is_none() {
            self.connection = Some(self.to.address.connect().await?);
        }
        self.chunk += 1;
        let chunk = self.to.ack.then(|| format!("{}-{}", self.to.container_id, self.chunk));
        let Some(Connection::Stream(stream)) = &mut self.connection else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "fluentd takes streams only"));
        };
        stream.write_all(&forward(&self.to, events, chunk.as_deref())).await?;
        stream.flush().await?;
        if let Some(chunk) = chunk {
            let mut expected = vec![0x81];
            text(&mut expected, "ack");
            text(&mut expected, &chunk);
            let mut answer = vec![0; expected.len()];
            stream.read_exact(&mut answer).await?;
            if answer != expected {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "another batch was acknowledged"));
            }
        }
        Ok(())
    }

    fn hang_up(&mut self) {
        self.connection = None;
    }
}

/// A batch in the protocol's forward mode: tag, entries of time and record, options.
fn forward(to: &Fluentd, events: &[Event], chunk: Option<&str>) -> Vec<u8> {
    let mut out = vec![if chunk.is_some() { 0x93 } else { 0x92 }];
    text(&mut out, &to.tag);
    // An array with its length in 32 bits; a batch has some thousand events at most.
    out.push(0xdd);
    out.extend_from_slice(&u32::try_from(events.len()).unwrap_or(u32::MAX).to_be_bytes());
    for event in events {
        let seconds = u32::try_from(event.at.div_euclid(1000)).unwrap_or(u32::MAX);
        out.push(0x92);
        if to.sub_second {
            // The extension type 0 of eight bytes: seconds and nanoseconds.
            let nanos = event.at.rem_euclid(1000) as u32 * 1_000_000;
            out.extend_from_slice(&[0xd7, 0x00]);
            out.extend_from_slice(&seconds.to_be_bytes());
            out.extend_from_slice(&nanos.to_be_bytes());
        } else {
            out.push(0xce);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        out.push(0x84);
        let source = if event.stream == Stream::Stderr { "stderr" } else { "stdout" };
        for (name, value) in [
            ("container_id", to.container_id.as_str()),
            ("container_name", &to.container_name),
            ("source", source),
            ("log", &event.message),
        ] {
            text(&mut out, name);
            text(&mut out, value);
        }
    }
    if let Some(chunk) = chunk {
        out.push(0x81);
        text(&mut out, "chunk");
        text(&mut out, chunk);
    }
    out
}

/// MessagePack's string.
fn text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..256 => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 256..65_536 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    fn to(address: &str, ack: bool) -> Fluentd {
        Fluentd {
            address: Address::read(address, 24_224).unwrap(),
            tag: "app".to_owned(),
            container_id: "c1".to_owned(),
            container_name: "/app".to_owned(),
            sub_second: true,
            ack,
        }
    }

    #[test]
    fn a_batch_is_what_the_protocol_says() {
        let event = Event { at: 1_500, stream: Stream::Stderr, message: "x".repeat(40) };
        let bytes = forward(&to("tcp://h", false), &[event], None);
        let mut expected = b"\x92\xa3app\xdd\0\0\0\x01\x92\xd7\0\0\0\0\x01\x1d\xcd\x65\0\x84".to_vec();
        expected.extend_from_slice(
            b"\xaccontainer_id\xa2c1\xaecontainer_name\xa4/app\xa6source\xa6stderr\xa3log\xd9\x28",
        );
        expected.extend_from_slice("x".repeat(40).as_bytes());
        assert_eq!(bytes, expected);
        for length in [0, 31, 32, 255, 256, 65_535, 65_536] {
            let mut out = Vec::new();
            text(&mut out, &"y".repeat(length));
            let head = [1, 2, 3, 5]
                [usize::from(length > 31) + usize::from(length > 255) + usize::from(length > 65_535)];
            assert_eq!(out.len(), length + head);
        }
    }

    #[tokio::test]
    async fn an_acknowledgement_is_waited_for_and_checked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut receiver =
            FluentdReceiver::new(to(&format!("tcp://{}", listener.local_addr().unwrap()), true));
        let answering = tokio::spawn(async move {
            for answer in [&b"\x81\xa3ack\xa4c1-1"[..], b"\x81\xa3ack\xa4c1-9"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 4096];
                assert!(stream.read(&mut bytes).await.unwrap() > 0);
                stream.write_all(answer).await.unwrap();
            }
        });
        let event = Event { at: 1, stream: Stream::Stdout, message: "hello".to_owned() };
        receiver.transmit(std::slice::from_ref(&event)).await.unwrap();
        receiver.hang_up();
        assert!(receiver.transmit(&[event]).await.is_err());
        answering.await.unwrap();
    }
}
