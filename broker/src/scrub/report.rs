//! What a pass has read and found, while it goes on and after.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use varve_common::GroupId;

use crate::metrics::Handles;

/// Findings that are kept; all are counted and logged.
const FOUND_MAX: usize = 1_000;
/// Errors that are kept.
const UNREADABLE_MAX: usize = 100;

/// Where bytes were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Place {
    Log,
    SealedFile,
    LocalCheckpoint,
    BucketCheckpoint,
    ManifestNode,
    Segment,
}

impl Place {
    /// As metrics, logs and reports call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::SealedFile => "sealed file",
            Self::LocalCheckpoint => "local checkpoint",
            Self::BucketCheckpoint => "bucket checkpoint",
            Self::ManifestNode => "manifest node",
            Self::Segment => "segment",
        }
    }
}

/// What became of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A good copy is in its place, or another object in its stead.
    Repaired(&'static str),
    /// Nothing is lost: another copy serves, and the damaged one is let go of.
    HeldElsewhere(&'static str),
    /// It stays as it is, and why.
    Unrepaired(String),
}

/// Bytes that are not those that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose.
    pub partition: String,
    /// Where.
    pub place: Place,
    /// Which.
    pub what: String,
    /// What is wrong with them.
    pub cause: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Outcome {
    /// As metrics and reports call it, and how or why.
    fn told(&self) -> (&'static str, &str) {
        match self {
            Self::Repaired(how) => ("repaired", how),
            Self::HeldElsewhere(held) => ("held elsewhere", held),
            Self::Unrepaired(why) => ("unrepaired", why),
        }
    }
}

impl Found {
    fn to_json(&self) -> Value {
        let (outcome, detail) = self.outcome.told();
        json!({
            "partition": self.partition,
            "place": self.place.name(),
            "what": self.what,
            "cause": self.cause,
            "outcome": outcome,
            "detail": detail,
        })
    }
}

#[derive(Default)]
struct Shared {
    state: State,
    next_group: u64,
    groups: (usize, usize),
    bytes: BTreeMap<Place, u64>,
    found: Vec<Found>,
    unrepaired: u64,
    unreadable: Vec<String>,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Never,
    Asked,
    Running {
        since_ms: i64,
    },
    Done {
        since_ms: i64,
        until_ms: i64,
    },
}

/// One pass, to look at from outside.
#[derive(Default)]
pub struct Progress {
    shared: Mutex<Shared>,
    expected: AtomicU64,
    handles: Option<Handles>,
}

impl Progress {
    /// A pass that counts into a node's metrics as well.
    #[must_use]
    pub fn counted(handles: Handles) -> Self {
        Self { handles: Some(handles), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of this lock panics")
    }

    /// Somebody has asked for the pass.
    pub fn ask(&self) {
        self.lock().state = State::Asked;
    }

    /// The pass begins.
    pub fn start(&self, now_ms: i64) {
        self.lock().state = State::Running { since_ms: now_ms };
    }

    /// The pass is through.
    pub fn finish(&self, now_ms: i64) {
        let mut shared = self.lock();
        let State::Running { since_ms } = shared.state else { return };
        shared.state = State::Done { since_ms, until_ms: now_ms };
        shared.next_group = 0;
        if let Some(handles) = &self.handles {
            handles.scrub_last.set(now_ms as f64 / 1000.0);
            handles.scrub_unrepaired.set(shared.unrepaired as i64);
        }
    }

    pub(super) fn begin(&self, done: usize, left: usize) {
        self.lock().groups = (done, done + left);
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn expected(&self) -> u64 {
        self.expected.load(Ordering::Relaxed)
    }

    pub(super) fn done(&self, group: GroupId) {
        let mut shared = self.lock();
        shared.groups.0 += 1;
        shared.next_group = group.0 + 1;
    }

    /// Where a pass that is broken off goes on.
    #[must_use]
    pub fn next_group(&self) -> GroupId {
        GroupId(self.lock().next_group)
    }

    pub(super) fn read(&self, place: Place, bytes: u64) {
        *self.lock().bytes.entry(place).or_default() += bytes;
        if let Some(handles) = &self.handles {
            handles.scrub_read.get_or_create(&[("place", place.name())]).inc_by(bytes);
        }
    }

    pub(crate) fn found(&self, found: Found) {
        let Found { partition, place, what, cause, outcome } = &found;
        match outcome {
            Outcome::Repaired(how) => {
                tracing::error!(
                    partition,
                    place = place.name(),
                    what,
                    cause,
                    how,
                    "scrub found damage and repaired it"
                );
            }
            Outcome::HeldElsewhere(held) => {
                tracing::error!(
                    partition,
                    place = place.name(),
                    what,
                    cause,
                    held,
                    "scrub found damage; another copy serves"
                );
            }
            Outcome::Unrepaired(why) => {
                tracing::error!(
                    partition,
                    place = place.name(),
                    what,
                    cause,
                    why,
                    "scrub found damage that stays"
                );
            }
        }
        if let Some(handles) = &self.handles {
            let (outcome, _) = outcome.told();
            handles.scrub_damage.get_or_create(&[("place", place.name()), ("outcome", outcome)]).inc();
        }
        let mut shared = self.lock();
        shared.unrepaired += u64::from(matches!(outcome, Outcome::Unrepaired(_)));
        if shared.found.len() < FOUND_MAX {
            shared.found.push(found);
        }
    }

    pub(super) fn unreadable(&self, what: String) {
        if let Some(handles) = &self.handles {
            handles.scrub_errors.inc();
        }
        let mut shared = self.lock();
        if shared.unreadable.len() < UNREADABLE_MAX {
            shared.unreadable.push(what);
        }
    }

    /// Whether all that was to be read was read, and no damage is left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let shared = self.lock();
        shared.unrepaired == 0 && shared.unreadable.is_empty()
    }

    /// All of it, for `varve storage` and the admin address.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let shared = self.lock();
        let (state, since, until) = match shared.state {
            State::Never => ("never", None, None),
            State::Asked => ("asked", None, None),
            State::Running { since_ms } => ("running", Some(since_ms), None),
            State::Done { since_ms, until_ms } => ("done", Some(since_ms), Some(until_ms)),
        };
        let read: u64 = shared.bytes.values().sum();
        let by_place = shared.bytes.iter().map(|(place, bytes)| (place.name().to_owned(), json!(bytes)));
        json!({
            "state": state,
            "started_ms": since,
            "finished_ms": until,
            "groups_done": shared.groups.0,
            "groups": shared.groups.1,
            "bytes_read": read,
            "bytes_expected": self.expected().max(read),
            "bytes_by_place": by_place.collect::<serde_json::Map<_, _>>(),
            "damaged": shared.found.iter().map(Found::to_json).collect::<Vec<_>>(),
            "unrepaired": shared.unrepaired,
            "unreadable": shared.unreadable,
            "next_group": shared.next_group,
        })
    }
}
