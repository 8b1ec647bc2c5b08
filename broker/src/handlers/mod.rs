//! Requests to answers: one file per API key.
//!
//! A handler takes the node, where the request came from, and the decoded request, and returns the response message.
//! It checks, asks the backend, and names the outcome; it decides nothing that the core can decide. Authorization is
//! asked in every handler ([`access`]); error codes are made in one file ([`errors`]).

pub mod access;
mod acls;
mod alter_configs;
mod alter_replica_log_dirs;
mod api_versions;
mod aside;
mod brokers;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod elect_leaders;
mod errors;
mod fetch;
mod find_coordinator;
mod groups;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leaders;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod opened;
mod partitions;
mod produce;
mod reassignments;
mod sync_group;
pub mod topics;
mod transactions;
mod unregister_broker;
mod users;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod surface;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use varve_common::clock::BoxFuture;
use varve_protocol::{
    ApiKey, Header, Request, RequestError, Response, ResponseError, decode_request, encode_fetch_response,
    encode_response, encode_unsupported_api_versions,
};

use crate::{
    net::{Answer, Budget, Context, Pace, Service},
    node::Node,
};

pub use errors::Coded;
pub use opened::Opened;

/// Answers every request of the protocol's table.
pub struct Handlers {
    shared: Arc<Shared>,
}

/// What all requests share.
struct Shared {
    node: Node,
    sessions: fetch::Sessions,
    /// Memory for answers with records.
    answers: Budget,
}

impl Handlers {
    /// Handlers in front of a node, whose answers with records hold so many bytes together.
    #[must_use]
    pub fn new(node: Node, answer_bytes_max: usize) -> Self {
        let sessions = fetch::Sessions::new(node.fetch.sessions_max);
        let answers = Budget::new(answer_bytes_max);
        Self { shared: Arc::new(Shared { node, sessions, answers }) }
    }
}

impl Service for Handlers {
    /// Produce requests overlap: their batches are handed to the backend in order, and a client with five in flight
    /// shares fsyncs with itself.
    fn pace(&self, frame: &Bytes) -> Pace {
        let key = frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
        if key == Some(ApiKey::Produce.number()) { Pace::Pipelined } else { Pace::Alone }
    }

    fn call(&self, context: &Arc<Context>, frame: Bytes) -> BoxFuture<'static, Answer> {
        let began = Instant::now();
        let (header, request) = match decode_request(frame) {
            Ok(decoded) => decoded,
            Err(error) => return Box::pin(std::future::ready(self.on_undecodable(&error))),
        };
        let (shared, context) = (Arc::clone(&self.shared), Arc::clone(context));
        // Produce hands its batches over before the first wait, so that pipelined requests keep their order.
        if let Request::Produce(request) = request {
            let answering = produce::start(&shared.node, &context, header.version, request);
            return Box::pin(async move {
                let response = match answering.await {
                    produce::Answered::Told(mut response) => {
                        leaders::tell_in_produce(&shared.node, &context, header.version, &mut response);
                        Some(Response::Produce(response))
                    }
                    produce::Answered::Silent => None,
                    produce::Answered::Broken => {
                        shared.node.metrics.handles.on_request("Produce", began.elapsed());
                        return Answer::Close("refused batch with acks=0");
                    }
                };
                finish(&shared.node, &header, response, began)
            });
        }
        if let Request::Fetch(request) = request {
            return Box::pin(async move {
                let answered = fetch::answer(&shared, &context, header.version, request).await;
                finish_fetch(&shared.node, &context, &header, answered, began)
            });
        }
        Box::pin(async move {
            let response = dispatch(&shared, &context, &header, request).await;
            finish(&shared.node, &header, Some(response), began)
        })
    }
}

impl Handlers {
    fn on_undecodable(&self, error: &RequestError) -> Answer {
        let reason = match error {
            RequestError::UnsupportedVersion { correlation_id, is_api_versions: true, .. } => {
                return Answer::Respond(vec![encode_unsupported_api_versions(*correlation_id)]);
            }
            RequestError::UnsupportedVersion { .. } => "unsupported version",
            RequestError::UnknownApi { .. } => "unknown api key",
            RequestError::TooLarge { .. } => "request too large for its api",
            RequestError::TooShort { .. } | RequestError::Malformed { .. } => "malformed request",
        };
        tracing::debug!(%error, "request could not be understood");
        self.shared.node.metrics.handles.malformed.get_or_create(&[("reason", reason)]).inc();
        Answer::Close(reason)
    }
}

async fn dispatch(shared: &Shared, context: &Context, header: &Header, request: Request) -> Response {
    let (node, version) = (&shared.node, header.version);
    match request {
        Request::Produce(_) => unreachable!("Handlers::call took it"),
        Request::Fetch(_) => unreachable!("Handlers::call took it"),
        Request::ListOffsets(request) => {
            Response::ListOffsets(list_offsets::answer(node, context, version, request).await)
        }
        Request::Metadata(request) => {
            Response::Metadata(metadata::answer(node, context, version, request).await)
        }
        Request::ApiVersions(request) => Response::ApiVersions(api_versions::answer(version, &request)),
        Request::CreateTopics(request) => {
            Response::CreateTopics(create_topics::answer(node, context, version, request).await)
        }
        Request::DeleteTopics(request) => {
            Response::DeleteTopics(delete_topics::answer(node, context, version, request).await)
        }
        Request::DeleteRecords(request) => {
            Response::DeleteRecords(delete_records::answer(node, context, request).await)
        }
        Request::InitProducerId(request) => {
            Response::InitProducerId(init_producer_id::answer(node, context, &request).await)
        }
        Request::OffsetForLeaderEpoch(request) => {
            Response::OffsetForLeaderEpoch(offset_for_leader_epoch::answer(node, context, request))
        }
        Request::DescribeConfigs(request) => {
            Response::DescribeConfigs(describe_configs::answer(node, context, request))
        }
        Request::AlterConfigs(request) => {
            Response::AlterConfigs(alter_configs::replace(node, context, request).await)
        }
        Request::IncrementalAlterConfigs(request) => {
            Response::IncrementalAlterConfigs(alter_configs::change(node, context, request).await)
        }
        Request::CreatePartitions(request) => {
            Response::CreatePartitions(create_partitions::answer(node, context, request).await)
        }
        Request::ElectLeaders(request) => {
            Response::ElectLeaders(elect_leaders::answer(node, context, version, request).await)
        }
        Request::AlterPartitionReassignments(request) => {
            Response::AlterPartitionReassignments(reassignments::alter(node, context, version, request).await)
        }
        Request::ListPartitionReassignments(request) => {
            Response::ListPartitionReassignments(reassignments::list(node, context, &request))
        }
        Request::UnregisterBroker(request) => {
            Response::UnregisterBroker(unregister_broker::answer(node, context, request).await)
        }
        Request::DescribeLogDirs(request) => {
            Response::DescribeLogDirs(describe_log_dirs::answer(node, context, version, &request))
        }
        Request::DescribeQuorum(request) => {
            Response::DescribeQuorum(describe_quorum::answer(node, context, version, request).await)
        }
        Request::DescribeCluster(request) => {
            Response::DescribeCluster(describe_cluster::answer(node, context, version, &request))
        }
        request => dispatch_to_administration(node, context, header, request).await,
    }
}

/// What tools and consoles ask.
async fn dispatch_to_administration(
    node: &Node,
    context: &Context,
    header: &Header,
    request: Request,
) -> Response {
    match request {
        Request::DescribeAcls(_) => Response::DescribeAcls(acls::describe(context)),
        Request::CreateAcls(request) => Response::CreateAcls(acls::create(context, &request)),
        Request::DeleteAcls(request) => Response::DeleteAcls(acls::delete(context, &request)),
        Request::AlterReplicaLogDirs(request) => {
            Response::AlterReplicaLogDirs(alter_replica_log_dirs::answer(node, context, request))
        }
        Request::DescribeClientQuotas(_) => Response::DescribeClientQuotas(users::quotas(context)),
        Request::DescribeUserScramCredentials(request) => {
            Response::DescribeUserScramCredentials(users::credentials(context, request))
        }
        Request::DescribeProducers(request) => {
            Response::DescribeProducers(describe_producers::answer(node, context, request).await)
        }
        Request::DescribeTransactions(request) => {
            Response::DescribeTransactions(transactions::describe(context, request))
        }
        Request::ListTransactions(request) => Response::ListTransactions(transactions::list(request)),
        Request::ListConfigResources(request) => {
            let version = header.version;
            Response::ListConfigResources(list_config_resources::answer(node, context, version, &request))
        }
        request => dispatch_to_groups(node, context, header, request).await,
    }
}

async fn dispatch_to_groups(node: &Node, context: &Context, header: &Header, request: Request) -> Response {
    let version = header.version;
    match request {
        Request::FindCoordinator(request) => {
            Response::FindCoordinator(find_coordinator::answer(node, context, version, request).await)
        }
        Request::JoinGroup(request) => {
            Response::JoinGroup(join_group::answer(node, context, header, request).await)
        }
        Request::SyncGroup(request) => {
            Response::SyncGroup(sync_group::answer(node, context, version, request).await)
        }
        Request::Heartbeat(request) => Response::Heartbeat(heartbeat::answer(node, context, request).await),
        Request::LeaveGroup(request) => {
            Response::LeaveGroup(leave_group::answer(node, context, version, request).await)
        }
        Request::OffsetCommit(request) => {
            Response::OffsetCommit(offset_commit::answer(node, context, version, request).await)
        }
        Request::OffsetFetch(request) => {
            Response::OffsetFetch(offset_fetch::answer(node, context, version, request).await)
        }
        Request::OffsetDelete(request) => {
            Response::OffsetDelete(offset_delete::answer(node, context, request).await)
        }
        Request::ListGroups(request) => {
            Response::ListGroups(list_groups::answer(node, context, version, request).await)
        }
        Request::DescribeGroups(request) => {
            Response::DescribeGroups(describe_groups::answer(node, context, version, request).await)
        }
        Request::DeleteGroups(request) => {
            Response::DeleteGroups(delete_groups::answer(node, context, request).await)
        }
        request => unreachable!("{:?} is answered by dispatch", request.key()),
    }
}

fn finish(node: &Node, header: &Header, response: Option<Response>, began: Instant) -> Answer {
    let api = errors::api_name(header.key);
    node.metrics.handles.on_request(api, began.elapsed());
    let Some(response) = response else { return Answer::Nothing };
    errors::count(&response, |code| node.metrics.handles.on_error(api, code));
    match encode_response(header.key, header.version, header.correlation_id, &response) {
        Ok(frame) => Answer::Respond(vec![frame]),
        Err(error) => on_unwritable(&error),
    }
}

/// As [`finish`], with records that stay where they lie until they have left.
fn finish_fetch(
    node: &Node,
    context: &Context,
    header: &Header,
    answered: fetch::Answered,
    began: Instant,
) -> Answer {
    let api = errors::api_name(header.key);
    node.metrics.handles.on_request(api, began.elapsed());
    let fetch::Answered { mut response, records, share } = answered;
    leaders::tell_in_fetch(node, context, header.version, &mut response);
    errors::count_in_fetch(&response, |code| node.metrics.handles.on_error(api, code));
    match (encode_fetch_response(header.version, header.correlation_id, response, records), share) {
        (Ok(pieces), Some(share)) => Answer::Hold(pieces, share),
        (Ok(pieces), None) => Answer::Respond(pieces),
        (Err(error), _) => on_unwritable(&error),
    }
}

fn on_unwritable(error: &ResponseError) -> Answer {
    tracing::error!(%error, "response does not fit its version");
    Answer::Close("response could not be written")
}
