//! Health checks: real requests to real targets, on a thread of their own.

use super::http2::grpc_status;
use super::l4::header;
use super::tls::client_config;
use bytes::Bytes;
use gantry_decide::routing::Probe;
use gantry_decide::routing::config::{HealthCheck, HealthCheckPort, Protocol, ProtocolVersion};
use http_body_util::{BodyExt, Full, Limited};
use httparse::Status;
use hyper_util::rt::{TokioExecutor, TokioIo};
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
/// Of a gRPC target's answer to a check, before its trailers.
const MAX_GRPC_BODY: usize = 64 * 1024;

/// Checks a target once.
pub async fn probe(
    address: SocketAddr,
    check: &HealthCheck,
    version: ProtocolVersion,
    proxy_protocol: bool,
) -> Probe {
    let http2 = version != ProtocolVersion::Http1;
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
            return match http2 {
                true => second(stream, address, check, version).await,
                false => first(stream, address, check).await,
            };
        }
        let connector = TlsConnector::from(client_config(http2));
        let stream = connector.connect(ServerName::from(address.ip()), stream).await?;
        match check.protocol {
            Protocol::Tls => Ok(Probe::Passed),
            _ if http2 => second(stream, address, check, version).await,
            _ => first(stream, address, check).await,
        }
    };
    match timeout(check.timeout, attempt).await {
        Ok(Ok(probe)) => probe,
        Ok(Err(_)) => Probe::Failed,
        Err(_) => Probe::TimedOut,
    }
}

async fn first(
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

/// By HTTP/2; a gRPC target is judged by the status of a call without content, which the matcher's codes are then of.
async fn second(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
    check: &HealthCheck,
    version: ProtocolVersion,
) -> io::Result<Probe> {
    let grpc = version == ProtocolVersion::Grpc;
    let connecting = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) = connecting.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The connection lives as long as the check.
    let _driver = Driver(tokio::spawn(async move { drop(driver.await) }));
    let mut request = http::Request::builder()
        .method(if grpc { "POST" } else { "GET" })
        .uri(format!("http://{address}{}", check.path))
        .header("user-agent", "ELB-HealthChecker/2.0");
    // A message of no bytes, framed as gRPC frames messages.
    let mut body = Bytes::new();
    if grpc {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
        body = Bytes::from_static(&[0; 5]);
    }
    let request = request.body(Full::new(body)).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let code = match grpc {
        false => Some(response.status().as_u16()),
        true => match grpc_status(response.headers()) {
            Some(code) => Some(code),
            None => {
                let body = Limited::new(response.into_body(), MAX_GRPC_BODY).collect().await;
                body.map_err(io::Error::other)?.trailers().and_then(grpc_status)
            }
        },
    };
    Ok(match code {
        Some(code) if check.matcher.accepts(code) => Probe::Passed,
        Some(code) => Probe::Mismatch(code),
        None => Probe::Failed,
    })
}

/// A connection's task, which ends with its owner.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
