use proptest::prelude::*;
use varve_common::{LeaderEpoch, Offset};

use super::compression::{compress, decompress};
use super::header::{seal, write_header};
use super::validate::{Keys, Transactions};
use super::*;
use crate::error_code::ErrorCode;

fn built(codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    builder.push(1000, Some(b"a"), Some(b"1"));
    builder.push(3000, None, Some(b"2"));
    builder.push(2000, Some(b"c"), None);
    builder.build().to_vec()
}

fn code(bytes: &[u8]) -> ErrorCode {
    validate(bytes, &Limits::default()).expect_err("refused").error_code()
}

/// `built` with header fields changed and a CRC that fits.
fn changed(codec: Codec, change: impl FnOnce(&mut BatchMeta)) -> Vec<u8> {
    let batch = built(codec);
    let mut meta = *BatchHeader::read(&batch).unwrap().meta();
    change(&mut meta);
    let mut out = Vec::new();
    write_header(&mut out, &meta);
    out.extend_from_slice(&batch[HEADER_BYTES..]);
    seal(&mut out);
    out
}

/// One record (key `a`, value `b`, time 1000), laid out and summed by a script that shares no code with ours.
const FOREIGN: &str = "00000000000000000000003affffffff024906b1b300000000000000000000000003e8\
    00000000000003e8ffffffffffffffffffffffffffff00000001100000000261026200";

#[test]
fn a_batch_made_elsewhere_is_read_and_made_alike() {
    let batch: Vec<u8> = (0..FOREIGN.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&FOREIGN[at..at + 2], 16).unwrap())
        .collect();
    let meta = validate(&batch, &Limits::default()).unwrap();
    assert_eq!((meta.count, meta.last_offset_delta, meta.bytes as usize), (1, 0, batch.len()));
    assert_eq!((meta.crc, meta.base_timestamp, meta.max_timestamp), (0x4906_b1b3, 1000, 1000));
    assert_eq!((meta.producer_id, meta.producer_epoch, meta.base_sequence), (-1, -1, -1));
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(1000, Some(b"a"), Some(b"b"));
    assert_eq!(builder.build()[..], batch[..]);
}

#[test]
fn crc_is_crc32c_big_endian_from_the_attributes_on() {
    let mut batch = built(Codec::None);
    for at in 17..batch.len() {
        batch[at] ^= 1;
        assert!(BatchHeader::read(&batch).map_or(true, |batch| !batch.crc_matches()), "byte {at}");
        batch[at] ^= 1;
    }
}

#[test]
fn patch_changes_offset_and_epoch_and_nothing_else() {
    let before = changed(Codec::Zstd, |meta| meta.base_offset = 99);
    assert!(validate(&before, &Limits::default()).is_ok(), "clients send base offsets other than 0");
    let mut after = before.clone();
    patch(&mut after, Offset(1 << 40), LeaderEpoch(7));
    let batch = BatchHeader::read(&after).unwrap();
    assert_eq!((batch.meta().base_offset, batch.meta().leader_epoch), (1 << 40, 7));
    assert!(batch.crc_matches());
    assert_eq!((&before[8..12], &before[16..]), (&after[8..12], &after[16..]));
}

#[test]
fn log_append_time_holds_for_every_record() {
    let mut batch = built(Codec::Gzip);
    let crc = rewrite_append_time(&mut batch, 5000);
    let batch = BatchHeader::read(&batch).unwrap();
    assert_eq!((batch.meta().crc, batch.crc_matches()), (crc, true));
    let records = Records::read(&batch, Caps::default()).unwrap();
    assert!(records.iter().all(|record| record.unwrap().timestamp == 5000));
    let found = first_at_or_after(&batch, 4000, Caps::default()).unwrap();
    assert_eq!(found, Some(Found { offset: 0, timestamp: 5000 }));
}

#[test]
fn timestamps_are_looked_up_in_offset_order() {
    let batch = changed(Codec::Lz4, |meta| meta.base_offset = 10);
    let batch = BatchHeader::read(&batch).unwrap();
    let at = |time| first_at_or_after(&batch, time, Caps::default()).unwrap();
    assert_eq!(at(0), Some(Found { offset: 10, timestamp: 1000 }));
    assert_eq!(at(1500), Some(Found { offset: 11, timestamp: 3000 }));
    assert_eq!(at(3001), None);
    assert_eq!(max_timestamp(&batch, Caps::default()).unwrap(), Some(Found { offset: 11, timestamp: 3000 }));
}

#[test]
fn damaged_and_cut_batches_are_corrupt() {
    let mut batch = built(Codec::None);
    for end in 1..batch.len() {
        assert_eq!(code(&batch[..end]), ErrorCode::CorruptMessage);
    }
    *batch.last_mut().unwrap() ^= 1;
    assert_eq!(code(&batch), ErrorCode::CorruptMessage);
}

#[test]
fn old_magic_is_unsupported_for_message_format() {
    let mut batch = built(Codec::None);
    for (magic, expected) in [
        (0, ErrorCode::UnsupportedForMessageFormat),
        (1, ErrorCode::UnsupportedForMessageFormat),
        (3, ErrorCode::InvalidRecord),
    ] {
        batch[16] = magic;
        assert_eq!(code(&batch), expected);
    }
}

#[test]
fn several_batches_are_refused_not_lost() {
    let two = [built(Codec::None), built(Codec::None)].concat();
    assert!(matches!(validate(&two, &Limits::default()), Err(Invalid::SeveralBatches { .. })));
    assert_eq!(code(&two), ErrorCode::InvalidRecord);
    assert_eq!(Batches::new(&two).filter(Result::is_ok).count(), 2);
    assert_eq!(code(&[]), ErrorCode::InvalidRecord);
}

#[test]
fn header_rules_of_the_log_validator() {
    let invalid = |change: fn(&mut BatchMeta)| code(&changed(Codec::Snappy, change));
    assert_eq!(invalid(|meta| meta.is_control = true), ErrorCode::InvalidRecord);
    assert_eq!(invalid(|meta| meta.count = 2), ErrorCode::InvalidRecord);
    assert_eq!(invalid(|meta| meta.last_offset_delta = 7), ErrorCode::InvalidRecord);
    assert_eq!(invalid(|meta| (meta.count, meta.last_offset_delta) = (0, 0)), ErrorCode::InvalidRecord);
    assert_eq!(invalid(|meta| meta.producer_id = 1), ErrorCode::InvalidRecord, "id without sequence");
    assert_eq!(invalid(|meta| meta.has_delete_horizon = true), ErrorCode::InvalidRecord);
    assert_eq!(invalid(|meta| meta.timestamp_type = TimestampType::LogAppendTime), ErrorCode::InvalidRecord);
    assert_eq!(invalid(|meta| meta.is_transactional = true), ErrorCode::InvalidRecord, "without id");
}

#[test]
fn epoch_and_sequence_mean_nothing_without_a_producer_id() {
    let batch = changed(Codec::Snappy, |meta| (meta.producer_epoch, meta.base_sequence) = (0, 0));
    assert!(validate(&batch, &Limits::default()).is_ok(), "KafkaJS and aiokafka write such batches");
}

#[test]
fn transactional_batches_are_refused_until_transactions_are_served() {
    let mut builder = BatchBuilder::new(Codec::None).producer(7, 0, 0).transactional();
    builder.push(1, None, None);
    let batch = builder.build();
    assert_eq!(code(&batch), ErrorCode::InvalidTxnState);
    let limits = Limits { transactions: Transactions::Accepted, ..Limits::default() };
    assert!(validate(&batch, &limits).unwrap().is_transactional);
}

#[test]
fn uncompressed_records_are_counted() {
    let more = changed(Codec::None, |meta| (meta.count, meta.last_offset_delta) = (4, 3));
    assert!(matches!(validate(&more, &Limits::default()), Err(Invalid::Records(_))));
    let fewer = changed(Codec::None, |meta| (meta.count, meta.last_offset_delta) = (2, 1));
    assert!(matches!(validate(&fewer, &Limits::default()), Err(Invalid::Records(_))));
}

#[test]
fn a_record_without_key_is_refused_where_keys_are_required() {
    let limits = Limits { keys: Keys::Required, ..Limits::default() };
    for codec in Codec::ALL {
        let refused = validate(&built(codec), &limits).unwrap_err();
        let Invalid::Rejected(rejected) = &refused else { panic!("{refused}") };
        assert_eq!(rejected.records(), [RejectedRecord { place: 1, fault: Fault::NoKey }]);
        assert_eq!(refused.error_code(), ErrorCode::InvalidRecord);
    }
}

#[test]
fn a_batch_beyond_the_topics_limit_is_too_large() {
    let batch = built(Codec::None);
    let limits = Limits { batch_bytes_max: batch.len() - 1, ..Limits::default() };
    assert_eq!(validate(&batch, &limits).unwrap_err().error_code(), ErrorCode::MessageTooLarge);
}

#[test]
fn sequences_wrap_to_zero() {
    let batch = changed(Codec::None, |meta| {
        (meta.producer_id, meta.producer_epoch, meta.base_sequence) = (1, 0, i32::MAX - 1);
    });
    assert_eq!(validate(&batch, &Limits::default()).unwrap().last_sequence(), 0);
}

#[test]
fn snappy_is_read_in_the_framing_of_java() {
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for part in [&b"hello "[..], b"world"] {
        let block = compress(Codec::Snappy, part);
        framed.extend((block.len() as u32).to_be_bytes());
        framed.extend(block);
    }
    assert_eq!(decompress(Codec::Snappy, &framed, Caps::default()).unwrap(), b"hello world");
    assert!(decompress(Codec::Snappy, &framed[..framed.len() - 1], Caps::default()).is_err());
}

#[test]
fn snappy_claims_take_no_memory() {
    // CVE-2023-34455: a block that claims 4 GiB.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    assert!(decompress(Codec::Snappy, &claim, Caps::default()).is_err());
}

#[test]
fn bombs_end_at_the_cap() {
    let zeros = vec![0; 8 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = compress(codec, &zeros);
        let by_bytes = Caps { bytes_max: 1 << 20, ratio_max: usize::MAX };
        let refused = decompress(codec, &bomb, by_bytes).unwrap_err();
        assert!(matches!(refused, CompressionError::TooLarge { limit, .. } if limit == 1 << 20), "{refused}");
        let by_ratio = Caps { bytes_max: usize::MAX, ratio_max: 2 };
        let refused = decompress(codec, &bomb, by_ratio).unwrap_err();
        assert!(matches!(refused, CompressionError::TooLarge { .. }), "{refused}");
    }
}

#[test]
fn zstd_windows_beyond_the_cap_are_refused() {
    // Magic, descriptor without checksum or content size, window 2^27, one raw block of one byte.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 0x09, 0, 0, b'x'];
    let refused = decompress(Codec::Zstd, &frame, Caps::default()).unwrap_err();
    assert!(matches!(refused, CompressionError::Damaged { .. }), "{refused}");
    let small = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (20 - 10) << 3, 0x09, 0, 0, b'x'];
    assert_eq!(decompress(Codec::Zstd, &small, Caps::default()).unwrap(), b"x");
}

type Drawn = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let headers = proptest::collection::vec(("[a-z]{0,5}", bytes()), 0..3);
    proptest::collection::vec((0_i64..1 << 41, bytes(), bytes(), headers), 1..20)
}

proptest! {
    #[test]
    fn what_is_built_is_valid_and_reads_back(records in drawn(), codec in 0_u8..5) {
        let mut builder = BatchBuilder::new(Codec::from_number(codec).unwrap()).producer(5, 1, 9);
        for (time, key, value, headers) in &records {
            let headers: Vec<_> = headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            builder.push_with_headers(*time, key.as_deref(), value.as_deref(), &headers);
        }
        let bytes = builder.build();
        let meta = validate(&bytes, &Limits::default()).unwrap();
        prop_assert_eq!(meta.count as usize, records.len());
        let batch = BatchHeader::read(&bytes).unwrap();
        let read = Records::read(&batch, Caps::default()).unwrap();
        let read: Vec<Drawn> = read.iter().map(|record| {
            let record = record.unwrap();
            let headers =
                record.headers.iter().map(|(key, value)| ((*key).to_owned(), value.map(<[u8]>::to_vec)));
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            (record.timestamp, owned(record.key), owned(record.value), headers.collect())
        }).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn decompressors_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), codec in 0_u8..5) {
        let caps = Caps { bytes_max: 1 << 16, ratio_max: 100 };
        if let Ok(out) = decompress(Codec::from_number(codec).unwrap(), &bytes, caps) {
            prop_assert!(out.len() <= caps.bytes_max);
        }
    }

    #[test]
    fn any_bytes_behind_a_header_are_walked(tail in proptest::collection::vec(any::<u8>(), 0..300), codec in 0_u8..5) {
        let batch = changed(Codec::None, |meta| meta.codec = Codec::from_number(codec).unwrap());
        let mut batch = batch[..HEADER_BYTES].to_vec();
        batch[8..12].copy_from_slice(&(tail.len() as i32 + 49).to_be_bytes());
        batch.extend(tail);
        let batch = BatchHeader::read(&batch).unwrap();
        if let Ok(records) = Records::read(&batch, Caps::default()) {
            records.iter().for_each(drop);
        }
    }
}

#[test]
fn a_batch_in_another_codec_holds_the_same_records_and_its_place_and_producer() {
    for (from, to) in Codec::ALL.into_iter().flat_map(|from| Codec::ALL.map(|to| (from, to))) {
        let sent = changed(from, |meta| {
            (meta.producer_id, meta.producer_epoch, meta.base_sequence) = (7, 1, 40);
        });
        let target = Target { codec: to, level: Some(3) };
        let (made, meta) = recompress(&sent, &Limits::default(), target).unwrap();
        let (before, after) = (BatchHeader::read(&sent).unwrap(), BatchHeader::read(&made).unwrap());
        assert!(after.crc_matches() && meta == *after.meta());
        let (codec, bytes, crc) = (to, made.len() as u32, after.meta().crc);
        assert_eq!(meta, BatchMeta { codec, bytes, crc, ..*before.meta() });
        let records = |batch: &BatchHeader<'_>| {
            let records = Records::read(batch, Caps::default()).unwrap();
            records.iter().map(|record| format!("{:?}", record.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(records(&before), records(&after), "{from:?} to {to:?}");
    }
}

#[test]
fn what_does_not_fit_in_its_new_codec_is_too_large_and_what_is_damaged_inside_is_found() {
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.push(1, None, Some(&[0; 10_000]));
    let sent = builder.build();
    let limits = Limits { batch_bytes_max: 5_000, ..Limits::default() };
    let plain = Target { codec: Codec::None, level: None };
    let refused = recompress(&sent, &limits, plain).unwrap_err();
    assert_eq!(refused.error_code(), ErrorCode::MessageTooLarge);
    let mut damaged = built(Codec::Gzip);
    let last = damaged.len() - 1;
    damaged[last - 10] ^= 0xff;
    seal(&mut damaged);
    assert!(validate(&damaged, &Limits::default()).is_ok(), "as it came nobody looks inside");
    assert_eq!(
        recompress(&damaged, &Limits::default(), plain).unwrap_err().error_code(),
        ErrorCode::CorruptMessage
    );
}

#[test]
fn a_timestamp_beyond_its_bounds_is_found_in_any_record() {
    for codec in Codec::ALL {
        let check = |earliest, latest| {
            let limits = Limits { earliest, latest, ..Limits::default() };
            validate(&built(codec), &limits).map(drop).map_err(|invalid| invalid.error_code())
        };
        assert_eq!(check(1000, 3000), Ok(()));
        // The last is older than the one before it.
        assert_eq!(check(1500, 3000), Err(ErrorCode::InvalidTimestamp));
        assert_eq!(check(i64::MIN, 2999), Err(ErrorCode::InvalidTimestamp));
    }
}

#[test]
fn all_records_that_are_not_taken_are_told_and_counted_beyond_the_bound() {
    for codec in Codec::ALL {
        let limits = Limits { keys: Keys::Required, latest: 1999, ..Limits::default() };
        let refused = validate(&built(codec), &limits).unwrap_err();
        let Invalid::Rejected(rejected) = &refused else { panic!("{refused}") };
        let late = Fault::Timestamp { timestamp: 2000, earliest: i64::MIN, latest: 1999 };
        let told =
            [RejectedRecord { place: 1, fault: Fault::NoKey }, RejectedRecord { place: 2, fault: late }];
        assert_eq!(rejected.records(), told);
        assert_eq!(refused.error_code(), ErrorCode::InvalidTimestamp, "one timestamp tells for all");
    }
    let mut builder = BatchBuilder::new(Codec::Zstd);
    (0..2000).for_each(|_| builder.push(1, None, None));
    let limits = Limits { keys: Keys::Required, ..Limits::default() };
    let refused = validate(&builder.build(), &limits).unwrap_err();
    let Invalid::Rejected(rejected) = &refused else { panic!("{refused}") };
    assert_eq!(rejected.records().len(), crate::limits::REJECTED_RECORDS_MAX);
    assert!(refused.to_string().starts_with("2000 records are not taken"), "{refused}");
}

#[test]
fn a_header_that_hides_late_records_or_claims_one_is_refused_all_the_same() {
    let limits = Limits { latest: 5000, ..Limits::default() };
    let claims = changed(Codec::Gzip, |meta| meta.max_timestamp = 6000);
    assert_eq!(validate(&claims, &limits).unwrap_err().error_code(), ErrorCode::InvalidTimestamp);
    let hides = changed(Codec::None, |meta| meta.max_timestamp = 1000);
    let limits = Limits { latest: 2500, ..Limits::default() };
    assert_eq!(validate(&hides, &limits).unwrap_err().error_code(), ErrorCode::InvalidTimestamp);
}
