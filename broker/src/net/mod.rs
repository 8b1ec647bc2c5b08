//! Sockets: bytes in as frames, answers out in order, within bounds.
//!
//! ```text
//! listener ── accept (limits: total, per address) ──► connection task
//!                                                     │ frame: size i32 | bytes     (limits: size, deadline, rate, budget)
//!                                                     ├─► Service::call ─► answer    (many Produce at once, else one)
//!                                                     └─◄ answers leave in the order of their requests
//! ```
//! A stranger costs at most what the limits say: memory grows with bytes that arrived (never with a claimed size) and
//! counts against one budget for all connections; what answers keep alive until they have left ([`Share`]) counts
//! against another. A connection without a first request, with a stalled frame or without a reader ends at its
//! deadline. What is no Kafka frame (HTTP, TLS, negative or huge sizes) closes the connection with one rate-limited
//! log line.
//!
//! One task per connection holds all its state and ends with its socket; [`Server::shutdown`] stops accepting, lets
//! answers in flight leave and waits for every task.

pub(crate) mod admission;
mod budget;
mod connection;
mod frame;
pub mod limits;
pub(crate) mod quiet;
mod running;
mod server;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use varve_common::clock::BoxFuture;

pub use self::{
    budget::{Budget, Share},
    limits::Limits,
    server::{BindError, Bound, Server, Turnstile},
};

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// Nobody said who.
    Anonymous,
    /// An authenticated user.
    User(Arc<str>),
}

/// Where a request came from.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who acts.
    pub principal: Principal,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// Our end: what is advertised where nothing else is configured.
    pub local: SocketAddr,
    /// The connection, counted from the start of the process.
    pub connection: u64,
}

/// What a request gets.
#[derive(Debug)]
pub enum Answer {
    /// These bytes: a whole frame with its length in front, in pieces, so that large answers need not be joined.
    Respond(Vec<Bytes>),
    /// The same, with a share of the memory for answers, which is given back when the last byte has left.
    Hold(Vec<Bytes>, Share),
    /// Nothing (Produce with acks=0).
    Nothing,
    /// The connection ends: the request could not be understood.
    Close(&'static str),
}

/// Whether a request may run beside those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It may overlap with others of this pace, in their order: [`Service::call`] is made and first polled in order.
    Pipelined,
    /// It starts when all before it are answered, and what follows waits for it: as Kafka does.
    Alone,
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// How this frame (without its length) may run.
    fn pace(&self, frame: &Bytes) -> Pace;

    /// Answers it. What must keep its order among pipelined requests happens before the future first waits.
    fn call(&self, context: &Arc<Context>, frame: Bytes) -> BoxFuture<'static, Answer>;
}

/// What the network layer counts. `metrics` implements it.
pub trait Observer: Send + Sync + 'static {
    /// A connection began.
    fn opened(&self);
    /// A connection ended.
    fn closed(&self, why: &'static str);
    /// A connection was refused.
    fn refused(&self, why: &'static str);
    /// Bytes came in.
    fn received(&self, bytes: usize);
    /// Bytes went out.
    fn sent(&self, bytes: usize);
}

#[cfg(test)]
mod tests;
