//! HTTP/2 connections to targets: one per target and worker, which carries many requests.

use super::super::http::{ConnectError, Connection, Pool};
use super::super::tables::Target;
use super::Local;
use super::body::Upwards;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A silent target is asked whether it is there so often while requests are under way.
const PING: Duration = Duration::from_secs(20);

/// A worker's HTTP/2 connections to targets.
#[derive(Default)]
pub struct Sessions {
    /// By the target's address in memory.
    open: RefCell<HashMap<usize, Session>>,
}

type Session = (Arc<Target>, SendRequest<Upwards>);

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.open.borrow().len())
    }
}

impl Sessions {
    /// The connection to a target, made if there is none that works.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub async fn get(
        &self,
        target: &Arc<Target>,
        secure: Option<&Arc<ClientConfig>>,
        pool: &Rc<Pool>,
    ) -> Result<SendRequest<Upwards>, ConnectError> {
        let key = Arc::as_ptr(target) as usize;
        let kept = self.open.borrow().get(&key).map(|(_, sender)| sender.clone());
        if let Some(sender) = kept.filter(|sender| !sender.is_closed()) {
            return Ok(sender);
        }
        let connection = pool.connect(target, secure).await?;
        let sender = open(connection).await.map_err(ConnectError::Refused)?;
        if !target.retired.load(Relaxed) {
            self.open.borrow_mut().insert(key, (target.clone(), sender.clone()));
        }
        Ok(sender)
    }

    /// Lets go of connections that are closed, or to targets that get no more requests.
    pub fn tidy(&self) {
        self.open
            .borrow_mut()
            .retain(|_, (target, sender)| !target.retired.load(Relaxed) && !sender.is_closed());
    }
}

/// Begins HTTP/2 on a connection.
///
/// # Errors
/// When the other side does not speak it.
async fn open(connection: Connection) -> io::Result<SendRequest<Upwards>> {
    let handshake = Builder::new(Local)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .handshake::<_, Upwards>(TokioIo::new(connection));
    let (sender, driver) = handshake.await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move { drop(driver.await) });
    Ok(sender)
}
