//! What is done to servers and buckets rather than objects: for tests and for people who set a cluster up.

use http::{HeaderMap, Method, StatusCode};

use crate::{
    Failure,
    s3::{ConfigureError, Options, S3},
};

/// A client for the server of a bucket.
pub struct Admin(S3);

impl Admin {
    /// Makes the client; nothing is asked yet.
    pub fn new(options: Options) -> Result<Self, ConfigureError> {
        S3::new(options).map(Self)
    }

    /// Asks for the list of buckets: the server is ready once this succeeds.
    pub async fn check_ready(&self) -> Result<(), Failure> {
        let answer = self.0.signed().send_to_server(Method::GET).await?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.failure()) }
    }

    /// Makes the bucket of the options. Fine where it is ours already.
    pub async fn create_bucket(&self) -> Result<(), Failure> {
        let answer = self.0.signed().send_empty(Method::PUT, "", HeaderMap::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::CONFLICT if answer.code() == "BucketAlreadyOwnedByYou" => Ok(()),
            _ => Err(answer.failure()),
        }
    }
}
