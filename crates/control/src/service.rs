//! How a service folder declares its operations: name, read or write, authoriser, handler. One line per operation;
//! an operation without an authoriser does not compile.

use crate::bulk::Plan;
use crate::call::{Call, permit};
use crate::fetch::Fetching;
use crate::services::logs::links::LiveTail;
use crate::tx::{Tx, View};
use gantry_api::ServiceModel;
use gantry_wire::{ApiError, Structure};

/// A response not yet encoded, or the error that answers instead.
pub type Reply = Result<Box<dyn Structure + Send>, ApiError>;

/// What a handler has to do with bulk data, to be worked out against a published snapshot.
pub type Planning = Box<dyn FnOnce(View<'_>) -> Result<Plan, ApiError> + Send>;

/// What is to be followed, to be worked out against a published snapshot.
pub type Following = Box<dyn FnOnce(View<'_>) -> Result<LiveTail, ApiError> + Send>;

/// A decoded, authorised request, ready to run.
pub enum Prepared {
    /// Runs on any thread against a published snapshot.
    Read(Box<dyn FnOnce(View<'_>) -> Reply + Send>),
    /// Runs on the writer, in a transaction.
    Write(Box<dyn FnOnce(&mut Tx<'_>) -> Reply + Send>),
    /// Plans on any thread against a published snapshot what to do with bulk data, and answers when that is done.
    Bulk(Planning),
    /// Plans on any thread against a published snapshot what to fetch for a write, which runs when that is there.
    Fetch(Fetching),
    /// Is answered by events as they come, for as long as the caller listens.
    Follow(Following),
}

/// One operation of a service.
pub struct Operation {
    pub name: &'static str,
    /// Decodes nothing itself: `read` fills the request that it is given. Then the model's constraints, the
    /// authoriser, and the handler bound to the request.
    pub prepare: fn(Call, &mut ReadRequest<'_>) -> Result<Prepared, ApiError>,
}

/// Fills a request from the wire: the protocol's reader, passed in so that this crate sees no bytes.
pub type ReadRequest<'a> = dyn FnMut(&mut dyn Structure) -> Result<(), ApiError> + 'a;

/// A service as the endpoint sees it.
pub struct Service {
    pub model: &'static ServiceModel,
    pub operations: &'static [Operation],
    /// Operations of the model that are known and refused for now.
    pub later: &'static [&'static str],
}

impl Service {
    /// Finds an operation by its model name.
    ///
    /// # Errors
    /// A typed 4xx, never a 5xx that SDKs would retry: the operation is not served yet, or does not exist.
    pub fn operation(&self, name: &str) -> Result<&Operation, ApiError> {
        if let Some(operation) = self.operations.iter().find(|o| o.name == name) {
            return Ok(operation);
        }
        if self.later.contains(&name) {
            let message =
                format!("Gantry does not serve {name} yet. CHANGELOG.md says which operations it serves.");
            return Err(ApiError::new("UnsupportedFeatureException", message));
        }
        Err(ApiError::new("UnknownOperationException", format!("The operation {name} does not exist.")))
    }
}

/// Checks the authoriser's demand; shared by the operation table's macro.
#[doc(hidden)]
pub fn authorise(call: &Call, demand: &crate::call::Demand) -> Result<(), ApiError> {
    permit(&call.caller, demand)
}

/// Builds the operation table of a service folder.
///
/// `read Name => authoriser, handler` with `fn authoriser(&Request, &Scope) -> Demand` and
/// `fn handler(View<'_>, &Call, Request) -> Result<Response, E>`; `write` alike with `&mut Tx<'_>`; `bulk` like `read`,
/// but its handler returns a [`Plan`] on bulk data; `fetch` like `read`, but it returns a
/// [`Fetch`](crate::fetch::Fetch); `follow` like `read`, but it returns a [`LiveTail`]. `E` becomes an [`ApiError`] through `From`.
#[macro_export]
macro_rules! operations {
    ($api:ident; $($kind:ident $name:ident => $authoriser:path, $handler:path;)*) => {
        &[$($crate::service::Operation {
            name: stringify!($name),
            prepare: |call, read| {
                type Request = <gantry_api::$api::$name as gantry_wire::Operation>::Request;
                let mut request = Request::default();
                read(&mut request)?;
                $crate::service::authorise(&call, &$authoriser(&request, &call.caller.scope))?;
                Ok($crate::operations!(@$kind call, request, $handler))
            },
        },)*]
    };
    (@read $call:ident, $request:ident, $handler:path) => {
        $crate::service::Prepared::Read(Box::new(move |view| match $handler(view, &$call, $request) {
            Ok(response) => Ok(Box::new(response)),
            Err(error) => Err(error.into()),
        }))
    };
    (@write $call:ident, $request:ident, $handler:path) => {
        $crate::service::Prepared::Write(Box::new(move |tx| match $handler(tx, &$call, $request) {
            Ok(response) => Ok(Box::new(response)),
            Err(error) => Err(error.into()),
        }))
    };
    (@follow $call:ident, $request:ident, $handler:path) => {
        $crate::service::Prepared::Follow(Box::new(move |view| Ok($handler(view, &$call, $request)?)))
    };
    (@fetch $call:ident, $request:ident, $handler:path) => {
        $crate::service::Prepared::Fetch(Box::new(move |view| Ok($handler(view, &$call, $request)?)))
    };
    (@bulk $call:ident, $request:ident, $handler:path) => {
        $crate::service::Prepared::Bulk(Box::new(move |view| Ok($handler(view, &$call, $request)?)))
    };
}
