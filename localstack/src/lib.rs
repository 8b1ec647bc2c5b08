//! Starts real S3 servers on this machine, for tests and for people who want to try Varve against one.
//!
//! [`Server::start`] gives a server on free loopback ports with a data folder of its own, once a signed request was
//! answered. It ends when it is stopped or dropped. The programs are expected below `~/.cache/varve-tools` (or
//! `VARVE_TOOLS`); nothing is fetched from here.
//!
//! ```text
//!   start -> spawn on a free port -> ask until answered -> Server
//!               ^ a taken port ends the program: another port, a few times
//!   stop_keeping_data ... start_again: an outage, with the same port and data
//! ```
//!
//! [`Bucket`] is a bucket as its owner sees it, by Amazon's SDK. [`proxy`] stands in front of a server and fails as it
//! is told. [`table`] holds the servers against the suite of `objects::conformance` and prints docs/s3-servers.md. The
//! binary `varve-localstack` gives all of it to people, each by one command.
//!
//! This room may start processes, open ports, read the environment and wait by the wall clock: it is no part of the
//! broker. moto and LocalStack keep everything in memory: after an outage they have forgotten it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "starts and watches other programs: no seam stands between this room and the machine"
)]

mod bucket;
mod command;
mod process;
pub mod proxy;
mod server;
pub mod table;

pub use aws_sdk_s3::types::BucketVersioningStatus as Versioning;
pub use bucket::{Bucket, BucketError, Lifecycle};
pub use command::Kind;
pub use server::{Server, Setup, StartError};
