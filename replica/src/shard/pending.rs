//! What was proposed and is not applied, and who waits for it.
//!
//! Waiters are keyed by index *and term*: an entry of another term at that index is somebody else's, and theirs is of
//! unknown outcome, never a success (RAFT.md 4).

use std::collections::BTreeMap;

use varve_common::{LogIndex, Offset, Term};

use crate::api::{Effect, Refusal, Reply, Ticket};

/// A waiting request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    Produce {
        ticket: Ticket,
        append_time_ms: i64,
        replicas_min: u32,
    },
    Duplicate {
        ticket: Ticket,
        replicas_min: u32,
    },
    Metadata(Ticket),
    Trim(Ticket),
    /// A write of the coordinator, by its number: it answers whom it concerns.
    Group(u64),
}

impl Waiter {
    pub(super) const fn ticket(self) -> Option<Ticket> {
        match self {
            Self::Produce { ticket, .. }
            | Self::Duplicate { ticket, .. }
            | Self::Metadata(ticket)
            | Self::Trim(ticket) => Some(ticket),
            Self::Group(_) => None,
        }
    }

    /// How many replicas must have what it waits for.
    pub(super) const fn replicas_min(self) -> u32 {
        match self {
            Self::Produce { replicas_min, .. } | Self::Duplicate { replicas_min, .. } => replicas_min,
            Self::Metadata(_) | Self::Trim(_) | Self::Group(_) => 0,
        }
    }

    /// The coordinator's number of it.
    pub(super) const fn write(self) -> Option<u64> {
        if let Self::Group(write) = self { Some(write) } else { None }
    }

    /// The answer of one whose outcome is known without it. A coordinator's write fails with its coordinator.
    pub(super) fn refused(self, refusal: &Refusal) -> Option<Effect> {
        let reply = Reply::Refused(refusal.clone());
        self.ticket().map(|ticket| Effect::Reply { ticket, reply })
    }
}

/// A proposal.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) term: Term,
    pub(super) bytes: u64,
    /// Where its batch begins, for retries that hit it.
    pub(super) base_offset: Option<Offset>,
    pub(super) waiters: Vec<Waiter>,
    /// Those of them that came after it.
    pub(super) repeats: usize,
}

/// Proposals by index.
#[derive(Debug, Default)]
pub(super) struct Pending {
    proposals: BTreeMap<LogIndex, Proposal>,
    bytes: u64,
    /// Who waits with another for the same.
    repeats: usize,
}

impl Pending {
    pub(super) fn insert(&mut self, index: LogIndex, proposal: Proposal) {
        self.bytes += proposal.bytes;
        let before = self.proposals.insert(index, proposal);
        assert!(
            before.is_none(),
            "an index is proposed once a term, and a term's end clears what it proposed"
        );
    }

    /// The proposal at an applied index.
    pub(super) fn take(&mut self, index: LogIndex) -> Option<Proposal> {
        let proposal = self.proposals.remove(&index)?;
        self.bytes -= proposal.bytes;
        self.repeats -= proposal.repeats;
        Some(proposal)
    }

    /// Waits with the proposal whose batch begins at `base_offset`, where there is one.
    pub(super) fn wait_with(&mut self, base_offset: Offset, waiter: Waiter) -> bool {
        let mut proposals = self.proposals.values_mut().rev();
        let Some(original) = proposals.find(|proposal| proposal.base_offset == Some(base_offset)) else {
            return false;
        };
        original.waiters.push(waiter);
        original.repeats += 1;
        self.repeats += 1;
        true
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Proposals, and who waits with another for one.
    pub(super) fn len(&self) -> usize {
        self.proposals.len() + self.repeats
    }

    pub(super) fn is_empty(&self) -> bool {
        self.proposals.is_empty()
    }

    /// Ends everything: whether it takes effect is not known here.
    pub(super) fn fail(&mut self, refusal: &Refusal, effects: &mut Vec<Effect>) {
        (self.bytes, self.repeats) = (0, 0);
        for (_, proposal) in std::mem::take(&mut self.proposals) {
            effects.extend(proposal.waiters.iter().filter_map(|waiter| waiter.refused(refusal)));
        }
    }
}
