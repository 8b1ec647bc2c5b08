//! Hostile frames under an allocator that records the largest request: no input panics, none takes memory for what
//! it claims. Alone in this file, as the allocator is the process's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use varve_protocol::batch::{BatchBuilder, BatchHeader, Caps, Codec, Limits, Records, validate};
use varve_protocol::messages::{
    CreateTopicsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, StrBytes,
};
use varve_protocol::messages::{
    create_topics_request, fetch_request, list_offsets_request, metadata_request, produce_request,
};
use varve_protocol::{ApiKey, Request, TABLE, decode_request, frame};

/// The largest single allocation since the last reset.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[allow(unsafe_code, reason = "a global allocator is the only way to see what is asked of it; test only")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's contract is handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Far above what these small frames need, far below what they claim.
const FRAME_ALLOCATION_MAX: usize = 256 * 1024;
/// Decompressors keep windows, tables and an output chunk of their own.
const BATCH_ALLOCATION_MAX: usize = 9 * 1024 * 1024;

const LENGTHS: [&[u8]; 7] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0x7f, 0xff],
    &[0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

/// `seed` cut at every byte, and with every hostile length written over and put in at every byte.
fn mutations(seed: &[u8], mut visit: impl FnMut(&[u8])) {
    for at in 0..=seed.len() {
        visit(&seed[..at]);
        for length in LENGTHS {
            let mut over = seed.to_vec();
            let end = (at + length.len()).min(over.len());
            over[at..end].copy_from_slice(&length[..end - at]);
            visit(&over);
            let mut inserted = seed[..at].to_vec();
            inserted.extend(length);
            inserted.extend(&seed[at..]);
            visit(&inserted);
        }
    }
}

fn bounded(limit: usize, input: &[u8], act: impl FnOnce()) {
    LARGEST.store(0, Ordering::Relaxed);
    act();
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= limit, "{largest} bytes asked for by {input:02x?}");
}

fn sample(key: ApiKey) -> Option<Request> {
    let name = || StrBytes::from("topic");
    Some(match key {
        ApiKey::Produce => {
            let mut partition = produce_request::PartitionProduceData::default();
            partition.records = Some(one_batch(Codec::None));
            let mut topic = produce_request::TopicProduceData::default();
            topic.partition_data = vec![partition];
            let mut body = ProduceRequest::default();
            body.topic_data = vec![topic];
            Request::Produce(body)
        }
        ApiKey::Fetch => {
            let mut topic = fetch_request::FetchTopic::default();
            topic.partitions = vec![fetch_request::FetchPartition::default()];
            let mut body = FetchRequest::default();
            body.topics = vec![topic];
            Request::Fetch(body)
        }
        ApiKey::ListOffsets => {
            let mut topic = list_offsets_request::ListOffsetsTopic::default();
            topic.partitions = vec![list_offsets_request::ListOffsetsPartition::default()];
            let mut body = ListOffsetsRequest::default();
            body.topics = vec![topic];
            Request::ListOffsets(body)
        }
        ApiKey::Metadata => {
            let mut topic = metadata_request::MetadataRequestTopic::default();
            topic.name = Some(name());
            let mut body = MetadataRequest::default();
            body.topics = Some(vec![topic]);
            Request::Metadata(body)
        }
        ApiKey::CreateTopics => {
            let mut config = create_topics_request::CreatableTopicConfig::default();
            config.name = name();
            let mut topic = create_topics_request::CreatableTopic::default();
            topic.configs = vec![config];
            let mut body = CreateTopicsRequest::default();
            body.topics = vec![topic];
            Request::CreateTopics(body)
        }
        _ => return None,
    })
}

fn one_batch(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for place in 0..4 {
        builder.push_with_headers(1000 + place, Some(b"key"), Some(&[7; 20]), &[("h", Some(b"v"))]);
    }
    builder.build()
}

#[test]
fn no_hostile_input_panics_or_takes_memory_it_claims() {
    for api in TABLE {
        for version in api.first..=api.last {
            let mut header = api.key.number().to_be_bytes().to_vec();
            header.extend(version.to_be_bytes());
            header.extend([0, 0, 0, 1, 0, 1, b'c', 0]);
            header.extend([0; 24]);
            let whole = sample(api.key).and_then(|request| request.encode(version, 1, Some("c")).ok());
            let seeds = [Some(header), whole.map(|frame| frame[4..].to_vec())];
            for seed in seeds.into_iter().flatten() {
                mutations(&seed, |input| {
                    let frame = Bytes::copy_from_slice(input);
                    bounded(FRAME_ALLOCATION_MAX, input, || drop(decode_request(frame)));
                });
            }
        }
    }
    mutations(&[0, 0, 0, 2, 1, 2, 0, 0, 0, 0], |input| {
        let mut received = BytesMut::from(input);
        bounded(FRAME_ALLOCATION_MAX, input, || while let Ok(Some(_)) = frame::split(&mut received, 100) {});
    });
    for codec in Codec::ALL {
        mutations(&one_batch(codec), |input| bounded(BATCH_ALLOCATION_MAX, input, || read_all(input)));
    }
}

/// Reads as far as it goes, past a wrong CRC too: what is stored may be damaged.
fn read_all(input: &[u8]) {
    let _ = validate(input, &Limits::default());
    let Ok(batch) = BatchHeader::read(input) else { return };
    let Ok(records) = Records::read(&batch, Caps::default()) else { return };
    records.iter().for_each(drop);
}
