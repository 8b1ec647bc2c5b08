//! UnregisterBroker: a node leaves the cluster for good. It must hold no partition any more.

use varve_common::NodeId;
use varve_protocol::{
    ErrorCode,
    messages::{StrBytes, UnregisterBrokerRequest, UnregisterBrokerResponse},
};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
};
use crate::{net::Context, node::Node};

pub async fn answer(
    node: &Node,
    context: &Context,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let mut response = UnregisterBrokerResponse::default();
    if let Err((code, why)) = remove(node, context, request.broker_id).await {
        (response.error_code, response.error_message) = (code.number(), Some(StrBytes::from(why)));
    }
    response
}

async fn remove(node: &Node, context: &Context, broker: i32) -> Result<(), (ErrorCode, String)> {
    authorize(context, Operation::Alter, Resource::Cluster).map_err(|code| (code, String::new()))?;
    let known = u32::try_from(broker).ok().and_then(NodeId::new);
    let known = known.filter(|known| node.backend.image().brokers.contains_key(known));
    let known = known.ok_or_else(|| {
        (ErrorCode::BrokerIdNotRegistered, format!("Broker ID {broker} is not currently registered"))
    })?;
    tracing::info!(node = %known, "leaves the cluster");
    let done = node.backend.remove_broker(known).await;
    done.map_err(|refusal| (refusal.code(), refusal.to_string()))
}
