//! An answer as the bytes to write.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_wire_core::{
    ApiVersion, DecodeError, DecodeLimits, Decoder, EncodeError, Encoder, KafkaDecode, KafkaEncode,
};
use thiserror::Error;

use crate::error_code::ErrorCode;
use crate::frame::PREFIX_BYTES;
use crate::messages::{self, ApiVersionsResponse};
use crate::versions::{Api, ApiKey, TABLE};

/// A response that cannot be written: an error of the handler that made it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// The body is that of another API.
    #[error("response of {body:?} to a request of {key:?}")]
    OtherApi {
        /// Asked.
        key: ApiKey,
        /// Answered.
        body: ApiKey,
    },
    /// A field has no place in this version, or a length does not fit.
    #[error("response of {key:?} version {version}: {cause}")]
    Encode {
        /// Of the request.
        key: ApiKey,
        /// Of the request.
        version: i16,
        /// Why.
        cause: EncodeError,
    },
    /// The frame does not fit its length prefix.
    #[error("response of {bytes} bytes")]
    TooLarge {
        /// Of the frame.
        bytes: usize,
    },
}

/// The frame, length prefix included, that answers a request of `key` and `version`.
///
/// One buffer of the exact size: record bytes of a Fetch are copied once.
///
/// # Errors
/// The body does not fit key or version: a bug in the handler; close the connection.
pub fn encode_response(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &Response,
) -> Result<Bytes, ResponseError> {
    if response.key() != key {
        return Err(ResponseError::OtherApi { key, body: response.key() });
    }
    let api = key.api();
    let failed = |cause| ResponseError::Encode { key, version, cause };
    let body_bytes = response.encoded_bytes(version).map_err(failed)?;
    let mut buffer = open_frame(api, version, correlation_id, body_bytes)?;
    let whole = buffer.len() + body_bytes;
    response.encode(version, &mut buffer).map_err(failed)?;
    assert_eq!(buffer.len(), whole, "sizing and writing run the same code");
    Ok(buffer.freeze())
}

/// Length prefix and header, with room for the body.
fn open_frame(
    api: &Api,
    version: i16,
    correlation_id: i32,
    body_bytes: usize,
) -> Result<BytesMut, ResponseError> {
    let has_tags = api.response_header_version(version) >= 1;
    let bytes = size_of::<i32>() + usize::from(has_tags) + body_bytes;
    let size = i32::try_from(bytes).map_err(|_| ResponseError::TooLarge { bytes })?;
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    buffer.put_i32(size);
    buffer.put_i32(correlation_id);
    if has_tags {
        buffer.put_u8(0); // no tagged fields
    }
    Ok(buffer)
}

/// The answer to an ApiVersions request of a version that is not known here: a body of version 0, the only one that
/// every client can read, with error 35 and the versions to choose from (KIP-511).
#[must_use]
pub fn encode_unsupported_api_versions(correlation_id: i32) -> Bytes {
    let mut body = ApiVersionsResponse::default();
    body.error_code = ErrorCode::UnsupportedVersion.number();
    body.api_keys = advertised();
    encode_response(ApiKey::ApiVersions, 0, correlation_id, &Response::ApiVersions(body))
        .expect("two bytes of error and six per row always fit")
}

/// The rows of the table as ApiVersions tells them.
#[must_use]
pub fn advertised() -> Vec<messages::api_versions_response::ApiVersion> {
    let row = |api: &Api| {
        let mut row = messages::api_versions_response::ApiVersion::default();
        row.api_key = api.key.number();
        row.min_version = api.advertised_first;
        row.max_version = api.last;
        row
    };
    TABLE.iter().map(row).collect()
}

macro_rules! responses {
    ($($name:ident($body:ident)),+ $(,)?) => {
        /// One response, by key.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the variants are the keys, documented at ApiKey")]
        pub enum Response {
            $($name(messages::$body)),+
        }

        impl Response {
            /// The API that this answers.
            #[must_use]
            pub const fn key(&self) -> ApiKey {
                match self { $(Self::$name(_) => ApiKey::$name),+ }
            }

            fn encoded_bytes(&self, version: i16) -> Result<usize, EncodeError> {
                match self { $(Self::$name(body) => body.encoded_len(ApiVersion::new(version))),+ }
            }

            fn encode(&self, version: i16, buffer: &mut BytesMut) -> Result<(), EncodeError> {
                let mut encoder = Encoder::new(buffer);
                match self { $(Self::$name(body) => body.encode(&mut encoder, ApiVersion::new(version))),+ }
            }

            /// Reads the body of a response: for our own clients, tests and the bench.
            ///
            /// # Errors
            /// The body does not parse, or leaves bytes over.
            pub fn decode(key: ApiKey, version: i16, body: Bytes) -> Result<Self, DecodeError> {
                let mut decoder = Decoder::new(body, DecodeLimits::default())?;
                let version = ApiVersion::new(version);
                let response = match key {
                    $(ApiKey::$name => messages::$body::decode(&mut decoder, version).map(Self::$name)?),+
                };
                decoder.finish()?;
                Ok(response)
            }
        }
    };
}

responses! {
    Produce(ProduceResponse),
    Fetch(FetchResponse),
    ListOffsets(ListOffsetsResponse),
    Metadata(MetadataResponse),
    ApiVersions(ApiVersionsResponse),
    CreateTopics(CreateTopicsResponse),
    DeleteTopics(DeleteTopicsResponse),
    DeleteRecords(DeleteRecordsResponse),
    InitProducerId(InitProducerIdResponse),
    OffsetForLeaderEpoch(OffsetForLeaderEpochResponse),
    DescribeConfigs(DescribeConfigsResponse),
    AlterConfigs(AlterConfigsResponse),
    DescribeLogDirs(DescribeLogDirsResponse),
    CreatePartitions(CreatePartitionsResponse),
    ElectLeaders(ElectLeadersResponse),
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
    AlterPartitionReassignments(AlterPartitionReassignmentsResponse),
    ListPartitionReassignments(ListPartitionReassignmentsResponse),
    DescribeQuorum(DescribeQuorumResponse),
    DescribeCluster(DescribeClusterResponse),
    UnregisterBroker(UnregisterBrokerResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponse),
    FindCoordinator(FindCoordinatorResponse),
    JoinGroup(JoinGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    SyncGroup(SyncGroupResponse),
    DescribeGroups(DescribeGroupsResponse),
    ListGroups(ListGroupsResponse),
    DeleteGroups(DeleteGroupsResponse),
    OffsetDelete(OffsetDeleteResponse),
    DescribeAcls(DescribeAclsResponse),
    CreateAcls(CreateAclsResponse),
    DeleteAcls(DeleteAclsResponse),
    AlterReplicaLogDirs(AlterReplicaLogDirsResponse),
    DescribeClientQuotas(DescribeClientQuotasResponse),
    DescribeUserScramCredentials(DescribeUserScramCredentialsResponse),
    DescribeProducers(DescribeProducersResponse),
    DescribeTransactions(DescribeTransactionsResponse),
    ListTransactions(ListTransactionsResponse),
    ListConfigResources(ListConfigResourcesResponse),
}

/// Takes the header off a response frame (without length prefix): correlation id and body. For our own clients.
///
/// # Errors
/// The header does not parse.
pub fn split_response(key: ApiKey, version: i16, frame: Bytes) -> Result<(i32, Bytes), DecodeError> {
    let mut decoder = Decoder::new(frame.clone(), DecodeLimits::default())?;
    let header_version = ApiVersion::new(key.api().response_header_version(version));
    let header = kafka_wire::ResponseHeader::decode(&mut decoder, header_version)?;
    let taken = frame.len() - decoder.remaining();
    Ok((header.correlation_id, frame.slice(taken..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FetchResponse, MetadataResponse, fetch_response};

    fn encoded(key: ApiKey, version: i16, response: &Response) -> Bytes {
        encode_response(key, version, 0x0102_0304, response).expect("encodes")
    }

    #[test]
    fn flexible_response_header_on_flexible_versions_only() {
        let fetch = Response::Fetch(FetchResponse::default());
        // size, correlation id, throttle, error, session, topics: one prefix and no tags in 11
        let plain = encoded(ApiKey::Fetch, 11, &fetch);
        assert_eq!(plain[..], [0, 0, 0, 18, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // tags behind the correlation id, compact topics and tags of the body in 12
        let flexible = encoded(ApiKey::Fetch, 12, &fetch);
        assert_eq!(flexible[..], [0, 0, 0, 17, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn api_versions_v3_has_a_flexible_body_behind_a_plain_header() {
        let mut body = ApiVersionsResponse::default();
        body.api_keys = advertised();
        let frame = encoded(ApiKey::ApiVersions, 3, &Response::ApiVersions(body));
        // correlation id, error 0, then at once the compact count of rows
        assert_eq!(frame[4..11], [1, 2, 3, 4, 0, 0, TABLE.len() as u8 + 1]);
    }

    #[test]
    fn record_bytes_pass_through_untouched() {
        let records = Bytes::from_static(b"whole batches, never re-encoded");
        let mut partition = fetch_response::PartitionData::default();
        partition.records = Some(records.clone());
        let mut topic = fetch_response::FetchableTopicResponse::default();
        topic.partitions = vec![partition];
        let mut body = FetchResponse::default();
        body.responses = vec![topic];
        let frame = encoded(ApiKey::Fetch, 4, &Response::Fetch(body));
        assert_eq!(frame[frame.len() - records.len()..], records[..]);
    }

    #[test]
    fn a_body_of_another_api_is_refused() {
        let body = Response::Metadata(MetadataResponse::default());
        let refused = encode_response(ApiKey::Fetch, 11, 1, &body);
        assert_eq!(refused, Err(ResponseError::OtherApi { key: ApiKey::Fetch, body: ApiKey::Metadata }));
    }
}
