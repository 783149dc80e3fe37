//! Where a log driver's receiver is, and a connection to it.

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

/// `udp://host:port`, `tcp://host:port`, `unix:///path`, `unixgram:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Udp(String),
    Tcp(String),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
    /// A stream's socket that a container makes in a directory of this agent's.
    Inside {
        directory: PathBuf,
        name: &'static str,
    },
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
            Address::Inside { directory, name } => {
                let socket = socket(directory, name)?;
                // By its descriptor: nothing can be put in its place, and its path may be longer than addresses are.
                let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
                Connection::Stream(Box::new(UnixStream::connect(path).await?))
            }
        })
    }
}

/// Opens a socket in a directory that a container can write: it must not be a link to one of the host's.
fn socket(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, how | OFlags::DIRECTORY, Mode::empty())?;
    let socket = openat(&directory, name, how, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) == FileType::Socket {
        Ok(socket)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket"))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_containers_socket_is_found_and_a_link_in_its_place_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        // Longer than the address of a socket may be.
        let directory = scratch.path().join("d".repeat(120));
        std::fs::create_dir(&directory).unwrap();
        let outside = scratch.path().join("outside.sock");
        let _of_the_host = std::os::unix::net::UnixListener::bind(&outside).unwrap();
        let to = Address::Inside { directory: directory.clone(), name: "in.sock" };
        assert!(to.connect().await.is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        std::os::unix::fs::symlink(&outside, directory.join("in.sock")).unwrap();
        assert!(to.connect().await.is_err());
        std::fs::remove_file(directory.join("in.sock")).unwrap();
        let inside = OwnedFd::from(std::fs::File::open(&directory).unwrap());
        let path = format!("/proc/self/fd/{}/in.sock", inside.as_raw_fd());
        let _of_the_container = std::os::unix::net::UnixListener::bind(path).unwrap();
        assert!(matches!(to.connect().await.unwrap(), Connection::Stream(_)));
    }
}
