//! Prints, on the real disk: syncs per second and bytes per second, buffered and direct; reading one partition alone
//! and out of a log shared by a thousand. `cargo run --release -p varve-wal --example measure -- <directory>`
#![allow(clippy::disallowed_methods, reason = "an example measures with the clock and prints")]

use std::{path::PathBuf, sync::Arc, time::Instant};

use varve_common::{Access, GroupId, LogIndex, NodeId, Offset, ReplicaId, Term};
use varve_wal::{Entry, GroupRecord, NativeDisk, Options, Reader, Record, Writer, open};

fn record(group: u64, index: u64, bytes: usize) -> GroupRecord {
    let entry = Entry {
        index: LogIndex(index),
        term: Term(1),
        kind: 0,
        offset: Offset(index),
        data: vec![7; bytes].into(),
    };
    let replica = NodeId::new(1).and_then(|node| ReplicaId::new(node, 1)).expect("a valid id");
    GroupRecord { group: GroupId(group), replica, record: Record::Entries(vec![entry]) }
}

fn start(root: &str, name: &str, access: Access) -> (Writer, Reader) {
    let directory = PathBuf::from(root).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    let mut options = Options::new(directory, 4 << 30, 42);
    options.access = access;
    let (writer, reader, _) = open(Arc::new(NativeDisk), options).expect("the log opens");
    (writer, reader)
}

fn syncs(root: &str, name: &str, access: Access, bytes: usize) {
    let (mut writer, _) = start(root, name, access);
    let (started, count) = (Instant::now(), 500);
    for index in 1..=count {
        writer.append(&[record(1, index, bytes)]).expect("appended");
        writer.sync().expect("synced");
    }
    let per_second = count as f64 / started.elapsed().as_secs_f64();
    println!(
        "{access:?} {bytes:>7} bytes: {per_second:>8.0} syncs/s {:>8.1} MB/s",
        per_second * bytes as f64 / 1e6
    );
}

fn read(root: &str, name: &str, groups: u64) {
    let (mut writer, reader) = start(root, name, Access::Buffered);
    let (rounds, bytes) = (if groups == 1 { 64_000 } else { 400 }, 1024);
    for index in 1..=rounds {
        let batch: Vec<_> = (1..=groups).map(|group| record(group, index, bytes)).collect();
        writer.append(&batch).expect("appended");
        let _ = writer.maintain().expect("maintained");
    }
    writer.sync().expect("synced");
    let (started, mut read) = (Instant::now(), 0);
    for group in 1..=groups.min(100) {
        let mut next = LogIndex(1);
        while next.0 <= rounds {
            let entries = reader.entries(GroupId(group), next, 1 << 20).expect("read");
            read += entries.len();
            next = entries.last().expect("not empty").index.next();
        }
    }
    let rate = (read * bytes) as f64 / started.elapsed().as_secs_f64() / 1e6;
    println!("read out of a log shared by {groups:>4}: {rate:>8.0} MB/s");
}

fn main() {
    let root = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    for bytes in [1 << 10, 64 << 10, 1 << 20] {
        for (name, access) in [("buffered", Access::Buffered), ("direct", Access::Direct)] {
            syncs(&root, name, access, bytes);
        }
    }
    read(&root, "alone", 1);
    read(&root, "shared", 1000);
}
