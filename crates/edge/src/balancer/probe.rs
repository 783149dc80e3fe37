//! Health checks: real requests to real targets, on a thread of their own.

use super::l4::header;
use super::tls::client_config;
use gantry_decide::routing::Probe;
use gantry_decide::routing::config::{HealthCheck, HealthCheckPort, Protocol};
use httparse::Status;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Of an answer's head; a check reads no further.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 128;

/// Checks a target once.
pub async fn probe(address: SocketAddr, check: &HealthCheck, proxy_protocol: bool) -> Probe {
    let address = match check.port {
        HealthCheckPort::Traffic => address,
        HealthCheckPort::Port(port) => SocketAddr::new(address.ip(), port),
    };
    let attempt = async {
        let mut stream = TcpStream::connect(address).await?;
        if matches!(check.protocol, Protocol::Tcp | Protocol::Udp | Protocol::TcpUdp) {
            return Ok(Probe::Passed);
        }
        if proxy_protocol {
            stream.write_all(&header(stream.local_addr()?, address)).await?;
        }
        if check.protocol == Protocol::Http {
            return http(stream, address, check).await;
        }
        let connector = TlsConnector::from(client_config());
        let stream = connector.connect(ServerName::from(address.ip()), stream).await?;
        if check.protocol == Protocol::Tls { Ok(Probe::Passed) } else { http(stream, address, check).await }
    };
    match timeout(check.timeout, attempt).await {
        Ok(Ok(probe)) => probe,
        Ok(Err(_)) => Probe::Failed,
        Err(_) => Probe::TimedOut,
    }
}

async fn http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    check: &HealthCheck,
) -> io::Result<Probe> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nUser-Agent: ELB-HealthChecker/2.0\r\nAccept-Encoding: gzip, compressed\r\n\r\n",
        check.path
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match (response.parse(&answer), response.code) {
            (Ok(Status::Partial), _) => {
                if stream.read_buf(&mut answer).await? == 0 || answer.len() > MAX_HEAD {
                    return Ok(Probe::Failed);
                }
            }
            (Ok(Status::Complete(length)), Some(code)) if (100..200).contains(&code) => {
                answer.drain(..length);
            }
            (Ok(Status::Complete(_)), Some(code)) if check.matcher.accepts(code) => return Ok(Probe::Passed),
            (Ok(Status::Complete(_)), Some(code)) => return Ok(Probe::Mismatch(code)),
            (Ok(Status::Complete(_)), None) | (Err(_), _) => return Ok(Probe::Failed),
        }
    }
}
