//! Where a log driver's receiver is, and a connection to it.

use std::io;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

/// `udp://host:port`, `tcp://host:port`, `unix:///path`, `unixgram:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Udp(String),
    Tcp(String),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
}

impl Address {
    /// Reads an address; `port` is added where there is none. `None` for other kinds.
    pub fn read(text: &str, port: u16) -> Option<Address> {
        let with_port = |host: &str| {
            let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
                port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']'))
            });
            if has_port { host.to_owned() } else { format!("{host}:{port}") }
        };
        match text.split_once("://")? {
            (_, "") => None,
            ("udp", host) => Some(Address::Udp(with_port(host))),
            ("tcp", host) => Some(Address::Tcp(with_port(host))),
            ("unix", path) if path.starts_with('/') => Some(Address::Unix(path.into())),
            ("unixgram", path) if path.starts_with('/') => Some(Address::UnixDatagram(path.into())),
            _ => None,
        }
    }

    /// # Errors
    /// When nobody is there.
    pub async fn connect(&self) -> io::Result<Connection> {
        Ok(match self {
            Address::Udp(host) => {
                let any = if host.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(host).await?;
                Connection::Udp(socket)
            }
            Address::Tcp(host) => Connection::Stream(Box::new(TcpStream::connect(host).await?)),
            Address::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Connection::Stream(Box::new(stream)),
                // A system's own logger listens for datagrams under the same kind of name.
                Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => datagram(path)?,
                Err(error) => return Err(error),
            },
            Address::UnixDatagram(path) => datagram(path)?,
        })
    }
}

fn datagram(path: &PathBuf) -> io::Result<Connection> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(Connection::UnixDatagram(socket))
}

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub enum Connection {
    Stream(Box<dyn Stream>),
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
}
