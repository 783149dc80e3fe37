//! Connections to targets: kept and used again within a worker, and cut when a target's time is over.

use super::super::tables::Target;
use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a target may take to accept, as documented for status 504.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Kept connections to one target, by worker: more than a target serves at once are of no use.
const MAX_IDLE: usize = 1024;
/// How long a connection is kept without use. Common servers close after 60 to 75 s, some after 5: those are noticed.
const KEEP_IDLE: Duration = Duration::from_secs(50);

/// How long connections are tidied at a time, while requests wait, and how long requests are then served.
const TIDY_TIME: Duration = Duration::from_micros(50);
const TIDY_PAUSE: Duration = Duration::from_millis(1);

/// Buffers of connections that are not in use, and the size beyond which one is given back: an answer's head and what
/// comes with it.
const SPARE_BUFFERS: usize = 64;
const SPARE_SIZE: usize = 64 * 1024;

/// Kept connections to one target, each with when it was used last.
type Kept = Vec<(Connection, Instant)>;

/// A worker's connections to targets.
#[derive(Debug, Default)]
pub struct Pool {
    /// By the target's address in memory, which is its own as long as a connection holds the target.
    idle: RefCell<HashMap<usize, Kept, BuildHasherDefault<Scatter>>>,
    /// Buffers for connections that are taken into use: idle ones have none.
    spare: RefCell<Vec<BytesMut>>,
    /// All connections, busy ones too.
    open: RefCell<HashMap<RawFd, Arc<Target>>>,
}

/// Hashes addresses in memory, which nobody outside can choose: one multiplication.
#[derive(Debug, Default)]
struct Scatter(u64);

impl Hasher for Scatter {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize((*byte).into()));
    }

    fn write_usize(&mut self, number: usize) {
        let product = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// A connection to a target.
#[derive(Debug)]
pub struct Connection {
    pub stream: Wire,
    pub buffer: BytesMut,
    /// It has carried a request before.
    pub reused: bool,
    target: Arc<Target>,
    pool: Rc<Pool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pool.open.borrow_mut().remove(&self.stream.tcp().as_raw_fd());
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the target does not accept: {0}")]
    Refused(#[source] io::Error),
    #[error("the target does not answer")]
    TimedOut,
}

impl ConnectError {
    /// The status that a client is answered with.
    pub fn status(&self) -> u16 {
        match self {
            ConnectError::Refused(_) => 502,
            ConnectError::TimedOut => 504,
        }
    }
}

impl Pool {
    /// A kept connection that is still good, as far as one can see.
    pub fn take(&self, target: &Arc<Target>) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&key(target))?;
        while let Some((mut connection, _)) = kept.pop() {
            if connection.is_quiet() {
                connection.buffer = self.spare.borrow_mut().pop().unwrap_or_default();
                return Some(connection);
            }
        }
        None
    }

    /// A new connection.
    ///
    /// # Errors
    /// When the target does not accept it.
    pub async fn connect(
        self: &Rc<Self>,
        target: &Arc<Target>,
        secure: Option<&Arc<ClientConfig>>,
    ) -> Result<Connection, ConnectError> {
        let connecting = async {
            let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_nodelay(true)?;
            let stream = socket.connect(target.address).await?;
            let Some(secure) = secure else { return Ok(Wire::Plain(stream)) };
            let name = ServerName::from(target.address.ip());
            let stream = TlsConnector::from(secure.clone()).connect(name, stream).await?;
            Ok(Wire::Secure(Box::new(stream)))
        };
        let stream = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(ConnectError::Refused(error)),
            Err(_) => return Err(ConnectError::TimedOut),
        };
        self.open.borrow_mut().insert(stream.tcp().as_raw_fd(), target.clone());
        let (target, pool) = (target.clone(), self.clone());
        Ok(Connection { stream, buffer: BytesMut::new(), reused: false, target, pool })
    }

    /// Keeps a connection for the next request.
    fn put(&self, mut connection: Connection) {
        if connection.target.retired.load(Relaxed) || !connection.buffer.is_empty() {
            return;
        }
        connection.reused = true;
        let buffer = std::mem::take(&mut connection.buffer);
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_SIZE {
            spare.push(buffer);
        }
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(key(&connection.target)).or_default();
        if kept.len() < MAX_IDLE {
            kept.push((connection, Instant::now()));
        }
    }

    /// Lets go of connections that are old or of no use, and cuts those of targets whose time is over. To be called
    /// about every second. Requests go on in between: a thousand connections that end at once take longer than any of them.
    pub async fn tidy(&self) {
        let targets: Vec<usize> = self.idle.borrow().keys().copied().collect();
        let mut begun = Instant::now();
        for target in targets {
            // Those that are looked at already are at the front; what is taken meanwhile is taken from the back.
            let mut place = 0;
            while let Some(useless) = self.look(target, place) {
                place += usize::from(useless.is_none());
                drop(useless);
                if begun.elapsed() > TIDY_TIME {
                    sleep(TIDY_PAUSE).await;
                    begun = Instant::now();
                }
            }
        }
        for (fd, target) in self.open.borrow().iter() {
            if target.gone.load(Relaxed) {
                // SAFETY: the descriptor is open: a connection takes itself out of the list before it closes.
                unsafe { libc::shutdown(*fd, libc::SHUT_RDWR) };
            }
        }
    }
}

impl Pool {
    /// The connection at a place of those to a target, taken out if it is of no use. None behind the last one.
    fn look(&self, target: usize, place: usize) -> Option<Option<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&target)?;
        let Some((connection, since)) = kept.get(place) else {
            if kept.is_empty() {
                idle.remove(&target);
            }
            return None;
        };
        let useful =
            !connection.target.retired.load(Relaxed) && since.elapsed() < KEEP_IDLE && connection.is_quiet();
        Some((!useful).then(|| kept.swap_remove(place).0))
    }

    /// Lets go of every kept connection.
    pub fn clear(&self) {
        let kept = std::mem::take(&mut *self.idle.borrow_mut());
        drop(kept);
    }
}

fn key(target: &Arc<Target>) -> usize {
    Arc::as_ptr(target) as usize
}

impl Connection {
    /// Keeps a connection for the next request.
    pub fn put(self) {
        let pool = self.pool.clone();
        pool.put(self);
    }

    /// Neither closed by the target nor holding bytes that nobody asked for.
    fn is_quiet(&self) -> bool {
        let tcp = self.stream.tcp();
        let mut byte = [0_u8];
        let peek = || {
            // SAFETY: the buffer is one byte long, and the descriptor open.
            let count = unsafe { libc::recv(tcp.as_raw_fd(), byte.as_mut_ptr().cast(), 1, libc::MSG_PEEK) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        };
        match (&self.stream, tcp.try_io(Interest::READABLE, peek)) {
            (_, Err(error)) => error.kind() == io::ErrorKind::WouldBlock,
            // Session tickets come when they like.
            (Wire::Secure(_), Ok(count)) => count > 0,
            (Wire::Plain(_), Ok(_)) => false,
        }
    }
}

/// A connection to a target, by TLS or not.
#[derive(Debug)]
pub enum Wire {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Secure(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Wire::Secure(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Secure(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Secure(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
