//! DescribeAcls, CreateAcls, DeleteAcls: nobody checks access rules yet, and every client is told so.

use varve_protocol::{
    ErrorCode,
    messages::{
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsResponse,
        create_acls_response::AclCreationResult, delete_acls_response::DeleteAclsFilterResult,
    },
};

/// As Kafka says it.
const WHY: &str = "No Authorizer is configured.";
const CODE: i16 = ErrorCode::SecurityDisabled.number();

pub fn describe() -> DescribeAclsResponse {
    let mut response = DescribeAclsResponse::default();
    (response.error_code, response.error_message) = (CODE, Some(WHY.into()));
    response
}

pub fn create(request: &CreateAclsRequest) -> CreateAclsResponse {
    let mut result = AclCreationResult::default();
    (result.error_code, result.error_message) = (CODE, Some(WHY.into()));
    let mut response = CreateAclsResponse::default();
    response.results = vec![result; request.creations.len()];
    response
}

pub fn delete(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let mut result = DeleteAclsFilterResult::default();
    (result.error_code, result.error_message) = (CODE, Some(WHY.into()));
    let mut response = DeleteAclsResponse::default();
    response.filter_results = vec![result; request.filters.len()];
    response
}
