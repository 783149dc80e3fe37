//! The operator's S3, for the server.

use gantry_agent::secrets::{Asking, StoreError, StoreSettings, Stores};
use gantry_decide::ids::Region;
use gantry_server::objects::{Found, NoObjects, OBJECT_BYTES_MAX, ObjectError, ObjectName, ObjectSource};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Asked as agents ask it for environment files: with the operator's key, or without one.
struct S3(Stores);

/// Where the operator has objects.
pub fn source(settings: &StoreSettings) -> Arc<dyn ObjectSource> {
    match &settings.s3 {
        None => Arc::new(NoObjects),
        Some(_) => Arc::new(S3(Stores::new(settings.clone(), ""))),
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3")
    }
}

impl ObjectSource for S3 {
    fn get<'a>(
        &'a self,
        region: &'a Region,
        name: &'a ObjectName,
    ) -> Pin<Box<dyn Future<Output = Found> + Send + 'a>> {
        Box::pin(async {
            let asking = Asking { role: None, region: region.as_str() };
            let ObjectName { bucket, key, version } = name;
            match self.0.object(asking, bucket, key, version.as_deref()).await {
                Ok(bytes) => Ok(bytes.to_vec()),
                Err(StoreError::TooLarge) => Err(ObjectError::TooLarge(OBJECT_BYTES_MAX)),
                Err(error) => Err(ObjectError::Missing(error.to_string())),
            }
        })
    }
}
