//! Rot that is found while the log runs, and what becomes of damaged bytes (FAULTS.md 15, 24; W2, W6).

mod common;

use std::path::PathBuf;

use common::*;
use varve_common::{Disk, GroupId, LogIndex, Term};
use varve_wal::{
    AppendError, DamageCause, Maintained, ReadError, Reader, Record, Rot, SnapshotMark, Writer, open,
    remove_evidence, testing::MemoryDisk,
};

const HEADERS: u64 = 64 + 32;

/// Groups 1 and 2 wrote in turns; a bit of an entry of group 1 has flipped under the running log.
fn rotten(entry: u64) -> (MemoryDisk, Writer, Reader) {
    let disk = MemoryDisk::default();
    let (mut writer, reader, _) = start(&disk, 1);
    for index in 1..=10 {
        let at = writer.synced_position().0;
        put(&mut writer, &[entries(1, index..index + 1, 1, 500)]);
        if index == entry {
            // A batch of the first file begins where the last one ended, behind the file's header for the first of all.
            let at = at.max(4096);
            disk.flip_bit(&wal_files(&disk)[0], (at + HEADERS + 300) * 8);
        }
        put(&mut writer, &[entries(2, index..index + 1, 1, 500)]);
    }
    (disk, writer, reader)
}

fn found(writer: &mut Writer) -> Vec<Rot> {
    writer.maintain().unwrap().rotten
}

/// Writes and cuts group 3 until the log has turned over several times.
fn churn(writer: &mut Writer, next: &mut u64) -> Vec<Maintained> {
    let from = *next;
    *next += 200;
    let step = |writer: &mut Writer, index: u64| {
        put(writer, &[entries(3, index..index + 1, 1, 5000)]);
        if index > from + 4 {
            put(writer, &[truncated(3, index - 4, 1)]);
        }
        writer.maintain().unwrap()
    };
    (from..from + 200).map(|index| step(writer, index)).collect()
}

fn evidence(disk: &MemoryDisk) -> Vec<PathBuf> {
    let names = disk.list(&PathBuf::from("/wal")).unwrap();
    names
        .into_iter()
        .filter(|name| name.ends_with(".rot"))
        .map(|name| PathBuf::from("/wal").join(name))
        .collect()
}

fn read(reader: &Reader, index: u64) -> Result<LogIndex, ReadError> {
    reader.entries(GroupId(1), LogIndex(index), 1).map(|entries| entries[0].index)
}

#[test]
fn fault_15_what_a_reader_cannot_read_is_named_once_to_the_entry_and_stops_nobody() {
    let (_, mut writer, reader) = rotten(5);
    assert_eq!(found(&mut writer), [], "nothing has read it yet");
    assert!(matches!(read(&reader, 5), Err(ReadError::Corrupt { index: LogIndex(5), .. })));
    let rot = found(&mut writer);
    assert_eq!(
        rot.iter().map(|rot| (rot.group, rot.entries.clone())).collect::<Vec<_>>(),
        [(GroupId(1), LogIndex(5)..LogIndex(6))]
    );
    assert!(read(&reader, 5).is_err());
    assert_eq!(found(&mut writer), []);
    let around = [4, 6, 10].map(|index| read(&reader, index).unwrap().0);
    assert_eq!((around, all(&reader, 2).len()), ([4, 6, 10], 10));
    put(&mut writer, &[entries(1, 11..12, 1, 9), entries(2, 11..12, 1, 9)]);
}

#[test]
fn rot_within_a_run_takes_its_own_record_only() {
    let disk = MemoryDisk::default();
    let (mut writer, reader, _) = start(&disk, 1);
    // Neighbours of one group are one run in the index.
    let mut at = Vec::new();
    for index in 1..=6 {
        at.push(writer.synced_position().0.max(4096));
        put(&mut writer, &[entries(1, index..index + 1, 1, 500)]);
    }
    disk.flip_bit(&wal_files(&disk)[0], (at[2] + HEADERS + 100) * 8);
    // The header of a record: where it ends cannot be told.
    disk.flip_bit(&wal_files(&disk)[0], (at[4] + 64 + 3) * 8);
    assert!(read(&reader, 3).is_err());
    let rot: Vec<_> = found(&mut writer).into_iter().map(|rot| rot.entries).collect();
    assert_eq!(rot, [LogIndex(3)..LogIndex(4), LogIndex(5)..LogIndex(6)]);
    let good = [1, 2, 4, 6].map(|index| read(&reader, index).unwrap().0);
    assert_eq!(good, [1, 2, 4, 6]);
    let by_offset = |offset| reader.find_offset(GroupId(1), varve_common::Offset(offset)).unwrap();
    assert_eq!(
        (by_offset(25), by_offset(45), by_offset(60)),
        (Some(LogIndex(2)), Some(LogIndex(4)), Some(LogIndex(6)))
    );
}

#[test]
fn rot_behind_which_the_owner_cuts_is_forgotten_and_its_file_goes() {
    let mut next = 1;
    let (disk, mut writer, reader) = rotten(5);
    assert!(read(&reader, 5).is_err());
    assert_eq!(found(&mut writer).len(), 1);
    let oldest = wal_files(&disk)[0].clone();
    churn(&mut writer, &mut next);
    assert!(wal_files(&disk).contains(&oldest), "its owner has not said yet whether that is a loss");
    put(&mut writer, &[truncated(1, 5, 1)]);
    churn(&mut writer, &mut next);
    assert!(!wal_files(&disk).contains(&oldest));
    assert_eq!((evidence(&disk), all(&reader, 1).len()), (vec![], 5));
    let (_, _, recovery) = start(&disk.process_kill(), 2);
    assert_eq!(recovery.groups[&GroupId(1)].damage, None);
}

#[test]
fn w6_the_forward_rewrite_finds_rot_and_goes_on_once_the_replica_is_given_up() {
    let mut next = 1;
    let (disk, mut writer, reader) = rotten(5);
    let oldest = wal_files(&disk)[0].clone();
    let rot: Vec<Rot> = churn(&mut writer, &mut next).into_iter().flat_map(|done| done.rotten).collect();
    assert_eq!(rot.len(), 1, "{rot:?}");
    put(&mut writer, &[record(1, Record::Damaged { from: Some(LogIndex(5)) })]);
    let done = churn(&mut writer, &mut next);
    assert!(!wal_files(&disk).contains(&oldest) && wal_files(&disk).len() < 6);
    let aside = done.into_iter().find_map(|done| done.set_aside).unwrap();
    assert_eq!((aside.group, evidence(&disk)), (Some(GroupId(1)), vec![aside.file.clone()]));
    let kept = disk.contents(&aside.file);
    assert!(kept.windows(200).any(|window| *window == entry(5, 1, 500).data[..200]));
    assert!(read(&reader, 4).is_ok() && read(&reader, 6).is_ok() && all(&reader, 2).len() == 10);
    assert!(matches!(read(&reader, 5), Err(ReadError::Missing { .. })));
    assert_eq!(
        reader.entries(GroupId(1), LogIndex(1), 1 << 20).unwrap().len(),
        4,
        "a read jumps over a loss"
    );
}

#[test]
fn what_a_damaged_group_had_cut_before_keeps_no_file() {
    let mut next = 1;
    let (disk, mut writer, reader) = rotten(5);
    put(&mut writer, &[truncated(1, 2, 1)]);
    let oldest = wal_files(&disk)[0].clone();
    assert!(read(&reader, 5).is_err());
    assert_eq!(found(&mut writer).len(), 1);
    put(&mut writer, &[record(1, Record::Damaged { from: Some(LogIndex(5)) })]);
    churn(&mut writer, &mut next);
    let newest = wal_files(&disk).pop().unwrap();
    churn(&mut writer, &mut next);
    let files = wal_files(&disk);
    assert!(!files.contains(&oldest) && !files.contains(&newest), "{:?}", reader.usage());
    let (_, reader, recovery) = start(&disk.process_kill(), 2);
    assert!(recovery.groups[&GroupId(1)].damage.is_some());
    assert_eq!(reader.bounds(GroupId(1)).unwrap().truncated.0, LogIndex(2));
}

/// A mark overtakes what waits for room. Refused as a whole, the batch would take others' entries with it.
#[test]
fn what_waited_for_room_when_its_replica_was_destroyed_is_dropped() {
    let (mut writer, _, _) = start(&MemoryDisk::default(), 1);
    put(&mut writer, &[entries(1, 1..5, 1, 9), entries(2, 1..5, 1, 9)]);
    put(&mut writer, &[record(1, Record::Destroyed)]);
    let mut waited = vec![hard_state(1, 4, 0), entries(1, 5..6, 1, 9), entries(2, 5..6, 1, 9)];
    assert!(matches!(writer.append(&waited), Err(AppendError::Invalid { group: GroupId(1), .. })));
    writer.drop_of_damaged(&mut waited);
    assert_eq!(waited, [entries(2, 5..6, 1, 9)]);
    put(&mut writer, &waited);
}

#[test]
fn fault_24_a_replica_that_was_given_up_takes_nothing_and_every_later_start_knows() {
    let mut next = 1;
    let (disk, mut writer, reader) = rotten(5);
    assert!(read(&reader, 5).is_err());
    found(&mut writer);
    put(&mut writer, &[record(1, Record::Damaged { from: Some(LogIndex(5)) }), hard_state(2, 3, 0)]);
    let refused = writer.append(&[entries(1, 11..12, 1, 9)]);
    assert!(matches!(refused, Err(AppendError::Invalid { group: GroupId(1), .. })));
    let mut waited = vec![entries(1, 11..12, 1, 9), entries(2, 11..12, 1, 9), hard_state(1, 4, 0)];
    writer.drop_of_damaged(&mut waited);
    assert_eq!(waited, [entries(2, 11..12, 1, 9)]);
    churn(&mut writer, &mut next);
    let mut disk = disk.process_kill();
    for seed in 2..6 {
        let (mut writer, reader, recovery) = start(&disk, seed);
        let group = &recovery.groups[&GroupId(1)];
        let damage = group.damage.clone().unwrap();
        assert_eq!(
            (damage.last_index, damage.last_term, damage.cause),
            (LogIndex(4), Term(1), DamageCause::Record)
        );
        assert_eq!((group.last_index, all(&reader, 1).len()), (LogIndex(4), 4));
        assert_eq!((all(&reader, 2).len(), recovery.groups[&GroupId(2)].damage.clone()), (10, None));
        churn(&mut writer, &mut next);
        assert!(wal_files(&disk).len() < 6, "evidence keeps files");
        disk = disk.process_kill();
    }
    let (mut writer, _, _) = start(&disk, 9);
    put(&mut writer, &[record(1, Record::LossAccepted)]);
    put(&mut writer, &[entries(1, 5..7, 3, 9)]);
    churn(&mut writer, &mut next);
    let disk = disk.process_kill();
    let (_, reader, recovery) = start(&disk, 10);
    assert_eq!((recovery.groups[&GroupId(1)].damage.clone(), all(&reader, 1).len()), (None, 6));
    remove_evidence(&disk, &PathBuf::from("/wal"), GroupId(1)).unwrap();
    assert_eq!(evidence(&disk), Vec::<PathBuf>::new());
}

#[test]
fn damage_that_a_start_found_keeps_no_file_and_is_known_after_its_file_went() {
    let mut next = 1;
    let (disk, writer, _) = rotten(5);
    drop(writer);
    // The newest file has no index: its records are checked by the start.
    let mut disk = disk.process_kill();
    let oldest = wal_files(&disk)[0].clone();
    for seed in 2..5 {
        let (mut writer, reader, recovery) = start(&disk, seed);
        let damage = recovery.groups[&GroupId(1)].damage.clone().unwrap();
        assert_eq!((damage.last_index, all(&reader, 1).len()), (LogIndex(4), 4));
        assert_eq!(all(&reader, 2).len(), 10);
        churn(&mut writer, &mut next);
        assert!(!wal_files(&disk).contains(&oldest), "evidence keeps its file");
        disk = disk.process_kill();
    }
    let kept: Vec<u8> = evidence(&disk).iter().flat_map(|path| disk.contents(path)).collect();
    for index in 5..=10 {
        let data = entry(index, 1, 500).data;
        assert!(kept.windows(200).any(|window| *window == data[..200]), "entry {index} was not set aside");
    }
}

#[test]
fn bytes_that_nobody_can_attribute_are_set_aside_too() {
    let mut next = 1;
    let (disk, writer, _) = rotten(11);
    drop(writer);
    let disk = disk.process_kill();
    disk.overwrite(&wal_files(&disk)[0], 4096 + HEADERS + 900, &[0xff; 700]);
    let oldest = wal_files(&disk)[0].clone();
    let (mut writer, _, recovery) = start(&disk, 2);
    assert!([1, 2].iter().all(|group| recovery.groups[&GroupId(*group)].damage.is_some()));
    churn(&mut writer, &mut next);
    assert!(!wal_files(&disk).contains(&oldest));
    assert!(evidence(&disk).iter().any(|path| path.to_str().unwrap().contains("ffffffffffffffff")));
    let (_, _, recovery) = start(&disk.process_kill(), 3);
    assert!([1, 2].iter().all(|group| recovery.groups[&GroupId(*group)].damage.is_some()));
}

#[test]
fn a_damaged_group_that_holds_most_of_a_small_log_makes_room_for_the_others() {
    let mut next = 1;
    let disk = MemoryDisk::default();
    let mut small = options(1);
    small.bytes_max = 16 * FILE;
    let (mut writer, reader, _) = open(std::sync::Arc::new(disk.clone()), small.clone()).unwrap();
    (1..=90).for_each(|index| {
        put(&mut writer, &[entries(1, index..index + 1, 1, 5000)]);
        writer.maintain().unwrap();
    });
    disk.flip_bit(&wal_files(&disk)[1], (4096 + HEADERS + 300) * 8);
    let lost = (1..=90).find(|index| read(&reader, *index).is_err()).unwrap();
    found(&mut writer);
    put(&mut writer, &[record(1, Record::Damaged { from: Some(LogIndex(lost)) })]);
    while writer.maintain().unwrap().more {}
    assert!(reader.usage().groups[&GroupId(1)] <= small.bytes_max / 8 + FILE, "{:?}", reader.usage());
    churn(&mut writer, &mut next);
    let damage = |recovery: &varve_wal::Recovery| recovery.groups[&GroupId(1)].damage.clone().unwrap();
    let (_, reader, recovery) = open(std::sync::Arc::new(disk.process_kill()), small).unwrap();
    assert!(damage(&recovery).last_index < LogIndex(lost));
    assert_eq!(all(&reader, 1).len() as u64, damage(&recovery).last_index.0);
}

#[test]
fn an_accepted_loss_takes_the_checkpoint_marks_above_it() {
    let (disk, mut writer, reader) = rotten(5);
    let mark = |index| {
        let file = format!("{index}.ckpt");
        let mark = SnapshotMark { index: LogIndex(index), term: Term(1), file, sha256: Default::default() };
        record(1, Record::Snapshot(mark))
    };
    put(&mut writer, &[mark(3), mark(9)]);
    assert!(read(&reader, 5).is_err());
    found(&mut writer);
    put(&mut writer, &[record(1, Record::Damaged { from: Some(LogIndex(5)) })]);
    put(&mut writer, &[record(1, Record::LossAccepted)]);
    for seed in 2..4 {
        let (_, _, recovery) = start(&disk.process_kill(), seed);
        let left: Vec<_> = recovery.groups[&GroupId(1)].snapshots.iter().map(|mark| mark.index).collect();
        assert_eq!(left, [LogIndex(3)], "a mark of a state that is ahead of the log");
    }
}

/// What was committed in the log that is given up says nothing of the one that begins, also where its hard state comes later.
#[test]
fn an_accepted_loss_takes_back_what_is_committed_before_the_next_hard_state_comes() {
    let (disk, mut writer, reader) = rotten(5);
    put(&mut writer, &[hard_state(1, 1, 9)]);
    assert!(read(&reader, 5).is_err());
    found(&mut writer);
    put(&mut writer, &[record(1, Record::Damaged { from: Some(LogIndex(5)) })]);
    put(&mut writer, &[record(1, Record::LossAccepted)]);
    let disk = disk.process_kill();
    let commit =
        |recovery: &varve_wal::Recovery| recovery.groups[&GroupId(1)].hard_state.map(|state| state.commit);
    let (mut writer, _, recovery) = start(&disk, 2);
    assert_eq!(commit(&recovery), Some(LogIndex::ZERO), "nothing, until somebody says so");
    put(&mut writer, &[hard_state(1, 2, 4)]);
    let (_, _, recovery) = start(&disk.process_kill(), 3);
    assert_eq!(commit(&recovery), Some(LogIndex(4)), "not what was committed of the lost log");
}
