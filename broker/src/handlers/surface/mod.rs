//! Every API in every version that is offered: success, and each error that a valid request can earn. The same
//! questions go to the handlers over a fake node, and through a socket to a broker that runs.

mod administration;
mod configs;
mod groups;
mod records;
mod topics;

use varve_protocol::{ApiKey, ErrorCode, Request, Response, messages::*};

/// Somebody who answers; closing the connection is a panic.
pub trait Peer {
    /// The answer to one request.
    async fn ask(&mut self, version: i16, request: Request) -> Response;
}

/// Asks everything.
pub async fn every_api_in_every_version(peer: &mut impl Peer) {
    for row in varve_protocol::TABLE {
        for version in row.first..=row.last {
            one(peer, row.key, version).await;
        }
    }
}

async fn one(peer: &mut impl Peer, key: ApiKey, version: i16) {
    match key {
        ApiKey::Produce => records::produce(peer, version).await,
        ApiKey::Fetch => records::fetch(peer, version).await,
        ApiKey::ListOffsets => records::list_offsets(peer, version).await,
        ApiKey::OffsetForLeaderEpoch => records::offset_for_leader_epoch(peer, version).await,
        ApiKey::Metadata => topics::metadata(peer, version).await,
        ApiKey::CreateTopics => topics::create_topics(peer, version).await,
        ApiKey::DeleteTopics => topics::delete_topics(peer, version).await,
        ApiKey::DeleteRecords => records::delete_records(peer, version).await,
        ApiKey::DescribeConfigs => topics::describe_configs(peer, version).await,
        ApiKey::AlterConfigs => configs::replace(peer, version).await,
        ApiKey::CreatePartitions => topics::create_partitions(peer, version).await,
        ApiKey::ElectLeaders => topics::elect_leaders(peer, version).await,
        ApiKey::IncrementalAlterConfigs => configs::change(peer, version).await,
        ApiKey::DescribeCluster => topics::describe_cluster(peer, version).await,
        ApiKey::AlterPartitionReassignments => topics::alter_reassignments(peer, version).await,
        ApiKey::ListPartitionReassignments => topics::list_reassignments(peer, version).await,
        ApiKey::UnregisterBroker => topics::unregister_broker(peer, version).await,
        ApiKey::DescribeLogDirs => topics::describe_log_dirs(peer, version).await,
        ApiKey::DescribeQuorum => topics::describe_quorum(peer, version).await,
        ApiKey::ApiVersions => topics::api_versions(peer, version).await,
        ApiKey::InitProducerId => topics::init_producer_id(peer, version).await,
        ApiKey::FindCoordinator => groups::find_coordinator(peer, version).await,
        ApiKey::JoinGroup => groups::join_group(peer, version).await,
        ApiKey::SyncGroup => groups::sync_group(peer, version).await,
        ApiKey::Heartbeat => groups::heartbeat(peer, version).await,
        ApiKey::LeaveGroup => groups::leave_group(peer, version).await,
        ApiKey::OffsetCommit => groups::offset_commit(peer, version).await,
        ApiKey::OffsetFetch => groups::offset_fetch(peer, version).await,
        ApiKey::OffsetDelete => groups::offset_delete(peer, version).await,
        ApiKey::ListGroups => groups::list_groups(peer, version).await,
        ApiKey::DescribeGroups => groups::describe_groups(peer, version).await,
        ApiKey::DeleteGroups => groups::delete_groups(peer, version).await,
        key => administration::one(peer, key, version).await,
    }
}

/// Idempotence as producers meet it: only a real partition keeps a producer table.
#[allow(dead_code, reason = "the fake is not asked")]
pub async fn idempotence(peer: &mut impl Peer) {
    records::idempotence(peer).await;
}

/// Asks, and takes the body of this API out of the answer.
macro_rules! ask {
    ($peer:expr, $version:expr, $api:ident, $body:expr) => {{
        let response = $peer.ask($version, Request::$api($body)).await;
        let Response::$api(body) = response else { panic!("{response:?}") };
        body
    }};
}
use ask;

/// A message with some of its fields set: the types are not exhaustive.
macro_rules! message {
    ($path:path { $($field:ident: $value:expr),* $(,)? }) => {{
        type Message = $path;
        let mut message = Message::default();
        $(message.$field = $value;)*
        message
    }};
}
use message;

const OK: i16 = 0;

fn code(code: ErrorCode) -> i16 {
    code.number()
}

/// Creates a topic with one partition, and gives its id.
async fn create(peer: &mut impl Peer, name: &str) -> Uuid {
    // Records of long ago stay.
    create_with(peer, name, &[("retention.ms", "-1")]).await
}

async fn create_with(peer: &mut impl Peer, name: &str, configs: &[(&str, &str)]) -> Uuid {
    let config = |&(name, value): &(&str, &str)| {
        message!(create_topics_request::CreatableTopicConfig { name: name.into(), value: Some(value.into()) })
    };
    let topic = message!(create_topics_request::CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.iter().map(config).collect(),
    });
    let request = message!(CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000 });
    let response = ask!(peer, 7, CreateTopics, request);
    assert_eq!(response.topics[0].error_code, OK, "{response:?}");
    response.topics[0].topic_id
}

async fn delete(peer: &mut impl Peer, name: &str) {
    let request = message!(DeleteTopicsRequest { topic_names: vec![name.into()] });
    assert_eq!(ask!(peer, 5, DeleteTopics, request).responses[0].error_code, OK);
}
