//! Plans of a group that says this and that of itself: one file an idea.

mod archives;
mod checkpoints;
mod local;
mod merges;
mod pins;
mod retention;
mod rolls;
mod uploads;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_common::{LogIndex, Monotonic, NodeId, Offset, ReplicaId, Term};
use varve_formats::{
    command::{PublishedCheckpoint, TrimCause},
    manifest::{Entry, EntryKind, FoldPlan, NodeReference, Root},
    state::{Intent, NAMED_EVER, RollEntry, Tombstone},
};
use varve_replica::{
    GroupOptions, JobsStatus, LocalCheckpoint, LocalRetention, OpenRange, ReapPass, Role, RollCause,
};

use super::*;

const MINUTE: i64 = 60_000;
const NOW_MS: i64 = 1_000 * MINUTE;

struct Counter;

impl Entropy for Counter {
    fn next_u64(&self) -> u64 {
        77
    }
}

fn now() -> Now {
    Now { monotonic: Monotonic(Duration::from_secs(3_600)), wall_ms: NOW_MS }
}

fn idle() -> GroupStatus {
    GroupStatus {
        group: GroupId(5),
        replica: ReplicaId::new(NodeId::new(1).unwrap(), 1).unwrap(),
        identity: None,
        options: GroupOptions::default(),
        role: Role::Leader,
        term: Term(3),
        ready: true,
        applied: (LogIndex(100), Term(3)),
        truncated: (LogIndex(0), Term(0)),
        cut_limit: (LogIndex(0), Term(0)),
        releasable: LogIndex(0),
        log_bytes: 0,
        bytes_since_checkpoint: 0,
        changes_since_checkpoint: 0,
        log_start: Offset(0),
        high_watermark: Offset(0),
        open: OpenRange::default(),
        rolls: Arc::default(),
        seals: Arc::default(),
        tiered_end: Offset(0),
        root: Arc::default(),
        manifest_seq: 0,
        intents: Arc::default(),
        uploading: Default::default(),
        uploaded: Default::default(),
        appendable: false,
        upload_failed: Default::default(),
        deletions: Arc::default(),
        reaped_early: Default::default(),
        tombstones: Arc::default(),
        published: Vec::new(),
        local_checkpoints: Vec::new(),
        unpublished_segments: 0,
        first_unpublished_ms: None,
        publish_dirty: false,
        publication_pending: false,
        checkpoint_wanted: false,
        checkpoint_declined: false,
        offer_end: None,
        lasting_end: None,
        leased: None,
        broken: BTreeSet::new(),
        needed_above: LogIndex(u64::MAX),
        has_peers: false,
        reached_by_all: None,
        roll_pending: false,
        fence_pending: false,
        archive: None,
        unarchived_since_ms: None,
        archive_pending: false,
        inflight_bytes: 0,
        producers: 0,
        oldest_producer_ms: None,
        fenced_commands: 0,
        jobs: JobsStatus::default(),
    }
}

fn planned(status: &GroupStatus) -> Plan {
    plan(status, &PlanOptions::default(), now(), &Counter)
}

fn pressed(status: &GroupStatus) -> Vec<Action> {
    let pressure = Pressure { groups: [status.group].into(), urgent: false, disk: false };
    plan(status, &PlanOptions { pressure, ..PlanOptions::default() }, now(), &Counter).actions
}

fn seal(base: u64, end: u64) -> varve_replica::SealMark {
    varve_replica::SealMark {
        base: Offset(base),
        end: Offset(end),
        first_index: LogIndex(1),
        last_index: LogIndex(9),
        last_term: Term(1),
        bytes: 100,
        sha256: Default::default(),
    }
}

fn open(bytes: u64, age_ms: i64) -> OpenRange {
    OpenRange { bytes, first_index: LogIndex(9), first_append_ms: NOW_MS - age_ms, ..OpenRange::default() }
}

fn roll(base: u64, end: u64) -> RollEntry {
    RollEntry {
        base: Offset(base),
        end: Offset(end),
        bytes: 100,
        max_timestamp: NOW_MS,
        batch_crcs: 0,
        first_index: LogIndex(base),
        roll_index: LogIndex(end),
        roll_term: Term(3),
        rolled_ms: NOW_MS,
    }
}

fn entry(base: u64, end: u64) -> Entry {
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: Term(3),
        uid: base + 1,
        position: 0,
        length: 100,
        base: Offset(base),
        last: Offset(end - 1),
        count: end - base,
        min_timestamp: NOW_MS,
        max_timestamp: NOW_MS,
        first_index: LogIndex(base),
        roll_index: LogIndex(end),
        roll_term: Term(3),
        terms: (Term(3), Term(3)),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: 100,
        sha256: Default::default(),
    }
}

fn intent(uid: u64, term: u64, base: u64, end: u64) -> Intent {
    Intent {
        uid,
        term: Term(term),
        base: Offset(base),
        end: Offset(end),
        announced_ms: NOW_MS,
        kind: EntryKind::Raw,
    }
}

fn published(state: u64, log_start: u64, published_ms: i64) -> PublishedCheckpoint {
    PublishedCheckpoint {
        uid: state,
        key_term: Term(3),
        state_index: LogIndex(state),
        state_term: Term(3),
        state_offset: Offset(state),
        applied_index: LogIndex(state + 1),
        log_start: Offset(log_start),
        bytes: 1,
        sha256: Default::default(),
        published_ms,
    }
}

#[test]
fn a_group_at_rest_wants_nothing() {
    assert_eq!(planned(&idle()), Plan::default());
}

#[test]
fn a_stopping_node_rolls_uploads_and_publishes_what_is_left() {
    let draining = PlanOptions { draining: true, ..PlanOptions::default() };
    let actions = |status: &GroupStatus| plan(status, &draining, now(), &Counter).actions;
    let open = GroupStatus { open: open(1, 0), changes_since_checkpoint: 1, ..idle() };
    assert_eq!(actions(&open), [Action::Roll { cause: RollCause::Shutdown }, Action::CheckpointLocal]);
    let tiered = GroupStatus { unpublished_segments: 1, publish_dirty: true, ..idle() };
    assert_eq!(actions(&tiered), [Action::PublishCheckpoint { uid: 77 }]);
    assert!(!is_drained(&open) && !is_drained(&tiered) && is_drained(&idle()));
}
