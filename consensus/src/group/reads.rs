//! Reads that must see all that was acknowledged before they began: a leader asks a quorum whether it still leads
//! (ReadIndex). Many reads share one round of heartbeats; what comes while a round is under way waits for the next.
//!
//! Raft drops a read in silence where it cannot serve it, so every read has an end here: confirmed, refused, or timed out.

use std::collections::VecDeque;

use raft::ReadState;
use varve_common::{LogIndex, ReplicaId};

use super::Group;
use crate::{
    Role,
    bugs::{Bug, is_planted},
    limits::READS_MAX,
};

/// The end of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDone {
    /// What [`Group::read`] was given.
    pub ticket: u64,
    /// The index that the state machine here has applied, and that holds all that was acknowledged before the read began.
    pub outcome: Result<LogIndex, ReadError>,
}

/// Why a read was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Redirect: another replica leads, or none.
    #[error("this replica does not lead")]
    NotLeader {
        /// Who does, where known.
        leader: Option<ReplicaId>,
    },
    /// Retry: the entry that opened this leader's term is not applied yet.
    #[error("the leader's own first entry is not applied yet")]
    Unsettled,
    /// Retry: no quorum answered in time.
    #[error("no quorum confirmed the leader in time")]
    TimedOut,
    /// Retry: too many reads wait.
    #[error("too many reads wait")]
    Backlogged,
    /// Redirect: this replica is fenced.
    #[error("this replica is fenced")]
    Fenced,
}

/// Reads that a quorum is being asked about.
#[derive(Debug)]
struct Round {
    number: u64,
    tickets: Vec<u64>,
    ticks: usize,
}

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    rounds: u64,
    asked: Option<Box<Round>>,
    /// For the next round.
    waiting: Vec<u64>,
    /// Confirmed at an index that is not applied yet.
    confirmed: VecDeque<(LogIndex, Vec<u64>)>,
    done: Vec<ReadDone>,
}

impl Reads {
    pub(super) const fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether no read waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_none() && self.waiting.is_empty() && self.confirmed.is_empty()
    }

    fn finish(&mut self, tickets: Vec<u64>, outcome: Result<LogIndex, ReadError>) {
        self.done.extend(tickets.into_iter().map(|ticket| ReadDone { ticket, outcome }));
    }
}

impl Group {
    /// Begins a read; [`crate::Ready::reads`] tells how it ended, once.
    pub fn read(&mut self, ticket: u64) -> Result<(), ReadError> {
        if self.fenced.is_some() {
            return Err(ReadError::Fenced);
        }
        if self.role() != Role::Leader {
            return Err(ReadError::NotLeader { leader: self.leader() });
        }
        if !self.is_settled() {
            return Err(ReadError::Unsettled);
        }
        if self.reads.waiting.len() >= READS_MAX {
            return Err(ReadError::Backlogged);
        }
        if is_planted(Bug::ReadsAlone) {
            let applied = self.applied_index();
            self.reads.finish(vec![ticket], Ok(applied));
            return Ok(());
        }
        self.wake();
        self.reads.waiting.push(ticket);
        self.ask_next_round();
        Ok(())
    }

    fn ask_next_round(&mut self) {
        if self.reads.asked.is_some() || self.reads.waiting.is_empty() {
            return;
        }
        self.reads.rounds += 1;
        let number = self.reads.rounds;
        let tickets = std::mem::take(&mut self.reads.waiting);
        self.reads.asked = Some(Box::new(Round { number, tickets, ticks: 0 }));
        self.node.read_index(number.to_le_bytes().to_vec());
    }

    /// A quorum said that this replica led when the round began.
    pub(super) fn confirm_reads(&mut self, states: Vec<ReadState>) {
        for state in states {
            let Some(round) =
                self.reads.asked.take_if(|round| state.request_ctx == round.number.to_le_bytes())
            else {
                continue;
            };
            self.reads.confirmed.push_back((LogIndex(state.index), round.tickets));
        }
        self.finish_reads();
        self.ask_next_round();
    }

    /// Ends confirmed reads whose index is applied.
    pub(super) fn finish_reads(&mut self) {
        let applied = self.applied_index();
        while let Some((index, _)) = self.reads.confirmed.front()
            && *index <= applied
            && let Some((_, tickets)) = self.reads.confirmed.pop_front()
        {
            self.reads.finish(tickets, Ok(applied));
        }
    }

    pub(super) fn tick_reads(&mut self) {
        let timeout = self.config.read_ticks;
        if let Some(round) = &mut self.reads.asked {
            round.ticks += 1;
            if round.ticks >= timeout
                && let Some(round) = self.reads.asked.take()
            {
                self.reads.finish(round.tickets, Err(ReadError::TimedOut));
                self.ask_next_round();
            }
        }
    }

    pub(super) fn fail_reads(&mut self, why: ReadError) {
        let asked = self.reads.asked.take().map(|round| round.tickets).unwrap_or_default();
        let waiting = std::mem::take(&mut self.reads.waiting);
        // What a quorum confirmed is true whoever leads now; but nobody knows whether this replica will ever apply it.
        let confirmed =
            std::mem::take(&mut self.reads.confirmed).into_iter().flat_map(|(_, tickets)| tickets);
        let tickets = asked.into_iter().chain(waiting).chain(confirmed).collect();
        self.reads.finish(tickets, Err(why));
    }

    /// Ends every read: nobody comes for them with the next [`crate::Ready`] where this replica stops, or goes.
    #[must_use]
    pub fn end_reads(&mut self) -> Vec<ReadDone> {
        self.fail_reads(ReadError::Fenced);
        self.take_reads()
    }

    pub(super) fn take_reads(&mut self) -> Vec<ReadDone> {
        std::mem::take(&mut self.reads.done)
    }
}
