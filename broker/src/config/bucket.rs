//! How a bucket is reached.

use std::time::Duration;

use varve_objects::{
    BudgetOptions, RetryOptions,
    s3::{Addressing, Credentials, Options},
};

use super::{ConfigError, ObjectStore, Reader, value};

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

impl Reader<'_> {
    pub(super) fn s3(&self) -> Result<S3, ConfigError> {
        let endpoint = Some(self.text("s3.endpoint")).filter(|text| !text.is_empty());
        if endpoint.is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return Err(self.invalid("s3.endpoint", "expected http://… or https://…".into()));
        }
        // No certificate covers a bucket with dots in front of Amazon's host.
        let has_dots = matches!(self.object_store()?, ObjectStore::S3 { bucket, .. } if bucket.contains('.'));
        let path_style = value::switch(self.text("s3.path.style"));
        let path_style = path_style.unwrap_or(endpoint.is_some() || has_dots);
        let region = Some(self.text("s3.region")).filter(|text| !text.is_empty()).unwrap_or("us-east-1");
        let request_timeout = self.span("s3.request.timeout.ms");
        Ok(S3 {
            endpoint: endpoint.map(str::to_owned),
            region: region.to_owned(),
            path_style,
            request_timeout,
            credentials: Credentials::Chain,
        })
    }

    pub(super) fn store_budget(&self) -> BudgetOptions {
        BudgetOptions {
            requests_per_second: self.number("varve.store.requests.per.second"),
            bytes_per_second: Some(self.bytes("varve.store.bytes.per.second")).filter(|bytes| *bytes > 0),
        }
    }
}
