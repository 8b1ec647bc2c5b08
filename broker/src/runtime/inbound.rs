//! What peers say, on its way to the shard's thread: bounded in bytes. What is beyond that is dropped, as a network would, and
//! consensus makes up for it.
//!
//! ```text
//!  peers ──> Inbound ──> mailbox ──> shard's thread ──> queue of the log ──> disk
//!                |<──── Held, until it is submitted ────>|<── counted by the log ──>|
//! ```
//! The thread waits in `wal::Handle::submit` while the log's queue is full, and what gives a full log room again comes through
//! that thread: so entries of peers are counted on the whole way, and never fill the queue.

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use varve_common::NodeId;
use varve_consensus::{Envelope, Pulse};
use varve_replica::PeerInput;

use super::{
    mailbox::{Mail, Mailbox},
    pressure::Room,
};

/// Bytes that wait for the shard's thread, or for the log, beyond which peers' entries are dropped.
const ENTRIES_BYTES_MAX: u64 = 32 << 20;
/// Bytes that wait for the shard's thread beyond which other messages are dropped.
const MESSAGES_BYTES_MAX: usize = 64 << 20;
/// Heartbeats pass beyond it: a busy peer is not a dead one.
const PULSES_BYTES_MAX: usize = 2 * MESSAGES_BYTES_MAX;
/// What a message weighs beside its entries.
const MESSAGE_BYTES: usize = 256;

const _: () = assert!(
    ENTRIES_BYTES_MAX < varve_wal::limits::QUEUE_BYTES_MAX,
    "what is let in while there is room leaves the log's queue some"
);

/// The way in.
pub(super) struct Inbound {
    mailbox: Mailbox,
    room: Room,
    waiting: Arc<AtomicUsize>,
}

impl Inbound {
    pub(super) fn new(mailbox: Mailbox, room: Room) -> Self {
        Self { mailbox, room, waiting: Arc::default() }
    }

    pub(super) fn message(&self, from: NodeId, envelope: Envelope) {
        let payload = envelope.message.payload_bytes();
        if payload == 0 || self.has_room_for_entries() {
            self.deliver(MESSAGE_BYTES + payload, MESSAGES_BYTES_MAX, PeerInput::Message { from, envelope });
        }
    }

    pub(super) fn pulse(&self, from: NodeId, pulse: Pulse) {
        let bytes = MESSAGE_BYTES * (1 + pulse.beats.len() + pulse.answers.len() + pulse.reports.len());
        self.deliver(bytes, PULSES_BYTES_MAX, PeerInput::Pulse { from, pulse });
    }

    /// What takes no memory worth counting.
    pub(super) fn tell(&self, input: PeerInput) {
        self.mailbox.send(Mail::Peer(input, None));
    }

    fn has_room_for_entries(&self) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed) as u64;
        waiting + self.room.queued_bytes() < ENTRIES_BYTES_MAX
    }

    fn deliver(&self, bytes: usize, bytes_max: usize, input: PeerInput) {
        if self.waiting.load(Ordering::Relaxed) < bytes_max {
            self.mailbox.send(Mail::Peer(input, Some(Held::new(&self.waiting, bytes))));
        }
    }
}

/// Memory of a letter from a peer, counted until what it asks for was submitted to the log.
#[derive(Debug)]
pub struct Held {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    fn new(waiting: &Arc<AtomicUsize>, bytes: usize) -> Self {
        waiting.fetch_add(bytes, Ordering::Relaxed);
        Self { waiting: Arc::clone(waiting), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
