//! A client's TLS handshake, and what there is to tell of it also when it comes to nothing.

use super::certificate::ClientCertificate;
use super::connection_log::{Failure, Refused};
use super::http::Tls;
use super::tables::Table;
use super::tls::{Secured, openssl_name};
use super::verifiers::refused;
use rustls::server::Acceptor;
use rustls::{CipherSuite, ProtocolVersion};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// A client's handshake, as long as a target's.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client's connection is once its handshake is done.
pub type Secure = TlsStream<Overheard>;

/// Shakes hands with a client; what is known of it is known also when there is no connection.
///
/// # Errors
/// When there is none, for logs: the client knows as well as we do.
pub async fn shake(stream: TcpStream, table: &Table) -> (Tls, Result<Secure, Refused>) {
    let mut tls = Tls::unknown();
    let shaken = match table.tls.as_deref() {
        Some(secured) => timeout(TIMEOUT, attempt(stream, secured, &mut tls)).await.ok(),
        None => None,
    };
    (tls, shaken.unwrap_or(Err(Failure::Unmapped.into())))
}

async fn attempt(stream: TcpStream, secured: &Secured, tls: &mut Tls) -> Result<Secure, Refused> {
    let stream = Overheard { stream, first: true, agreed: None };
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
    let begun = begun.map_err(|error| refused(&error))?;
    let hello = begun.client_hello();
    tls.name = hello.server_name().map(str::to_owned);
    tls.shown = Some(secured.certificates.choose(&hello).arn.clone());
    if !secured.config.alpn_protocols.is_empty() {
        tls.offered = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
    }
    let shaken = begun.into_stream(secured.config.clone()).into_fallible().await;
    let stream = shaken.map_err(|(error, stream)| {
        tls.agree(stream.agreed);
        refused(&error)
    })?;
    let (heard, session) = stream.get_ref();
    tls.agree(heard.agreed);
    tls.certificate = session.peer_certificates().and_then(ClientCertificate::read).map(Arc::new);
    Ok(stream)
}

impl Tls {
    /// What is known before a client has said anything.
    pub fn unknown() -> Tls {
        Tls { version: "-", cipher: "-", name: None, shown: None, offered: Vec::new(), certificate: None }
    }

    fn agree(&mut self, on: Option<Agreed>) {
        let Some(on) = on else { return };
        self.cipher = openssl_name(on.cipher);
        self.version = match on.version {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "TLSv1.2",
        };
    }
}

/// What a server's first message says that both sides go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Agreed {
    version: ProtocolVersion,
    cipher: CipherSuite,
}

impl Agreed {
    /// From the first bytes that a server sends: a record with a ServerHello, which nothing hides (RFC 8446, 4.1.3).
    fn read(bytes: &[u8]) -> Option<Agreed> {
        const HANDSHAKE: u8 = 22;
        const SERVER_HELLO: u8 = 2;
        const SUPPORTED_VERSIONS: u16 = 43;
        let mut rest = Rest(bytes);
        let is_hello =
            rest.take(1)? == [HANDSHAKE] && rest.take(4).is_some() && rest.take(1)? == [SERVER_HELLO];
        if !is_hello {
            return None;
        }
        rest.take(3)?;
        let mut version = rest.number()?;
        rest.take(32)?;
        let session = rest.take(1)?.first().copied()?;
        rest.take(usize::from(session))?;
        let cipher = rest.number()?;
        // No compression, and the length of the extensions.
        rest.take(3)?;
        while let Some(kind) = rest.number() {
            let length = rest.number()?;
            let content = rest.take(usize::from(length))?;
            if kind == SUPPORTED_VERSIONS {
                version = Rest(content).number()?;
                break;
            }
        }
        Some(Agreed { version: version.into(), cipher: cipher.into() })
    }
}

/// What of a message was not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// A client's connection of which the first message to the client is looked at: a handshake that fails tells nothing more
/// of what was agreed on.
#[derive(Debug)]
pub struct Overheard {
    stream: TcpStream,
    first: bool,
    agreed: Option<Agreed>,
}

impl Overheard {
    fn look(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.first) {
            self.agreed = Agreed::read(bytes);
        }
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, space)
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look(bytes);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look(slices.first().map_or(&[], |slice| slice));
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut message = vec![3, 3];
        message.extend([7; 32]);
        message.extend([2, 9, 9, 0xc0, 0x2f, 0, 0, extensions.len() as u8]);
        message.extend(extensions);
        let mut bytes = vec![22, 3, 3, 0, message.len() as u8 + 4, 2, 0, 0, message.len() as u8];
        bytes.extend(message);
        bytes
    }

    #[test]
    fn a_servers_first_message_says_what_was_agreed_on() {
        let (cipher, old) = (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, hello(&[0xff, 1, 0, 1, 0]));
        assert_eq!(Agreed::read(&old), Some(Agreed { version: ProtocolVersion::TLSv1_2, cipher }));
        let new = hello(&[0, 51, 0, 1, 5, 0, 43, 0, 2, 3, 4]);
        assert_eq!(Agreed::read(&new), Some(Agreed { version: ProtocolVersion::TLSv1_3, cipher }));
        // An alert, and whatever was cut before its end.
        assert_eq!(Agreed::read(&[21, 3, 3, 0, 2, 2, 40]), None);
        assert!((0..47).all(|length| Agreed::read(&new[..length]).is_none()));
    }
}
