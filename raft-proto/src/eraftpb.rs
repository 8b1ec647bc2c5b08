//! The nine messages and four enumerations, with the accessors that raft calls.

use bytes::Bytes;

/// Accessors of fields that are numbers, flags or bytes.
macro_rules! plain {
    ($message:ident { $($field:ident: $type:ty, $get:ident, $set:ident, $take:ident;)* }) => {
        #[allow(missing_docs)]
        impl $message {
            $(
                #[must_use]
                pub fn $get(&self) -> &$type { &self.$field }
                pub fn $set(&mut self, value: $type) { self.$field = value; }
                pub fn $take(&mut self) -> $type { std::mem::take(&mut self.$field) }
            )*
        }
    };
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Entry {
    /// Its kind.
    #[prost(enumeration = "EntryType", tag = "1")]
    pub entry_type: i32,
    /// The term it was proposed in.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Its place in the log.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The command.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// Unused.
    #[prost(bytes = "bytes", tag = "6")]
    pub context: Bytes,
}

/// What a snapshot stands for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotMetadata {
    /// The configuration at `index`.
    #[prost(message, optional, tag = "1")]
    pub conf_state: Option<ConfState>,
    /// The last entry it covers.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// That entry's term.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

/// State in place of a prefix of the log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Snapshot {
    /// The state.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// What it stands for.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SnapshotMetadata>,
}

/// What one replica says to another.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    /// Its kind.
    #[prost(enumeration = "MessageType", tag = "1")]
    pub msg_type: i32,
    /// The receiver.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// The sender.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// The sender's term.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// The term of the entry at `index`.
    #[prost(uint64, tag = "5")]
    pub log_term: u64,
    /// The entry before `entries`, or the one a response speaks of.
    #[prost(uint64, tag = "6")]
    pub index: u64,
    /// Entries to append.
    #[prost(message, repeated, tag = "7")]
    pub entries: Vec<Entry>,
    /// The sender's commit index.
    #[prost(uint64, tag = "8")]
    pub commit: u64,
    /// A snapshot to install.
    #[prost(message, optional, tag = "9")]
    pub snapshot: Option<Snapshot>,
    /// Whether a response refuses.
    #[prost(bool, tag = "10")]
    pub reject: bool,
    /// Where a refusing follower's log may match.
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    /// Read requests and forced elections.
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
    /// A follower asks for a snapshot from here.
    #[prost(uint64, tag = "13")]
    pub request_snapshot: u64,
    /// The older form of `priority`.
    #[prost(uint64, tag = "14")]
    pub deprecated_priority: u64,
    /// The term of the entry at `commit`.
    #[prost(uint64, tag = "15")]
    pub commit_term: u64,
    /// The candidate's priority.
    #[prost(int64, tag = "16")]
    pub priority: i64,
}

/// What must be durable before a replica speaks.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HardState {
    /// The current term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Whom it voted for in that term.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// The commit index it knows.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

/// A configuration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfState {
    /// The voters.
    #[prost(uint64, repeated, tag = "1")]
    pub voters: Vec<u64>,
    /// The learners.
    #[prost(uint64, repeated, tag = "2")]
    pub learners: Vec<u64>,
    /// The voters being left; not empty in a joint configuration.
    #[prost(uint64, repeated, tag = "3")]
    pub voters_outgoing: Vec<u64>,
    /// Voters being left that will be learners.
    #[prost(uint64, repeated, tag = "4")]
    pub learners_next: Vec<u64>,
    /// Whether raft leaves the joint configuration by itself.
    #[prost(bool, tag = "5")]
    pub auto_leave: bool,
}

/// A configuration change of one step, in the first form.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChange {
    /// The caller's mark.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What happens.
    #[prost(enumeration = "ConfChangeType", tag = "2")]
    pub change_type: i32,
    /// To whom.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// The caller's payload.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}

/// One step of a configuration change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChangeSingle {
    /// What happens.
    #[prost(enumeration = "ConfChangeType", tag = "1")]
    pub change_type: i32,
    /// To whom.
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
}

/// A configuration change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChangeV2 {
    /// How to get there.
    #[prost(enumeration = "ConfChangeTransition", tag = "1")]
    pub transition: i32,
    /// Its steps.
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfChangeSingle>,
    /// The caller's payload.
    #[prost(bytes = "bytes", tag = "3")]
    pub context: Bytes,
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[allow(clippy::enum_variant_names)]
pub enum EntryType {
    /// A command, or the empty entry of a new leader.
    EntryNormal = 0,
    /// A configuration change in the first form.
    EntryConfChange = 1,
    /// A configuration change in the second form.
    EntryConfChangeV2 = 2,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[allow(clippy::enum_variant_names)]
pub enum MessageType {
    /// Local: campaign.
    MsgHup = 0,
    /// Local: send heartbeats.
    MsgBeat = 1,
    /// A proposal.
    MsgPropose = 2,
    /// Entries to append.
    MsgAppend = 3,
    /// The answer to `MsgAppend`.
    MsgAppendResponse = 4,
    /// A candidate asks for a vote.
    MsgRequestVote = 5,
    /// The answer to `MsgRequestVote`.
    MsgRequestVoteResponse = 6,
    /// A snapshot to install.
    MsgSnapshot = 7,
    /// A leader's sign of life.
    MsgHeartbeat = 8,
    /// The answer to `MsgHeartbeat`.
    MsgHeartbeatResponse = 9,
    /// Local: a peer cannot be reached.
    MsgUnreachable = 10,
    /// Local: how sending a snapshot went.
    MsgSnapStatus = 11,
    /// Local: check that a quorum is heard of.
    MsgCheckQuorum = 12,
    /// Hand leadership to the sender.
    MsgTransferLeader = 13,
    /// Campaign at once.
    MsgTimeoutNow = 14,
    /// A linearizable read asks for the commit index.
    MsgReadIndex = 15,
    /// The answer to `MsgReadIndex`.
    MsgReadIndexResp = 16,
    /// Would you vote for me?
    MsgRequestPreVote = 17,
    /// The answer to `MsgRequestPreVote`.
    MsgRequestPreVoteResponse = 18,
}

/// How a configuration change is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[allow(clippy::enum_variant_names)]
pub enum ConfChangeTransition {
    /// Simple where one step suffices, else `Implicit`.
    Auto = 0,
    /// Joint, left by raft itself.
    Implicit = 1,
    /// Joint, left by a further change.
    Explicit = 2,
}

/// What one step of a configuration change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[allow(clippy::enum_variant_names)]
pub enum ConfChangeType {
    /// Makes a voter.
    AddNode = 0,
    /// Removes a replica.
    RemoveNode = 1,
    /// Makes a learner.
    AddLearnerNode = 2,
}

impl Entry {
    /// Its kind; unknown numbers read as the default, the gate refuses them before raft sees them.
    #[must_use]
    pub fn get_entry_type(&self) -> EntryType {
        self.entry_type()
    }

    /// Its term.
    #[must_use]
    pub const fn get_term(&self) -> u64 {
        self.term
    }

    /// Its place in the log.
    #[must_use]
    pub const fn get_index(&self) -> u64 {
        self.index
    }
}
plain! { Entry { data: Bytes, get_data, set_data, take_data; } }

static NO_CONF_STATE: ConfState = ConfState {
    voters: Vec::new(),
    learners: Vec::new(),
    voters_outgoing: Vec::new(),
    learners_next: Vec::new(),
    auto_leave: false,
};
static NO_METADATA: SnapshotMetadata = SnapshotMetadata { conf_state: None, index: 0, term: 0 };
static NO_SNAPSHOT: Snapshot = Snapshot { data: Bytes::new(), metadata: None };

impl SnapshotMetadata {
    /// The configuration, empty where there is none.
    #[must_use]
    pub fn get_conf_state(&self) -> &ConfState {
        self.conf_state.as_ref().unwrap_or(&NO_CONF_STATE)
    }

    /// The configuration, made where there is none.
    pub fn mut_conf_state(&mut self) -> &mut ConfState {
        self.conf_state.get_or_insert_default()
    }

    /// Sets the configuration.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = Some(conf_state);
    }

    /// Takes the configuration out.
    pub fn take_conf_state(&mut self) -> ConfState {
        self.conf_state.take().unwrap_or_default()
    }

    /// Sets the last entry covered.
    pub const fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    /// Sets the term of the last entry covered.
    pub const fn set_term(&mut self, term: u64) {
        self.term = term;
    }
}

impl Snapshot {
    /// Whether it stands for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }

    /// What it stands for, empty where it does not say.
    #[must_use]
    pub fn get_metadata(&self) -> &SnapshotMetadata {
        self.metadata.as_ref().unwrap_or(&NO_METADATA)
    }

    /// What it stands for, made where it does not say.
    pub fn mut_metadata(&mut self) -> &mut SnapshotMetadata {
        self.metadata.get_or_insert_default()
    }

    /// Sets what it stands for.
    pub fn set_metadata(&mut self, metadata: SnapshotMetadata) {
        self.metadata = Some(metadata);
    }

    /// Takes out what it stands for.
    pub fn take_metadata(&mut self) -> SnapshotMetadata {
        self.metadata.take().unwrap_or_default()
    }
}

impl Message {
    /// Its kind; unknown numbers read as the default, which is local: the gate refuses it.
    #[must_use]
    pub fn get_msg_type(&self) -> MessageType {
        self.msg_type()
    }

    /// The entry it speaks of.
    #[must_use]
    pub const fn get_index(&self) -> u64 {
        self.index
    }

    /// Sets the entry it speaks of.
    pub const fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    /// The entries, to change.
    pub fn mut_entries(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// Sets the commit index.
    pub const fn set_commit(&mut self, commit: u64) {
        self.commit = commit;
    }

    /// The snapshot, empty where there is none.
    #[must_use]
    pub fn get_snapshot(&self) -> &Snapshot {
        self.snapshot.as_ref().unwrap_or(&NO_SNAPSHOT)
    }

    /// Sets the snapshot.
    pub fn set_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// Takes the snapshot out.
    pub fn take_snapshot(&mut self) -> Snapshot {
        self.snapshot.take().unwrap_or_default()
    }
}
plain! { Message {
    entries: Vec<Entry>, get_entries, set_entries, take_entries;
    context: Bytes, get_context, set_context, take_context;
} }
plain! { ConfState {
    voters: Vec<u64>, get_voters, set_voters, take_voters;
    learners: Vec<u64>, get_learners, set_learners, take_learners;
    voters_outgoing: Vec<u64>, get_voters_outgoing, set_voters_outgoing, take_voters_outgoing;
    learners_next: Vec<u64>, get_learners_next, set_learners_next, take_learners_next;
} }

impl ConfChange {
    /// What happens.
    #[must_use]
    pub fn get_change_type(&self) -> ConfChangeType {
        self.change_type()
    }
}

impl ConfChangeSingle {
    /// What happens.
    #[must_use]
    pub fn get_change_type(&self) -> ConfChangeType {
        self.change_type()
    }
}

impl ConfChangeV2 {
    /// How to get there.
    #[must_use]
    pub fn get_transition(&self) -> ConfChangeTransition {
        self.transition()
    }
}
plain! { ConfChangeV2 { changes: Vec<ConfChangeSingle>, get_changes, set_changes, take_changes; } }
