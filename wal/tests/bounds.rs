//! How much room the log takes, and how much of it is read.

mod common;

use std::sync::Arc;

use common::*;
use varve_common::{Access, GroupId, LogIndex};
use varve_wal::{Options, open, testing::MemoryDisk};

/// Past the page cache each batch takes whole blocks, whatever little is in it.
#[test]
fn padded_batches_keep_the_log_within_its_bounds() {
    let (groups, record_bytes, file_bytes) = (4, 200, 2 * FILE);
    let bytes_max = 12 * file_bytes;
    let options = Options { access: Access::Direct, file_bytes, bytes_max, ..options(1) };
    let (mut writer, reader, _) = open(Arc::new(MemoryDisk::default()), options).unwrap();
    // What lives takes a few percent of the blocks that it is written into, and a sixth of the log once it lies close together.
    let kept = bytes_max / 6 / groups / record_bytes;
    for index in 1..2 * kept {
        for group in 1..=groups {
            put(&mut writer, &[entries(group, index..index + 1, 1, 100)]);
            put(&mut writer, &[hard_state(group, 1, index)]);
            if index > kept {
                put(&mut writer, &[truncated(group, index - kept, 1)]);
            }
            let ends = (0..100).any(|_| !writer.maintain().unwrap().more);
            assert!(ends, "it moves for ever what it has moved: {:?}", reader.usage());
        }
        let usage = reader.usage();
        let bound = usage.live_bytes + usage.live_bytes / 2 + 2 * file_bytes;
        assert!(usage.bytes <= bound, "{index}: {usage:?}");
    }
    assert_eq!(all(&reader, 1).len() as u64, kept);
}

/// A step of an upload or a fetch asks for 1 MiB, which a few large batches just do not fill.
#[test]
fn the_disk_is_asked_for_little_more_than_a_reader_gets() {
    for entry_bytes in [100, 20 << 10, 100 << 10, 256 << 10, 400 << 10] {
        let disk = MemoryDisk::default();
        let options = Options { file_bytes: 64 << 20, bytes_max: 1 << 30, ..options(1) };
        let (mut writer, reader, _) = open(Arc::new(disk.clone()), options).unwrap();
        let count = ((16 << 20) / entry_bytes as u64).min(20_000);
        (1..=count).for_each(|index| put(&mut writer, &[entries(1, index..index + 1, 1, entry_bytes)]));
        let (before, mut next, mut bytes) = (disk.bytes_read(), LogIndex(1), 0);
        while next.0 <= count {
            let step = reader.entries(GroupId(1), next, 1 << 20).unwrap();
            bytes += step.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
            next = step.last().unwrap().index.next();
        }
        let read = disk.bytes_read() - before;
        // A small batch of the log holds one entry here, so headers are most of the rest.
        let framing = 256 * count;
        assert!(read <= bytes + bytes / 8 + framing, "{entry_bytes}: {read} read for {bytes}");
    }
}
