//! How much may be on its way to one follower, in bytes.
//!
//! Raft bounds messages only: 64 of them may be 64 KiB or 512 MiB. Here the window in messages is set before every step
//! such that what raft may send in that step fits the bytes that are left: none, where too few are. With nothing on its
//! way one message is always allowed, so a single large entry goes alone.

use std::collections::{BTreeMap, VecDeque};

use raft::{ProgressState, eraftpb::MessageType};

use super::Group;
use crate::Role;

/// Appends on their way to one follower.
#[derive(Debug, Default)]
struct Sent {
    /// The last index and the size of each.
    messages: VecDeque<(u64, usize)>,
    bytes: usize,
    /// Heartbeats it answered since it last acknowledged an append.
    unmoved: u32,
}

/// Appends on their way, by follower; only those that were sent optimistically.
#[derive(Debug, Default)]
pub(super) struct Flow {
    followers: BTreeMap<u64, Sent>,
    /// How many of raft's outgoing messages were looked at.
    pub(super) counted: usize,
}

impl Flow {
    fn sent(&mut self, to: u64, last: u64, bytes: usize) {
        let sent = self.followers.entry(to).or_default();
        sent.messages.push_back((last, bytes));
        sent.bytes += bytes;
    }

    fn acknowledged(&mut self, from: u64, index: u64) {
        let Some(sent) = self.followers.get_mut(&from) else { return };
        sent.unmoved = 0;
        while let Some(&(last, bytes)) = sent.messages.front()
            && last <= index
        {
            sent.messages.pop_front();
            sent.bytes -= bytes;
        }
        if sent.messages.is_empty() {
            self.followers.remove(&from);
        }
    }

    pub(super) fn forget(&mut self, follower: u64) {
        self.followers.remove(&follower);
    }

    /// How much is on its way to a follower, in bytes.
    pub(super) fn bytes(&self, follower: u64) -> usize {
        self.followers.get(&follower).map_or(0, |sent| sent.bytes)
    }
}

impl Group {
    /// Counts the appends that raft made since it was last asked.
    pub(super) fn note_sent(&mut self) {
        let messages = &self.node.raft.msgs;
        let fresh = messages.get(self.flow.counted..).unwrap_or_default();
        for message in fresh.iter().filter(|message| message.get_msg_type() == MessageType::MsgAppend) {
            let Some(last) = message.entries.last() else { continue };
            let bytes = message.entries.iter().map(|entry| entry.data.len()).sum();
            self.flow.sent(message.to, last.index, bytes);
        }
        self.flow.counted = messages.len();
    }

    pub(super) fn on_acknowledged(&mut self, from: u64, index: u64) {
        self.flow.acknowledged(from, index);
    }

    /// Raft lets one more append go with every answered heartbeat when the window is full, in case what filled it was
    /// lost. A slow follower would drown: here that happens ever more rarely, at 4, 8, 16… answers without progress.
    pub(super) fn on_heartbeat_response(&mut self, from: u64) {
        if let Some(sent) = self.flow.followers.get_mut(&from) {
            sent.unmoved = sent.unmoved.saturating_add(1);
        }
    }

    /// Sets each follower's window for the step that comes, in which `proposed` bytes may join the log.
    pub(super) fn bound_flow(&mut self, proposed: usize) {
        if self.role() != Role::Leader || self.membership.is_only(self.replica) {
            return;
        }
        let (own, messages_max) = (self.replica.get(), self.config.inflight_messages_max);
        let (bytes_max, message_max) =
            (self.config.inflight_bytes_max, self.config.message_bytes_max as usize);
        let last = self.node.raft.raft_log.last_index();
        let ids: Vec<u64> = self.node.raft.prs().iter().map(|(&id, _)| id).filter(|&id| id != own).collect();
        for id in ids {
            let Some(progress) = self.node.raft.prs().get(id) else { continue };
            if progress.state != ProgressState::Replicate {
                self.flow.forget(id);
                // What it may be sent at once when it is found.
                let cap = (bytes_max / message_max).clamp(1, messages_max);
                self.node.raft.adjust_max_inflight_msgs(id, cap);
                continue;
            }
            let next = progress.next_idx;
            let room = bytes_max.saturating_sub(self.flow.bytes(id));
            let backlog = if next > last { Some(0) } else { self.node.store().bytes_from(next) };
            let (on_their_way, unmoved) =
                self.flow.followers.get(&id).map_or((0, 0), |sent| (sent.messages.len(), sent.unmoved));
            // Raft's own count is no measure: it forgets one message with every answered heartbeat while the window is full.
            let count = progress.ins.count();
            let probe = unmoved >= 4 && unmoved.is_power_of_two();
            let cap = if backlog.is_some_and(|bytes| bytes + proposed.max(1) <= room) {
                messages_max
            } else if on_their_way == 0 {
                count + (room / message_max).max(1)
            } else if room >= message_max {
                count + room / message_max
            } else if probe {
                count.max(1)
            } else {
                0
            };
            self.node.raft.adjust_max_inflight_msgs(id, cap.min(messages_max));
        }
    }

    /// How much is on its way to a follower and not acknowledged, in bytes.
    #[must_use]
    pub fn inflight_bytes(&self, follower: varve_common::ReplicaId) -> usize {
        self.flow.bytes(follower.get())
    }
}
