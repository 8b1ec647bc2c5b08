//! A bucket and its settings, by Amazon's own SDK: a client that shares no line with room `objects`, so that what one
//! sets and the other reads shows a mistake of either.

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    error::{DisplayErrorContext, SdkError},
    operation::create_bucket::CreateBucketError,
    types::{
        AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketVersioningStatus,
        ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
        NoncurrentVersionExpiration, ServerSideEncryption, ServerSideEncryptionByDefault,
        ServerSideEncryptionConfiguration, ServerSideEncryptionRule, VersioningConfiguration,
    },
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

use crate::Server;

/// What the SDK said.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the bucket's settings: {0}")]
pub struct BucketError(String);

/// One bucket of a server.
pub struct Bucket {
    client: Client,
    name: String,
}

/// What happens to objects by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// Days after which objects go.
    pub expire_days: Option<i32>,
    /// Days after which old versions go.
    pub expire_old_versions_days: Option<i32>,
    /// Days after which the parts of an upload that was never finished go.
    pub abort_uploads_days: Option<i32>,
}

impl Bucket {
    pub(crate) fn of(server: &Server, name: &str) -> Self {
        let credentials =
            Credentials::new(&server.access_key, &server.secret_key, None, None, "varve-localstack");
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(server.region.clone()))
            .endpoint_url(format!("http://{}", server.address()))
            .credentials_provider(credentials)
            .force_path_style(true)
            .build();
        Self { client: Client::from_conf(config), name: name.to_owned() }
    }

    /// Makes it. Fine where it is ours already.
    pub async fn create(&self) -> Result<(), BucketError> {
        match self.client.create_bucket().bucket(&self.name).send().await {
            Ok(_) => Ok(()),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), CreateBucketError::BucketAlreadyOwnedByYou(_)) =>
            {
                Ok(())
            }
            Err(error) => Err(said(&error)),
        }
    }

    /// All keys, in their order.
    pub async fn keys(&self) -> Result<Vec<String>, BucketError> {
        let mut pages = self.client.list_objects_v2().bucket(&self.name).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| said(&error))?;
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        }
        Ok(keys)
    }

    /// A whole object.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, BucketError> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .send()
            .await
            .map_err(|error| said(&error))?;
        let body = answer.body.collect().await.map_err(|error| said(&error))?;
        Ok(body.to_vec())
    }

    /// Makes or replaces an object: what Varve itself never does.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), BucketError> {
        let request = self.client.put_object().bucket(&self.name).key(key).body(bytes.into());
        request.send().await.map(drop).map_err(|error| said(&error))
    }

    /// Removes an object.
    pub async fn delete(&self, key: &str) -> Result<(), BucketError> {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        request.send().await.map(drop).map_err(|error| said(&error))
    }

    /// Keeps old versions from now on, or keeps no further ones.
    pub async fn set_versioning(&self, status: BucketVersioningStatus) -> Result<(), BucketError> {
        let versioning = VersioningConfiguration::builder().status(status).build();
        let request =
            self.client.put_bucket_versioning().bucket(&self.name).versioning_configuration(versioning);
        request.send().await.map(drop).map_err(|error| said(&error))
    }

    /// Gives the bucket one rule, for the keys that begin with `prefix`.
    pub async fn set_lifecycle(&self, prefix: &str, lifecycle: Lifecycle) -> Result<(), BucketError> {
        let expire = |days| LifecycleExpiration::builder().days(days).build();
        let old_versions = |days| NoncurrentVersionExpiration::builder().noncurrent_days(days).build();
        let uploads = |days| AbortIncompleteMultipartUpload::builder().days_after_initiation(days).build();
        let rule = LifecycleRule::builder()
            .id("varve-localstack")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .set_expiration(lifecycle.expire_days.map(expire))
            .set_noncurrent_version_expiration(lifecycle.expire_old_versions_days.map(old_versions))
            .set_abort_incomplete_multipart_upload(lifecycle.abort_uploads_days.map(uploads));
        let rule = rule.build().map_err(|error| said(&error))?;
        let rules =
            BucketLifecycleConfiguration::builder().rules(rule).build().map_err(|error| said(&error))?;
        let request = self.client.put_bucket_lifecycle_configuration().bucket(&self.name);
        request.lifecycle_configuration(rules).send().await.map(drop).map_err(|error| said(&error))
    }

    /// Encrypts what is put from now on with the server's own keys (SSE-S3).
    pub async fn set_encryption(&self) -> Result<(), BucketError> {
        let default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256);
        let default = default.build().map_err(|error| said(&error))?;
        let rule =
            ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default).build();
        let encryption = ServerSideEncryptionConfiguration::builder().rules(rule).build();
        let encryption = encryption.map_err(|error| said(&error))?;
        let request = self.client.put_bucket_encryption().bucket(&self.name);
        let request = request.server_side_encryption_configuration(encryption);
        request.send().await.map(drop).map_err(|error| said(&error))
    }
}

fn said(error: &impl std::error::Error) -> BucketError {
    BucketError(DisplayErrorContext(error).to_string())
}
