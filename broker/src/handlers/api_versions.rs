//! ApiVersions: what this broker speaks.

use varve_protocol::{
    ErrorCode,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    response::advertised,
};

/// From here on a client says what it is, and must say it in these characters (KIP-511).
const NAMED_FROM: i16 = 3;

/// No feature is finalized: transactions of version 2 and the new group protocol are not there.
pub fn answer(version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let mut response = ApiVersionsResponse::default();
    let named =
        is_name(request.client_software_name.as_str()) && is_name(request.client_software_version.as_str());
    if version >= NAMED_FROM && !named {
        response.error_code = ErrorCode::InvalidRequest.number();
        return response;
    }
    response.api_keys = advertised();
    response
}

fn is_name(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inside = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte));
    inside && ends(bytes.first()) && ends(bytes.last())
}
