//! How a bucket is reached.

use std::time::Duration;

use varve_objects::{
    RetryOptions,
    s3::{Addressing, Credentials, Options},
};

/// What a request may take beyond its own time-out: then the client's error, which says more, is the one that is seen.
const ATTEMPT_SLACK: Duration = Duration::from_secs(20);

/// How the bucket is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// URL of the service; `None`: AWS.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// Bucket in the path instead of the host name.
    pub path_style: bool,
    /// The longest that one request may take.
    pub request_timeout: Duration,
    /// Who asks: a profile of the AWS command line, or the rest of the standard chain in `objects`.
    pub credentials: Credentials,
}

impl S3 {
    /// The options of a client of `bucket`.
    #[must_use]
    pub fn options(&self, bucket: &str) -> Options {
        Options {
            bucket: bucket.to_owned(),
            region: Some(self.region.clone()),
            endpoint: self.endpoint.clone(),
            addressing: if self.path_style { Addressing::Path } else { Addressing::VirtualHost },
            request_timeout: Some(self.request_timeout),
            credentials: self.credentials.clone(),
        }
    }

    /// How long to go on with one request.
    #[must_use]
    pub fn retries(&self) -> RetryOptions {
        RetryOptions { attempt_timeout: self.request_timeout + ATTEMPT_SLACK, ..RetryOptions::default() }
    }
}
