//! Durable stores behind [`gantry_store::Backend`].

pub mod sqlite;
