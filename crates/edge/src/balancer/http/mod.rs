//! Layer 7: HTTP in front, HTTP to targets.

mod answer;
mod body;
mod exchange;
mod head;
mod plan;
mod relay;
mod response;
mod upstream;

pub use answer::civil;
pub use exchange::{Client, Entrance, Tls, serve};
pub use relay::relay_both;
pub use upstream::{Connection, Pool, Wire};
