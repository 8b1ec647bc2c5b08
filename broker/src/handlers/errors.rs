//! The one place where outcomes become Kafka's error codes.

use varve_protocol::{ApiKey, ErrorCode, Response, messages::FetchResponse};
use varve_replica::{Refusal, coordinator::GroupError, metadata::MetadataRejected};

use crate::{
    config::topic::TopicConfigError,
    node::{MetadataRefusal, ReadError},
};

use super::topics::TopicRefusal;

/// An outcome that has a number on the wire.
pub trait Coded {
    /// Its number.
    fn code(&self) -> ErrorCode;
}

impl Coded for Refusal {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownGroup | Self::WrongGroup | Self::NotLeader { .. } | Self::Unknown => {
                ErrorCode::NotLeaderOrFollower
            }
            // Clients retry this one; THROTTLING_QUOTA_EXCEEDED is unknown to producers.
            Self::Throttled => ErrorCode::RequestTimedOut,
            Self::Unheard => ErrorCode::NotEnoughReplicas,
            Self::TooFewInSync => ErrorCode::NotEnoughReplicasAfterAppend,
            Self::StorageError => ErrorCode::KafkaStorageError,
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::InvalidBatch(_) => ErrorCode::InvalidRecord,
            Self::Transactional => ErrorCode::InvalidTxnState,
            Self::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        }
    }
}

impl Coded for ReadError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownGroup => ErrorCode::NotLeaderOrFollower,
            Self::OutOfRange => ErrorCode::OffsetOutOfRange,
            // Retriable for consumers of every age, and says no untruth about the log.
            Self::Unavailable => ErrorCode::ReplicaNotAvailable,
            Self::Corrupt | Self::Storage => ErrorCode::KafkaStorageError,
        }
    }
}

impl Coded for MetadataRefusal {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Rejected(rejected) => rejected.code(),
            Self::NotController => ErrorCode::NotController,
            Self::TimedOut => ErrorCode::RequestTimedOut,
            Self::Storage => ErrorCode::KafkaStorageError,
        }
    }
}

impl Coded for MetadataRejected {
    fn code(&self) -> ErrorCode {
        match self {
            Self::TopicExists { .. } | Self::TopicIdTaken => ErrorCode::TopicAlreadyExists,
            Self::UnknownTopic | Self::UnknownGroup => ErrorCode::UnknownTopicOrPartition,
            Self::InvalidReplicas => ErrorCode::InvalidReplicaAssignment,
            Self::OtherTarget | Self::BrokerInUse => ErrorCode::InvalidRequest,
            Self::TooOld { .. } => ErrorCode::UnsupportedVersion,
            // To be tried again; nobody but who reads the text asks why.
            Self::ConfigsChanged => ErrorCode::NotController,
            Self::OtherDisk { .. } | Self::NodeAlive { .. } => ErrorCode::InvalidRequest,
            Self::InvalidName => ErrorCode::InvalidTopicException,
            Self::InvalidPartitions | Self::PartitionsChanged { .. } => ErrorCode::InvalidPartitions,
            Self::InvalidNode(_) | Self::InvalidCount | Self::FeatureDowngrade { .. } => {
                ErrorCode::PolicyViolation
            }
        }
    }
}

impl Coded for GroupError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownMember => ErrorCode::UnknownMemberId,
            Self::IllegalGeneration => ErrorCode::IllegalGeneration,
            Self::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            Self::FencedInstance => ErrorCode::FencedInstanceId,
            Self::MemberIdRequired { .. } => ErrorCode::MemberIdRequired,
            Self::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            Self::InvalidSession => ErrorCode::InvalidSessionTimeout,
            Self::GroupFull | Self::TooMany => ErrorCode::GroupMaxSizeReached,
            // As Kafka says where its log refuses a message of that size.
            Self::TooLarge => ErrorCode::UnknownServerError,
            Self::MetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            Self::NotEmpty => ErrorCode::NonEmptyGroup,
            Self::NotFound => ErrorCode::GroupIdNotFound,
            Self::Subscribed => ErrorCode::GroupSubscribedToTopic,
            Self::NotCoordinator => ErrorCode::NotCoordinator,
            Self::Loading => ErrorCode::CoordinatorLoadInProgress,
            Self::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        }
    }
}

impl Coded for TopicConfigError {
    fn code(&self) -> ErrorCode {
        match self {
            // A value that is not there at all is a fault of the request, as in Kafka; and so is what a broker does not take.
            Self::Null(_) | Self::Static(_) | Self::UnknownOfBroker(_) => ErrorCode::InvalidRequest,
            _ => ErrorCode::InvalidConfig,
        }
    }
}

impl Coded for TopicRefusal {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) => ErrorCode::InvalidTopicException,
            Self::Partitions(_) => ErrorCode::InvalidPartitions,
            Self::ReplicationFactorZero | Self::ReplicationFactor { .. } => {
                ErrorCode::InvalidReplicationFactor
            }
            Self::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
            Self::Both(_) | Self::Twice => ErrorCode::InvalidRequest,
            Self::Config(error) => error.code(),
            Self::Metadata(refusal) => refusal.code(),
        }
    }
}

/// The API's name in metrics.
pub const fn api_name(key: ApiKey) -> &'static str {
    match key {
        ApiKey::Produce => "Produce",
        ApiKey::Fetch => "Fetch",
        ApiKey::ListOffsets => "ListOffsets",
        ApiKey::Metadata => "Metadata",
        ApiKey::ApiVersions => "ApiVersions",
        ApiKey::CreateTopics => "CreateTopics",
        ApiKey::DeleteTopics => "DeleteTopics",
        ApiKey::DeleteRecords => "DeleteRecords",
        ApiKey::InitProducerId => "InitProducerId",
        ApiKey::OffsetForLeaderEpoch => "OffsetForLeaderEpoch",
        ApiKey::CreatePartitions => "CreatePartitions",
        ApiKey::ElectLeaders => "ElectLeaders",
        ApiKey::DescribeConfigs => "DescribeConfigs",
        ApiKey::AlterConfigs => "AlterConfigs",
        ApiKey::IncrementalAlterConfigs => "IncrementalAlterConfigs",
        ApiKey::DescribeCluster => "DescribeCluster",
        ApiKey::DescribeQuorum => "DescribeQuorum",
        ApiKey::DescribeLogDirs => "DescribeLogDirs",
        ApiKey::AlterPartitionReassignments => "AlterPartitionReassignments",
        ApiKey::ListPartitionReassignments => "ListPartitionReassignments",
        ApiKey::UnregisterBroker => "UnregisterBroker",
        ApiKey::FindCoordinator => "FindCoordinator",
        ApiKey::JoinGroup => "JoinGroup",
        ApiKey::SyncGroup => "SyncGroup",
        ApiKey::Heartbeat => "Heartbeat",
        ApiKey::LeaveGroup => "LeaveGroup",
        ApiKey::OffsetCommit => "OffsetCommit",
        ApiKey::OffsetFetch => "OffsetFetch",
        ApiKey::OffsetDelete => "OffsetDelete",
        ApiKey::ListGroups => "ListGroups",
        ApiKey::DescribeGroups => "DescribeGroups",
        ApiKey::DeleteGroups => "DeleteGroups",
        ApiKey::DescribeAcls => "DescribeAcls",
        ApiKey::CreateAcls => "CreateAcls",
        ApiKey::DeleteAcls => "DeleteAcls",
        ApiKey::AlterReplicaLogDirs => "AlterReplicaLogDirs",
        ApiKey::DescribeClientQuotas => "DescribeClientQuotas",
        ApiKey::DescribeUserScramCredentials => "DescribeUserScramCredentials",
        ApiKey::DescribeProducers => "DescribeProducers",
        ApiKey::DescribeTransactions => "DescribeTransactions",
        ApiKey::ListTransactions => "ListTransactions",
        ApiKey::ListConfigResources => "ListConfigResources",
    }
}

/// Calls `each` with the name of every error in a response.
pub fn count(response: &Response, each: impl FnMut(&'static str)) {
    let mut one = name_each(each);
    match response {
        Response::Produce(r) => {
            r.responses.iter().flat_map(|t| &t.partition_responses).for_each(|p| one(p.error_code));
        }
        Response::Fetch(_) => unreachable!("a fetch is counted by count_in_fetch"),
        Response::ListOffsets(r) => {
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code))
        }
        Response::Metadata(r) => r.topics.iter().for_each(|t| one(t.error_code)),
        Response::ApiVersions(r) => one(r.error_code),
        Response::CreateTopics(r) => r.topics.iter().for_each(|t| one(t.error_code)),
        Response::DeleteTopics(r) => r.responses.iter().for_each(|t| one(t.error_code)),
        Response::DeleteRecords(r) => {
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        Response::InitProducerId(r) => one(r.error_code),
        Response::OffsetForLeaderEpoch(r) => {
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        Response::CreatePartitions(r) => r.results.iter().for_each(|t| one(t.error_code)),
        Response::ElectLeaders(r) => {
            one(r.error_code);
            r.replica_election_results
                .iter()
                .flat_map(|t| &t.partition_result)
                .for_each(|p| one(p.error_code));
        }
        Response::DescribeConfigs(r) => r.results.iter().for_each(|r| one(r.error_code)),
        Response::AlterConfigs(r) => r.responses.iter().for_each(|r| one(r.error_code)),
        Response::IncrementalAlterConfigs(r) => r.responses.iter().for_each(|r| one(r.error_code)),
        Response::DescribeCluster(r) => one(r.error_code),
        Response::AlterPartitionReassignments(r) => {
            one(r.error_code);
            r.responses.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        Response::ListPartitionReassignments(r) => one(r.error_code),
        Response::UnregisterBroker(r) => one(r.error_code),
        Response::DescribeLogDirs(r) => one(r.error_code),
        Response::DescribeQuorum(r) => {
            one(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        response => count_of_administration(response, one),
    }
}

fn count_of_administration(response: &Response, mut one: impl FnMut(i16)) {
    match response {
        Response::DescribeAcls(r) => one(r.error_code),
        Response::CreateAcls(r) => r.results.iter().for_each(|r| one(r.error_code)),
        Response::DeleteAcls(r) => r.filter_results.iter().for_each(|r| one(r.error_code)),
        Response::AlterReplicaLogDirs(r) => {
            r.results.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        Response::DescribeClientQuotas(r) => one(r.error_code),
        Response::DescribeUserScramCredentials(r) => {
            one(r.error_code);
            r.results.iter().for_each(|r| one(r.error_code));
        }
        Response::DescribeProducers(r) => {
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        Response::DescribeTransactions(r) => r.transaction_states.iter().for_each(|t| one(t.error_code)),
        Response::ListTransactions(r) => one(r.error_code),
        Response::ListConfigResources(r) => one(r.error_code),
        response => count_of_groups(response, one),
    }
}

fn count_of_groups(response: &Response, mut one: impl FnMut(i16)) {
    match response {
        Response::FindCoordinator(r) => {
            one(r.error_code);
            r.coordinators.iter().for_each(|c| one(c.error_code));
        }
        Response::JoinGroup(r) => one(r.error_code),
        Response::SyncGroup(r) => one(r.error_code),
        Response::Heartbeat(r) => one(r.error_code),
        Response::LeaveGroup(r) => {
            one(r.error_code);
            r.members.iter().for_each(|m| one(m.error_code));
        }
        Response::OffsetCommit(r) => {
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        Response::OffsetFetch(r) => {
            one(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
            r.groups.iter().for_each(|g| one(g.error_code));
        }
        Response::OffsetDelete(r) => {
            one(r.error_code);
            r.topics.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
        }
        Response::ListGroups(r) => one(r.error_code),
        Response::DescribeGroups(r) => r.groups.iter().for_each(|g| one(g.error_code)),
        Response::DeleteGroups(r) => r.results.iter().for_each(|g| one(g.error_code)),
        response => unreachable!("{:?} is counted by count", response.key()),
    }
}

/// The same for a fetch, which is not kept as a [`Response`].
pub fn count_in_fetch(response: &FetchResponse, each: impl FnMut(&'static str)) {
    let mut one = name_each(each);
    one(response.error_code);
    response.responses.iter().flat_map(|t| &t.partitions).for_each(|p| one(p.error_code));
}

fn name_each(mut each: impl FnMut(&'static str)) -> impl FnMut(i16) {
    move |number| {
        if number != ErrorCode::None.number() {
            let known = ErrorCode::ALL.iter().find(|code| code.number() == number);
            each(known.map_or("OTHER", |code| code.name()));
        }
    }
}
