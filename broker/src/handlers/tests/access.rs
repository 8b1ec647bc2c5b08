//! Every API asks who it is that acts before it answers, also those that have nothing to tell yet.

use std::collections::BTreeMap;

use varve_protocol::ApiKey;

use super::*;
use crate::handlers::access::asked;

/// A client that notes for which APIs the authorizer was asked.
struct Watching {
    fixture: Fixture,
    asked: BTreeMap<i16, u64>,
}

impl surface::Peer for Watching {
    async fn ask(&mut self, version: i16, request: Request) -> Response {
        let (key, before) = (request.key().number(), asked::times());
        let response = self.fixture.ask(version, request).await;
        *self.asked.entry(key).or_default() += asked::times() - before;
        response
    }
}

#[tokio::test]
async fn every_api_asks_who_may() {
    let mut peer = Watching { fixture: fixture(), asked: BTreeMap::new() };
    surface::every_api_in_every_version(&mut peer).await;
    let unasked = TABLE.iter().map(|row| row.key).filter(|key| peer.asked[&key.number()] == 0);
    // Versions are for strangers, and of no transactions there is none that a client may not see.
    assert_eq!(unasked.collect::<Vec<_>>(), [ApiKey::ApiVersions, ApiKey::ListTransactions]);
}

/// A client whom the authorizer refuses everything.
fn nobody() -> Fixture {
    let mut fixture = fixture();
    let context = Context { principal: Principal::User(asked::NOBODY.into()), ..(*fixture.context).clone() };
    fixture.context = Arc::new(context);
    fixture
}

#[tokio::test]
async fn who_may_not_ask_for_access_rules_learns_nothing_of_them() {
    let (fixture, refused) = (nobody(), ErrorCode::ClusterAuthorizationFailed.number());
    let request = Request::DescribeAcls(DescribeAclsRequest::default());
    let Response::DescribeAcls(told) = fixture.ask(3, request).await else { panic!() };
    assert_eq!((told.error_code, told.resources.len()), (refused, 0));

    let mut request = CreateAclsRequest::default();
    request.creations = vec![create_acls_request::AclCreation::default(); 2];
    let Response::CreateAcls(told) = fixture.ask(3, Request::CreateAcls(request)).await else { panic!() };
    assert_eq!(told.results.iter().map(|one| one.error_code).collect::<Vec<_>>(), [refused; 2]);

    let mut request = DeleteAclsRequest::default();
    request.filters = vec![delete_acls_request::DeleteAclsFilter::default()];
    let Response::DeleteAcls(told) = fixture.ask(3, Request::DeleteAcls(request)).await else { panic!() };
    assert_eq!(told.filter_results.iter().map(|one| one.error_code).collect::<Vec<_>>(), [refused]);
}

#[tokio::test]
async fn who_may_not_see_a_transaction_is_not_told_whether_there_is_one() {
    let codes = async |fixture: Fixture| {
        let mut request = DescribeTransactionsRequest::default();
        request.transactional_ids = vec!["a".into(), "b".into()];
        let request = Request::DescribeTransactions(request);
        let Response::DescribeTransactions(told) = fixture.ask(0, request).await else { panic!() };
        told.transaction_states.iter().map(|one| one.error_code).collect::<Vec<_>>()
    };
    assert_eq!(codes(nobody()).await, [ErrorCode::TransactionalIdAuthorizationFailed.number(); 2]);
    assert_eq!(codes(fixture()).await, [ErrorCode::TransactionalIdNotFound.number(); 2]);
}
