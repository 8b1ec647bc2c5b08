//! InitProducerId: an identity for idempotent producers.

use varve_protocol::{
    ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};

use super::{
    access::{Operation, Resource, authorize},
    errors::Coded as _,
};
use crate::{net::Context, node::Node};

/// Stands for no producer id and for no epoch.
const NONE: i64 = -1;

pub async fn answer(
    node: &Node,
    context: &Context,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let mut response = InitProducerIdResponse::default();
    match identity(node, context, request).await {
        Ok((id, epoch)) => (response.producer_id, response.producer_epoch) = (id, epoch),
        Err(code) => {
            response.error_code = code.number();
            (response.producer_id, response.producer_epoch) = (-1, -1);
        }
    }
    response
}

/// A producer that lost track of its epoch (KIP-360) gets a new id: without a transactional id nobody else can hold
/// the old one, and its epochs start anew.
async fn identity(
    node: &Node,
    context: &Context,
    request: &InitProducerIdRequest,
) -> Result<(i64, i16), ErrorCode> {
    authorize(context, Operation::IdempotentWrite, Resource::Cluster)?;
    match request.transactional_id.as_ref().map(|id| id.as_str()) {
        None => {}
        Some("") => return Err(ErrorCode::InvalidRequest),
        // Transactions are not there yet: no id is anybody's to write with.
        Some(_) => return Err(ErrorCode::TransactionalIdAuthorizationFailed),
    }
    // Both or none: as Kafka.
    if (request.producer_id == NONE) != (i64::from(request.producer_epoch) == NONE) {
        return Err(ErrorCode::InvalidRequest);
    }
    let id = node.backend.allocate_producer_id().await.map_err(|refusal| match refusal.code() {
        ErrorCode::NotController => ErrorCode::CoordinatorNotAvailable,
        code => code,
    })?;
    Ok((id, 0))
}
