//! A client's body on its way to an HTTP/2 target, and to another one when the first did nothing with it.

use super::super::clock::Watch;
use super::front::Connected;
use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What is kept of a body until its request is answered, so that it can be sent a second time: a message of gRPC, mostly.
const KEPT: u64 = 16 * 1024;

/// A client's body.
pub struct Upload {
    incoming: RefCell<Incoming>,
    shared: Rc<Connected>,
    /// Touched by all that comes.
    pub watch: Watch,
    /// So much of it came.
    pub bytes: Cell<u64>,
    /// All that came, while it is not more than is kept.
    kept: RefCell<Option<Vec<u8>>>,
    attempts: Cell<u32>,
}

impl Upload {
    pub fn new(incoming: Incoming, shared: Rc<Connected>, limit: Duration) -> Upload {
        Upload {
            incoming: RefCell::new(incoming),
            shared,
            watch: Watch::new(limit),
            bytes: Cell::new(0),
            kept: RefCell::new(Some(Vec::new())),
            attempts: Cell::new(0),
        }
    }

    /// The body from its beginning; attempts before get no more of it. None when its beginning is gone.
    pub fn attempt(self: &Rc<Self>) -> Option<Upwards> {
        self.kept.borrow().is_some().then(|| {
            self.attempts.set(self.attempts.get() + 1);
            Upwards { upload: self.clone(), attempt: self.attempts.get(), repeated: 0 }
        })
    }

    /// The request is answered: it is not sent again.
    pub fn settle(&self) {
        self.kept.take();
    }

    /// The client sent all of it.
    pub fn is_whole(&self) -> bool {
        self.incoming.borrow().is_end_stream()
    }

    /// What is kept behind a place, if there is any.
    fn kept_from(&self, place: usize) -> Option<Bytes> {
        let kept = self.kept.borrow();
        let rest = kept.as_ref()?.get(place..).filter(|rest| !rest.is_empty())?;
        Some(Bytes::copy_from_slice(rest))
    }

    fn note(&self, frame: &Frame<Bytes>) {
        self.watch.touch();
        self.shared.touch();
        let data = frame.data_ref();
        self.bytes.set(self.bytes.get() + data.map_or(0, |data| data.len() as u64));
        let mut kept = self.kept.borrow_mut();
        match (kept.as_mut(), data) {
            (Some(kept), Some(data)) if self.bytes.get() <= KEPT => kept.extend_from_slice(data),
            _ => *kept = None,
        }
    }
}

/// A body as one attempt sends it.
pub struct Upwards {
    upload: Rc<Upload>,
    attempt: u32,
    /// So much of what is kept this attempt has sent.
    repeated: usize,
}

impl Body for Upwards {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.attempt != this.upload.attempts.get() {
            return Poll::Ready(Some(Err(io::ErrorKind::Interrupted.into())));
        }
        let again = this.upload.kept_from(this.repeated);
        if let Some(again) = again {
            this.repeated += again.len();
            return Poll::Ready(Some(Ok(Frame::data(again))));
        }
        let frame = ready!(Pin::new(&mut *this.upload.incoming.borrow_mut()).poll_frame(context));
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(io::Error::other)?;
        this.upload.note(&frame);
        this.repeated += frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_whole() && self.upload.kept_from(self.repeated).is_none()
    }
}
