//! ListTransactions and DescribeTransactions: there are none. A list names those of its transactions that the client may see, so
//! nothing is to be asked for a list of none.

use varve_protocol::{
    ErrorCode,
    messages::{
        DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
        ListTransactionsResponse, describe_transactions_response::TransactionState,
    },
};

use super::access::{Operation, Resource, authorize};
use crate::net::Context;

/// What Kafka calls the states of a transaction.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "PrepareEpochFence",
    "Dead",
];

pub fn list(request: ListTransactionsRequest) -> ListTransactionsResponse {
    let mut response = ListTransactionsResponse::default();
    let unknown = request.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str()));
    response.unknown_state_filters = unknown.collect();
    response
}

pub fn describe(context: &Context, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let told = request.transactional_ids.into_iter().map(|id| {
        let allowed = authorize(context, Operation::Describe, Resource::TransactionalId(&id));
        let mut state = TransactionState::default();
        state.error_code = allowed.err().unwrap_or(ErrorCode::TransactionalIdNotFound).number();
        state.transactional_id = id;
        state
    });
    let mut response = DescribeTransactionsResponse::default();
    response.transaction_states = told.collect();
    response
}
