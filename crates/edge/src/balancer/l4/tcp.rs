//! TCP and TLS listeners of network load balancers: one connection to the target for one of the client's.

use super::super::clock::Watch;
use super::super::counters::add;
use super::super::http::{Connection, Wire, relay_both};
use super::super::tables::{Service, Table, Target};
use super::super::worker::Worker;
use super::flow::Flow;
use super::proxy_protocol;
use super::splice::pump;
use std::cell::Cell;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a client's connection is.
pub enum Front<S> {
    Plain(TcpStream),
    Secure(S),
}

/// Serves a client's connection until it ends; returns the bytes that came from the client, and went to it.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    front: Front<S>,
    peer: SocketAddr,
    local: SocketAddr,
    table: &Table,
    worker: &Worker,
) -> (u64, u64) {
    let flow = Flow { source: peer, destination: local };
    // Nobody to go to: the connection is reset, as documented.
    let Some((group, service, target)) = flow.route(table, worker.random()) else { return (0, 0) };
    add(&group.counters.requests, 1);
    let _under_way = Target::enter(&target);
    let secure = service.to_secure();
    let mut connection = match worker.pool.connect(&target, secure.as_ref()).await {
        Ok(connection) => connection,
        Err(error) => {
            add(&group.counters.connection_errors, 1);
            tracing::debug!(%target, %error, "no connection");
            return (0, 0);
        }
    };
    if announce(&mut connection, &service, flow).await.is_err() {
        return (0, 0);
    }
    let limit = table.listener.tcp_idle_timeout;
    let watch = Watch::new(limit);
    let (up, down) = (Cell::new(0), Cell::new(0));
    // Errors end the connection, which is all that there is to say about them.
    match (front, &mut connection.stream) {
        (Front::Plain(near), Wire::Plain(far)) => {
            let (scratch, half) = (worker.scratch(), Cell::new(false));
            let upwards = pump(&near, far, scratch, &half, &watch, &up);
            let downwards = pump(far, &near, scratch, &half, &watch, &down);
            let both = async { tokio::try_join!(upwards, downwards) };
            let _ = watch.guard(limit, both).await;
        }
        (Front::Plain(mut near), far) => relay_both(&mut near, far, &watch, limit, &up, &down).await,
        (Front::Secure(mut near), far) => relay_both(&mut near, far, &watch, limit, &up, &down).await,
    }
    add(&table.balanced.counters.processed_bytes, up.get() + down.get());
    (up.get(), down.get())
}

async fn announce(connection: &mut Connection, service: &Service, flow: Flow) -> std::io::Result<()> {
    if service.attributes.proxy_protocol {
        connection.stream.write_all(&proxy_protocol::header(flow.source, flow.destination)).await?;
    }
    Ok(())
}
