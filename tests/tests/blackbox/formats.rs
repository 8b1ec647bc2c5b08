//! The stored formats as docs/formats.md describes them: a second reader, in another language and made from that page alone, reads what a
//! broker has written.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use varve_tests::tool::{self, Tool};

use crate::offline::{ORDERS, Offline, SHAPES, YOUNG};

fn second_reader(arguments: &[&str]) -> String {
    let mut command = Command::new(tool::python());
    command.arg(tool::scripts().join("second_reader.py")).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// As `consume -o json` prints a record: text where it is UTF-8, and else base64.
fn field(value: &Value, encoding: &Value) -> Option<Vec<u8>> {
    let text = value.as_str()?;
    Some(if encoding == "base64" { decode(text) } else { text.as_bytes().to_vec() })
}

fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: u8| {
        let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        all.iter().position(|known| *known == byte).map(|place| place as u32)
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).collect();
    let group = |group: &[u32]| {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        (0..group.len() - 1).map(|at| (bits >> (16 - 8 * at)) as u8).collect::<Vec<u8>>()
    };
    digits.chunks(4).flat_map(group).collect()
}

/// Partition, offset, timestamp, key, value, headers.
type Record = (i64, i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn consumed(line: &str) -> (String, Record) {
    let record: Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| record[name].as_i64().unwrap();
    let headers = record["headers"].as_array().cloned().unwrap_or_default();
    let header = |header: &Value| {
        (header["key"].as_str().unwrap().to_owned(), field(&header["value"], &header["encoding"]))
    };
    let of = |name: &str| field(&record[name], &record[format!("{name}_encoding")]);
    let headers = headers.iter().map(header).collect();
    let read = (number("partition"), number("offset"), number("timestamp"), of("key"), of("value"), headers);
    (record["topic"].as_str().unwrap().to_owned(), read)
}

fn read_again(line: &str) -> Record {
    let record: Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| record[name].as_i64().unwrap();
    let bytes = |value: &Value| value.as_str().map(decode);
    let header = |pair: &Value| (pair[0].as_str().unwrap().to_owned(), bytes(&pair[1]));
    let headers = record["headers"].as_array().unwrap().iter().map(header).collect();
    (
        number("partition"),
        number("offset"),
        number("timestamp"),
        bytes(&record["key"]),
        bytes(&record["value"]),
        headers,
    )
}

/// Claims, metadata, checkpoints, folded manifests, segments of all codecs, and a tail that no checkpoint knows.
#[test]
fn a_reader_made_from_the_document_alone_reads_what_consumers_read() {
    let Some(offline) = Offline::fill(3_000) else { return };
    let folder = offline.node.folder().join("bucket");
    for key in offline.store.keys("") {
        let path = folder.join(&key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, offline.store.get(&key)).unwrap();
    }
    assert!(!offline.store.keys("/node/").is_empty(), "no manifest has a node");
    let consumed: Vec<_> = offline.consumed.iter().map(|line| consumed(line)).collect();
    for topic in [SHAPES, YOUNG, ORDERS] {
        let of_topic = consumed.iter().filter(|(name, _)| name == topic);
        let mut wanted: Vec<Record> = of_topic.map(|(_, record)| record.clone()).collect();
        let printed = second_reader(&["bucket", folder.to_str().unwrap(), topic, "offline"]);
        let mut read: Vec<Record> = printed.lines().map(read_again).collect();
        wanted.sort_unstable();
        read.sort_unstable();
        assert!(!read.is_empty() && read == wanted, "{topic}: {} of {}", read.len(), wanted.len());
    }
}

/// What the vectors hold is what the tests of room `formats` put there.
#[test]
fn a_reader_made_from_the_document_alone_reads_the_test_vectors() {
    if !Tool::need(&[Tool::Python]) {
        return;
    }
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("formats/fixtures");
    let said: Value = serde_json::from_str(&second_reader(&["vectors", vectors.to_str().unwrap()])).unwrap();
    let leaf = &said["node_leaf"];
    assert_eq!((&leaf["identity"]["topic"], &leaf["identity"]["partition"]), (&"orders".into(), &4.into()));
    assert_eq!((&leaf["places"][1]["uid"], &leaf["places"][1]["last"]), (&1010.into(), &19.into()));
    assert_eq!(said["node_inner"]["places"][0]["level"], 1);
    assert_eq!((&said["claim"]["incarnation"], &said["claim_complete"]["groups"]), (&2.into(), &12.into()));
    let root = &said["manifest_root"];
    assert_eq!((&root["start"], &root["entries"][0]["count"]), (&5.into(), &100.into()), "{root}");
    for codec in ["none", "zstd", "gzip"] {
        let header = &said[format!("checkpoint_{codec}")];
        assert_eq!(header["identity"]["topic"], "orders", "{header}");
    }
    assert_eq!(said["segment_plain"]["identity"], said["segment_zstd"]["identity"]);
    assert_eq!(
        (&said["archive_state"]["end"], &said["archive_state"]["plan"]["end"]),
        (&100.into(), &200.into())
    );
}
