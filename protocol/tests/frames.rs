//! Frames that a codec of nobody's drew from Kafka's own schemas: every supported request and response decodes,
//! leaves nothing over and encodes to the same bytes. `tools/kafka_frames.py` makes the file that
//! `VARVE_KAFKA_FRAMES` names; `fixtures/frames.txt` is a small set made by hand in the same sense.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_protocol::response::split_response;
use varve_protocol::{ApiKey, Response, TABLE, decode_request, encode_response};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Request,
    Response,
}

/// Checks one body; false where the table does not have its key and version.
fn check(key: i16, version: i16, kind: Kind, body: &[u8]) -> bool {
    let Some(api) = ApiKey::find(key).filter(|api| api.supports(version)) else {
        return false;
    };
    match kind {
        Kind::Request => check_request(api.key, version, body),
        Kind::Response => check_response(api.key, version, body),
    }
    true
}

fn check_request(key: ApiKey, version: i16, body: &[u8]) {
    let api = key.api();
    let mut frame = Vec::new();
    frame.extend(key.number().to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(77_i32.to_be_bytes());
    frame.extend([0, 3]);
    frame.extend(b"cli");
    if api.request_header_version(version) == 2 {
        frame.push(0);
    }
    frame.extend(body);
    let frame = Bytes::from(frame);
    let (header, request) =
        decode_request(frame.clone()).unwrap_or_else(|error| panic!("{key:?} {version}: {error}"));
    assert_eq!((header.key, header.version, header.correlation_id), (key, version, 77));
    assert_eq!(header.client_id.as_deref(), Some("cli"));
    let again = request.encode(version, 77, Some("cli")).expect("what decodes encodes");
    assert_eq!(again[4..], frame[..], "{key:?} {version}");
}

fn check_response(key: ApiKey, version: i16, body: &[u8]) {
    let response = Response::decode(key, version, Bytes::copy_from_slice(body))
        .unwrap_or_else(|error| panic!("{key:?} {version}: {error}"));
    let frame = encode_response(key, version, 78, &response).expect("what decodes encodes");
    assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes(), "{key:?} {version}");
    let (correlation_id, again) = split_response(key, version, frame.slice(4..)).expect("our own header");
    assert_eq!(correlation_id, 78);
    assert_eq!(again[..], *body, "{key:?} {version}");
}

/// Every request and response of every version in the table was seen.
fn assert_complete(seen: &BTreeMap<(i16, i16, Kind), usize>) {
    for api in TABLE {
        for version in api.first..=api.last {
            for kind in [Kind::Request, Kind::Response] {
                assert!(seen.contains_key(&(api.key.number(), version, kind)), "{:?} {version}", api.key);
            }
        }
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().unwrap())
    }
}

#[test]
fn frames_drawn_from_the_schemas_round_trip() {
    let Some(path) = std::env::var_os("VARVE_KAFKA_FRAMES") else {
        assert!(
            std::env::var("CI").is_err(),
            "CI must set VARVE_KAFKA_FRAMES: tools/kafka_frames.py makes the file"
        );
        println!("skipped: VARVE_KAFKA_FRAMES names no file of tools/kafka_frames.py");
        return;
    };
    let file = std::fs::read(path).expect("VARVE_KAFKA_FRAMES names a file");
    let mut cursor = Cursor(&file);
    let mut seen = BTreeMap::new();
    while !cursor.0.is_empty() {
        let (key, version) = (cursor.i16(), cursor.i16());
        let kind = if cursor.take(1)[0] == 0 { Kind::Request } else { Kind::Response };
        let name_bytes = usize::from(cursor.take(1)[0]);
        cursor.take(name_bytes);
        let body_bytes = u32::from_be_bytes(cursor.take(4).try_into().unwrap()) as usize;
        if check(key, version, kind, cursor.take(body_bytes)) {
            *seen.entry((key, version, kind)).or_insert(0) += 1;
        }
    }
    println!("{} frames", seen.values().sum::<usize>());
    assert_complete(&seen);
}

#[test]
fn hand_made_frames_round_trip() {
    let mut count = 0;
    for line in include_str!("fixtures/frames.txt").lines() {
        let line = line.split('#').next().unwrap().trim();
        if line.is_empty() {
            continue;
        }
        let mut words = line.split_whitespace();
        let kind = match words.next().unwrap() {
            "request" => Kind::Request,
            "response" => Kind::Response,
            other => panic!("{other}"),
        };
        let key: i16 = words.next().unwrap().parse().unwrap();
        let version: i16 = words.next().unwrap().parse().unwrap();
        let digits: String = words.collect();
        let body: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        assert!(check(key, version, kind, &body), "{line}");
        count += 1;
    }
    assert!(count >= 20);
}
