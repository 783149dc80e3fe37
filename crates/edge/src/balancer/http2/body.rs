//! Bodies for HTTP/2 clients: an answer of ours, a target's body as it comes.

use super::super::http::{Body, Connection, Malformed};
use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use hyper::body::Incoming;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, Sleep, sleep_until};

/// Read at once from a target.
const PIECE: usize = 16 * 1024;

/// Cheaper copied than kept where it lies.
const SMALL: usize = 4 * 1024;

/// A body for a client.
#[derive(Default)]
pub enum Out {
    #[default]
    Empty,
    Full(Bytes),
    /// From an HTTP/1.1 target.
    First(Box<FromFirst>),
    /// From an HTTP/2 target.
    Second(Incoming, Box<dyn Ended>),
}

/// Told when a body is over, or given up.
pub trait Ended {
    fn moved(&self, bytes: u64);
}

/// The rest of an exchange with an HTTP/1.1 target.
pub struct FromFirst {
    connection: Option<Rc<RefCell<Connection>>>,
    /// The connection can be used again once both bodies are through.
    pub keep: bool,
    pub body: Body,
    /// The request's body, still on its way.
    pub send: Option<Pin<Box<dyn Future<Output = bool>>>>,
    idle: Pin<Box<Sleep>>,
    limit: Duration,
    last: Instant,
    ended: Box<dyn Ended>,
}

impl Drop for FromFirst {
    fn drop(&mut self) {
        let through = self.body.is_done() && self.send.is_none() && self.keep;
        let connection = self.connection.take().filter(|_| through).and_then(Rc::into_inner);
        if let Some(connection) = connection.map(RefCell::into_inner) {
            Connection::put(connection);
        }
    }
}

impl FromFirst {
    pub fn new(
        connection: Rc<RefCell<Connection>>,
        body: Body,
        limit: Duration,
        ended: Box<dyn Ended>,
    ) -> FromFirst {
        let last = Instant::now();
        FromFirst {
            connection: Some(connection),
            keep: false,
            body,
            send: None,
            idle: Box::pin(sleep_until(last + limit)),
            limit,
            last,
            ended,
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(send) = &mut self.send
            && let Poll::Ready(_) = send.as_mut().poll(context)
        {
            self.send = None;
        }
        let Some(connection) = self.connection.clone() else { return Poll::Ready(None) };
        loop {
            let mut connection = connection.borrow_mut();
            if !connection.buffer.is_empty() && !self.body.is_done() {
                let Ok(data) = content(&mut self.body, &mut connection.buffer) else {
                    return Poll::Ready(Some(Err(io::ErrorKind::InvalidData.into())));
                };
                if !data.is_empty() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
            if self.body.is_done() {
                return Poll::Ready(None);
            }
            let count = match poll_fill(&mut connection, context) {
                Poll::Ready(count) => count,
                Poll::Pending => {
                    while self.idle.as_mut().poll(context).is_ready() {
                        let deadline = self.last + self.limit;
                        if deadline <= Instant::now() {
                            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                        }
                        self.idle.as_mut().reset(deadline);
                    }
                    return Poll::Pending;
                }
            };
            match count {
                Ok(0) if self.body == Body::Close => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => self.last = Instant::now(),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// Takes the content that is there of a body out of a buffer. Chunks' is copied together, all other goes as it lies.
fn content(body: &mut Body, buffer: &mut BytesMut) -> Result<Bytes, Malformed> {
    if let Body::Chunked(_) = body {
        let mut data = BytesMut::with_capacity(buffer.len());
        let count = body.take(buffer, |bytes| data.extend_from_slice(bytes))?;
        buffer.advance(count);
        return Ok(data.freeze());
    }
    let count = body.take(buffer, |_| {})?;
    Ok(buffer.split_to(count).freeze())
}

/// All of a small body that came with its head. It is copied, so that its buffer serves the next request.
pub fn whole(body: &Body, buffer: &mut BytesMut) -> Option<Bytes> {
    let length = match body {
        Body::None => 0,
        Body::Length(length) => usize::try_from(*length).ok().filter(|length| *length <= SMALL)?,
        Body::Chunked(_) | Body::Close => return None,
    };
    let bytes = Bytes::copy_from_slice(buffer.get(..length)?);
    buffer.advance(length);
    Some(bytes)
}

/// Reads what there is into the connection's buffer.
pub fn poll_fill(connection: &mut Connection, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let Connection { stream, buffer, .. } = connection;
    buffer.reserve(PIECE);
    pin!(stream.read_buf(buffer)).poll(context)
}

impl http_body::Body for Out {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        match this {
            Out::Empty => Poll::Ready(None),
            Out::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Out::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Out::First(first) => {
                let data = ready!(first.poll_data(context));
                if let Some(Ok(bytes)) = &data {
                    first.ended.moved(bytes.len() as u64);
                }
                Poll::Ready(data.map(|data| data.map(Frame::data)))
            }
            Out::Second(incoming, ended) => {
                let frame = ready!(Pin::new(incoming).poll_frame(context));
                if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                    ended.moved(data.len() as u64);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Out::Empty => true,
            Out::Full(bytes) => bytes.is_empty(),
            Out::First(first) => first.body.is_done() && first.send.is_none(),
            Out::Second(incoming, _) => incoming.is_end_stream(),
        }
    }
}
