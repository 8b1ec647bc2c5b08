//! Fuzz target 15: recovery from arbitrary bytes never panics (plain tests: tests/corpus.rs, and `fuzz_15_…` in tests/faults.rs).
#![no_main]

use std::{path::Path, sync::Arc};

use libfuzzer_sys::fuzz_target;
use varve_common::{Access, Disk};
use varve_wal::{Options, open, testing::MemoryDisk};

fuzz_target!(|bytes: &[u8]| {
    let disk = MemoryDisk::default();
    disk.create_directory(Path::new("/wal")).unwrap();
    let file = disk.create(Path::new("/wal/0000000000000001.wal"), Access::Buffered).unwrap();
    file.write_at(bytes, 0).unwrap();
    let mut options = Options::new("/wal".into(), 1 << 20, 1);
    options.file_bytes = 32 << 10;
    let _ = open(Arc::new(disk), options);
});
