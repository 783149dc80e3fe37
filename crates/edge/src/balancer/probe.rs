//! Health checks: real requests to real targets, on a thread of their own.

use gantry_decide::routing::Probe;
use gantry_decide::routing::config::{HealthCheck, HealthCheckPort, Protocol, ProtocolVersion};
use httparse::Status;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Of an answer's head; a check reads no further.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 128;

/// Checks a target once.
pub async fn probe(address: SocketAddr, check: &HealthCheck, version: ProtocolVersion) -> Probe {
    let address = match check.port {
        HealthCheckPort::Traffic => address,
        HealthCheckPort::Port(port) => SocketAddr::new(address.ip(), port),
    };
    let attempt = async {
        let stream = TcpStream::connect(address).await?;
        match (check.protocol, version) {
            (Protocol::Http, ProtocolVersion::Http1) => http(stream, address, check).await,
            (Protocol::Tcp, _) => Ok(Probe::Passed),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    match timeout(check.timeout, attempt).await {
        Ok(Ok(probe)) => probe,
        Ok(Err(_)) => Probe::Failed,
        Err(_) => Probe::TimedOut,
    }
}

async fn http(mut stream: TcpStream, address: SocketAddr, check: &HealthCheck) -> io::Result<Probe> {
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
