//! Layer 4: connections and datagrams as they are, to targets chosen by their flow.

mod flow;
mod proxy_protocol;
mod splice;
mod tcp;
mod udp;

pub use proxy_protocol::header;
pub use tcp::{Front, serve};
pub use udp::serve as serve_datagrams;
