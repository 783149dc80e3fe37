//! What a response carries: bytes that are there, or messages as they come.

use http_body_util::Full;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// See the module.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Full<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body {
    /// Messages until their sender is dropped. The sender sees when nobody reads them any more.
    pub fn stream(messages: mpsc::Receiver<Bytes>) -> Body {
        Body(Kind::Stream(messages))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Body {
        Body(Kind::Whole(Full::new(bytes.into())))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) => Pin::new(bytes).poll_frame(context),
            Kind::Stream(messages) => messages.poll_recv(context).map(|next| Some(Ok(Frame::data(next?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Kind::Whole(bytes) if bytes.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => bytes.size_hint(),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
