//! Objects of S3 that operations need before their writes.

pub use gantry_control::fetch::{Found, ObjectError, ObjectName};
use gantry_decide::ids::Region;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes of an object: more than anything that is made of one takes.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Operations that fetch at the same time; others wait. Each holds its objects in memory.
const FETCHES_MAX: usize = 4;

/// Where an operator has objects.
pub trait ObjectSource: fmt::Debug + Send + Sync + 'static {
    /// The bytes of an object, at most [`OBJECT_BYTES_MAX`].
    fn get<'a>(
        &'a self,
        region: &'a Region,
        name: &'a ObjectName,
    ) -> Pin<Box<dyn Future<Output = Found> + Send + 'a>>;
}

/// Where an operator has none.
#[derive(Debug)]
pub struct NoObjects;

impl ObjectSource for NoObjects {
    fn get<'a>(
        &'a self,
        _region: &'a Region,
        _name: &'a ObjectName,
    ) -> Pin<Box<dyn Future<Output = Found> + Send + 'a>> {
        let message = "Gantry has no S3 of its own, and was told of no other: start it with --s3.";
        Box::pin(std::future::ready(Err(ObjectError::Missing(message.to_owned()))))
    }
}

/// Fetches what operations ask for.
#[derive(Clone)]
pub(crate) struct Fetcher {
    source: Arc<dyn ObjectSource>,
    permits: Arc<Semaphore>,
}

impl Fetcher {
    pub fn new(source: Arc<dyn ObjectSource>) -> Fetcher {
        Fetcher { source, permits: Arc::new(Semaphore::new(FETCHES_MAX)) }
    }

    /// What there is of each object, in their order.
    pub async fn fetch(&self, region: &Region, objects: &[ObjectName]) -> Vec<Found> {
        let _permit = self.permits.acquire().await;
        let mut found = Vec::new();
        for name in objects {
            found.push(self.source.get(region, name).await);
        }
        found
    }
}
