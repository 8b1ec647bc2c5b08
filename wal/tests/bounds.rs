//! How much room the log takes.

mod common;

use std::sync::Arc;

use common::*;
use varve_common::Access;
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
