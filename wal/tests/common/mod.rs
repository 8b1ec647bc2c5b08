//! Arrangements that the tests share.
#![allow(dead_code)]

pub mod held;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use varve_common::{Access, GroupId, LogIndex, NodeId, Offset, ReplicaId, Term};
use varve_wal::{
    Entry, GroupRecord, HardState, Options, Reader, Record, Recovery, Writer, open, testing::MemoryDisk,
};

pub const FILE: u64 = 64 << 10;

pub fn options(seed: u64) -> Options {
    let mut options = Options::new(PathBuf::from("/wal"), 64 * FILE, seed);
    options.file_bytes = FILE;
    // Places in files are simpler so; what production does is said where it matters.
    options.access = Access::Buffered;
    options
}

pub fn replica(counter: u64) -> ReplicaId {
    ReplicaId::new(NodeId::new(1).unwrap(), counter).unwrap()
}

pub fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let data: Bytes =
        (0..bytes).map(|place| (index as usize * 31 + term as usize * 7 + place) as u8).collect();
    Entry { index: LogIndex(index), term: Term(term), kind: 0, offset: Offset(index * 10), data }
}

pub fn record(group: u64, record: Record) -> GroupRecord {
    GroupRecord { group: GroupId(group), replica: replica(1), record }
}

pub fn entries(group: u64, range: std::ops::Range<u64>, term: u64, bytes: usize) -> GroupRecord {
    record(group, Record::Entries(range.map(|index| entry(index, term, bytes)).collect()))
}

pub fn hard_state(group: u64, term: u64, commit: u64) -> GroupRecord {
    record(group, Record::HardState(HardState { term: Term(term), vote: 7, commit: LogIndex(commit) }))
}

pub fn truncated(group: u64, index: u64, term: u64) -> GroupRecord {
    record(group, Record::Truncated { index: LogIndex(index), term: Term(term) })
}

pub fn start(disk: &MemoryDisk, seed: u64) -> (Writer, Reader, Recovery) {
    open(Arc::new(disk.clone()), options(seed)).unwrap()
}

pub fn put(writer: &mut Writer, records: &[GroupRecord]) {
    writer.append(records).unwrap();
    writer.sync().unwrap();
}

pub fn last(recovery: &Recovery, group: u64) -> u64 {
    recovery.groups.get(&GroupId(group)).map_or(0, |group| group.last_index.0)
}

pub fn wal_files(disk: &MemoryDisk) -> Vec<PathBuf> {
    use varve_common::Disk;
    let names = disk.list(&PathBuf::from("/wal")).unwrap();
    names
        .into_iter()
        .filter(|name| name.ends_with(".wal"))
        .map(|name| PathBuf::from("/wal").join(name))
        .collect()
}

/// All entries of a group.
pub fn all(reader: &Reader, group: u64) -> Vec<Entry> {
    let Some(bounds) = reader.bounds(GroupId(group)) else { return Vec::new() };
    let mut found: Vec<Entry> = Vec::new();
    let mut next = bounds.truncated.0.next();
    while next <= bounds.last.0 {
        found.extend(reader.entries(GroupId(group), next, 3000).unwrap());
        next = found.last().unwrap().index.next();
    }
    found
}
