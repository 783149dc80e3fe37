//! Layer 7: HTTP in front, HTTP to targets.

mod answer;
mod body;
mod exchange;
mod head;
mod plan;
mod relay;
mod response;
mod rewrite;
mod text;
mod understood;
mod upstream;

pub use answer::{Answer, civil};
pub use body::{Body, Chunks, Malformed};
pub use exchange::{Client, Entrance, Hosts, MAX_INTERIM, Tls, Trace, obtain, reach, serve};
pub use head::{Class, Head, MAX_HEADERS, MAX_REQUEST_LINE, Refusal, fits, is_authority};
pub use plan::{Forwarding, Plan, entry, plan};
pub use relay::{Fault, Io, relay_both, write_all};
pub use response::{MAX_HEAD as MAX_RESPONSE_HEAD, translate};
pub use rewrite::{Outcome, Rewritten};
pub use understood::understood;
pub use upstream::{ConnectError, Connection, Pool, Wire};
