//! The fuzz corpora as plain tests.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use varve_protocol::{ApiKey, decode_request};

fn run(target: &str, act: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).expect("every target has a corpus") {
        act(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn corpus_of_frame_splitter() {
    run("frame_splitter", varve_protocol::fuzz::frame_splitter);
}

#[test]
fn corpus_of_request_header() {
    run("request_header", varve_protocol::fuzz::request_header);
}

/// Whoever mutates bytes begins at whole requests with topics and batches in them, not at headers alone.
#[test]
fn corpus_of_request_header_holds_bodies_of_the_requests_that_strangers_send_most() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/request_header");
    let mut versions: BTreeMap<ApiKey, Vec<i16>> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let decoded = decode_request(Bytes::from(std::fs::read(&path).unwrap()));
        if ["_body", "_batch", "_topic"].iter().any(|part| name.contains(part)) {
            let (header, _) = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
            versions.entry(header.key).or_default().push(header.version);
        }
    }
    for versions in versions.values_mut() {
        versions.sort_unstable();
        versions.dedup();
    }
    let wanted = [
        (ApiKey::Produce, vec![3, 7, 9, 13]),
        (ApiKey::Fetch, vec![4, 11, 12, 13]),
        (ApiKey::Metadata, vec![0, 1, 4, 9, 12]),
    ];
    assert_eq!(versions, BTreeMap::from(wanted));
}

#[test]
fn corpus_of_record_batch() {
    run("record_batch", varve_protocol::fuzz::record_batch);
}

#[test]
fn corpus_of_decompressors() {
    run("decompressors", varve_protocol::fuzz::decompressors);
}
