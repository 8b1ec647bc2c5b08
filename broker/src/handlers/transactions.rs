//! ListTransactions and DescribeTransactions: there are none.

use varve_protocol::{
    ErrorCode,
    messages::{
        DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
        ListTransactionsResponse, describe_transactions_response::TransactionState,
    },
};

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

pub fn describe(request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let told = request.transactional_ids.into_iter().map(|id| {
        let mut state = TransactionState::default();
        (state.transactional_id, state.error_code) = (id, ErrorCode::TransactionalIdNotFound.number());
        state
    });
    let mut response = DescribeTransactionsResponse::default();
    response.transaction_states = told.collect();
    response
}
