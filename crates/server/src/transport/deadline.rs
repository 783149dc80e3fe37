//! A stream that fails when its peer takes nothing of what is written for too long, and that closes politely.
//!
//! Closing a socket while the peer still sends makes the kernel reset the connection, and the peer then never sees
//! the answer (a 413, say) that it would have read next. So a close ends our half first and discards what still
//! comes, for a short while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a close waits for a peer that still sends. Peers that see our end close at once; those that do not look
/// have had their answer.
const LINGER: Duration = Duration::from_millis(500);

/// Wraps a stream; reads pass through.
pub(crate) struct WriteDeadline<S> {
    stream: S,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether a write waits, and so the timer counts.
    waiting: bool,
    /// Our half is closed, and the timer counts the rest of [`LINGER`].
    lingering: bool,
}

impl<S> WriteDeadline<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> WriteDeadline<S> {
        WriteDeadline { stream, patience, timer: Box::pin(sleep(patience)), waiting: false, lingering: false }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.waiting = false;
            return progress;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
        match self.timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingering {
            let progress = Pin::new(&mut self.stream).poll_shutdown(context);
            std::task::ready!(self.watch(context, progress))?;
            self.lingering = true;
            self.timer.as_mut().reset(Instant::now() + LINGER);
        }
        let mut discarded = [0; 8192];
        loop {
            // First the time: a peer that sends without end must not keep us here.
            if self.timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut discarded);
            match std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The peer is gone, which is all that was waited for.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
