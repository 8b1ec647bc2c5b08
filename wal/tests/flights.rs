//! Batches on their way to the disk: what is told when, what readers see, and what a crash in the middle leaves.

mod common;

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use common::{
    held::{self, Step},
    *,
};
use varve_common::{Access, Disk, GroupId, LogIndex};
use varve_wal::{
    Failure, Flight, NativeDisk, Options, Reader, Recovery, Writer,
    limits::SECOND_SYNC_BYTES,
    open, spawn,
    testing::{Injected, MemoryDisk, Operation, Target},
};

/// Files that hold both batches.
fn wide(seed: u64) -> Options {
    Options { file_bytes: 4 << 20, bytes_max: 64 << 20, ..options(seed) }
}

fn start_wide(disk: &MemoryDisk, seed: u64) -> (Writer, Recovery) {
    let (writer, _, recovery) = open(Arc::new(disk.clone()), wide(seed)).unwrap();
    (writer, recovery)
}

/// A log over a disk that holds one step of its batches, with two of them on their way: what each is told comes with its number.
fn two_in_flight(
    disk: &MemoryDisk,
    step: Step,
) -> (held::Hand, varve_wal::Handle, mpsc::Receiver<(u64, bool)>) {
    let (held_disk, hand) = held::HeldDisk::new(disk.clone());
    let (mut writer, _, _) = open(Arc::new(held_disk), wide(1)).unwrap();
    put(&mut writer, &[hard_state(9, 1, 0)]);
    let handle = spawn(writer).unwrap();
    let (send, told) = mpsc::channel();
    hand.holding(step, true);
    for group in 0..2 {
        let send = send.clone();
        let on_done =
            Box::new(move |result: Result<(), Failure>| send.send((group, result.is_ok())).unwrap());
        handle.submit(vec![entries(group + 1, 1..2, 1, SECOND_SYNC_BYTES as usize)], on_done);
        assert_eq!(hand.begun(), (step, group));
    }
    (hand, handle, told)
}

#[test]
fn w1_two_batches_are_on_their_way_at_once_and_are_answered_in_their_order() {
    let disk = MemoryDisk::default();
    let (hand, handle, told) = two_in_flight(&disk, Step::Sync);
    hand.let_go(Step::Sync, 1, true);
    assert_eq!(told.recv_timeout(Duration::from_millis(100)), Err(mpsc::RecvTimeoutError::Timeout));
    hand.let_go(Step::Sync, 0, true);
    assert_eq!([told.recv().unwrap(), told.recv().unwrap()], [(0, true), (1, true)]);
    hand.holding(Step::Sync, false);
    handle.shutdown().unwrap();
    let (_, recovery) = start_wide(&disk.power_cut(1), 2);
    assert_eq!((last(&recovery, 1), last(&recovery, 2)), (1, 1));
}

#[test]
fn small_batches_wait_for_the_sync_in_flight_and_share_the_next() {
    let (held_disk, hand) = held::HeldDisk::new(MemoryDisk::default());
    let (writer, _, _) = open(Arc::new(held_disk), options(1)).unwrap();
    let handle = spawn(writer).unwrap();
    let (send, told) = mpsc::channel();
    hand.holding(Step::Sync, true);
    let submit = |group| {
        let send = send.clone();
        handle.submit(vec![entries(group, 1..2, 1, 100)], Box::new(move |_| send.send(group).unwrap()));
    };
    submit(1);
    assert_eq!(hand.begun(), (Step::Sync, 0));
    (2..10).for_each(submit);
    hand.let_go(Step::Sync, 0, true);
    assert_eq!((told.recv().unwrap(), hand.begun()), (1, (Step::Sync, 1)));
    hand.let_go(Step::Sync, 1, true);
    (2..10).for_each(|group| assert_eq!(told.recv().unwrap(), group));
    hand.holding(Step::Sync, false);
    handle.shutdown().unwrap();
}

#[test]
fn w4_a_sync_that_fails_fails_the_batch_in_the_other_lane_too() {
    for (good, bad) in [(1, 0), (0, 1)] {
        let (hand, handle, told) = two_in_flight(&MemoryDisk::default(), Step::Sync);
        hand.let_go(Step::Sync, bad, false);
        // The one in front may have been durable before; it is never behind one that is not.
        hand.let_go(Step::Sync, good, true);
        let answers: Vec<(u64, bool)> = vec![told.recv().unwrap(), told.recv().unwrap()];
        assert!(answers.contains(&(bad, false)), "{answers:?}");
        assert!(good == 0 || answers.contains(&(good, false)), "{answers:?}");
        hand.holding(Step::Sync, false);
        let (send, later) = mpsc::channel();
        handle.submit(vec![hard_state(9, 2, 0)], Box::new(move |result| send.send(result).unwrap()));
        assert!(matches!(later.recv().unwrap(), Err(Failure::Failed(_))));
        handle.shutdown().unwrap_err();
    }
}

#[test]
fn w1_a_batch_that_is_written_waits_for_the_one_before_it() {
    let disk = MemoryDisk::default();
    let (hand, handle, told) = two_in_flight(&disk, Step::Write);
    hand.holding(Step::Sync, true);
    hand.let_go(Step::Write, 1, true);
    // Not even its sync begins: it would vouch for what is not in the file.
    assert!(hand.nothing_begins() && told.try_recv().is_err());
    hand.let_go(Step::Write, 0, true);
    assert_eq!([hand.begun(), hand.begun()], [(Step::Sync, 0), (Step::Sync, 1)]);
    hand.holding(Step::Sync, false);
    assert_eq!([told.recv().unwrap(), told.recv().unwrap()], [(0, true), (1, true)]);
    hand.holding(Step::Write, false);
    handle.shutdown().unwrap();
    let (_, recovery) = start_wide(&disk.power_cut(1), 2);
    assert_eq!((last(&recovery, 1), last(&recovery, 2)), (1, 1));
}

#[test]
fn w3_of_two_writes_in_flight_the_later_alone_is_a_torn_tail() {
    let disk = MemoryDisk::default();
    let (hand, handle, told) = two_in_flight(&disk, Step::Write);
    hand.holding(Step::Sync, true);
    hand.let_go(Step::Write, 1, true);
    assert!(hand.nothing_begins());
    let disk_after = disk.process_kill();
    hand.let_go(Step::Write, 0, true);
    hand.holding(Step::Sync, false);
    assert_eq!([told.recv().unwrap().1, told.recv().unwrap().1], [false, false], "its disk is gone");
    handle.shutdown().unwrap_err();
    let (mut writer, recovery) = start_wide(&disk_after, 2);
    assert_eq!((last(&recovery, 1), last(&recovery, 2)), (0, 0));
    assert!(recovery.torn_bytes > SECOND_SYNC_BYTES);
    assert!(recovery.groups.values().all(|group| group.damage.is_none()));
    put(&mut writer, &[entries(1, 1..2, 1, 9)]);
    let (_, recovery) = start_wide(&disk_after.power_cut(1), 3);
    assert_eq!((last(&recovery, 1), last(&recovery, 2)), (1, 0));
}

#[test]
fn w4_a_write_that_fails_in_its_lane_stops_everything() {
    for (good, bad) in [(1, 0), (0, 1)] {
        let disk = MemoryDisk::default();
        let (hand, handle, told) = two_in_flight(&disk, Step::Write);
        if good == 1 {
            hand.let_go(Step::Write, good, true);
        }
        hand.let_go(Step::Write, bad, false);
        hand.let_go(Step::Write, good, true);
        let answers: Vec<(u64, bool)> = vec![told.recv().unwrap(), told.recv().unwrap()];
        assert!(answers.contains(&(bad, false)), "{answers:?}");
        assert!(good == 0 || answers.contains(&(good, false)), "{answers:?}");
        let acknowledged = u64::from(answers.contains(&(0, true)));
        hand.holding(Step::Write, false);
        let (send, later) = mpsc::channel();
        handle.submit(vec![hard_state(9, 2, 0)], Box::new(move |result| send.send(result).unwrap()));
        assert!(matches!(later.recv().unwrap(), Err(Failure::Failed(_))));
        assert_eq!(handle.shutdown().unwrap_err().operation, "write");
        let (_, recovery) = start_wide(&disk.power_cut(1), 2);
        assert!(last(&recovery, 1) >= acknowledged && last(&recovery, 2) == 0);
        assert!(recovery.groups.values().all(|group| group.damage.is_none()));
    }
}

/// A log with one batch that is durable and two that are staged, each with a flight that has not run.
fn staged(disk: &MemoryDisk, access: Access) -> (Writer, Reader, [Flight; 2]) {
    let mut options = options(1);
    options.access = access;
    let (mut writer, reader, _) = open(Arc::new(disk.clone()), options).unwrap();
    put(&mut writer, &[entries(1, 1..3, 1, 100)]);
    writer.stage(&[entries(1, 3..5, 1, 5000)]).unwrap();
    let first = writer.begin_sync(0).unwrap().unwrap();
    writer.stage(&[entries(1, 5..7, 1, 5000)]).unwrap();
    let second = writer.begin_sync(1).unwrap().unwrap();
    (writer, reader, [first, second])
}

#[test]
fn what_is_staged_is_read_before_and_after_it_is_written() {
    let whole: Vec<_> = (1..7).map(|index| entry(index, 1, if index < 3 { 100 } else { 5000 })).collect();
    for (access, landed) in
        [Access::Buffered, Access::Direct].into_iter().flat_map(|one| [(one, 0), (one, 1), (one, 2)])
    {
        let disk = MemoryDisk::default();
        let (_writer, reader, flights) = staged(&disk, access);
        for flight in flights.into_iter().take(landed) {
            assert_eq!(all(&reader, 1), whole);
            flight.run().unwrap();
        }
        assert_eq!(all(&reader, 1), whole);
        let after = if landed == 0 { disk.process_kill() } else { disk.power_cut(3) };
        let (_, reader, _) = start(&after, 2);
        assert_eq!(all(&reader, 1), whole[..2 + 2 * landed]);
    }
}

#[test]
fn w1_a_flight_that_runs_first_carries_what_stands_before_it() {
    let disk = MemoryDisk::default();
    let (writer, _, [first, second]) = staged(&disk, Access::Buffered);
    let before = writer.synced_position();
    second.run().unwrap();
    assert!(writer.synced_position() > before);
    let operations = disk.operations();
    first.run().unwrap();
    assert_eq!(disk.operations(), operations + 1, "nothing is left to write, only to sync");
    let (_, _, recovery) = start(&disk.power_cut(3), 2);
    assert_eq!(last(&recovery, 1), 6);
}

#[test]
fn w3_a_crash_that_loses_the_earlier_of_two_writes_in_flight_loses_both_and_damages_nobody() {
    for access in [Access::Buffered, Access::Direct] {
        let disk = MemoryDisk::default();
        let (writer, _, [_, second]) = staged(&disk, access);
        let before = writer.synced_position();
        // It writes its own first: the machine dies in the other.
        let target = Target { operation: Operation::Write, below: "/wal".into(), spared: 1 };
        disk.inject_at(target, Injected::Dies);
        second.run().unwrap_err();
        assert_eq!(writer.synced_position(), before);
        for seed in 0..8 {
            let crashed = if seed == 0 { disk.process_kill() } else { disk.power_cut(seed) };
            let mut options = options(2);
            options.access = access;
            let (mut writer, _, recovery) = open(Arc::new(crashed.clone()), options).unwrap();
            let group = &recovery.groups[&GroupId(1)];
            assert_eq!((group.last_index.0, &group.damage), (2, &None), "seed {seed}");
            assert!(seed > 0 || recovery.torn_bytes > 5000);
            put(&mut writer, &[entries(1, 3..4, 2, 100)]);
            let (_, reader, _) = start(&crashed.power_cut(seed), 3);
            assert_eq!(all(&reader, 1).last(), Some(&entry(3, 2, 100)), "seed {seed}");
        }
    }
}

#[test]
fn w4_after_a_failed_write_no_other_flight_writes() {
    let disk = MemoryDisk::default();
    let (mut writer, _, [first, second]) = staged(&disk, Access::Buffered);
    disk.inject(disk.operations() + 1, Injected::Eio);
    first.run().unwrap_err();
    let operations = disk.operations();
    second.run().unwrap_err();
    assert!(writer.sync().is_err() && writer.stage(&[hard_state(1, 2, 0)]).is_err());
    assert_eq!(disk.operations(), operations);
}

#[test]
fn where_direct_writes_are_refused_the_log_goes_through_the_cache() {
    let disk = MemoryDisk::default();
    let direct = Options { access: Access::Direct, ..options(1) };
    let refusing = Arc::new(held::HeldDisk::without_direct(disk.clone()));
    let (mut writer, _, recovery) = open(refusing, direct.clone()).unwrap();
    assert!(recovery.buffered_instead);
    put(&mut writer, &[entries(1, 1..3, 1, 100)]);
    let (_, reader, recovery) = open(Arc::new(disk.power_cut(1)), direct).unwrap();
    assert_eq!((recovery.buffered_instead, all(&reader, 1).len()), (false, 2));
}

#[test]
fn one_among_many_is_read_the_same_in_long_reads_and_past_the_cache() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let options = Options {
        directory: folder.path().join("wal"),
        file_bytes: 8 << 20,
        bytes_max: 64 << 20,
        access: Access::Direct,
        ..options(1)
    };
    let native: Arc<dyn Disk> = Arc::new(NativeDisk);
    let (mut writer, reader, _) = open(Arc::clone(&native), options.clone()).unwrap();
    for index in 1..60 {
        let round = |group| entries(group, index..index + 1, 1, 12_000 + index as usize);
        let batch: Vec<_> = [1, 2, 3].into_iter().map(round).collect();
        if index < 55 {
            writer.append(&batch).unwrap()
        } else {
            writer.stage(&batch).unwrap()
        };
    }
    writer.stage(&[entries(4, 1..60, 1, 20_000)]).unwrap();
    let check = |reader: &Reader| {
        for group in [2, 4] {
            let whole: Vec<_> = all(reader, group);
            let found = reader.entries(GroupId(group), LogIndex(1), 4 << 20).unwrap();
            assert_eq!((found.len(), &found), (59, &whole));
        }
    };
    // The last are still on their way, then they are not.
    check(&reader);
    writer.sync().unwrap();
    check(&reader);
    drop(writer);
    let (_, reader, recovery) = open(native, options).unwrap();
    assert!(!recovery.buffered_instead);
    check(&reader);
}
