use std::{path::Path, sync::Arc};

use bytes::Bytes;
use varve_common::{
    ClusterId, Digest, Disk as _, GroupId, Incarnation, LogIndex, NodeId, ObjectKey, Offset, PartitionIndex,
    Term, TopicId,
};
use varve_formats::{
    checkpoint::{AppliedPoint, CheckpointHeader, CheckpointKind, PartitionCheckpoint, StatePoint},
    claim::{Claim, FORMAT},
    compression::Codec,
    identity::PartitionIdentity,
    keys::{CheckpointName, Key, PartitionKeys, Prefix, SegmentName},
    manifest::Root,
    state::{BucketState, ConfState},
};

use super::{catalog::Catalog, read_only::ReadOnlyDisk, *};
use crate::args::ServerFlags;

const CLUSTER: u128 = 9;
const TOPIC: u128 = 77;

/// An object where the embedded store of a data directory keeps it.
fn put(data: &Path, key: &ObjectKey, bytes: &Bytes) {
    let path = data.join("objects/data").join(key.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn header(partition: i32, applied: u64) -> CheckpointHeader {
    CheckpointHeader {
        kind: CheckpointKind::Partition,
        group: GroupId(3),
        identity: PartitionIdentity {
            cluster: ClusterId::from_random(CLUSTER),
            incarnation: Incarnation(1),
            topic_id: TopicId::from_random(TOPIC),
            topic: "orders".into(),
            partition: PartitionIndex(partition),
        },
        state: StatePoint { index: LogIndex(applied - 1), term: Term(6), offset: Offset(200) },
        applied: AppliedPoint { index: LogIndex(applied), term: Term(7) },
        conf_state: ConfState::default(),
        manifest_seq: 3,
        feature_level: 1,
        append_time_ms: 1_700_000_000_000,
        records_local: false,
    }
}

fn checkpoint(partition: i32, applied: u64) -> Bytes {
    let root = Root { start: Offset(0), nodes: vec![], entries: vec![] };
    let bucket = BucketState { log_start: Offset(0), manifest_seq: 3 };
    let state = PartitionCheckpoint { root, bucket, ..PartitionCheckpoint::default() };
    state.into_checkpoint(header(partition, applied)).encode(Codec::Zstd)
}

fn key(partition: i32, applied: u64) -> ObjectKey {
    let keys = Prefix::default().cluster(ClusterId::from_random(CLUSTER));
    let at = PartitionKeys {
        topic_id: TopicId::from_random(TOPIC),
        partition: PartitionIndex(partition),
        incarnation: Incarnation(1),
    };
    let name = CheckpointName { applied_index: LogIndex(applied), term: Term(7), uid: applied << 8 };
    keys.build(&Key::Checkpoint(at, name))
}

/// Two partitions with two snapshots each.
fn data_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    std::fs::create_dir_all(data.join("objects/staging")).unwrap();
    std::fs::write(data.join("objects/staging/0000000000000001"), "being written").unwrap();
    let claim = Claim {
        cluster: ClusterId::from_random(CLUSTER),
        incarnation: Incarnation(1),
        created_ms: 1,
        node: NodeId::new(1).unwrap(),
        format: FORMAT,
        origin: None,
    };
    put(data, &Prefix::default().claim(Incarnation(1)), &claim.to_bytes());
    for (partition, applied) in [(0, 10), (0, 20), (1, 11), (1, 21)] {
        put(data, &key(partition, applied), &checkpoint(partition, applied));
    }
    directory
}

fn flags(data: &Path) -> ServerFlags {
    ServerFlags { file: None, values: vec![("data.dir".into(), data.display().to_string())] }
}

fn catalog(data: &Path) -> Result<Catalog, Failure> {
    block_on(Catalog::open(&flags(data).load(Sources::default()).unwrap()))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn run_verify(data: &Path) -> Result<(), Failure> {
    let store = StoreFlags(flags(data));
    run(
        SnapshotCommand::Verify { id: None, deep: false, store, output: OutputFlags::default() },
        Sources::default(),
    )
}

#[test]
fn snapshots_are_listed_by_partition_newest_first() {
    let directory = data_directory();
    let catalog = catalog(directory.path()).unwrap();
    let snapshots = block_on(catalog.snapshots()).unwrap();
    let found: Vec<_> = snapshots.iter().map(|s| (s.partition.unwrap().1, s.name.applied_index.0)).collect();
    assert_eq!(found, [(0, 20), (0, 10), (1, 21), (1, 11)]);
    let row = Row { header: block_on(catalog.peek(&snapshots[0])).unwrap(), snapshot: snapshots[0].clone() };
    let cells = row.cells(1_700_000_060_000);
    assert_eq!(cells[1..6], ["orders", "0", "1", "19@200", "20"]);
    assert_eq!(cells[7], "1m0s");
    assert!(
        row.is_of("orders") && row.is_of(&TopicId::from_random(TOPIC).to_string()) && !row.is_of("other")
    );
}

#[test]
fn a_partition_with_many_segments_is_stepped_over() {
    let directory = data_directory();
    let keys = Prefix::default().cluster(ClusterId::from_random(CLUSTER));
    let (topic_id, partition) = (TopicId::from_random(TOPIC), PartitionIndex(0));
    let at = PartitionKeys { topic_id, partition, incarnation: Incarnation(1) };
    for base in 0..2 * varve_objects::limits::LIST_PAGE_MAX as u64 {
        let (base, last) = (Offset(base), Offset(base));
        let name = SegmentName { base, last, term: Term(1), uid: base.0 };
        put(directory.path(), &keys.build(&Key::Segment(at, name)), &Bytes::from_static(b"segment"));
    }
    let snapshots = block_on(catalog(directory.path()).unwrap().snapshots()).unwrap();
    assert_eq!(snapshots.len(), 4, "both partitions' snapshots, each once");
}

#[test]
fn a_snapshot_is_shown_by_uid_and_by_key() {
    let directory = data_directory();
    let catalog = catalog(directory.path()).unwrap();
    for id in [format!("{:016x}", 20 << 8), key(0, 20).as_str().to_owned()] {
        let snapshot = block_on(catalog.find(&id)).unwrap();
        let report = block_on(catalog.report(&snapshot)).unwrap();
        let text = report_text(&snapshot, &report);
        assert!(text.contains("STATUS       whole") && text.contains("orders/0"), "{text}");
        assert_eq!(report_json(&snapshot, &report)["applied_index"], 20);
        assert_eq!(report.sha256, Digest::of(&checkpoint(0, 20)));
    }
    assert!(block_on(catalog.find("0000")).is_err());
}

#[test]
fn verify_ends_with_1_when_one_is_damaged() {
    let directory = data_directory();
    run_verify(directory.path()).unwrap();
    let mut bytes = checkpoint(1, 11).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    put(directory.path(), &key(1, 11), &bytes.into());
    assert_eq!(run_verify(directory.path()).unwrap_err().exit_code(), 1);
}

#[test]
fn s5_a_snapshot_of_another_partition_is_not_this_ones() {
    let directory = data_directory();
    put(directory.path(), &key(1, 11), &checkpoint(0, 11));
    assert_eq!(run_verify(directory.path()).unwrap_err().exit_code(), 1);
}

#[test]
fn no_store_and_no_claim_are_errors_and_not_an_empty_list() {
    let directory = tempfile::tempdir().unwrap();
    let missing = catalog(directory.path()).err().unwrap();
    assert!(missing.line().unwrap().contains("--data-dir"), "{missing:?}");
    std::fs::create_dir_all(directory.path().join("objects/data")).unwrap();
    std::fs::create_dir_all(directory.path().join("objects/staging")).unwrap();
    let unclaimed = catalog(directory.path()).err().unwrap();
    assert!(unclaimed.line().unwrap().contains("no cluster has claimed"), "{unclaimed:?}");
}

#[test]
fn reading_changes_nothing() {
    let directory = data_directory();
    run_verify(directory.path()).unwrap();
    assert!(directory.path().join("objects/staging/0000000000000001").exists(), "a put may be under way");
    let disk = Arc::new(ReadOnlyDisk);
    assert!(disk.remove(&directory.path().join("objects/staging/0000000000000001")).is_err());
    assert!(disk.create_directory(&directory.path().join("new")).is_err());
}
