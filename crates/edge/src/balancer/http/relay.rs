//! Moving bytes from one connection to another, within one task.

use super::super::clock::Watch;
use super::body::{Body, Malformed};
use bytes::{Buf, BytesMut};
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Read at once of large bodies: a few of the kernel's segments, small enough for the processor's cache.
pub const PIECE: usize = 64 * 1024;

/// What connections of clients and targets are.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// One of the two users of a connection that a single task reads and writes by turns.
#[derive(Debug)]
pub struct Shared<'a, S>(pub &'a RefCell<S>);

impl<S: Io> AsyncRead for Shared<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(context, into)
    }
}

impl<S: Io> AsyncWrite for Shared<'_, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)
    }
}

/// Why a body did not get through.
#[derive(Debug)]
pub enum Fault {
    /// The sender closed, or its connection broke.
    Source,
    /// The receiver takes no more.
    Sink,
    Malformed(Malformed),
}

/// Moves a body on: what `buffer` has of it first. Leaves what comes behind the body in `buffer`.
///
/// # Errors
/// When either side fails, or chunks are malformed.
pub async fn relay<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    from: &mut R,
    buffer: &mut BytesMut,
    to: &mut W,
    body: &mut Body,
    decode: bool,
    watch: &Watch,
    moved: &Cell<u64>,
) -> Result<(), Fault> {
    let mut content = Vec::new();
    loop {
        if !buffer.is_empty() {
            content.clear();
            let take = |data: &[u8]| {
                if decode {
                    content.extend_from_slice(data);
                }
            };
            let count = body.take(buffer, take).map_err(Fault::Malformed)?;
            let bytes = if decode { content.as_slice() } else { &buffer[..count] };
            write_all(to, bytes, watch).await?;
            moved.set(moved.get() + bytes.len() as u64);
            buffer.advance(count);
        }
        if body.is_done() {
            return to.flush().await.map_err(|_| Fault::Sink);
        }
        // What is in the buffer was the body's, all of it.
        buffer.clear();
        buffer.reserve(match body {
            Body::Length(left) => PIECE.min(usize::try_from(*left).unwrap_or(PIECE)).max(4096),
            _ => PIECE / 4,
        });
        match from.read_buf(buffer).await {
            Ok(0) if *body == Body::Close => return to.flush().await.map_err(|_| Fault::Sink),
            Ok(0) | Err(_) => return Err(Fault::Source),
            Ok(_) => watch.touch(),
        }
    }
}

/// Writes everything; each part that gets through is a sign of life.
pub async fn write_all<W: AsyncWrite + Unpin>(
    to: &mut W,
    mut bytes: &[u8],
    watch: &Watch,
) -> Result<(), Fault> {
    while !bytes.is_empty() {
        match to.write(bytes).await {
            Ok(0) | Err(_) => return Err(Fault::Sink),
            Ok(count) => {
                bytes = &bytes[count..];
                if !bytes.is_empty() {
                    watch.touch();
                }
            }
        }
    }
    Ok(())
}

/// Lets both sides talk as they like, until both are done, one breaks, or both are silent for the limit.
pub async fn relay_both<A: Io, B: Io>(
    near: &mut A,
    far: &mut B,
    watch: &Watch,
    limit: Duration,
    up: &Cell<u64>,
    down: &Cell<u64>,
) {
    relay_buffered((near, &mut BytesMut::new()), (far, &mut BytesMut::new()), watch, limit, up, down).await;
}

/// As [`relay_both`], with what was already read of either side.
pub async fn relay_buffered<A: Io, B: Io>(
    (near, near_buffer): (&mut A, &mut BytesMut),
    (far, far_buffer): (&mut B, &mut BytesMut),
    watch: &Watch,
    limit: Duration,
    up: &Cell<u64>,
    down: &Cell<u64>,
) {
    let (near, far) = (RefCell::new(near), RefCell::new(far));
    let (mut to_far, mut to_near) = (Body::Close, Body::Close);
    let upwards = async {
        let (from, to) = (&mut Shared(&near), &mut Shared(&far));
        let done = relay(from, near_buffer, to, &mut to_far, false, watch, up).await;
        let _ = to.shutdown().await;
        done
    };
    let downwards = async {
        let (from, to) = (&mut Shared(&far), &mut Shared(&near));
        let done = relay(from, far_buffer, to, &mut to_near, false, watch, down).await;
        let _ = to.shutdown().await;
        done
    };
    let both = async { tokio::try_join!(upwards, downwards) };
    // However it ends, it is over.
    let _ = watch.guard(limit, both).await;
}
