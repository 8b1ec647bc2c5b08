//! From a client's request to a proposal.

use std::sync::Arc;

use bytes::Bytes;
use varve_common::Offset;
use varve_formats::command::{
    Command, Fence, HEADER_BYTES, METADATA_FEATURE, MetadataCommand, TierTrim, TrimCause, encode_records,
};

use super::{
    holders::Held,
    hosted::{Hosted, Machine},
    pending::Waiter,
};
use crate::{
    api::{BatchMeta, Effect, Now, Refusal, Reply, Ticket, Timestamps},
    limits::{INFLIGHT_BYTES_MAX, PENDING_ENTRIES_MAX, QUEUED_REQUESTS_MAX},
    partition::{BATCH_HEADER_BYTES, BatchHeader, Verdict, place, stamp},
};

/// A produce request for one partition.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ticket: Ticket,
    pub(super) batch: Bytes,
    pub(super) meta: BatchMeta,
    pub(super) timestamps: Timestamps,
    pub(super) replicas_min: u32,
}

/// What becomes of a request at once.
enum Outcome {
    Waits,
    Replies(Reply),
}

impl Hosted {
    /// Proposes a batch, answers it, or lets it wait: for the leader's own no-op, or behind what is under way. Whoever waits is not
    /// overtaken.
    pub(super) fn produce(&mut self, now: Now, request: Request, effects: &mut Vec<Effect>) {
        let (ticket, meta) = (request.ticket, request.meta);
        let outcome = if let Some(refusal) = invalid(&request) {
            Outcome::Replies(Reply::Refused(refusal))
        } else if !self.is_leader() {
            Outcome::Replies(Reply::Refused(Refusal::NotLeader { leader: self.raft.leader() }))
        } else if self.is_ready() && self.queue.is_empty() && self.has_room_for(&request) {
            self.append(now, request)
        } else {
            self.enqueue(request)
        };
        self.tell_outcome(ticket, &meta, outcome, effects);
    }

    fn tell_outcome(
        &mut self,
        ticket: Ticket,
        meta: &BatchMeta,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let Outcome::Replies(reply) = outcome else { return };
        if matches!(reply, Reply::Refused(_)) {
            self.miss(meta);
        }
        effects.push(Effect::Reply { ticket, reply });
    }

    /// A batch was refused: those behind it must not be taken for its producer's first.
    pub(super) fn miss(&mut self, meta: &BatchMeta) {
        if let Machine::Partition(state) = &self.machine
            && meta.producer_id >= 0
            && self.speculation.is_unknown(state, meta.producer_id)
        {
            self.missed.note(meta.producer_id, meta.producer_epoch, meta.base_sequence);
        }
    }

    fn enqueue(&mut self, request: Request) -> Outcome {
        let bytes = request.batch.len() as u64;
        let full = self.queued_bytes + bytes > self.options.queued_bytes_max && !self.queue.is_empty();
        if full || self.queue.len() >= QUEUED_REQUESTS_MAX {
            return Outcome::Replies(Reply::Refused(Refusal::Throttled));
        }
        self.queued_bytes += bytes;
        self.queue.push_back(request);
        Outcome::Waits
    }

    /// Something is applied, the no-op first: what waited goes on in order, as far as there is room.
    pub(super) fn drain_queue(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.queue.front().is_some_and(|next| self.has_room_for(next)) {
            let Some(request) = self.queue.pop_front() else { return };
            self.queued_bytes -= request.batch.len() as u64;
            let (ticket, meta) = (request.ticket, request.meta);
            let outcome = self.append(now, request);
            self.tell_outcome(ticket, &meta, outcome, effects);
        }
    }

    /// Whether it goes among what is under way. Alone every batch does.
    fn has_room_for(&self, request: &Request) -> bool {
        self.pending.is_empty() || self.pending.bytes() + request.batch.len() as u64 <= INFLIGHT_BYTES_MAX
    }

    fn append(&mut self, now: Now, request: Request) -> Outcome {
        let Machine::Partition(state) = &self.machine else {
            return Outcome::Replies(Reply::Refused(Refusal::WrongGroup));
        };
        let (committed_end, log_start) = (state.records().log_end, state.bucket().log_start);
        match self.speculation.check(state, &self.missed, &request.meta) {
            Verdict::Append => self.propose_batch(now, request),
            Verdict::Duplicate { base_offset } if base_offset < committed_end => {
                let reply = Reply::Duplicate { base_offset, log_start };
                if request.replicas_min == 0 {
                    return Outcome::Replies(reply);
                }
                if self.has_all_it_may() {
                    return Outcome::Replies(Reply::Refused(Refusal::Throttled));
                }
                // The entry's own place is not known any more: it lies below what is applied.
                let held = Held { index: self.applied(), ticket: request.ticket, reply };
                self.held.push(request.replicas_min, held);
                Outcome::Waits
            }
            Verdict::Duplicate { .. } if self.has_all_it_may() => {
                Outcome::Replies(Reply::Refused(Refusal::Throttled))
            }
            Verdict::Duplicate { base_offset } => {
                // The original is not committed: its retry must not be answered before it is.
                let (ticket, replicas_min) = (request.ticket, request.replicas_min);
                if self.pending.wait_with(base_offset, Waiter::Duplicate { ticket, replicas_min }) {
                    Outcome::Waits
                } else {
                    Outcome::Replies(Reply::Refused(Refusal::Unknown))
                }
            }
            Verdict::OutOfOrder { expected } => {
                Outcome::Replies(Reply::Refused(Refusal::OutOfOrderSequence {
                    expected,
                    found: request.meta.base_sequence,
                }))
            }
            Verdict::Unheard => Outcome::Replies(Reply::Refused(Refusal::Unheard)),
            Verdict::Fenced { current } => Outcome::Replies(Reply::Refused(Refusal::InvalidProducerEpoch {
                current,
                found: request.meta.producer_epoch,
            })),
        }
    }

    /// Whether as many requests wait as one group may hold.
    fn has_all_it_may(&self) -> bool {
        self.pending.len() + self.held.len() >= PENDING_ENTRIES_MAX
    }

    fn propose_batch(&mut self, now: Now, request: Request) -> Outcome {
        if self.has_all_it_may() {
            return Outcome::Replies(Reply::Refused(Refusal::Throttled));
        }
        let (term, base_offset) = (self.raft.term(), self.speculation.log_end);
        let mut data = encode_records(&request.batch, term, now.wall_ms);
        let batch = &mut data[HEADER_BYTES..];
        place(batch, base_offset, term.leader_epoch());
        if BatchHeader::parse(batch).is_none_or(|header| header.meta != request.meta) {
            return Outcome::Replies(Reply::Refused(Refusal::InvalidBatch(
                "the batch is not what was validated",
            )));
        }
        let mut append_time_ms = -1;
        if request.timestamps == Timestamps::Append {
            append_time_ms = now.wall_ms;
            stamp(batch, append_time_ms);
        }
        let header = BatchHeader::parse(batch).expect("it was parsed above, and its length has not changed");
        let (ticket, replicas_min) = (request.ticket, request.replicas_min);
        let waiter = Waiter::Produce { ticket, append_time_ms, replicas_min };
        let Some(index) = self.propose_data(data.freeze(), Some(base_offset), Some(waiter)) else {
            return Outcome::Replies(Reply::Refused(Refusal::Throttled));
        };
        if let Machine::Partition(state) = &self.machine {
            self.speculation.append(state, &header.meta, index, now.wall_ms);
            self.missed.forget(header.meta.producer_id);
        }
        Outcome::Waits
    }

    /// Proposes a change of the metadata.
    pub(super) fn propose_metadata(
        &mut self,
        now: Now,
        ticket: Option<Ticket>,
        command: MetadataCommand,
        effects: &mut Vec<Effect>,
    ) {
        let refusal = if !matches!(self.machine, Machine::Metadata(_)) {
            Refusal::WrongGroup
        } else if !self.is_ready() {
            Refusal::NotLeader { leader: self.raft.leader() }
        } else if self.raise_level(now, command.level())
            && self.propose(now, &Command::Metadata(command), ticket.map(Waiter::Metadata)).is_some()
        {
            return;
        } else {
            Refusal::Throttled
        };
        effects.extend(ticket.map(|ticket| refused(ticket, refusal)));
    }

    /// Before the first command of its level: from here on no broker is let in that does not know it. One that went back to an earlier
    /// release may say so in an entry that is not applied yet: then it is not raised now.
    fn raise_level(&mut self, now: Now, level: u16) -> bool {
        let Machine::Metadata(state) = &self.machine else { return false };
        if state.image().level(METADATA_FEATURE) >= level {
            return true;
        }
        if self.applied() < self.raft.last_index() {
            return false;
        }
        let raise = MetadataCommand::SetFeature { name: METADATA_FEATURE.to_owned(), level };
        self.propose(now, &Command::Metadata(raise), None).is_some()
    }

    /// DeleteRecords: a fenced trim. While another change of the manifest is in flight it would miss its fence, so the
    /// client is asked to come again.
    pub(super) fn delete_records(
        &mut self,
        now: Now,
        ticket: Ticket,
        before: Option<Offset>,
        effects: &mut Vec<Effect>,
    ) {
        let Machine::Partition(state) = &self.machine else {
            return effects.push(refused(ticket, Refusal::WrongGroup));
        };
        let (log_start, end) = (state.bucket().log_start, state.records().log_end);
        let before = before.unwrap_or(end);
        let refusal = if !self.is_ready() {
            Refusal::NotLeader { leader: self.raft.leader() }
        } else if before > end {
            Refusal::OffsetOutOfRange
        } else if before <= log_start {
            return effects.push(Effect::Reply { ticket, reply: Reply::Trimmed { log_start } });
        } else if self.propose_trim(now, before, TrimCause::DeleteRecords, Some(Waiter::Trim(ticket))) {
            return;
        } else {
            Refusal::Throttled
        };
        effects.push(refused(ticket, refusal));
    }

    /// The producers as of what is applied here.
    pub(super) fn tell_producers(&self, ticket: Ticket) -> Effect {
        let Machine::Partition(state) = &self.machine else { return refused(ticket, Refusal::WrongGroup) };
        Effect::Reply { ticket, reply: Reply::Producers(Arc::clone(&state.records().producers)) }
    }

    pub(super) fn propose_trim(
        &mut self,
        now: Now,
        log_start: Offset,
        cause: TrimCause,
        waiter: Option<Waiter>,
    ) -> bool {
        let Some(fence) = self.fence() else { return false };
        let command = Command::TierTrim(TierTrim { fence, log_start, cause });
        self.propose_fenced(now, &command, waiter)
    }

    /// The fence for the next change of the manifest; `None` while one is in flight.
    pub(super) fn fence(&self) -> Option<Fence> {
        let Machine::Partition(state) = &self.machine else { return None };
        let free = self.speculation.fence.is_none() && self.is_ready();
        free.then(|| Fence { term: self.raft.term(), manifest_seq: state.bucket().manifest_seq })
    }

    pub(super) fn propose_fenced(&mut self, now: Now, command: &Command, waiter: Option<Waiter>) -> bool {
        let index = self.propose(now, command, waiter);
        if index.is_some() {
            self.speculation.fence = index;
        }
        index.is_some()
    }
}

fn refused(ticket: Ticket, refusal: Refusal) -> Effect {
    Effect::Reply { ticket, reply: Reply::Refused(refusal) }
}

/// What the handler should have refused: asserted on both sides of the mailbox.
fn invalid(request: &Request) -> Option<Refusal> {
    let meta = &request.meta;
    if meta.is_control {
        return Some(Refusal::InvalidBatch("clients send no control batches"));
    }
    if meta.is_transactional {
        return Some(Refusal::Transactional);
    }
    if request.batch.len() < BATCH_HEADER_BYTES || meta.count == 0 || meta.count - 1 != meta.last_offset_delta
    {
        return Some(Refusal::InvalidBatch("the batch's length or count is wrong"));
    }
    if meta.producer_id >= 0 && (meta.base_sequence < 0 || meta.producer_epoch < 0) {
        return Some(Refusal::InvalidBatch("an idempotent batch needs epoch and sequence"));
    }
    None
}
