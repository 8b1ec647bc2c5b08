//! DescribeClientQuotas and DescribeUserScramCredentials: there are no quotas and no users yet, and consoles ask for both.

use std::collections::BTreeMap;

use varve_protocol::{
    ErrorCode,
    messages::{
        DescribeClientQuotasResponse, DescribeUserScramCredentialsRequest,
        DescribeUserScramCredentialsResponse,
        describe_user_scram_credentials_response::DescribeUserScramCredentialsResult,
    },
};

use super::access::{Operation, Resource, authorize};
use crate::net::Context;

pub fn quotas(context: &Context) -> DescribeClientQuotasResponse {
    let mut response = DescribeClientQuotasResponse::default();
    response.entries = Some(Vec::new());
    if let Err(code) = authorize(context, Operation::DescribeConfigs, Resource::Cluster) {
        (response.error_code, response.entries) = (code.number(), None);
    }
    response
}

pub fn credentials(
    context: &Context,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut response = DescribeUserScramCredentialsResponse::default();
    if let Err(code) = authorize(context, Operation::Describe, Resource::Cluster) {
        response.error_code = code.number();
        return response;
    }
    let mut times: BTreeMap<_, u32> = BTreeMap::new();
    request.users.into_iter().flatten().for_each(|user| *times.entry(user.name).or_default() += 1);
    let told = times.into_iter().map(|(name, times)| {
        let (code, why) = match times {
            1 => (ErrorCode::ResourceNotFound, "Attempt to describe a user credential that does not exist"),
            _ => (
                ErrorCode::DuplicateResource,
                "Cannot describe SCRAM credentials for the same user twice in a single request",
            ),
        };
        let mut result = DescribeUserScramCredentialsResult::default();
        (result.error_code, result.error_message) = (code.number(), Some(why.into()));
        result.user = name;
        result
    });
    response.results = told.collect();
    response
}
