//! A bucket of S3 or of a server that speaks its protocol.
//!
//! Listings and the chain of credentials are those of crate `object_store`; single objects are asked for with its
//! HTTP client and signature, but with requests of our own, for three reasons: the SHA-256 that the caller computed
//! while it built the object is what the store checks (end to end, and hashed once); the answers are told apart by
//! their status (a 409 is "again", a 412 is "taken", a missing bucket is not a missing object); and nothing is
//! repeated in secret, so that [`crate::Retrying`] alone decides.

mod address;
mod answer;
pub mod profile;
mod signed;

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Once},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
};
use thiserror::Error;
use varve_common::{Digest, ObjectKey, clock::BoxFuture};

use self::address::{Loopback, bucket_url};
pub(crate) use self::{answer::Answer, signed::Signed};
use crate::{
    Body, Failure, GetError, HeadError, Listed, Page, PutError, Store, Suffix, key,
    limits::{CONNECT_TIMEOUT, LIST_PAGE_MAX, READ_STALL_TIMEOUT, REQUEST_TIMEOUT},
};

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// The standard chain without files: environment, web identity, container, instance.
    #[default]
    Chain,
    /// A key pair.
    Static {
        /// The access key.
        access_key: String,
        /// The secret key.
        secret_key: String,
        /// What comes with keys that expire.
        session_token: Option<String>,
    },
    /// A role, taken with a token that somebody keeps fresh in a file.
    WebIdentity {
        /// The role.
        role_arn: String,
        /// The file.
        token_file: String,
        /// What the session is called.
        session: Option<String>,
    },
}

impl fmt::Debug for Credentials {
    /// Never shows a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain => f.write_str("Chain"),
            Self::Static { access_key, .. } => write!(f, "Static({access_key})"),
            Self::WebIdentity { role_arn, .. } => write!(f, "WebIdentity({role_arn})"),
        }
    }
}

impl Credentials {
    /// A client that asks so.
    fn builder(self) -> AmazonS3Builder {
        use AmazonS3ConfigKey as Key;
        match self {
            Self::Chain => AmazonS3Builder::from_env(),
            Self::Static { access_key, secret_key, session_token } => {
                let builder =
                    AmazonS3Builder::new().with_access_key_id(access_key).with_secret_access_key(secret_key);
                match session_token {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
            Self::WebIdentity { role_arn, token_file, session } => {
                let builder = AmazonS3Builder::new()
                    .with_config(Key::RoleArn, role_arn)
                    .with_config(Key::WebIdentityTokenFile, token_file);
                match session {
                    Some(session) => builder.with_config(Key::RoleSessionName, session),
                    None => builder,
                }
            }
        }
    }
}

/// Where the bucket stands in a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// `https://host/bucket/key`: what servers that are not Amazon's understand without a domain of their own.
    #[default]
    Path,
    /// `https://bucket.host/key`: what Amazon asks for. The endpoint is still the server's, without the bucket.
    VirtualHost,
}

/// Where the bucket is.
#[derive(Clone, Default)]
pub struct Options {
    /// The bucket. It must exist.
    pub bucket: String,
    /// The region to sign for; that of the environment, else `us-east-1`, where absent.
    pub region: Option<String>,
    /// `http(s)://host[:port]` of the server; Amazon's for the region where absent.
    pub endpoint: Option<String>,
    /// Where the bucket stands in a URL.
    pub addressing: Addressing,
    /// The longest that one request may take with its body; [`REQUEST_TIMEOUT`] where absent.
    pub request_timeout: Option<Duration>,
    /// Who asks.
    pub credentials: Credentials,
}

/// Why there is no client.
#[derive(Debug, Error)]
#[error("the options do not make an S3 client: {0}")]
pub struct ConfigureError(pub(crate) String);

/// The store over one bucket.
pub struct S3 {
    lister: AmazonS3,
    signed: Signed,
}

/// Makes aws-lc the process's TLS provider, once. Without it the first client panics.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that the program has chosen a provider already: then that one serves.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

impl S3 {
    /// Makes the client; nothing is asked yet.
    pub fn new(options: Options) -> Result<Self, ConfigureError> {
        install_crypto();
        let mut builder = options.credentials.builder();
        let configured = |builder: &AmazonS3Builder, key| builder.get_config_value(&key);
        let region = options
            .region
            .or_else(|| configured(&builder, AmazonS3ConfigKey::Region))
            .unwrap_or_else(|| "us-east-1".into());
        let endpoint = options
            .endpoint
            .or_else(|| configured(&builder, AmazonS3ConfigKey::Endpoint))
            .unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let bucket_url = bucket_url(&endpoint, &options.bucket, options.addressing)?;
        let timeout = options.request_timeout.unwrap_or(REQUEST_TIMEOUT);
        let mut client = ClientOptions::new()
            .with_allow_http(endpoint.starts_with("http://"))
            .with_connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .with_timeout(timeout);
        if Loopback::is_meant_by(&bucket_url) {
            client = client.with_dns_resolver(Arc::new(Loopback));
        }
        let reads = client.clone().with_read_timeout(READ_STALL_TIMEOUT.min(timeout));
        builder = builder
            .with_bucket_name(&options.bucket)
            .with_region(&region)
            .with_endpoint(if options.addressing == Addressing::Path { &endpoint } else { &bucket_url })
            .with_virtual_hosted_style_request(options.addressing == Addressing::VirtualHost)
            .with_client_options(reads.clone())
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        let lister = builder.build().map_err(|error| ConfigureError(error.to_string()))?;
        let credentials = Arc::clone(lister.credentials());
        let signed = Signed::new(endpoint, bucket_url, region, credentials, (&client, &reads))?;
        Ok(Self { lister, signed })
    }

    pub(crate) const fn signed(&self) -> &Signed {
        &self.signed
    }

    async fn put(&self, key: &ObjectKey, body: Body, sha256: Digest) -> Result<(), PutError> {
        key::check(key)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let answer = self.signed.send(Method::PUT, key.as_str(), headers, body, sha256).await?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            StatusCode::PRECONDITION_FAILED => Err(PutError::AlreadyExists),
            _ => Err(answer.failure().into()),
        }
    }

    /// Reads what `range` names. Answers with the bytes, where they begin, and the object's length.
    async fn read(&self, key: &ObjectKey, range: Option<String>) -> Result<Part, ReadError> {
        key::check(key)?;
        let mut headers = HeaderMap::new();
        if let Some(range) = &range {
            let value = HeaderValue::from_str(range).expect("digits and a dash are a header value");
            headers.insert(header::RANGE, value);
        }
        let answer = self.signed.send_empty(Method::GET, key.as_str(), headers).await?;
        match answer.status {
            StatusCode::OK if range.is_none() => Ok(Part::whole(answer.body)),
            // Some servers have no 416 for an empty object: they send all of it, which is nothing.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT if answer.body.is_empty() => {
                Err(ReadError::OutOfRange)
            }
            StatusCode::PARTIAL_CONTENT if range.is_some() => Ok(answer.part()?),
            StatusCode::OK => Err(Failure::Invalid("the store ignores the Range header".into()).into()),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(ReadError::OutOfRange),
            StatusCode::NOT_FOUND if answer.is_missing_object() => Err(ReadError::NotFound),
            _ => Err(answer.failure().into()),
        }
    }

    async fn read_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, GetError> {
        if range.is_empty() {
            return Err(GetError::OutOfRange(range));
        }
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let part = match self.read(key, Some(asked)).await {
            Ok(part) => part,
            Err(ReadError::OutOfRange) => return Err(self.why_out_of_range(key, range).await),
            Err(ReadError::NotFound) => return Err(GetError::NotFound),
            Err(ReadError::Failed(failure)) => return Err(failure.into()),
        };
        // A range across the end is cut short by the protocol.
        if part.object_bytes < range.end {
            return Err(GetError::OutOfRange(range));
        }
        if part.start != range.start || part.bytes.len() as u64 != range.end - range.start {
            return Err(Failure::Retry("the store sent another range than asked for".into()).into());
        }
        Ok(part.bytes)
    }

    /// An answer without bytes is checked against the length: a body may have been lost on its way.
    async fn why_out_of_range(&self, key: &ObjectKey, range: Range<u64>) -> GetError {
        match self.length(key).await {
            Ok(length) if length < range.end => GetError::OutOfRange(range),
            Ok(_) => Failure::Retry("the store sent nothing of a range that is there".into()).into(),
            Err(HeadError::NotFound) => GetError::NotFound,
            Err(HeadError::Failed(failure)) => failure.into(),
        }
    }

    async fn read_suffix(&self, key: &ObjectKey, bytes: u64) -> Result<Suffix, GetError> {
        if bytes == 0 {
            return Err(GetError::OutOfRange(0..0));
        }
        match self.read(key, Some(format!("bytes=-{bytes}"))).await {
            Ok(part) if part.bytes.len() as u64 == bytes.min(part.object_bytes) => {
                Ok(Suffix { bytes: part.bytes, object_bytes: part.object_bytes })
            }
            Ok(_) => Err(Failure::Retry("the store sent another range than asked for".into()).into()),
            // The one object without a last byte is the empty one.
            Err(ReadError::OutOfRange) => match self.length(key).await {
                Ok(0) => Ok(Suffix { bytes: Bytes::new(), object_bytes: 0 }),
                Ok(_) => Err(Failure::Invalid("the store refuses suffix ranges".into()).into()),
                Err(HeadError::NotFound) => Err(GetError::NotFound),
                Err(HeadError::Failed(failure)) => Err(failure.into()),
            },
            Err(ReadError::NotFound) => Err(GetError::NotFound),
            Err(ReadError::Failed(failure)) => Err(failure.into()),
        }
    }

    async fn length(&self, key: &ObjectKey) -> Result<u64, HeadError> {
        key::check(key)?;
        let answer = self.signed.send_empty(Method::HEAD, key.as_str(), HeaderMap::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.content_length()?),
            StatusCode::NOT_FOUND => Err(HeadError::NotFound),
            _ => Err(answer.failure().into()),
        }
    }

    async fn page(&self, folder: &str, start_after: Option<&ObjectKey>) -> Result<Page, Failure> {
        key::check_folder(folder)?;
        let parse = |text: &str| Path::parse(text).map_err(|error| Failure::Invalid(error.to_string()));
        let prefix = if folder.is_empty() { None } else { Some(parse(folder)?) };
        let mut found = match start_after {
            None => self.lister.list(prefix.as_ref()),
            Some(key) => self.lister.list_with_offset(prefix.as_ref(), &parse(key.as_str())?),
        };
        let mut page = Page::default();
        while let Some(meta) = found.try_next().await.map_err(answer::list_failure)? {
            if page.objects.len() == LIST_PAGE_MAX {
                page.more = true;
                break;
            }
            let key = ObjectKey::new(meta.location.to_string());
            if page.objects.last().map(|last| &last.key).max(start_after).is_some_and(|last| *last >= key) {
                return Err(Failure::Invalid("the store does not list keys in order".into()));
            }
            page.objects.push(Listed { key, bytes: meta.size });
        }
        Ok(page)
    }

    async fn remove(&self, key: &ObjectKey) -> Result<(), Failure> {
        key::check(key)?;
        let answer = self.signed.send_empty(Method::DELETE, key.as_str(), HeaderMap::new()).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => Ok(()),
            StatusCode::NOT_FOUND if answer.is_missing_object() => Ok(()),
            _ => Err(answer.failure()),
        }
    }
}

/// What a GET brought.
pub(crate) struct Part {
    pub start: u64,
    pub object_bytes: u64,
    pub bytes: Bytes,
}

impl Part {
    const fn whole(bytes: Bytes) -> Self {
        Self { start: 0, object_bytes: bytes.len() as u64, bytes }
    }
}

#[derive(Debug, Error)]
enum ReadError {
    #[error("no such object")]
    NotFound,
    #[error("no such range")]
    OutOfRange,
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Store for S3 {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        Box::pin(self.put(key, body, sha256))
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(async move {
            match self.read(key, None).await {
                Ok(part) => Ok(part.bytes),
                Err(ReadError::NotFound) => Err(GetError::NotFound),
                Err(ReadError::OutOfRange) => {
                    Err(Failure::Invalid("the store refused a range that was not asked for".into()).into())
                }
                Err(ReadError::Failed(failure)) => Err(failure.into()),
            }
        })
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(self.read_range(key, range))
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        Box::pin(self.read_suffix(key, bytes))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        Box::pin(self.length(key))
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        Box::pin(self.page(folder, start_after))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.remove(key))
    }
}
