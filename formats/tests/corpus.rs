//! The fuzz targets 16 and 17 (FAULTS.md 4.4) as plain tests: the committed corpus, every fixture, and fixed mutations
//! of both.

#![allow(clippy::disallowed_methods, dead_code)]

use std::{fs, path::Path};

#[path = "../fuzz/src/targets.rs"]
mod targets;

fn files(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn fixtures() -> Vec<Vec<u8>> {
    files("fixtures").iter().map(|text| hex(std::str::from_utf8(text).unwrap())).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(pair).collect()
}

/// Runs a target over the seeds, each in every mode, cut at 16 places, and with single bytes replaced.
fn run(target: fn(&[u8]), seeds: Vec<Vec<u8>>, modes: u8) {
    assert!(!seeds.is_empty());
    for seed in seeds {
        target(&seed);
        for mode in 0..modes {
            let with_mode = [&[mode], &seed[..]].concat();
            target(&with_mode);
            for part in 0..16 {
                target(&with_mode[..with_mode.len() * part / 16]);
            }
            for place in (1..with_mode.len()).step_by(7) {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut changed = with_mode.clone();
                    changed[place] = value;
                    target(&changed);
                }
            }
        }
    }
}

#[test]
fn target_16_segment_and_index_reader() {
    let mut seeds = fixtures();
    seeds.extend(files("fuzz/corpus/segment"));
    run(targets::segment, seeds, 4);
}

#[test]
fn target_17_manifest_and_checkpoint_decoder() {
    let mut seeds = fixtures();
    seeds.extend(files("fuzz/corpus/checkpoint"));
    run(targets::checkpoint, seeds, 9);
}
