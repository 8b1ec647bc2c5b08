//! The one table of what this broker speaks.
//!
//! A row says which versions are offered to clients and which of them are understood. The two differ for Produce
//! alone. To serve another API: add its row, its [`ApiKey`] and its line in `request.rs`; the compiler asks for
//! the rest.

use crate::limits;

/// An API that this broker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum ApiKey {
    /// Appends batches.
    Produce = 0,
    /// Reads batches.
    Fetch = 1,
    /// Offsets by timestamp or by a special name.
    ListOffsets = 2,
    /// Topics, partitions, leaders, brokers.
    Metadata = 3,
    /// Commits offsets of a group.
    OffsetCommit = 8,
    /// Offsets that a group has committed.
    OffsetFetch = 9,
    /// Which node coordinates a group.
    FindCoordinator = 10,
    /// Takes a place in a group.
    JoinGroup = 11,
    /// Says that a member is alive.
    Heartbeat = 12,
    /// Gives the place up.
    LeaveGroup = 13,
    /// Gives and takes assignments.
    SyncGroup = 14,
    /// Members of groups.
    DescribeGroups = 15,
    /// The groups of a node.
    ListGroups = 16,
    /// What the broker speaks.
    ApiVersions = 18,
    /// Creates topics.
    CreateTopics = 19,
    /// Deletes topics.
    DeleteTopics = 20,
    /// Moves the first offset of partitions forward.
    DeleteRecords = 21,
    /// A producer id for idempotence.
    InitProducerId = 22,
    /// Where a leader epoch ended (KIP-320).
    OffsetForLeaderEpoch = 23,
    /// Access rules.
    DescribeAcls = 29,
    /// Makes access rules.
    CreateAcls = 30,
    /// Removes access rules.
    DeleteAcls = 31,
    /// Configurations, defaults included.
    DescribeConfigs = 32,
    /// Replaces a topic's own configuration.
    AlterConfigs = 33,
    /// Moves replicas to other directories of a broker.
    AlterReplicaLogDirs = 34,
    /// What partitions take on a broker.
    DescribeLogDirs = 35,
    /// Adds partitions to topics.
    CreatePartitions = 37,
    /// Forgets groups.
    DeleteGroups = 42,
    /// Lets preferred replicas lead.
    ElectLeaders = 43,
    /// Changes single values of it.
    IncrementalAlterConfigs = 44,
    /// Moves replicas to other nodes.
    AlterPartitionReassignments = 45,
    /// What is on its way.
    ListPartitionReassignments = 46,
    /// Forgets offsets of a group.
    OffsetDelete = 47,
    /// Quotas of clients.
    DescribeClientQuotas = 48,
    /// Users and how they prove themselves.
    DescribeUserScramCredentials = 50,
    /// Who leads a group, and how far its replicas are.
    DescribeQuorum = 55,
    /// Cluster id and brokers.
    DescribeCluster = 60,
    /// The producers of partitions.
    DescribeProducers = 61,
    /// Takes a broker out of the cluster for good.
    UnregisterBroker = 64,
    /// How transactions are.
    DescribeTransactions = 65,
    /// The transactions of a node.
    ListTransactions = 66,
    /// What has configurations.
    ListConfigResources = 74,
}

/// One row of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Which.
    pub key: ApiKey,
    /// The least version that ApiVersions offers.
    pub advertised_first: i16,
    /// The least version that is understood.
    pub first: i16,
    /// The last version that is offered and understood.
    pub last: i16,
    /// The first flexible version (KIP-482): compact lengths, tagged fields, header v2.
    pub flexible_first: i16,
    /// The largest frame that is decoded.
    pub frame_bytes_max: usize,
    /// The most elements in one array.
    pub array_elements_max: usize,
}

/// The flexible version of an API that has none.
const NEVER: i16 = i16::MAX;

const fn api(key: ApiKey, first: i16, last: i16, flexible_first: i16) -> Api {
    Api {
        key,
        advertised_first: first,
        first,
        last,
        flexible_first,
        frame_bytes_max: limits::FRAME_BYTES_MAX,
        array_elements_max: limits::ARRAY_ELEMENTS_MAX,
    }
}

/// Every API that is answered, by ascending key.
pub const TABLE: &[Api] = &[
    // librdkafka before 2.11.1 turns compression off unless the offered minimum is 0 (its MSGVER feature gate), so 0
    // is offered as Kafka 4 does (KIP-896), and 0 to 2, which carry batches of magic 0 and 1, are refused.
    Api {
        advertised_first: 0,
        frame_bytes_max: limits::PRODUCE_FRAME_BYTES_MAX,
        array_elements_max: limits::PRODUCE_ARRAY_ELEMENTS_MAX,
        ..api(ApiKey::Produce, 3, 13, 9)
    },
    // 12 brings the diverging epoch, 13 topic ids, 16 node endpoints, 17 and 18 fields of replicas only.
    api(ApiKey::Fetch, 4, 18, 12),
    // 7 max-timestamp, 8 earliest-local, 9 latest-tiered, 11 earliest-pending-upload.
    api(ApiKey::ListOffsets, 1, 11, 6),
    // 10 brings topic ids, 12 asking by id, 13 an error for the whole (KIP-1102).
    api(ApiKey::Metadata, 0, 13, 9),
    // 10 names topics by id. 0 and 1 are gone since Kafka 4.
    api(ApiKey::OffsetCommit, 2, 10, 8),
    // 8 asks for several groups, 10 names topics by id.
    api(ApiKey::OffsetFetch, 1, 10, 6),
    // 4 asks for several at once.
    api(ApiKey::FindCoordinator, 0, 6, 3),
    // 4 wants members to come again with their id (KIP-394), 5 brings static members (KIP-345), 9 lets a leading member keep the
    // assignment (KIP-814).
    api(ApiKey::JoinGroup, 0, 9, 6),
    api(ApiKey::Heartbeat, 0, 4, 4),
    // 3 lets several leave.
    api(ApiKey::LeaveGroup, 0, 5, 4),
    // 5 says what kind of group is meant.
    api(ApiKey::SyncGroup, 0, 5, 4),
    // 6 says which group is not there.
    api(ApiKey::DescribeGroups, 0, 6, 5),
    // 4 asks by state, 5 by type.
    api(ApiKey::ListGroups, 0, 5, 3),
    // Its response header is v0 always: a client reads it before it knows what the broker speaks.
    api(ApiKey::ApiVersions, 0, 4, 3),
    // 5 answers with configurations, 7 with the topic id.
    api(ApiKey::CreateTopics, 2, 7, 5),
    // 6 names topics by id.
    api(ApiKey::DeleteTopics, 1, 6, 4),
    api(ApiKey::DeleteRecords, 0, 2, 2),
    // 6 is not stable in Kafka 4.2.
    api(ApiKey::InitProducerId, 0, 5, 2),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, 4),
    api(ApiKey::DescribeAcls, 1, 3, 2),
    api(ApiKey::CreateAcls, 1, 3, 2),
    api(ApiKey::DeleteAcls, 1, 3, 2),
    api(ApiKey::DescribeConfigs, 1, 4, 4),
    api(ApiKey::AlterConfigs, 0, 2, 2),
    api(ApiKey::AlterReplicaLogDirs, 1, 2, 2),
    // 4 tells of the file system.
    api(ApiKey::DescribeLogDirs, 1, 4, 2),
    // 3 throttles by the number of mutations.
    api(ApiKey::CreatePartitions, 0, 3, 2),
    api(ApiKey::DeleteGroups, 0, 2, 2),
    // 1 brings unclean elections.
    api(ApiKey::ElectLeaders, 0, 2, 2),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, 1),
    // 1 may insist on the number of replicas.
    api(ApiKey::AlterPartitionReassignments, 0, 1, 0),
    api(ApiKey::ListPartitionReassignments, 0, 0, 0),
    // It has no flexible version.
    api(ApiKey::OffsetDelete, 0, 0, NEVER),
    api(ApiKey::DescribeClientQuotas, 0, 1, 1),
    api(ApiKey::DescribeUserScramCredentials, 0, 0, 0),
    // 2 brings the replicas' addresses.
    api(ApiKey::DescribeQuorum, 0, 2, 0),
    // 2 tells fenced brokers.
    api(ApiKey::DescribeCluster, 0, 2, 0),
    api(ApiKey::DescribeProducers, 0, 0, 0),
    api(ApiKey::UnregisterBroker, 0, 0, 0),
    api(ApiKey::DescribeTransactions, 0, 0, 0),
    // 1 filters by duration, 2 by a pattern of ids.
    api(ApiKey::ListTransactions, 0, 2, 0),
    // 1 knows other kinds than the subscriptions of client metrics.
    api(ApiKey::ListConfigResources, 0, 1, 0),
];

impl ApiKey {
    /// The row of the key number that a request gives, `None` where this broker does not answer it.
    #[must_use]
    pub fn find(number: i16) -> Option<&'static Api> {
        TABLE.binary_search_by_key(&number, |api| api.key.number()).ok().map(|place| &TABLE[place])
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// The row of this key.
    #[must_use]
    pub fn api(self) -> &'static Api {
        Self::find(self.number()).expect("every ApiKey has a row, as a test asserts")
    }
}

impl Api {
    /// Whether requests of this version are understood.
    #[must_use]
    pub const fn supports(&self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    /// Whether this version has compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_first
    }

    /// The version of the header before a request of this version.
    #[must_use]
    pub const fn request_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header before a response of this version.
    #[must_use]
    pub const fn response_header_version(&self, version: i16) -> i16 {
        match self.key {
            ApiKey::ApiVersions => 0,
            _ if self.is_flexible(version) => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_and_every_row_is_found() {
        assert!(TABLE.windows(2).all(|pair| pair[0].key.number() < pair[1].key.number()));
        for row in TABLE {
            assert_eq!(row.key.api(), row);
            assert!(row.advertised_first <= row.first && row.first <= row.last);
        }
        assert_eq!(ApiKey::find(-1), None);
        assert_eq!(ApiKey::find(4), None);
    }

    #[test]
    fn rows_agree_with_the_schemas() {
        for row in TABLE {
            let known = kafka_wire::API_DESCRIPTORS
                .iter()
                .find(|known| known.api_key.value() == row.key.number())
                .expect("kafka-wire knows every key");
            let flexible = known.flexible_versions.map_or(NEVER, |versions| versions.min().value());
            assert!(known.supported_versions.min().value() == row.first, "{row:?}");
            assert!(known.supported_versions.max().value() >= row.last, "{row:?}");
            assert_eq!(flexible, row.flexible_first, "{row:?}");
        }
    }

    #[test]
    fn produce_is_offered_from_0_and_understood_from_3() {
        let produce = ApiKey::Produce.api();
        assert_eq!((produce.advertised_first, produce.supports(2), produce.supports(3)), (0, false, true));
    }

    #[test]
    fn api_versions_response_header_is_v0_always() {
        let row = ApiKey::ApiVersions.api();
        assert!((0..=4).all(|version| row.response_header_version(version) == 0));
    }

    #[test]
    fn flexible_starts_where_kafka_says() {
        let flexible = |key: ApiKey| key.api().flexible_first;
        assert_eq!(flexible(ApiKey::Fetch), 12, "not 11");
        assert_eq!(flexible(ApiKey::InitProducerId), 2);
        assert_eq!(flexible(ApiKey::DeleteTopics), 4);
    }
}
