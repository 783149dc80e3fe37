//! UDP listeners: datagrams of one flow go to one target, and its answers come back from the listener's address.

use super::super::counters::add;
use super::super::tables::{Door, Target};
use super::super::worker::Worker;
use super::flow::Flow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// Failures in a row after which a flow's socket is given up. Single ones tell of datagrams that nobody took.
const MAX_FAILURES: u32 = 16;

/// A flow ends when it is silent for so long, as documented.
const IDLE: Duration = Duration::from_secs(120);
/// Flows of one listener: each has a socket and a buffer of its own. Datagrams of further ones are lost, as datagrams
/// may be.
const MAX_FLOWS: usize = 10_000;
/// What a datagram may hold.
const MAX_DATAGRAM: usize = 65_535;

struct Open {
    socket: Rc<UdpSocket>,
    target: Arc<Target>,
    last: Rc<Cell<Instant>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a listener's datagrams until the task is dropped.
pub async fn serve(socket: UdpSocket, door: Arc<Door>, worker: Rc<Worker>) {
    let Ok(local) = socket.local_addr() else { return };
    let socket = Rc::new(socket);
    let flows: RefCell<HashMap<SocketAddr, Open>> = RefCell::default();
    let mut buffer = vec![0; MAX_DATAGRAM];
    // All flows' answers pass through one buffer: none holds it across a wait.
    let answers = Rc::new(RefCell::new(vec![0; MAX_DATAGRAM]));
    let mut tidy = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // Errors are of datagrams that were sent before; there is nothing to end for them.
                let Ok((count, peer)) = received else { continue };
                let flow = Flow { source: peer, destination: local };
                if let Some(to) = open(&flows, &answers, &socket, &door, flow, &worker).await {
                    let _ = to.try_send(&buffer[..count]);
                    add(&door.table.load().balanced.counters.processed_bytes, count as u64);
                }
            }
            _ = tidy.tick() => flows.borrow_mut().retain(|_, open| {
                open.last.get().elapsed() < IDLE && !open.target.gone.load(Relaxed)
            }),
        }
    }
}

/// The socket of a flow; made with its target when the flow is new. None when it has no target.
async fn open(
    flows: &RefCell<HashMap<SocketAddr, Open>>,
    answers: &Rc<RefCell<Vec<u8>>>,
    front: &Rc<UdpSocket>,
    door: &Door,
    flow: Flow,
    worker: &Worker,
) -> Option<Rc<UdpSocket>> {
    if let Some(open) = flows.borrow().get(&flow.source) {
        open.last.set(Instant::now());
        return Some(open.socket.clone());
    }
    if flows.borrow().len() >= MAX_FLOWS {
        return None;
    }
    let table = door.table.load_full();
    let (group, _, target) = flow.route(&table, worker.random())?;
    add(&group.counters.requests, 1);
    let any = if target.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = Rc::new(UdpSocket::bind(any).await.ok()?);
    socket.connect(target.address).await.ok()?;
    // Until it has been told so, a socket is taken to have no room, and the flow's first datagram would be lost.
    socket.writable().await.ok()?;
    let last = Rc::new(Cell::new(Instant::now()));
    let (back, front, seen, answers) = (socket.clone(), front.clone(), last.clone(), answers.clone());
    let task = tokio::task::spawn_local(async move {
        let mut failures = 0;
        while failures < MAX_FAILURES {
            if back.readable().await.is_err() {
                return;
            }
            let mut buffer = answers.borrow_mut();
            match back.try_recv(&mut buffer) {
                Ok(count) => {
                    failures = 0;
                    seen.set(Instant::now());
                    let _ = front.try_send_to(&buffer[..count], flow.source);
                    add(&table.balanced.counters.processed_bytes, count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => failures += 1,
            }
        }
    });
    let open = Open { socket: socket.clone(), target, last, task: task.abort_handle() };
    flows.borrow_mut().insert(flow.source, open);
    Some(socket)
}
