//! The wire types of `kafka-wire`, under the names that Kafka's schemas give them.
//!
//! They are `non_exhaustive`: start from `default()` and set fields. Nested types live in the module of their
//! message, e.g. [`produce_request::TopicProduceData`].

pub use kafka_wire::{
    AlterConfigsRequest, AlterConfigsResponse, AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse, ApiVersionsRequest, ApiVersionsResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeQuorumRequest, DescribeQuorumResponse, ElectLeadersRequest,
    ElectLeadersResponse, FetchRequest, FetchResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    ProduceRequest, ProduceResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};
pub use kafka_wire::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, CreateAclsRequest, CreateAclsResponse,
    DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest, DescribeAclsResponse,
    DescribeClientQuotasRequest, DescribeClientQuotasResponse, DescribeProducersRequest,
    DescribeProducersResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, ListConfigResourcesRequest,
    ListConfigResourcesResponse, ListTransactionsRequest, ListTransactionsResponse,
};
pub use kafka_wire::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
};
pub use kafka_wire::{
    alter_configs_request, alter_configs_response, alter_partition_reassignments_request,
    alter_partition_reassignments_response, api_versions_request, api_versions_response,
    create_partitions_request, create_partitions_response, create_topics_request, create_topics_response,
    delete_records_request, delete_records_response, delete_topics_request, delete_topics_response,
    describe_cluster_request, describe_cluster_response, describe_configs_request, describe_configs_response,
    describe_log_dirs_request, describe_log_dirs_response, describe_quorum_request, describe_quorum_response,
    elect_leaders_request, elect_leaders_response, fetch_request, fetch_response,
    incremental_alter_configs_request, incremental_alter_configs_response, init_producer_id_request,
    init_producer_id_response, list_offsets_request, list_offsets_response,
    list_partition_reassignments_request, list_partition_reassignments_response, metadata_request,
    metadata_response, offset_for_leader_epoch_request, offset_for_leader_epoch_response, produce_request,
    produce_response,
};
pub use kafka_wire::{
    alter_replica_log_dirs_request, alter_replica_log_dirs_response, create_acls_request,
    create_acls_response, delete_acls_request, delete_acls_response, describe_acls_request,
    describe_acls_response, describe_client_quotas_request, describe_client_quotas_response,
    describe_producers_request, describe_producers_response, describe_transactions_request,
    describe_transactions_response, describe_user_scram_credentials_request,
    describe_user_scram_credentials_response, list_config_resources_request, list_config_resources_response,
    list_transactions_request, list_transactions_response,
};
pub use kafka_wire::{
    delete_groups_request, delete_groups_response, describe_groups_request, describe_groups_response,
    find_coordinator_request, find_coordinator_response, heartbeat_request, heartbeat_response,
    join_group_request, join_group_response, leave_group_request, leave_group_response, list_groups_request,
    list_groups_response, offset_commit_request, offset_commit_response, offset_delete_request,
    offset_delete_response, offset_fetch_request, offset_fetch_response, sync_group_request,
    sync_group_response,
};
pub use kafka_wire_core::{StrBytes, TaggedField, TaggedFields, Uuid};
