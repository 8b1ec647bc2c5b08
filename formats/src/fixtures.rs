//! Committed bytes of every format: they must decode for ever, and encode to the same bytes again where nothing in
//! them was compressed. `VARVE_FIXTURES=write cargo test -p varve-formats` writes those that are missing, never one
//! that is there.

#![allow(clippy::disallowed_methods)]

use std::{fs, path::PathBuf};

use bytes::Bytes;

/// How exact a fixture is.
#[derive(PartialEq, Eq)]
pub enum Form {
    /// Today's writer must write these bytes.
    Exact,
    /// A compressor's release may change them: they must be readable.
    DecodeOnly,
}

/// Compares `written` with the fixture and gives the fixture, which the caller decodes.
pub fn check(name: &str, form: Form, written: &[u8]) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/{name}.hex"));
    if !path.exists() && std::env::var("VARVE_FIXTURES").as_deref() == Ok("write") {
        fs::write(&path, to_hex(written)).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stored = from_hex(&text);
    if form == Form::Exact {
        assert_eq!(to_hex(written), to_hex(&stored), "{name}: the stored form has changed");
    }
    stored.into()
}

/// Calls `each` with every single-bit flip of `bytes` and with every prefix.
pub fn each_mutation(bytes: &[u8], mut each: impl FnMut(Bytes)) {
    for place in 0..bytes.len() {
        each(Bytes::copy_from_slice(&bytes[..place]));
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[place] ^= 1 << bit;
            each(flipped.into());
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text.push('\n');
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(pair).collect()
}
