//! A Fetch answer whose records stay where they lie.
//!
//! The generated encoder wants each partition's records as one buffer and copies it into the frame. Here the frame comes
//! out in pieces: what is around the records is written by the same generated code, and large chunks of records stand
//! between as they are.
//!
//! ```text
//! response: ... | number of topics | tags          bare of what is tagged, a message without
//! topic:    ... | number of partitions | tags      elements or records ends in its empty length
//! partition: ... | bytes of records | tags         and an empty tag section: two bytes, or four
//!                ^^^^^^^^^^^^^^^^^^ written here    before version 12, which has no tags
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_wire_core::{ApiVersion, EncodeError, Encoder, KafkaEncode};

use crate::limits::CHUNK_COPIED_MAX;
use crate::messages::FetchResponse;
use crate::response::ResponseError;
use crate::versions::ApiKey;

/// The records of one partition, in chunks of whole batches.
pub type Records = Vec<Bytes>;

/// The frame, length prefix included, that answers a Fetch, in pieces.
///
/// `response` holds no records; `records` are those of its partitions, in order of topics and partitions. Chunks of at
/// most [`CHUNK_COPIED_MAX`] bytes are copied, so that many small batches are few pieces.
///
/// # Errors
/// A field has no place in the version, or the frame does not fit its length prefix: a bug in the handler.
///
/// # Panics
/// There are not as many `records` as partitions, or a partition has records in itself.
pub fn encode_fetch_response(
    version: i16,
    correlation_id: i32,
    response: FetchResponse,
    records: Vec<Records>,
) -> Result<Vec<Bytes>, ResponseError> {
    let failed = |cause| ResponseError::Encode { key: ApiKey::Fetch, version, cause };
    let mut frame = Frame::new(version, correlation_id);
    frame.response(response, records).map_err(failed)?;
    frame.finish()
}

struct Frame {
    version: ApiVersion,
    is_flexible: bool,
    pieces: Vec<Bytes>,
    pieces_bytes: usize,
    /// What comes behind the pieces.
    open: BytesMut,
}

/// A message cut where its elements or records belong.
struct Cut {
    head: BytesMut,
    tail: BytesMut,
}

impl Frame {
    fn new(version: i16, correlation_id: i32) -> Self {
        let api = ApiKey::Fetch.api();
        let mut open = BytesMut::new();
        open.put_i32(correlation_id);
        if api.response_header_version(version) >= 1 {
            open.put_u8(0); // no tagged fields
        }
        let (version, is_flexible) = (ApiVersion::new(version), api.is_flexible(version));
        // The length prefix comes once it is known.
        Self { version, is_flexible, pieces: vec![Bytes::new()], pieces_bytes: 0, open }
    }

    fn response(&mut self, mut whole: FetchResponse, records: Vec<Records>) -> Result<(), EncodeError> {
        let topics = std::mem::take(&mut whole.responses);
        let mut bare = whole.clone();
        bare.node_endpoints.clear();
        let cut = self.cut(&whole, &bare)?;
        self.open.extend_from_slice(&cut.head);
        self.length(topics.len())?;
        let mut records = records.into_iter();
        for mut topic in topics {
            let partitions = std::mem::take(&mut topic.partitions);
            let cut = self.cut(&topic, &topic)?;
            self.open.extend_from_slice(&cut.head);
            self.length(partitions.len())?;
            for partition in partitions {
                assert!(partition.records.is_none(), "records come beside the partition");
                let chunks = records.next().expect("every partition has its records");
                self.partition(partition, chunks)?;
            }
            self.open.extend_from_slice(&cut.tail);
        }
        assert!(records.next().is_none(), "every partition has its records, and no more");
        self.open.extend_from_slice(&cut.tail);
        Ok(())
    }

    fn partition(
        &mut self,
        mut whole: crate::messages::fetch_response::PartitionData,
        chunks: Records,
    ) -> Result<(), EncodeError> {
        whole.records = Some(Bytes::new());
        let mut bare = whole.clone();
        (bare.diverging_epoch, bare.current_leader) = Default::default();
        bare.snapshot_id = Default::default();
        let cut = self.cut(&whole, &bare)?;
        self.open.extend_from_slice(&cut.head);
        self.length(chunks.iter().map(Bytes::len).sum())?;
        for chunk in chunks {
            self.chunk(chunk);
        }
        self.open.extend_from_slice(&cut.tail);
        Ok(())
    }

    fn chunk(&mut self, chunk: Bytes) {
        if chunk.len() <= CHUNK_COPIED_MAX {
            self.open.extend_from_slice(&chunk);
            return;
        }
        self.close();
        self.pieces_bytes += chunk.len();
        self.pieces.push(chunk);
    }

    /// Ends the open piece. Two large chunks may follow on each other.
    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let piece = self.open.split().freeze();
        self.pieces_bytes += piece.len();
        self.pieces.push(piece);
    }

    /// Cuts `whole`, which has no elements or records, before their length. `bare` is the same without tagged fields.
    fn cut<T: KafkaEncode>(&self, whole: &T, bare: &T) -> Result<Cut, EncodeError> {
        let behind = if self.is_flexible { 2 } else { size_of::<i32>() };
        let at = bare.encoded_len(self.version)? - behind;
        let mut head = BytesMut::new();
        whole.encode(&mut Encoder::new(&mut head), self.version)?;
        let empty = if self.is_flexible { 1 } else { size_of::<i32>() };
        let tail = head.split_off(at + empty);
        head.truncate(at);
        Ok(Cut { head, tail })
    }

    /// The length of an array or of bytes.
    fn length(&mut self, length: usize) -> Result<(), EncodeError> {
        let mut encoder = Encoder::new(&mut self.open);
        if self.is_flexible {
            encoder.write_compact_array_len(length)
        } else {
            encoder.write_array_len(length)
        }
    }

    fn finish(mut self) -> Result<Vec<Bytes>, ResponseError> {
        self.close();
        let bytes = self.pieces_bytes;
        let size = i32::try_from(bytes).map_err(|_| ResponseError::TooLarge { bytes })?;
        self.pieces[0] = Bytes::copy_from_slice(&size.to_be_bytes());
        Ok(self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{
        StrBytes, Uuid,
        fetch_response::{AbortedTransaction, FetchableTopicResponse, NodeEndpoint, PartitionData},
    };
    use crate::response::{Response, encode_response};

    /// Two topics, the second without partitions; the first has one partition of each kind.
    fn response(version: i16) -> (FetchResponse, Vec<Records>) {
        let mut quiet = PartitionData::default();
        (quiet.partition_index, quiet.high_watermark) = (1, 7);
        let mut busy = quiet.clone();
        busy.aborted_transactions = Some(vec![AbortedTransaction::default()]);
        let mut moved = quiet.clone();
        moved.error_code = 6;
        if version >= 12 {
            (moved.diverging_epoch.epoch, moved.diverging_epoch.end_offset) = (3, 9);
            (moved.current_leader.leader_id, moved.current_leader.leader_epoch) = (2, 5);
        }
        let mut first = FetchableTopicResponse::default();
        first.partitions = vec![quiet, busy, moved];
        let mut second = FetchableTopicResponse::default();
        if version >= 13 {
            (first.topic_id, second.topic_id) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        } else {
            (first.topic, second.topic) = (StrBytes::from("first"), StrBytes::from("second"));
        }
        let mut whole = FetchResponse::default();
        whole.responses = vec![first, second];
        if version >= 16 {
            let mut endpoint = NodeEndpoint::default();
            (endpoint.node_id, endpoint.host, endpoint.port) = (2, "b".into(), 9092);
            whole.node_endpoints = vec![endpoint];
        }
        let large = |byte: u8| Bytes::from(vec![byte; CHUNK_COPIED_MAX + 1]);
        let small = |byte: u8| Bytes::from(vec![byte; CHUNK_COPIED_MAX]);
        (
            whole,
            vec![vec![], vec![small(1), small(2), large(3), small(4), large(5), large(6)], vec![large(7)]],
        )
    }

    #[test]
    fn pieces_joined_are_the_frame_that_the_generated_encoder_writes() {
        for version in 4..=18 {
            let (response, records) = response(version);
            let mut joined = response.clone();
            let places = joined.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
            for (partition, chunks) in places.zip(&records) {
                partition.records = Some(chunks.concat().into());
            }
            let pieces = encode_fetch_response(version, 77, response, records).unwrap();
            let expected = encode_response(ApiKey::Fetch, version, 77, &Response::Fetch(joined)).unwrap();
            assert_eq!(pieces.concat(), expected, "version {version}");
            let empty = encode_fetch_response(version, 1, FetchResponse::default(), vec![]).unwrap().concat();
            let expected = Response::Fetch(FetchResponse::default());
            assert_eq!(empty, encode_response(ApiKey::Fetch, version, 1, &expected).unwrap());
        }
    }

    #[test]
    fn large_chunks_are_not_copied_and_small_ones_are_joined() {
        let (response, records) = response(18);
        let pieces = encode_fetch_response(18, 77, response, records.clone()).unwrap();
        for chunk in records.iter().flatten().filter(|chunk| chunk.len() > CHUNK_COPIED_MAX) {
            assert!(pieces.iter().any(|piece| piece.as_ptr() == chunk.as_ptr()), "{}", chunk[0]);
        }
        // Size; head with 1 and 2; 3; 4; 5; 6; what is between the partitions; 7; the end.
        assert_eq!(pieces.len(), 9);
    }
}
