//! Threads that carry traffic: each accepts from every listener, and keeps a connection to its end.

use super::access_log::Sink;
use super::connection_log::note;
use super::counters::add;
use super::handshake::{Secure, shake};
use super::http::{self, Client, Entrance, Pool, Trace};
use super::http2::{self, Sessions};
use super::l4::{self, Front};
use super::tables::{Door, Table};
use super::tls_log::{self, Ended};
use bytes::BytesMut;
use gantry_decide::routing::config::Protocol;
use rand::Rng as _;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdUdpSocket};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::Instant;

/// Clients' connections of one worker. Beyond, new ones are closed at once and counted as rejected: each may hold some
/// 100 KiB while a request is under way.
const MAX_CONNECTIONS: u64 = 50_000;
/// Read of a connection at once: most requests and answers with their bodies.
const SCRATCH: usize = 16 * 1024;
/// Buffers that wait for requests, and the size beyond which one is given back: most heads, with the beginning of a body.
const SPARE_BUFFERS: usize = 64;
const SPARE_SIZE: usize = 32 * 1024;
/// After an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What workers are told.
#[derive(Debug)]
pub enum Command {
    Listen {
        socket: StdListener,
        entrance: Entrance,
    },
    /// Datagrams of a listener; one worker has them all, so that a flow is known to whom it comes.
    Receive {
        socket: StdUdpSocket,
        door: Arc<Door>,
    },
    /// Accept no more on this address. Open connections go on.
    Close(Bound),
}

/// An address and whether it is UDP's.
pub type Bound = (SocketAddr, bool);

/// What a thread's tasks share.
pub struct Worker {
    pub pool: Rc<Pool>,
    pub sessions: Sessions,
    pub logs: Option<Sink>,
    random: Cell<u64>,
    /// What is read of connections passes through here, so that one that waits holds no buffer.
    scratch: RefCell<Box<[u8]>>,
    /// Buffers of requests that are over: a connection that waits for the next one has none.
    spare: RefCell<Vec<[Vec<u8>; 2]>>,
    /// Clients' connections that are open.
    connections: Arc<AtomicU64>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What clients sent is nobody's business.
        f.debug_struct("Worker").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Worker {
    /// 64 bits for choices and ids (SplitMix64, seeded by the operating system); nothing of it is a secret.
    pub fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A buffer that what is read may pass through, between waits.
    pub fn scratch(&self) -> &RefCell<Box<[u8]>> {
        &self.scratch
    }

    /// Two empty buffers for a request.
    pub fn take_buffers(&self) -> [Vec<u8>; 2] {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a request's buffers for another one.
    pub fn give_back(&self, mut buffers: [Vec<u8>; 2]) {
        buffers.iter_mut().for_each(Vec::clear);
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS && buffers.iter().all(|buffer| buffer.capacity() <= SPARE_SIZE) {
            spare.push(buffers);
        }
    }

    /// Reads what there is into `input`; 0 at the end.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn read<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        input: &mut BytesMut,
    ) -> io::Result<usize> {
        poll_fn(|context| {
            let mut scratch = self.scratch.borrow_mut();
            let mut space = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut space))?;
            input.extend_from_slice(space.filled());
            Poll::Ready(Ok(space.filled().len()))
        })
        .await
    }
}

/// Starts a worker. It ends when the sender of its commands is dropped.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(
    number: usize,
    logs: Option<Sink>,
    connections: Arc<AtomicU64>,
) -> io::Result<(mpsc::UnboundedSender<Command>, JoinHandle<()>)> {
    // As many as there are listeners in a configuration, twice.
    let (sender, commands) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("edge-{number}")).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, run(commands, logs, connections));
    })?;
    Ok((sender, thread))
}

async fn run(
    mut commands: mpsc::UnboundedReceiver<Command>,
    logs: Option<Sink>,
    connections: Arc<AtomicU64>,
) {
    let worker = Rc::new(Worker {
        pool: Rc::new(Pool::default()),
        sessions: Sessions::default(),
        logs,
        random: Cell::new(rand::rng().next_u64()),
        scratch: RefCell::new(vec![0; SCRATCH].into()),
        spare: RefCell::default(),
        connections,
    });
    let mut listening: HashMap<Bound, AbortHandle> = HashMap::new();
    let tidying = tokio::task::spawn_local(tidy(worker.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen { socket, entrance } => {
                let address = socket.local_addr();
                let (Ok(address), Ok(listener)) = (address, TcpListener::from_std(socket)) else { continue };
                let task = tokio::task::spawn_local(accept(listener, entrance, worker.clone()));
                replace(&mut listening, (address, false), task.abort_handle());
            }
            Command::Receive { socket, door } => {
                let address = socket.local_addr();
                let (Ok(address), Ok(socket)) = (address, UdpSocket::from_std(socket)) else { continue };
                let task = tokio::task::spawn_local(l4::serve_datagrams(socket, door, worker.clone()));
                replace(&mut listening, (address, true), task.abort_handle());
            }
            Command::Close(bound) => {
                if let Some(task) = listening.remove(&bound) {
                    task.abort();
                }
            }
        }
    }
    tidying.abort();
    worker.pool.clear();
}

/// Lets go of what is of no use any more, about every second.
async fn tidy(worker: Rc<Worker>) {
    loop {
        worker.pool.tidy().await;
        worker.sessions.tidy();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Has an address served by another task than before. Connections are kept: each has a task of its own.
fn replace(listening: &mut HashMap<Bound, AbortHandle>, bound: Bound, task: AbortHandle) {
    if let Some(before) = listening.insert(bound, task) {
        before.abort();
    }
}

async fn accept(listener: TcpListener, entrance: Entrance, worker: Rc<Worker>) {
    // Connections inherit it.
    if let Err(error) = rustix::net::sockopt::set_tcp_nodelay(&listener, true) {
        tracing::debug!(%error, "connections may wait for more to send");
    }
    // Those to an address of its own have that address.
    let own = listener.local_addr().ok().filter(|address| !address.ip().is_unspecified());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let balanced = match &entrance {
            Entrance::Own(door) => Some(door.table.load().balanced.clone()),
            Entrance::Shared(_) => None,
        };
        if worker.connections.load(Relaxed) >= MAX_CONNECTIONS {
            if let Some(balanced) = balanced {
                add(&balanced.counters.rejected_connections, 1);
            }
            continue;
        }
        let Ok(local) = own.map_or_else(|| stream.local_addr(), Ok) else { continue };
        let (entrance, worker) = (entrance.clone(), worker.clone());
        worker.connections.fetch_add(1, Relaxed);
        tokio::task::spawn_local(async move {
            if let Some(balanced) = &balanced {
                add(&balanced.counters.new_connections, 1);
                add(&balanced.counters.active_connections, 1);
            }
            welcome(stream, peer, local, entrance, &worker).await;
            if let Some(balanced) = &balanced {
                balanced.counters.active_connections.fetch_sub(1, Relaxed);
            }
            worker.connections.fetch_sub(1, Relaxed);
        });
    }
}

/// Serves a connection by its listener's protocol. What only some protocols need has memory of its own, so that a plain
/// connection takes no more than it uses.
async fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    entrance: Entrance,
    worker: &Rc<Worker>,
) {
    let table = match &entrance {
        Entrance::Own(door) => Some(door.table.load_full()),
        Entrance::Shared(_) => None,
    };
    let shown = peer.ip().to_canonical().to_string();
    let client = Client { peer, local, shown, tls: None, trace: Trace(worker.random()) };
    match table {
        Some(table) if table.protocol == Protocol::Https => {
            Box::pin(serve_https(stream, client, entrance, &table, worker)).await;
        }
        Some(table) if table.protocol != Protocol::Http => {
            Box::pin(serve_layer4(stream, client, &table, worker)).await;
        }
        table => {
            if let Some(table) = table {
                note(worker.logs.as_ref(), &table, &client, None);
            }
            http::serve(stream, client, entrance, worker).await;
        }
    }
}

async fn serve_https(
    stream: TcpStream,
    client: Client,
    entrance: Entrance,
    table: &Table,
    worker: &Rc<Worker>,
) {
    let Some((stream, client)) = Box::pin(greet(stream, client, table, worker)).await else { return };
    match &entrance {
        Entrance::Own(door) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            let (door, worker) = (door.clone(), worker.clone());
            Box::pin(http2::serve(stream, client, door, worker)).await;
        }
        _ => Box::pin(http::serve(stream, client, entrance, worker)).await,
    }
}

/// A client's handshake, which logs tell of however it went; none when it came to nothing.
async fn greet(
    stream: TcpStream,
    mut client: Client,
    table: &Table,
    worker: &Worker,
) -> Option<(Secure, Client)> {
    let begun = Instant::now();
    let (tls, shaken) = shake(stream, table).await;
    client.tls = Some(tls);
    let took = shaken.as_ref().map(|_| begun.elapsed());
    note(worker.logs.as_ref(), table, &client, Some(took));
    shaken.ok().map(|stream| (stream, client))
}

async fn serve_layer4(stream: TcpStream, mut client: Client, table: &Table, worker: &Rc<Worker>) {
    if table.protocol != Protocol::Tls {
        l4::serve(Front::<Secure>::Plain(stream), client.peer, client.local, table, worker).await;
        return;
    }
    let (begun, since) = (SystemTime::now(), Instant::now());
    let (tls, shaken) = Box::pin(shake(stream, table)).await;
    client.tls = Some(tls);
    let ended = match shaken {
        Ok(stream) => {
            let handshake = Ok(since.elapsed());
            let protocol = stream.get_ref().1.alpn_protocol();
            let protocol = protocol.map(|name| String::from_utf8_lossy(name).into_owned());
            let front = Front::Secure(stream);
            let (received, sent) = l4::serve(front, client.peer, client.local, table, worker).await;
            Ended { begun, took: since.elapsed(), handshake, protocol, received, sent }
        }
        Err(refused) => {
            let (took, handshake) = (since.elapsed(), Err(refused));
            Ended { begun, took, handshake, protocol: None, received: 0, sent: 0 }
        }
    };
    tls_log::note(worker.logs.as_ref(), table, &client, &ended);
}
