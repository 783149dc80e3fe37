//! Published ports by IPv6. Containers in bridge mode have IPv4 alone, and the kernel leads no packet from one version of
//! IP to the other: what comes to a published port of the host's IPv6 addresses is carried by the agent, as Docker's own
//! proxy does for containers of its bridge. The container sees the bridge's address; a connection ends with the agent.

use super::nat::Published;
use gantry_decide::task::TransportProtocol;
use gantry_decide::task_engine::HostPort;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Connections and clients of one port at once: each takes two descriptors, of which an agent has tens of thousands.
const CLIENTS_MAX: usize = 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// For a container on a bridge of this host to accept, or refuse.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// After which silence of a container another answer of UDP is not expected: Docker's proxy waits as long.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// For a task that was told to end: it has nothing to do but that.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Between two tries when the host has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of the largest datagram.
const DATAGRAM_MAX: usize = 65_535;

/// The doors that are open.
#[derive(Default)]
pub struct Doors(Mutex<State>);

#[derive(Default)]
struct State {
    /// Of a thread of its own, since the network's calls are made from any. Begun with the first door.
    runtime: Option<Runtime>,
    open: BTreeMap<HostPort, Open>,
}

/// What carries a port's packets.
struct Open {
    carrying: AbortHandle,
    /// Closed when nothing of it is left.
    gone: Receiver<()>,
}

impl Open {
    /// Ends it. Its port is nobody's then.
    fn close(self) {
        self.carrying.abort();
        // The other end is dropped with the task, after its socket.
        let _ = self.gone.recv_timeout(CLOSE_MAX);
    }
}

impl Doors {
    /// Carries what comes to a bound socket of a published port to its container, until the door is closed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(&self, published: Published, socket: OwnedFd) -> io::Result<()> {
        let target = SocketAddrV4::new(published.address, published.container_port);
        let mut state = self.0.lock();
        let runtime = match state.runtime.take() {
            Some(runtime) => runtime,
            None => Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("ipv6-ports")
                .enable_all()
                .build()?,
        };
        let runtime = state.runtime.insert(runtime);
        let entered = runtime.enter();
        let (alive, gone) = channel::<()>();
        let carrying = match published.protocol {
            TransportProtocol::Tcp => {
                // Connections that have it as well are not in the way of who has the port next.
                setsockopt(&socket, sockopt::ReuseAddr, &true)?;
                listen(&socket, Backlog::new(BACKLOG)?)?;
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                runtime.spawn(async move {
                    let _alive = alive;
                    carry_connections(listener, target).await;
                })
            }
            TransportProtocol::Udp => {
                let socket = std::net::UdpSocket::from(socket);
                socket.set_nonblocking(true)?;
                let socket = Arc::new(UdpSocket::from_std(socket)?);
                runtime.spawn(async move {
                    let _alive = alive;
                    carry_datagrams(socket, target).await;
                })
            }
        };
        drop(entered);
        let port = HostPort { protocol: published.protocol, port: published.host_port };
        let former = state.open.insert(port, Open { carrying: carrying.abort_handle(), gone });
        drop(state);
        former.into_iter().for_each(Open::close);
        Ok(())
    }

    /// Closes a door, and breaks what is carried through it. One that is not open is no error.
    pub fn close(&self, published: Published) {
        let port = HostPort { protocol: published.protocol, port: published.host_port };
        let open = self.0.lock().open.remove(&port);
        open.into_iter().for_each(Open::close);
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.get_mut().runtime.take() {
            // Whoever drops it may be a task of another runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}

async fn carry_connections(listener: TcpListener, target: SocketAddrV4) {
    let room = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut carried = JoinSet::new();
    loop {
        // Who comes when there are too many waits to be accepted.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => drop(carried.spawn(async move {
                // How a connection ends is between its two ends.
                let _ = carry_connection(client, target).await;
                drop(permit);
            })),
            Err(_) => sleep(PAUSE).await,
        }
        while carried.try_join_next().is_some() {}
    }
}

async fn carry_connection(mut client: TcpStream, target: SocketAddrV4) -> io::Result<()> {
    let connected = timeout(CONNECT_MAX, TcpStream::connect(target)).await;
    let mut container = match connected {
        Ok(Ok(container)) => container,
        // Refused there, and so here: with a reset.
        Ok(Err(_)) | Err(_) => return client.set_zero_linger(),
    };
    client.set_nodelay(true)?;
    container.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut container).await.map(drop)
}

async fn carry_datagrams(socket: Arc<UdpSocket>, target: SocketAddrV4) {
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answering = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        tokio::select! {
            Some(ended) = answering.join_next() => {
                if let Ok(client) = ended {
                    clients.remove(&client);
                }
            }
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else { continue };
                if !clients.contains_key(&client) && clients.len() < CLIENTS_MAX
                    && let Ok(own) = connected(target).await
                {
                    let own = Arc::new(own);
                    clients.insert(client, Arc::clone(&own));
                    answering.spawn(answer(Arc::downgrade(&socket), own, client));
                }
                if let Some(own) = clients.get(&client) {
                    // What cannot be sent is lost, as datagrams are.
                    let _ = own.send(&buffer[..length]).await;
                }
            }
        }
    }
}

async fn connected(target: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Brings a container's answers to a client, until it has been silent for long. The client is known anew when it asks again.
async fn answer(socket: Weak<UdpSocket>, own: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut buffer = vec![0; DATAGRAM_MAX];
    while let Ok(received) = timeout(SILENCE_MAX, own.recv(&mut buffer)).await {
        // Refused, since nobody listens in the container yet, or a client that has gone.
        let Ok(length) = received else { continue };
        // The door may be closed meanwhile, and its port somebody else's.
        let Some(socket) = socket.upgrade() else { break };
        let _ = socket.send_to(&buffer[..length], client).await;
    }
    client
}
