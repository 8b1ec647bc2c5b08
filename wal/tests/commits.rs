//! What a mark stands on is durable with it, and stays so.

mod common;

use common::*;
use varve_common::{GroupId, LogIndex, Term};
use varve_wal::{HardState, Record, testing::MemoryDisk};

fn committed(index: u64, term: u64) -> Record {
    Record::Committed { index: LogIndex(index), term: Term(term) }
}

/// In a full log a mark overtakes the hard states that wait for room, and brings along what it stands on.
#[test]
fn b7_what_is_committed_stays_so_whatever_waited_for_room_is_written_later() {
    let disk = MemoryDisk::default();
    let known = |seed| {
        let (writer, _, recovery) = start(&disk, seed);
        (writer, recovery.groups[&GroupId(1)].hard_state)
    };
    let state = |term, commit| Some(HardState { term: Term(term), vote: 7, commit: LogIndex(commit) });
    let (mut writer, ..) = start(&disk, 1);
    put(&mut writer, &[hard_state(1, 2, 1), entries(1, 1..5, 2, 10)]);
    put(&mut writer, &[record(1, committed(3, 2)), truncated(1, 2, 2)]);
    let (mut writer, found) = known(2);
    assert_eq!(found, state(2, 3));
    put(&mut writer, &[hard_state(1, 6, 2)]);
    let (mut writer, found) = known(3);
    assert_eq!(found, state(6, 3), "the term moves on, and what is committed is not taken back");
    put(&mut writer, &[record(1, committed(9, 2)), record(1, committed(4, 5))]);
    let (mut writer, found) = known(4);
    assert_eq!(
        found,
        state(6, 3),
        "what the log does not have, or has of another term, it does not call committed"
    );
    put(&mut writer, &[record(1, committed(4, 2))]);
    assert_eq!(known(5).1, state(6, 4));
}
