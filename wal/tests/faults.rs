//! Faults and invariants of FAULTS.md by name.

mod common;

use std::{
    io::ErrorKind,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use common::*;
use varve_common::{Access, Disk, GroupId, LogIndex, Offset, Term};
use varve_wal::{
    AppendError, DamageCause, Failure, Full, NativeDisk, Options, ReadError, Record,
    limits::{SPARE_FILES, SPARES_QUIET_ROUNDS},
    open, spawn,
    testing::{Injected, MemoryDisk, disk_conformance},
};

#[test]
fn memory_disk_conforms() {
    disk_conformance(&MemoryDisk::default(), &PathBuf::from("/work"));
}

#[test]
fn native_disk_conforms() {
    let directory = tempfile::tempdir().unwrap();
    disk_conformance(&NativeDisk, directory.path());
}

#[test]
fn a_log_on_the_native_disk_reopens_buffered_and_direct() {
    for access in [Access::Buffered, Access::Direct] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let mut options = Options::new(directory.path().join("wal"), 64 << 20, 1);
        options.file_bytes = 1 << 20;
        options.access = access;
        let (mut writer, _, _) = open(Arc::new(NativeDisk), options.clone()).unwrap();
        for index in 1..50 {
            put(&mut writer, &[entries(1, index..index + 1, 1, 40_000), hard_state(2, index, 0)]);
            writer.maintain().unwrap();
        }
        drop(writer);
        let (_, reader, recovery) = open(Arc::new(NativeDisk), options).unwrap();
        assert_eq!((last(&recovery, 1), all(&reader, 1)[48].clone()), (49, entry(49, 1, 40_000)));
    }
}

#[test]
fn fault_10_torn_at_every_byte_recovers_the_prefix() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    put(&mut writer, &[entries(1, 1..3, 1, 50)]);
    let before = writer.synced_position().0 as usize;
    writer.append(&[entries(1, 3..5, 1, 200), hard_state(1, 2, 2)]).unwrap();
    let path = wal_files(&disk)[0].clone();
    let whole = disk.contents(&path);
    for cut in before..whole.iter().rposition(|byte| *byte != 0).unwrap() {
        let torn = disk.process_kill();
        torn.overwrite(&path, cut as u64, &vec![0; whole.len() - cut]);
        let (mut writer, reader, recovery) = start(&torn, 2);
        assert_eq!(
            (last(&recovery, 1), recovery.groups[&GroupId(1)].damage.clone()),
            (2, None),
            "cut at {cut}"
        );
        put(&mut writer, &[entries(1, 3..4, 2, 9)]);
        assert_eq!(all(&reader, 1).len(), 3);
        let (_, reader, recovery) = start(&torn.power_cut(cut as u64), 3);
        assert_eq!((last(&recovery, 1), all(&reader, 1)[2].term), (3, Term(2)), "cut at {cut}");
    }
}

#[test]
fn w3_t8_t10_never_appends_behind_a_torn_tail() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    put(&mut writer, &[entries(1, 1..3, 1, 50)]);
    let torn_at = writer.synced_position().0;
    writer.append(&[entries(1, 3..4, 1, 50)]).unwrap();
    writer.append(&[entries(1, 4..5, 1, 50)]).unwrap();
    let path = wal_files(&disk)[0].clone();
    let disk = disk.process_kill();
    disk.overwrite(&path, torn_at, &[0; 64]);
    for seed in 2..6 {
        let (mut writer, _, recovery) = start(&disk, seed);
        assert_eq!(last(&recovery, 1), seed);
        put(&mut writer, &[entries(1, seed + 1..seed + 2, 2, 50)]);
    }
    assert_eq!(wal_files(&disk).len(), 5);
}

/// A log whose middle batch is followed by synced ones.
fn rotten(settle: bool) -> (MemoryDisk, u64) {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    put(&mut writer, &[entries(1, 1..4, 1, 50), entries(2, 1..4, 1, 50), hard_state(3, 1, 0)]);
    let at = writer.synced_position().0;
    put(&mut writer, &[entries(1, 4..6, 1, 50), hard_state(3, 2, 0)]);
    if settle {
        writer.settle().unwrap();
    } else {
        put(&mut writer, &[entries(1, 6..7, 1, 50), entries(2, 4..5, 1, 50)]);
    }
    (disk.process_kill(), at)
}

#[test]
fn w2_fault_24_a_flip_below_a_synced_position_damages_its_group_only_and_for_ever() {
    let (disk, at) = rotten(false);
    disk.flip_bit(&wal_files(&disk)[0], (at + 64 + 32 + 60) * 8);
    for seed in 2..5 {
        let (mut writer, reader, recovery) = start(&disk, seed);
        let damage = recovery.groups[&GroupId(1)].damage.clone().unwrap();
        assert_eq!((damage.last_index, damage.cause), (LogIndex(3), DamageCause::Record));
        assert_eq!((all(&reader, 1).len(), all(&reader, 2).len()), (3, 4));
        assert_eq!(recovery.groups[&GroupId(3)].hard_state.unwrap().term, Term(2));
        assert!([2, 3].iter().all(|group| recovery.groups[&GroupId(*group)].damage.is_none()));
        let refused = writer.append(&[entries(1, 4..5, 3, 9)]);
        assert!(matches!(refused, Err(AppendError::Invalid { group: GroupId(1), .. })));
        put(&mut writer, &[hard_state(2, seed, 0)]);
    }
    let (mut writer, _, _) = start(&disk, 9);
    put(&mut writer, &[record(1, Record::LossAccepted)]);
    put(&mut writer, &[entries(1, 4..5, 3, 9)]);
    let (_, reader, recovery) = start(&disk, 10);
    assert_eq!((recovery.groups[&GroupId(1)].damage.clone(), all(&reader, 1).len()), (None, 4));
}

#[test]
fn w2_an_empty_batch_after_a_burst_tells_rot_in_the_last_acknowledged_batch() {
    let (disk, at) = rotten(true);
    disk.flip_bit(&wal_files(&disk)[0], (at + 64 + 32 + 60) * 8);
    let (_, _, recovery) = start(&disk, 2);
    assert!(recovery.groups[&GroupId(1)].damage.is_some());
}

#[test]
fn w2_bytes_that_nobody_can_attribute_damage_every_group() {
    let (disk, at) = rotten(false);
    disk.overwrite(&wal_files(&disk)[0], at, &[0xff; 300]);
    let (_, _, recovery) = start(&disk, 2);
    assert!(recovery.groups.values().all(|group| group.damage.is_some()));
}

#[test]
fn w4_t17_fault_13_after_a_failed_sync_nothing_is_acknowledged_and_no_sync_is_retried() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    put(&mut writer, &[entries(1, 1..3, 1, 50)]);
    writer.append(&[entries(1, 3..4, 1, 50)]).unwrap();
    disk.inject(disk.operations() + 1, Injected::Eio);
    assert!(writer.sync().is_err());
    let syncs = disk.syncs();
    assert!(writer.sync().is_err() && writer.settle().is_err() && writer.maintain().is_err());
    assert!(matches!(writer.append(&[hard_state(1, 1, 1)]), Err(AppendError::Failed(_))));
    assert_eq!(disk.syncs(), syncs);
    let (_, _, recovery) = start(&disk.power_cut(3), 2);
    assert!(last(&recovery, 1) >= 2);
}

#[test]
fn fault_14_a_short_write_poisons_and_leaves_no_partial_record() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    put(&mut writer, &[entries(1, 1..3, 1, 50)]);
    disk.inject(disk.operations() + 1, Injected::Eio);
    assert!(matches!(writer.append(&[entries(1, 3..9, 1, 500)]), Err(AppendError::Failed(_))));
    let (_, _, recovery) = start(&disk.process_kill(), 2);
    assert_eq!(last(&recovery, 1), 2);
    assert!(recovery.torn_bytes > 0);
}

#[test]
fn fault_16_a_full_disk_refuses_entries_takes_marks_and_heals() {
    let disk = MemoryDisk::new(6 * FILE);
    let (mut writer, reader, _) = start(&disk, 1);
    let mut next = 1;
    let full = loop {
        match writer.append(&[entries(1, next..next + 1, 1, 5000)]) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
        writer.sync().unwrap();
        writer.maintain().unwrap();
    };
    assert!(matches!(full, AppendError::Full(Full::Disk)), "{full}");
    assert_eq!(all(&reader, 1).len() as u64, next - 1);
    put(&mut writer, &[truncated(1, next - 2, 1), hard_state(1, 1, next - 1)]);
    assert!(writer.maintain().unwrap().freed > 0);
    put(&mut writer, &[entries(1, next..next + 5, 1, 5000)]);
    assert_eq!(all(&reader, 1).len(), 6);
}

#[test]
fn fault_16_the_budget_refuses_entries_and_heals() {
    let disk = MemoryDisk::default();
    let mut small = options(1);
    small.bytes_max = 6 * FILE;
    let (mut writer, _, _) = open(Arc::new(disk), small).unwrap();
    let mut next = 1;
    while writer.append(&[entries(1, next..next + 1, 1, 5000)]).is_ok() {
        next += 1;
        assert!(next < 200);
    }
    put(&mut writer, &[truncated(1, next - 1, 1)]);
    while writer.maintain().unwrap().more {}
    put(&mut writer, &[entries(1, next..next + 5, 1, 5000)]);
}

#[test]
fn spares_of_a_burst_go_when_it_is_quiet_for_long() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    (1..400).for_each(|index| put(&mut writer, &[entries(1, index..index + 1, 1, 5000)]));
    put(&mut writer, &[truncated(1, 399, 1)]);
    while writer.maintain().unwrap().more {}
    let spares = || {
        let names = disk.list(std::path::Path::new("/wal")).unwrap();
        names.iter().filter(|name| name.ends_with(".spare")).count() as u64
    };
    let many = spares();
    assert!(many > *SPARE_FILES.start(), "{many}");
    (0..SPARES_QUIET_ROUNDS).for_each(|_| writer.rest_round().unwrap());
    assert_eq!(spares(), many);
    (0..many).for_each(|_| writer.rest_round().unwrap());
    assert_eq!(spares(), *SPARE_FILES.start());
}

/// Each life begins a file, and puts little into it where it ends soon.
#[test]
fn fault_16_lives_too_short_to_fill_a_file_do_not_fill_the_log_for_good() {
    let begin = |disk: &MemoryDisk, life| {
        let mut options = options(life);
        (options.file_bytes, options.bytes_max) = (8 * FILE, 32 * 8 * FILE);
        open(Arc::new(disk.clone()), options).unwrap()
    };
    let mut disk = MemoryDisk::default();
    let (mut writer, _, _) = begin(&disk, 1);
    for index in 1..735 {
        (1..4).for_each(|group| put(&mut writer, &[entries(group, index..index + 1, 1, 5000)]));
    }
    let spawned = |disk: &MemoryDisk, life| {
        let (writer, reader, recovery) = begin(disk, life);
        assert_eq!((last(&recovery, 1), last(&recovery, 3)), (734, 734));
        (spawn(writer).unwrap(), reader)
    };
    for life in 2..60 {
        // It ends with its first record, or before: where even that is refused, it waits.
        disk = disk.process_kill();
        let (handle, _) = spawned(&disk, life);
        let (sender, told) = mpsc::channel();
        handle.submit(vec![hard_state(1, life, 734)], Box::new(move |done| drop(sender.send(done))));
        let _ = told.recv_timeout(Duration::from_millis(200));
        disk = disk.process_kill();
        let _ = handle.shutdown();
    }
    let (handle, reader) = spawned(&disk.process_kill(), 60);
    let (sender, told) = mpsc::channel();
    let records = vec![hard_state(1, 60, 734), entries(1, 735..736, 60, 5000)];
    handle.submit(records, Box::new(move |done| sender.send(done).unwrap()));
    let taken = told.recv_timeout(Duration::from_secs(20)).is_ok();
    assert!(taken, "{:?}", reader.usage());
    (1..4).for_each(|group| assert_eq!(all(&reader, group).len(), if group == 1 { 735 } else { 734 }));
    handle.shutdown().unwrap();
}

#[test]
fn fault_15_a_read_of_rot_names_group_and_index() {
    let disk = MemoryDisk::default();
    let (mut writer, reader, _) = start(&disk, 1);
    put(&mut writer, &[entries(7, 1..4, 1, 50)]);
    disk.flip_bit(&wal_files(&disk)[0], (4096 + 64 + 32 + 60) * 8);
    let error = reader.entries(GroupId(7), LogIndex(1), 100).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { group: GroupId(7), index: LogIndex(1), .. }));
}

#[test]
fn fault_28_a_rotten_index_of_a_closed_file_is_rebuilt_by_a_scan() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    (1..60).for_each(|index| put(&mut writer, &[entries(1, index..index + 1, 1, 5000)]));
    let disk = disk.process_kill();
    let (_, _, recovery) = start(&disk, 2);
    let closed = wal_files(&disk)[0].clone();
    let trailer = disk.contents(&closed).len() as u64 - 4096;
    assert!(recovery.scanned_bytes <= FILE, "only the open tail is scanned");
    disk.flip_bit(&closed, trailer * 8 + 3);
    let (_, reader, recovery) = start(&disk, 3);
    assert_eq!((last(&recovery, 1), all(&reader, 1).len()), (59, 59));
    assert!(recovery.groups[&GroupId(1)].damage.is_none());
}

#[test]
fn w6_space_stays_below_its_bound_while_an_idle_group_pins_the_oldest_file() {
    let disk = MemoryDisk::default();
    let (mut writer, reader, _) = start(&disk, 1);
    put(&mut writer, &[hard_state(9, 5, 0), entries(9, 1..4, 5, 100), truncated(9, 1, 5)]);
    for index in 1..400 {
        put(&mut writer, &[entries(1, index..index + 1, 1, 5000)]);
        if index > 8 {
            put(&mut writer, &[truncated(1, index - 8, 1)]);
        }
        while writer.maintain().unwrap().more {}
        let usage = reader.usage();
        assert!(usage.bytes <= usage.live_bytes * 3 / 2 + 3 * FILE, "{} {}", usage.bytes, usage.live_bytes);
    }
    let (_, reader, recovery) = start(&disk.power_cut(1), 2);
    let group = &recovery.groups[&GroupId(9)];
    assert_eq!(
        (group.hard_state.unwrap().term, group.truncated, group.last_index),
        (Term(5), (LogIndex(1), Term(5)), LogIndex(3))
    );
    assert_eq!((all(&reader, 9).len(), last(&recovery, 1)), (2, 399));
}

#[test]
fn w6_an_earlier_incarnation_is_neither_read_nor_written() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    put(&mut writer, &[entries(1, 1..9, 1, 50)]);
    let mut later = entries(1, 1..2, 4, 50);
    later.replica = replica(2);
    put(&mut writer, &[later]);
    assert!(matches!(writer.append(&[entries(1, 9..10, 1, 50)]), Err(AppendError::Invalid { .. })));
    let (_, reader, recovery) = start(&disk.process_kill(), 2);
    assert_eq!((recovery.groups[&GroupId(1)].replica, all(&reader, 1)), (replica(2), vec![entry(1, 4, 50)]));
}

#[test]
fn t5_a_snapshot_that_conflicts_leaves_no_entries_beside_it() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    put(&mut writer, &[entries(1, 1..20, 1, 50)]);
    put(&mut writer, &[truncated(1, 10, 2)]);
    let (_, _, recovery) = start(&disk.process_kill(), 2);
    assert_eq!((last(&recovery, 1), recovery.groups[&GroupId(1)].last_term), (10, Term(2)));
}

/// The next start reads from memory what the failed sync left there, and no later sync writes it: what is built on it
/// must not be lost with it.
#[test]
fn t17_what_a_failed_sync_left_in_memory_is_written_again_by_the_next_start() {
    for seed in 0..20 {
        let disk = MemoryDisk::default();
        let (mut writer, _, _) = start(&disk, 1);
        put(&mut writer, &[entries(1, 1..9, 1, 50)]);
        writer.append(&[entries(1, 9..20, 1, 50)]).unwrap();
        disk.inject(disk.operations() + 1, Injected::Eio);
        writer.sync().unwrap_err();
        let disk = disk.process_kill();
        let (mut writer, _, recovery) = start(&disk, 2);
        assert_eq!(last(&recovery, 1), 19);
        put(&mut writer, &[entries(1, 20..25, 2, 50)]);
        let (_, reader, recovery) = start(&disk.power_cut(seed), 3);
        assert_eq!((&recovery.groups[&GroupId(1)].damage, all(&reader, 1).len()), (&None, 24));
    }
}

/// A checkpoint that was found damaged is written once more, as of the same index: it must not push out the one before
/// it, the only other that a start could fall back on.
#[test]
fn s4_a_checkpoint_that_is_written_again_leaves_the_one_before_it() {
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    let mark = |index: u64, bytes: &[u8]| varve_wal::SnapshotMark {
        index: LogIndex(index),
        term: Term(1),
        file: format!("{index}.ckpt"),
        sha256: varve_common::Digest::of(bytes),
    };
    put(&mut writer, &[entries(1, 1..40, 1, 50)]);
    for mark in [mark(17, b"x"), mark(30, b"damaged"), mark(30, b"whole")] {
        put(&mut writer, &[record(1, Record::Snapshot(mark))]);
    }
    let (_, _, recovery) = start(&disk.process_kill(), 2);
    assert_eq!(recovery.groups[&GroupId(1)].snapshots, [mark(17, b"x"), mark(30, b"whole")]);
}

#[test]
fn offsets_find_the_entry_that_holds_them() {
    let (mut writer, reader, _) = start(&MemoryDisk::default(), 1);
    put(&mut writer, &[entries(1, 1..20, 1, 50)]);
    put(&mut writer, &[entries(1, 20..25, 2, 50)]);
    let find = |offset| reader.find_offset(GroupId(1), Offset(offset)).unwrap();
    assert_eq!(
        [find(9), find(10), find(155), find(249)],
        [None, Some(LogIndex(1)), Some(LogIndex(15)), Some(LogIndex(24))]
    );
    assert_eq!(
        (reader.term(GroupId(1), LogIndex(19)), reader.term(GroupId(1), LogIndex(25))),
        (Some(Term(1)), None)
    );
}

#[test]
fn group_commit_acknowledges_all_and_shuts_down_settled() {
    let disk = MemoryDisk::default();
    let (writer, _, _) = start(&disk, 1);
    let handle = spawn(writer).unwrap();
    let (send, receive) = mpsc::channel();
    for group in 1..200 {
        let send = send.clone();
        handle.submit(vec![entries(group, 1..2, 1, 100)], Box::new(move |result| send.send(result).unwrap()));
    }
    (1..200).for_each(|_| assert_eq!(receive.recv().unwrap(), Ok(())));
    handle.shutdown().unwrap();
    let (_, _, recovery) = start(&disk.power_cut(4), 2);
    assert_eq!(recovery.groups.len(), 199);
}

#[test]
fn w4_after_a_failure_everything_that_waits_and_everything_later_fails() {
    let disk = MemoryDisk::default();
    let (writer, _, _) = start(&disk, 1);
    (1..200).for_each(|operation| disk.inject(disk.operations() + operation, Injected::Eio));
    let handle = spawn(writer).unwrap();
    let (send, receive) = mpsc::channel();
    for _ in 0..3 {
        let send = send.clone();
        handle.submit(vec![hard_state(1, 1, 0)], Box::new(move |result| send.send(result).unwrap()));
        assert!(matches!(receive.recv().unwrap(), Err(Failure::Failed(_))));
    }
    assert_ne!(handle.shutdown().unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn fuzz_15_recovery_from_mutated_bytes_never_panics() {
    use rand::{RngExt, SeedableRng};
    let disk = MemoryDisk::default();
    let (mut writer, _, _) = start(&disk, 1);
    (1..40).for_each(|index| {
        put(&mut writer, &[entries(1, index..index + 1, 1, 3000), hard_state(2, index, 0)])
    });
    for seed in 0..150 {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let copy = disk.process_kill();
        for path in wal_files(&copy) {
            let length = copy.contents(&path).len();
            for _ in 0..random.random_range(0..20) {
                let junk: Vec<u8> = (0..random.random_range(1..40)).map(|_| random.random()).collect();
                let at = random.random_range(0..length - junk.len());
                copy.overwrite(&path, at as u64, &junk);
            }
            if random.random_bool(0.1) {
                copy.open(&path, Access::Buffered)
                    .unwrap()
                    .set_len(random.random_range(0..length as u64))
                    .unwrap();
            }
        }
        if let Ok((mut writer, reader, _)) = open(Arc::new(copy), options(seed)) {
            let _ = reader.entries(GroupId(1), LogIndex(1), 1 << 20);
            let _ = writer.append(&[hard_state(5, 1, 1)]);
            let _ = writer.sync();
            let _ = writer.maintain();
        }
    }
}

#[test]
fn ten_thousand_groups_recover() {
    let disk = MemoryDisk::default();
    let mut large = options(1);
    large.file_bytes = 4 << 20;
    large.bytes_max = 1 << 30;
    let (mut writer, _, _) = open(Arc::new(disk.clone()), large.clone()).unwrap();
    for round in 1..4 {
        for base in 0..10 {
            let batch: Vec<_> =
                (0..1000).map(|id| entries(base * 1000 + id, round..round + 1, 1, 100)).collect();
            put(&mut writer, &batch);
        }
    }
    drop(writer);
    let started = std::time::Instant::now();
    let (_, _, recovery) = open(Arc::new(disk), large).unwrap();
    println!("10,000 groups, 30,000 records: recovered in {:?}", started.elapsed());
    assert!(recovery.groups.len() == 10_000 && recovery.groups.values().all(|group| group.last_index.0 == 3));
}
