//! The fuzz corpora as plain tests.

use std::path::Path;

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

#[test]
fn corpus_of_record_batch() {
    run("record_batch", varve_protocol::fuzz::record_batch);
}

#[test]
fn corpus_of_decompressors() {
    run("decompressors", varve_protocol::fuzz::decompressors);
}
