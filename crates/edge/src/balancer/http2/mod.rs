//! HTTP/2, in front and to targets. Framing, flow control and floods of frames are a library's; what becomes of a
//! request is decided as for HTTP/1.1, whose head is written for either kind of target and read back here.

mod body;
mod convert;
mod exchange;
mod front;
mod second;
mod sessions;
mod upload;

pub use convert::grpc_status;
pub use front::serve;
pub use sessions::Sessions;

use std::future::Future;

/// Runs a connection's tasks on the thread that serves it.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}
