//! What a coordinator is asked, and what it answers.

use std::sync::Arc;

use bytes::Bytes;
use varve_common::TopicId;

use super::{State, StoredGroup};

/// A request to the coordinator of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// JoinGroup; answered by `Joined` when the rebalance ends.
    Join(Join),
    /// SyncGroup; answered by `Synced` when the leading member has given assignments.
    Sync(Sync),
    /// Heartbeat; answered by `Done`.
    Heartbeat(Heartbeat),
    /// LeaveGroup; answered by `Left`.
    Leave(Leave),
    /// OffsetCommit; answered by `Committed` once it is applied.
    Commit(Commit),
    /// OffsetFetch; answered by `Offsets`.
    Fetch {
        /// Which group.
        group: String,
    },
    /// OffsetDelete; answered by `OffsetsDeleted` once it is applied.
    DeleteOffsets {
        /// Which group.
        group: String,
        /// Which partitions.
        partitions: Vec<(String, i32)>,
    },
    /// ListGroups; answered by `Listed`.
    List,
    /// DescribeGroups; answered by `Described`.
    Describe {
        /// Which group.
        group: String,
    },
    /// DeleteGroups; answered by `Done` once it is applied.
    Delete {
        /// Which group.
        group: String,
    },
}

impl Request {
    /// Whether it comes from somebody who is no member.
    pub(super) const fn is_of_administrators(&self) -> bool {
        match self {
            Self::DeleteOffsets { .. } | Self::List | Self::Describe { .. } | Self::Delete { .. } => true,
            Self::Commit(commit) => commit.generation < 0 && commit.member.id.is_empty(),
            Self::Join(_) | Self::Sync(_) | Self::Heartbeat(_) | Self::Leave(_) | Self::Fetch { .. } => false,
        }
    }
}

/// Who speaks for a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRef {
    /// Its id; empty before it has one.
    pub id: String,
    /// The id that it was configured with.
    pub instance: Option<String>,
}

/// A member that wants to be in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Which group.
    pub group: String,
    /// Who.
    pub member: MemberRef,
    /// What its id will end in, if it gets one: drawn at random.
    pub draw: u128,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// How long it may be silent.
    pub session_ms: i32,
    /// How long a rebalance waits for it.
    pub rebalance_ms: i32,
    /// What kind of group it takes it for.
    pub protocol_type: String,
    /// What it can do, as it prefers, each with what it says of itself.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether it must come again with its id (KIP-394).
    pub id_required: bool,
    /// Whether it knows that it may lead without giving assignments (KIP-814).
    pub may_skip: bool,
}

/// A member that wants its assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Which group.
    pub group: String,
    /// Who.
    pub member: MemberRef,
    /// Of which generation.
    pub generation: i32,
    /// What it takes the group for, where it says so.
    pub protocol_type: Option<String>,
    /// What it takes the protocol for, where it says so.
    pub protocol: Option<String>,
    /// Of the leading member: what everybody gets.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which group.
    pub group: String,
    /// Who.
    pub member: MemberRef,
    /// Of which generation.
    pub generation: i32,
}

/// Members that leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Which group.
    pub group: String,
    /// Who; a static member may be named by its instance alone.
    pub members: Vec<MemberRef>,
}

/// What became of one who wanted to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Who.
    pub member: MemberRef,
    /// What.
    pub outcome: Result<(), GroupError>,
}

/// Offsets to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which group.
    pub group: String,
    /// Who.
    pub member: MemberRef,
    /// Of which generation; below 0: of none.
    pub generation: i32,
    /// How long they are to stay, where the client says so.
    pub retention_ms: Option<i64>,
    /// What.
    pub partitions: Vec<CommitPartition>,
}

/// The offset of a group in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// The topic's name.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// Which partition.
    pub partition: i32,
    /// The next record that the group wants.
    pub offset: i64,
    /// The epoch of the one before it, or -1.
    pub leader_epoch: i32,
    /// What goes with it.
    pub metadata: String,
}

/// What becomes of a request.
pub type Outcome = Result<Answer, GroupError>;

/// What a coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The member is in a generation.
    Joined(Joined),
    /// The member's assignment.
    Synced(Synced),
    /// It is done.
    Done,
    /// Who left.
    Left(Vec<Leaving>),
    /// What became of each offset, in the order of the request.
    Committed(Vec<Result<(), GroupError>>),
    /// What a group has committed; `None`: nothing is known of the group.
    Offsets(Option<Arc<StoredGroup>>),
    /// What became of each partition, in the order of the request.
    OffsetsDeleted(Vec<Result<(), GroupError>>),
    /// The groups.
    Listed(Vec<Listed>),
    /// A group.
    Described(Described),
}

/// A member's place in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: String,
    /// The leading member.
    pub leader: String,
    /// Whether the leading member is to leave the assignment as it is.
    pub skip_assignment: bool,
    /// The member.
    pub member_id: String,
    /// For the leading member: everybody.
    pub members: Vec<JoinedMember>,
}

/// A member as the leading one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Who.
    pub member: MemberRef,
    /// What it said of itself under the chosen protocol.
    pub metadata: Bytes,
}

/// An assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What kind of group it is.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: String,
    /// What the leading member gave.
    pub assignment: Bytes,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: String,
    /// What kind it is; empty where it has only offsets.
    pub protocol_type: String,
    /// Where it stands.
    pub state: State,
}

/// A group as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Where it stands.
    pub state: State,
    /// What kind it is.
    pub protocol_type: String,
    /// The protocol that was chosen, while it is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Who.
    pub member: MemberRef,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// What it said of itself; while the group is stable.
    pub metadata: Bytes,
    /// What it was given; while the group is stable.
    pub assignment: Bytes,
}

/// Why a coordinator did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The member is not in the group. UNKNOWN_MEMBER_ID.
    #[error("the member is not in the group")]
    UnknownMember,
    /// The group is in another generation. ILLEGAL_GENERATION.
    #[error("the group is in another generation")]
    IllegalGeneration,
    /// The group comes together anew. REBALANCE_IN_PROGRESS.
    #[error("the group comes together anew")]
    RebalanceInProgress,
    /// Another member has come with this instance id. FENCED_INSTANCE_ID.
    #[error("another member has come with this instance id")]
    FencedInstance,
    /// Come again with this id. MEMBER_ID_REQUIRED.
    #[error("the member must come again with its id")]
    MemberIdRequired {
        /// The id.
        id: String,
    },
    /// No protocol that everybody knows. INCONSISTENT_GROUP_PROTOCOL.
    #[error("the group has no protocol in common with the member")]
    InconsistentProtocol,
    /// A session that is too short or too long. INVALID_SESSION_TIMEOUT.
    #[error("the session timeout is not within the bounds of the broker")]
    InvalidSession,
    /// No room for another member. GROUP_MAX_SIZE_REACHED.
    #[error("the group has no room for another member")]
    GroupFull,
    /// No room for another group or offset. INVALID_COMMIT_OFFSET_SIZE for commits.
    #[error("there is no room for that many groups, or offsets of a group")]
    TooMany,
    /// No entry of the log holds it: coming again is of no use. INVALID_COMMIT_OFFSET_SIZE for commits.
    #[error("the log holds nothing that large")]
    TooLarge,
    /// What goes with an offset is too long. OFFSET_METADATA_TOO_LARGE.
    #[error("the metadata of the offset is too long")]
    MetadataTooLarge,
    /// There are members. NON_EMPTY_GROUP.
    #[error("the group has members")]
    NotEmpty,
    /// No such group. GROUP_ID_NOT_FOUND.
    #[error("there is no such group")]
    NotFound,
    /// Members subscribe to the topic. GROUP_SUBSCRIBED_TO_TOPIC.
    #[error("members of the group subscribe to the topic")]
    Subscribed,
    /// This node does not lead the group's partition. NOT_COORDINATOR.
    #[error("another node coordinates the group")]
    NotCoordinator,
    /// This node will in a moment. COORDINATOR_LOAD_IN_PROGRESS.
    #[error("the coordinator begins")]
    Loading,
    /// The log takes nothing now. COORDINATOR_NOT_AVAILABLE.
    #[error("the coordinator cannot write now")]
    NotAvailable,
}
