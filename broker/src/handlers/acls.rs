//! DescribeAcls, CreateAcls, DeleteAcls: there are no access rules yet, and every client that may ask for them is told so.

use varve_protocol::{
    ErrorCode,
    messages::{
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsResponse,
        StrBytes, create_acls_response::AclCreationResult, delete_acls_response::DeleteAclsFilterResult,
    },
};

use super::access::{Operation, Resource, authorize};
use crate::net::Context;

pub fn describe(context: &Context) -> DescribeAclsResponse {
    let mut response = DescribeAclsResponse::default();
    (response.error_code, response.error_message) = refusal(context, Operation::Describe);
    response
}

pub fn create(context: &Context, request: &CreateAclsRequest) -> CreateAclsResponse {
    let mut result = AclCreationResult::default();
    (result.error_code, result.error_message) = refusal(context, Operation::Alter);
    let mut response = CreateAclsResponse::default();
    response.results = vec![result; request.creations.len()];
    response
}

pub fn delete(context: &Context, request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let mut result = DeleteAclsFilterResult::default();
    (result.error_code, result.error_message) = refusal(context, Operation::Alter);
    let mut response = DeleteAclsResponse::default();
    response.filter_results = vec![result; request.filters.len()];
    response
}

/// Who may not ask learns no more than that; everybody else learns what Kafka says where nothing checks rules, in its words.
fn refusal(context: &Context, operation: Operation) -> (i16, Option<StrBytes>) {
    match authorize(context, operation, Resource::Cluster) {
        Ok(()) => (ErrorCode::SecurityDisabled.number(), Some("No Authorizer is configured.".into())),
        Err(code) => (code.number(), Some(code.name().into())),
    }
}
