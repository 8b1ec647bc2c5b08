//! Kafka's error numbers: those that this broker gives.

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $wire:literal, $retry:ident;)+) => {
        /// An error as clients know it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number),+
        }

        impl ErrorCode {
            /// All of them, by ascending number.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in Kafka's documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire),+ }
            }

            /// Whether clients try again, usually after asking for metadata.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self { $(Self::$name => error_codes!(@$retry)),+ }
            }
        }
    };
    (@retry) => { true };
    (@give_up) => { false };
}

error_codes! {
    /// An error that has no number of its own.
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", give_up;
    /// No error.
    None = 0, "NONE", give_up;
    /// The offset is outside the log.
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", give_up;
    /// A batch does not match its CRC, or is cut short.
    CorruptMessage = 2, "CORRUPT_MESSAGE", retry;
    /// No such topic or partition here.
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retry;
    /// A size below zero.
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", give_up;
    /// An election is under way.
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retry;
    /// Another broker leads the partition.
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retry;
    /// The time of the request ran out.
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retry;
    /// No such broker.
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", give_up;
    /// The replica is not here.
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retry;
    /// A batch is larger than the topic allows.
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", give_up;
    /// The metadata of a committed offset is too long.
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", give_up;
    /// The connection ended before the response.
    NetworkException = 13, "NETWORK_EXCEPTION", retry;
    /// The coordinator reads its state.
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retry;
    /// No coordinator yet.
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retry;
    /// Another broker coordinates.
    NotCoordinator = 16, "NOT_COORDINATOR", retry;
    /// The name is not one of a topic.
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", give_up;
    /// A batch is larger than a segment.
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", give_up;
    /// Fewer in sync than required, nothing appended.
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retry;
    /// Appended, then fewer in sync than required.
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retry;
    /// acks is none of -1, 0, 1.
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", give_up;
    /// The generation is not the group's.
    IllegalGeneration = 22, "ILLEGAL_GENERATION", give_up;
    /// No protocol in common with the group.
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", give_up;
    /// The group id is empty.
    InvalidGroupId = 24, "INVALID_GROUP_ID", give_up;
    /// The group has no such member.
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", give_up;
    /// The session timeout is outside the limits.
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", give_up;
    /// The group rebalances.
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", give_up;
    /// More offsets than a group may have.
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", give_up;
    /// Not allowed on the topic.
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", give_up;
    /// Not allowed on the group.
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", give_up;
    /// Not allowed on the cluster.
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", give_up;
    /// The timestamp is outside the topic's bounds.
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", give_up;
    /// No such mechanism.
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", give_up;
    /// Not the request that this state expects.
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", give_up;
    /// The version is not supported.
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", give_up;
    /// The name is taken.
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", give_up;
    /// The number of partitions is not valid.
    InvalidPartitions = 37, "INVALID_PARTITIONS", give_up;
    /// The replication factor is not valid.
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", give_up;
    /// The assignment is not valid.
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", give_up;
    /// A configuration is not valid.
    InvalidConfig = 40, "INVALID_CONFIG", give_up;
    /// Another broker is the controller.
    NotController = 41, "NOT_CONTROLLER", retry;
    /// The request contradicts itself.
    InvalidRequest = 42, "INVALID_REQUEST", give_up;
    /// The batch is of magic 0 or 1.
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", give_up;
    /// Refused by policy.
    PolicyViolation = 44, "POLICY_VIOLATION", give_up;
    /// A gap before this sequence number.
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", give_up;
    /// The sequence number is older than what is remembered.
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", give_up;
    /// The producer's epoch is old.
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", give_up;
    /// Not possible in this state of the transaction.
    InvalidTxnState = 48, "INVALID_TXN_STATE", give_up;
    /// The producer id is not the transactional id's.
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", give_up;
    /// The transaction timeout is outside the limits.
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", give_up;
    /// The previous transaction still ends.
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", retry;
    /// The coordinator is an old one.
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", give_up;
    /// Not allowed on the transactional id.
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", give_up;
    /// No authorizer is configured.
    SecurityDisabled = 54, "SECURITY_DISABLED", give_up;
    /// The disk failed.
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retry;
    /// No such directory.
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", give_up;
    /// Wrong credentials.
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", give_up;
    /// Nothing is remembered of the producer.
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", give_up;
    /// The group has members.
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", give_up;
    /// No such group.
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", give_up;
    /// No such fetch session.
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retry;
    /// The fetch session is at another epoch.
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retry;
    /// The leader has no address on the client's listener.
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retry;
    /// The client's leader epoch is old.
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retry;
    /// The client's leader epoch is newer than ours.
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retry;
    /// The codec is not allowed in this version.
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", give_up;
    /// The broker's epoch is old.
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", give_up;
    /// The high watermark is not known yet.
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retry;
    /// Join again with this member id.
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", give_up;
    /// The preferred leader is not available.
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retry;
    /// The group has no room for another member.
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", give_up;
    /// Another member has this instance id.
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", give_up;
    /// No replica that may lead is there.
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retry;
    /// The partition has the leader that it is to have.
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retry;
    /// Nothing of it is on its way.
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", give_up;
    /// Members of the group subscribe to the topic.
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", give_up;
    /// A record or batch breaks a rule.
    InvalidRecord = 87, "INVALID_RECORD", give_up;
    /// A transaction holds the offset.
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retry;
    /// A quota is used up.
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retry;
    /// A newer producer has the transactional id.
    ProducerFenced = 90, "PRODUCER_FENCED", give_up;
    /// Nothing has this name.
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", give_up;
    /// The same twice in one request.
    DuplicateResource = 92, "DUPLICATE_RESOURCE", give_up;
    /// No topic has this id.
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retry;
    /// No broker has this id.
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", give_up;
    /// The topic's id is another.
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retry;
    /// No transaction has this id.
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", give_up;
    /// The session mixed topics with and without id.
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retry;
    /// The offset is in the object store only.
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", give_up;
    /// Brokers were reached where controllers were wanted.
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", give_up;
    /// No such kind of endpoint.
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", give_up;
    /// Start again from the bootstrap servers.
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", give_up;
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// The error of this number, `None` where this broker never gives it.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_are_found() {
        assert!(ErrorCode::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
        }
        assert_eq!(ErrorCode::from_number(11), None);
    }

    #[test]
    fn names_and_numbers_are_kafkas() {
        let told = |code: ErrorCode| (code.number(), code.name(), code.is_retriable());
        assert_eq!(told(ErrorCode::UnknownServerError), (-1, "UNKNOWN_SERVER_ERROR", false));
        assert_eq!(told(ErrorCode::CorruptMessage), (2, "CORRUPT_MESSAGE", true));
        assert_eq!(told(ErrorCode::KafkaStorageError), (56, "KAFKA_STORAGE_ERROR", true));
        assert_eq!(told(ErrorCode::InvalidTopicException), (17, "INVALID_TOPIC_EXCEPTION", false));
        assert_eq!(told(ErrorCode::RebootstrapRequired), (129, "REBOOTSTRAP_REQUIRED", false));
    }
}
