//! A frame's header and body as values.

use bytes::Bytes;
use kafka_wire::{KafkaMessage as _, RequestHeader};
use kafka_wire_core::{ApiVersion, DecodeError, DecodeLimits, Decoder, KafkaDecode};
use thiserror::Error;

use crate::limits;
use crate::messages::{self, StrBytes};
use crate::versions::{Api, ApiKey};

/// Who asks, what, and how the answer finds its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The API.
    pub key: ApiKey,
    /// The version of request and response.
    pub version: i16,
    /// Given back with the response.
    pub correlation_id: i32,
    /// What the client calls itself; null from some (librdkafka 2.11 with Metadata 12).
    pub client_id: Option<StrBytes>,
}

/// A frame that is not a request for us. All but [`RequestError::UnsupportedVersion`] of ApiVersions, which has an
/// answer ([`crate::encode_unsupported_api_versions`]), close the connection, as in Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The frame has no room for key, version and correlation id.
    #[error("frame of {bytes} bytes is shorter than a header")]
    TooShort {
        /// Its size.
        bytes: usize,
    },
    /// No row of the table has this key.
    #[error("unknown api key {key} version {version}")]
    UnknownApi {
        /// As sent.
        key: i16,
        /// As sent.
        version: i16,
        /// As sent.
        correlation_id: i32,
    },
    /// The key is known, the version is outside its range.
    #[error("{key:?} version {version} is not supported")]
    UnsupportedVersion {
        /// As sent.
        key: ApiKey,
        /// As sent.
        version: i16,
        /// As sent.
        correlation_id: i32,
        /// Whether version 0 with error 35 answers it.
        is_api_versions: bool,
    },
    /// The frame is larger than requests of this key may be.
    #[error("{key:?} of {bytes} bytes exceeds {limit}")]
    TooLarge {
        /// As sent.
        key: ApiKey,
        /// As sent.
        correlation_id: i32,
        /// Of the frame.
        bytes: usize,
        /// Of the key.
        limit: usize,
    },
    /// Header or body do not parse, or leave bytes over.
    #[error("malformed {key:?} version {version}: {cause}")]
    Malformed {
        /// As sent.
        key: ApiKey,
        /// As sent.
        version: i16,
        /// As sent.
        correlation_id: i32,
        /// Where and why.
        cause: DecodeError,
    },
}

/// Reads one frame (without its length prefix). Strings and record bytes are slices of it, not copies.
///
/// # Errors
/// See [`RequestError`].
pub fn decode_request(frame: Bytes) -> Result<(Header, Request), RequestError> {
    let Prelude { number, version, correlation_id } = Prelude::read(&frame)?;
    let Some(api) = ApiKey::find(number) else {
        return Err(RequestError::UnknownApi { key: number, version, correlation_id });
    };
    let key = api.key;
    if !api.supports(version) {
        let is_api_versions = key == ApiKey::ApiVersions;
        return Err(RequestError::UnsupportedVersion { key, version, correlation_id, is_api_versions });
    }
    if frame.len() > api.frame_bytes_max {
        let (bytes, limit) = (frame.len(), api.frame_bytes_max);
        return Err(RequestError::TooLarge { key, correlation_id, bytes, limit });
    }
    decode_checked(frame, api, version).map_err(|cause| RequestError::Malformed {
        key,
        version,
        correlation_id,
        cause,
    })
}

/// The part of the header that has the same place in all its versions.
struct Prelude {
    number: i16,
    version: i16,
    correlation_id: i32,
}

impl Prelude {
    fn read(frame: &[u8]) -> Result<Self, RequestError> {
        let Some([k0, k1, v0, v1, c0, c1, c2, c3]) = frame.first_chunk::<8>().copied() else {
            return Err(RequestError::TooShort { bytes: frame.len() });
        };
        Ok(Self {
            number: i16::from_be_bytes([k0, k1]),
            version: i16::from_be_bytes([v0, v1]),
            correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
        })
    }
}

fn decode_checked(frame: Bytes, api: &Api, version: i16) -> Result<(Header, Request), DecodeError> {
    let mut decoder = Decoder::new(frame, decode_limits(api))?;
    let header_version = ApiVersion::new(api.request_header_version(version));
    let header = RequestHeader::decode(&mut decoder, header_version)?;
    let request = Request::decode(api.key, version, &mut decoder)?;
    // librdkafka asks for all topics with four bytes for the length of no array where flexible versions have one (its issue
    // 5049, up to 2.16 at least), and Kafka never looks at what is left. Whoever asks so means what the first byte says.
    let is_all_topics = matches!(&request, Request::Metadata(metadata) if metadata.topics.is_none());
    if !is_all_topics || version < api.flexible_first {
        decoder.finish()?;
    }
    let header =
        Header { key: api.key, version, correlation_id: header.correlation_id, client_id: header.client_id };
    Ok((header, request))
}

fn decode_limits(api: &Api) -> DecodeLimits {
    let mut decode = DecodeLimits::default();
    decode.max_frame_bytes = api.frame_bytes_max;
    decode.max_bytes_bytes = api.frame_bytes_max;
    decode.max_array_elements = api.array_elements_max;
    decode.max_string_bytes = limits::STRING_BYTES_MAX;
    decode.max_tagged_fields = limits::TAGGED_FIELDS_MAX;
    decode.max_tag_bytes = limits::TAG_BYTES_MAX;
    decode.max_total_tag_bytes = limits::TAG_BYTES_MAX;
    decode
}

macro_rules! requests {
    ($($name:ident($body:ident)),+ $(,)?) => {
        /// One request, by key.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the variants are the keys, documented at ApiKey")]
        pub enum Request {
            $($name(messages::$body)),+
        }

        impl Request {
            /// The API that this asks.
            #[must_use]
            pub const fn key(&self) -> ApiKey {
                match self { $(Self::$name(_) => ApiKey::$name),+ }
            }

            fn decode(key: ApiKey, version: i16, decoder: &mut Decoder) -> Result<Self, DecodeError> {
                let version = ApiVersion::new(version);
                match key {
                    $(ApiKey::$name => messages::$body::decode(decoder, version).map(Self::$name)),+
                }
            }

            /// The frame (with length prefix) that a client sends: for our own clients, tests and the bench.
            ///
            /// # Errors
            /// A field has no place in this version.
            pub fn encode(&self, version: i16, correlation_id: i32, client_id: Option<&str>)
                -> Result<Bytes, kafka_wire_core::EncodeError> {
                let limits = kafka_wire::OutboundFrameLimits::new(i32::MAX as usize);
                let mut frame = bytes::BytesMut::new();
                let client_id = client_id.map(StrBytes::from);
                let version = ApiVersion::new(version);
                match self {
                    $(Self::$name(body) => {
                        debug_assert!(messages::$body::supports(version));
                        kafka_wire::encode_request(&mut frame, correlation_id, client_id, body, version, limits)?
                    }),+
                };
                Ok(frame.freeze())
            }
        }
    };
}

requests! {
    Produce(ProduceRequest),
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    Metadata(MetadataRequest),
    ApiVersions(ApiVersionsRequest),
    CreateTopics(CreateTopicsRequest),
    DeleteTopics(DeleteTopicsRequest),
    DeleteRecords(DeleteRecordsRequest),
    InitProducerId(InitProducerIdRequest),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    DescribeConfigs(DescribeConfigsRequest),
    AlterConfigs(AlterConfigsRequest),
    DescribeLogDirs(DescribeLogDirsRequest),
    CreatePartitions(CreatePartitionsRequest),
    ElectLeaders(ElectLeadersRequest),
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest),
    ListPartitionReassignments(ListPartitionReassignmentsRequest),
    DescribeQuorum(DescribeQuorumRequest),
    DescribeCluster(DescribeClusterRequest),
    UnregisterBroker(UnregisterBrokerRequest),
    OffsetCommit(OffsetCommitRequest),
    OffsetFetch(OffsetFetchRequest),
    FindCoordinator(FindCoordinatorRequest),
    JoinGroup(JoinGroupRequest),
    Heartbeat(HeartbeatRequest),
    LeaveGroup(LeaveGroupRequest),
    SyncGroup(SyncGroupRequest),
    DescribeGroups(DescribeGroupsRequest),
    ListGroups(ListGroupsRequest),
    DeleteGroups(DeleteGroupsRequest),
    OffsetDelete(OffsetDeleteRequest),
    DescribeAcls(DescribeAclsRequest),
    CreateAcls(CreateAclsRequest),
    DeleteAcls(DeleteAclsRequest),
    AlterReplicaLogDirs(AlterReplicaLogDirsRequest),
    DescribeClientQuotas(DescribeClientQuotasRequest),
    DescribeUserScramCredentials(DescribeUserScramCredentialsRequest),
    DescribeProducers(DescribeProducersRequest),
    DescribeTransactions(DescribeTransactionsRequest),
    ListTransactions(ListTransactionsRequest),
    ListConfigResources(ListConfigResourcesRequest),
}

#[cfg(test)]
mod tests;
