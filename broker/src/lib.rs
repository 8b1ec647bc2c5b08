//! The process: sockets, tasks, configuration, handlers.
//!
//! ```text
//!  socket -> net (frames, limits) -> handlers (one file per API key) -> node::Backend -> the shard thread
//!  peers (other nodes: frames, queues, links) <──────────────────────────────────────────────> the shard thread
//!                                         http (metrics, health)         metrics, telemetry, config beside them
//! ```
//! What this crate decides is how bytes come in and go out: which frames are read, how many requests wait, what an
//! outcome is called on the wire. It decides nothing that the core can decide: offsets, epochs, duplicates, retention
//! and leadership are answers of the rooms below.
//!
//! Invariants: responses leave a connection in the order of its requests. Memory follows bytes that have arrived,
//! never bytes that a stranger announced. Every task has an owner that ends it. Liveness never depends on the object
//! store.

pub mod balance;
pub mod config;
pub mod controller;
pub mod driver;
pub mod handlers;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod net;
pub mod node;
pub mod peers;
pub mod placement;
pub mod preferred;
pub mod restore;
pub mod runtime;
pub mod scrub;
pub mod storage;
pub mod telemetry;
pub mod transfer;

pub use runtime::process::{RunError, run};
