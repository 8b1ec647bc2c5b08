//! Signed requests for one bucket.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use object_store::{
    ClientOptions, PutPayload,
    aws::{AwsAuthorizer, AwsCredentialProvider},
    client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector},
};
use varve_common::Digest;

use super::{Answer, ConfigureError};
use crate::{Body, Failure};

/// The client for single requests. Reads and writes have connections of their own: neither waits for the other's,
/// and only reads may be bounded by the pause between two pieces (a write is silent until its last byte is taken).
pub(crate) struct Signed {
    endpoint: String,
    bucket_url: String,
    region: String,
    credentials: AwsCredentialProvider,
    writes: HttpClient,
    reads: HttpClient,
}

impl Signed {
    pub fn new(
        endpoint: String,
        bucket_url: String,
        region: String,
        credentials: AwsCredentialProvider,
        (writes, reads): (&ClientOptions, &ClientOptions),
    ) -> Result<Self, ConfigureError> {
        let connect = |options: &ClientOptions| {
            ReqwestConnector::default().connect(options).map_err(|error| ConfigureError(error.to_string()))
        };
        Ok(Self {
            endpoint,
            bucket_url,
            region,
            credentials,
            writes: connect(writes)?,
            reads: connect(reads)?,
        })
    }

    /// Sends a request without a body for `key`, or for the bucket itself where that is empty.
    pub async fn send_empty(&self, method: Method, key: &str, headers: HeaderMap) -> Result<Answer, Failure> {
        let body = Body::default();
        let digest = body.digest();
        self.send(method, key, headers, body, digest).await
    }

    /// Sends a request whose body has the SHA-256 `sha256`: the store is told so by the signature and, for a put, by
    /// the checksum of the object.
    pub async fn send(
        &self,
        method: Method,
        key: &str,
        mut headers: HeaderMap,
        body: Body,
        sha256: Digest,
    ) -> Result<Answer, Failure> {
        if method == Method::PUT && !key.is_empty() {
            let value = HeaderValue::from_str(&base64(&sha256.0)).expect("base64 is a header value");
            headers.insert("x-amz-checksum-sha256", value);
        }
        // A bucket by itself needs its slash where the host is all of the URL.
        let url = format!("{}/{}", self.bucket_url, encode_path(key));
        let url = if key.is_empty() { url.trim_end_matches('/').to_owned() } else { url };
        self.execute(method, &url, headers, body, sha256).await
    }

    /// Asks for one of the bucket's settings: `name` is a query without a value.
    pub async fn get_setting(&self, name: &str) -> Result<Answer, Failure> {
        let body = Body::default();
        let digest = body.digest();
        let url = format!("{}/?{name}", self.bucket_url);
        self.execute(Method::GET, &url, HeaderMap::new(), body, digest).await
    }

    /// Sends a request for the server rather than the bucket.
    pub async fn send_to_server(&self, method: Method) -> Result<Answer, Failure> {
        let body = Body::default();
        let digest = body.digest();
        self.execute(method, &format!("{}/", self.endpoint), HeaderMap::new(), body, digest).await
    }

    async fn execute(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Body,
        sha256: Digest,
    ) -> Result<Answer, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Invalid(format!("{url:?} is not a URL")))?;
        let client = if method == Method::PUT { &self.writes } else { &self.reads };
        let length = body.bytes();
        let content = if length == 0 {
            HttpRequestBody::empty()
        } else {
            HttpRequestBody::from(body.pieces().iter().cloned().collect::<PutPayload>())
        };
        let mut request: HttpRequest = Request::new(content);
        let has_body = method == Method::PUT;
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if has_body {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        // The chain asks over the network for some credentials: what it says is about them, not about the object.
        let credential = self
            .credentials
            .get_credential()
            .await
            .map_err(|error| Failure::Denied(format!("no credentials: {error}")))?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, Some(&sha256.0))
            .map_err(|error| Failure::Denied(format!("the request cannot be signed: {error}")))?;
        let response = client.execute(request).await.map_err(|error| Failure::Retry(describe(&error)))?;
        Answer::read(response).await
    }
}

/// An error with what caused it: the client's own message says only that there was one.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Percent-encodes all but slashes and what RFC 3986 calls unreserved, as the signature wants it.
fn encode_path(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=three.len()].copy_from_slice(three);
        let word = u32::from_be_bytes(word);
        for place in 0..4 {
            let digit = word >> (18 - 6 * place) & 63;
            text.push(if place > three.len() { '=' } else { char::from(ALPHABET[digit as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_rfc_4648() {
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in pairs {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn t42_every_special_character_is_encoded() {
        assert_eq!(encode_path("a-b/c=1+2%3 é"), "a-b/c%3D1%2B2%253%20%C3%A9");
    }
}
