use super::*;
use crate::messages::MetadataRequest;
use crate::response::encode_unsupported_api_versions;

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn unknown_api_and_version_keep_the_correlation_id() {
    assert_eq!(
        decode_request(hex("03e7 0001 00000009 ffff")),
        Err(RequestError::UnknownApi { key: 999, version: 1, correlation_id: 9 })
    );
    let unsupported = |version| RequestError::UnsupportedVersion {
        key: ApiKey::Produce,
        version,
        correlation_id: 7,
        is_api_versions: false,
    };
    for version in [0, 2, 14, i16::MAX, -1] {
        let mut frame = vec![0, 0];
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 7, 0xff, 0xff]);
        assert_eq!(decode_request(frame.into()), Err(unsupported(version)));
    }
}

#[test]
fn api_versions_too_new_is_answered_in_v0_with_error_35() {
    let refused = decode_request(hex("0012 0063 0000002a 00")).unwrap_err();
    let RequestError::UnsupportedVersion { correlation_id, is_api_versions: true, .. } = refused else {
        panic!("{refused:?}");
    };
    let answer = encode_unsupported_api_versions(correlation_id);
    // size, correlation id, error 35, count of rows, then Produce 0 to 13
    assert_eq!(answer[..4], (answer.len() as i32 - 4).to_be_bytes());
    assert_eq!(answer[4..20], hex("0000002a 0023 0000002a 0000 0000 000d")[..]);
}

#[test]
fn flexible_request_with_null_client_id_is_read() {
    // Metadata 12 as librdkafka 2.11 may send it: header v2, client id -1, no tags; all topics, no flags.
    let (header, request) =
        decode_request(hex("0003 000c 00000001 ffff 00  00 00 00 00")).expect("null client id is legal");
    assert_eq!((header.client_id, header.version, header.correlation_id), (None, 12, 1));
    let Request::Metadata(MetadataRequest { topics: None, .. }) = request else { panic!("{request:?}") };
}

#[test]
fn null_arrays_are_null_and_no_length() {
    // Metadata 1: -1 topics means all.
    let (_, request) = decode_request(hex("0003 0001 00000001 0001 61  ffffffff")).unwrap();
    let Request::Metadata(MetadataRequest { topics: None, .. }) = request else { panic!("{request:?}") };
    // Produce 3: a null array where Kafka allows none.
    let refused = decode_request(hex("0000 0003 00000001 0001 61  ffff ffff 00001388 ffffffff"));
    assert!(matches!(refused, Err(RequestError::Malformed { correlation_id: 1, .. })), "{refused:?}");
}

#[test]
fn claimed_array_length_is_refused() {
    let refused = decode_request(hex("0003 0001 00000001 0001 61  7fffffff"));
    assert!(matches!(refused, Err(RequestError::Malformed { .. })), "{refused:?}");
}

#[test]
fn bytes_left_over_are_refused() {
    let refused = decode_request(hex("0012 0000 00000001 0001 61 00"));
    assert!(matches!(refused, Err(RequestError::Malformed { .. })), "{refused:?}");
}

#[test]
fn all_topics_as_librdkafka_asks_for_them_are_understood() {
    // As confluent-kafka 2.16 lists topics: the length of no array takes four bytes, and what follows is left over.
    let (_, request) = decode_request(hex("0003 000d 00000003 0001 61 00  00000000 01 00 00")).unwrap();
    let Request::Metadata(request) = request else { panic!("{request:?}") };
    assert_eq!(request.topics, None);
    let named = decode_request(hex("0003 0008 00000003 0001 61  00000000 00 00 00 00"));
    assert!(matches!(named, Err(RequestError::Malformed { .. })), "{named:?}");
}

#[test]
fn only_produce_may_be_large() {
    let mut frame = hex("0003 0001 00000001 0001 61 00000000").to_vec();
    frame.resize(limits::FRAME_BYTES_MAX + 1, 0);
    assert!(matches!(decode_request(frame.into()), Err(RequestError::TooLarge { .. })));
}

#[test]
fn what_our_clients_encode_is_decoded() {
    let request = Request::DescribeCluster(crate::messages::DescribeClusterRequest::default());
    let frame = request.encode(2, 5, Some("cli")).unwrap();
    let (header, decoded) = decode_request(frame.slice(4..)).unwrap();
    assert_eq!((header.correlation_id, decoded), (5, request));
}
