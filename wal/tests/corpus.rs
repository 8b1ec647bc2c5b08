//! Fuzz target 15 (FAULTS.md 4.4) as a plain test: the committed corpus, whole and cut at many places.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use varve_common::{Access, Disk, GroupId};
use varve_wal::{Options, Recovery, open, testing::MemoryDisk};

fn options() -> Options {
    let mut options = Options::new("/wal".into(), 1 << 20, 1);
    options.file_bytes = 32 << 10;
    options
}

/// What `fuzz_targets/recovery.rs` does.
fn recover(bytes: &[u8]) -> Option<Recovery> {
    let disk = MemoryDisk::default();
    disk.create_directory(Path::new("/wal")).unwrap();
    let file = disk.create(Path::new("/wal/0000000000000001.wal"), Access::Buffered).unwrap();
    file.write_at(bytes, 0).unwrap();
    open(Arc::new(disk), options()).ok().map(|(_, _, recovery)| recovery)
}

fn seed(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recovery")
}

/// How many entries of the one group are recovered.
fn entries(bytes: &[u8]) -> Option<u64> {
    recover(bytes).map(|recovery| recovery.groups.get(&GroupId(1)).map_or(0, |group| group.last_index.0))
}

#[test]
fn corpus_of_recovery() {
    let mut count = 0;
    for file in std::fs::read_dir(folder()).expect("the target has a corpus") {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        (0..bytes.len()).step_by(509).for_each(|cut| drop(recover(&bytes[..cut])));
        drop(recover(&bytes));
        count += 1;
    }
    assert_eq!(count, 3);
}

/// Else the fuzzer would begin with what no recovery reads beyond its first bytes.
#[test]
fn the_corpus_is_of_the_format_that_is_read() {
    assert_eq!(entries(&seed("open")), Some(8));
    assert_eq!(entries(&seed("torn")), Some(7), "the last batch is torn");
    let rotten = recover(&seed("rotten")).unwrap();
    assert!(rotten.groups[&GroupId(1)].damage.is_some(), "{rotten:?}");
}
