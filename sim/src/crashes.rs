//! At which steps the node was crashed: a crash that never comes in the middle of something proves nothing about it.
//!
//! A step is an operation of the disk in one of the node's directories, in which the machine died; a record that waited for
//! the log, or was written and not synced; or a job that was under way.

use std::path::Path;

use varve_formats::command::Kind;
use varve_replica::JobKind;
use varve_wal::{Record, testing::Operation};

macro_rules! steps {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A step at which a crash is of interest.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Step { $($name),* }

        impl Step {
            /// Every step.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What it is called.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Whether scenarios of their own come by, since few seeds do: sealing takes a log short of room and records that do not
            /// tier, a put that writes files takes the embedded store (`tests/scenarios.rs`).
            #[must_use]
            pub fn has_scenario(self) -> bool {
                let of_file = ["write", "fsync", "rename", "fsync of the directory"];
                let of_put = self.name().strip_prefix("put: ");
                self.name().starts_with("seal: ") || of_put.is_some_and(|step| of_file.contains(&step))
            }
        }
    };
}

steps! {
    AppendWaits = "append: waits for the log",
    AppendWrite = "append: write",
    AppendWritten = "append: written, not synced",
    AppendSync = "append: fsync",
    AppendFile = "append: a new log file",
    AppendDirectory = "append: fsync of the log's directory",
    RollWaits = "roll: waits for the log",
    RollWritten = "roll: written, not synced",
    SealWrite = "seal: write",
    SealSync = "seal: fsync",
    SealRename = "seal: rename",
    SealDirectory = "seal: fsync of the directory",
    SealMarkWaits = "seal: mark waits for the log",
    SealMarkWritten = "seal: mark written, not synced",
    IntentWaits = "put: intent waits for the log",
    IntentWritten = "put: intent written, not synced",
    PutUnderWay = "put: under way",
    PutWrite = "put: write",
    PutSync = "put: fsync",
    PutRename = "put: rename",
    PutDirectory = "put: fsync of the directory",
    AppendCommitWaits = "append-commit: waits for the log",
    AppendCommitWritten = "append-commit: written, not synced",
    CheckpointWrite = "checkpoint: write",
    CheckpointSync = "checkpoint: fsync",
    CheckpointRename = "checkpoint: rename",
    CheckpointDirectory = "checkpoint: fsync of the directory",
    CheckpointMarkWaits = "checkpoint: mark waits for the log",
    CheckpointMarkWritten = "checkpoint: mark written, not synced",
    PublishUnderWay = "checkpoint: publication under way",
    PublishCommitWaits = "checkpoint: commit of a publication waits for the log",
    PublishCommitWritten = "checkpoint: commit of a publication written, not synced",
    FoldUnderWay = "fold: under way",
    FoldCommit = "fold: commit not synced",
    MergeUnderWay = "merge: under way",
    MergeCommit = "merge: commit not synced",
    TruncateWaits = "truncate: mark waits for the log",
    TruncateWritten = "truncate: mark written, not synced",
    TrimCommit = "delete: trim not synced",
    UnsealMark = "delete: mark of a sealed file not synced",
    DeleteLogFile = "delete: log file",
    DeleteSealed = "delete: sealed file",
    DeleteCheckpoint = "delete: checkpoint",
    DeleteUnderWay = "delete: objects under way",
    DeleteObject = "delete: object",
    DeleteCommit = "delete: commit not synced",
}

/// How many crashes came at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashes([u32; Step::ALL.len()]);

impl Default for Crashes {
    fn default() -> Self {
        Self([0; Step::ALL.len()])
    }
}

impl Crashes {
    /// A crash came at this step.
    pub const fn note(&mut self, step: Step) {
        self.0[step as usize] += 1;
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The steps at which none came.
    #[must_use]
    pub fn missed(&self) -> Vec<Step> {
        let steps = Step::ALL.iter().zip(self.0);
        steps.filter(|(_, count)| *count == 0).map(|(step, _)| *step).collect()
    }

    /// How many came at each step.
    pub fn counted(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        Step::ALL.iter().map(|step| step.name()).zip(self.0)
    }
}

/// Where machines are made to die, beside at any operation at all.
pub const TARGETS: &[(Operation, &str)] = &[
    (Operation::Write, "/data/wal"),
    (Operation::Sync, "/data/wal"),
    (Operation::Create, "/data/wal"),
    (Operation::SyncDirectory, "/data/wal"),
    (Operation::Rename, "/data/wal"),
    (Operation::Remove, "/data/wal"),
    (Operation::Write, "/data/groups"),
    (Operation::Sync, "/data/groups"),
    (Operation::Rename, "/data/groups"),
    (Operation::SyncDirectory, "/data/groups"),
    (Operation::Write, "/data/objects"),
    (Operation::Sync, "/data/objects"),
    (Operation::Rename, "/data/objects"),
    (Operation::SyncDirectory, "/data/objects/data"),
];

/// Likewise, where few lives come by.
pub const RARE_TARGETS: &[(Operation, &str)] = &[
    (Operation::Write, "/data/segments"),
    (Operation::Sync, "/data/segments"),
    (Operation::Rename, "/data/segments"),
    (Operation::SyncDirectory, "/data/segments"),
    (Operation::Remove, "/data/segments"),
    (Operation::Remove, "/data/groups"),
    (Operation::Remove, "/data/objects/data"),
];

/// The step of an operation of the disk.
#[must_use]
pub fn of_operation(operation: Operation, path: &Path) -> Option<Step> {
    let of = |names: [Step; 5]| {
        let [write, sync, rename, directory, remove] = names;
        match operation {
            Operation::Create | Operation::Write | Operation::Allocate | Operation::SetLength => Some(write),
            Operation::Sync => Some(sync),
            Operation::Rename => Some(rename),
            Operation::SyncDirectory | Operation::Directory => Some(directory),
            Operation::Remove => Some(remove),
        }
    };
    if path.starts_with("/data/wal") {
        let write = if operation == Operation::Write { Step::AppendWrite } else { Step::AppendFile };
        // A log file that goes is kept as a spare, under another name, as long as those are few.
        let is_spare = path.extension().is_some_and(|end| end == "spare");
        let rename = if is_spare { Step::DeleteLogFile } else { Step::AppendFile };
        return of([write, Step::AppendSync, rename, Step::AppendDirectory, Step::DeleteLogFile]);
    }
    if path.starts_with("/data/segments") {
        return of([
            Step::SealWrite,
            Step::SealSync,
            Step::SealRename,
            Step::SealDirectory,
            Step::DeleteSealed,
        ]);
    }
    if path.starts_with("/data/groups") {
        return of([
            Step::CheckpointWrite,
            Step::CheckpointSync,
            Step::CheckpointRename,
            Step::CheckpointDirectory,
            Step::DeleteCheckpoint,
        ]);
    }
    let object = path.starts_with("/data/objects");
    object.then(|| {
        of([Step::PutWrite, Step::PutSync, Step::PutRename, Step::PutDirectory, Step::DeleteObject])
    })?
}

/// The step of a job that was under way.
#[must_use]
pub const fn of_job(kind: JobKind) -> Option<Step> {
    match kind {
        JobKind::Upload => Some(Step::PutUnderWay),
        JobKind::Publish => Some(Step::PublishUnderWay),
        JobKind::Fold => Some(Step::FoldUnderWay),
        JobKind::Merge | JobKind::Mend => Some(Step::MergeUnderWay),
        JobKind::Delete | JobKind::Reap => Some(Step::DeleteUnderWay),
        // They do not wait for anything: the machine dies in their operations, or not at all.
        JobKind::Seal
        | JobKind::Unseal
        | JobKind::CheckpointLocal
        | JobKind::RemoveCheckpoint
        | JobKind::Offer
        | JobKind::Install
        | JobKind::Archive
        | JobKind::Refetch => None,
    }
}

/// The steps of a record on its way into the log.
#[must_use]
pub fn of_record(record: &Record, written: bool) -> Vec<Step> {
    let either = |waits, done| if written { done } else { waits };
    match record {
        Record::Entries(entries) => {
            let kinds = entries.iter().filter(|entry| entry.kind == 0).filter_map(|entry| entry.data.first());
            kinds.filter_map(|kind| of_command(Kind::from_number(*kind)?, written)).collect()
        }
        Record::Truncated { .. } => vec![either(Step::TruncateWaits, Step::TruncateWritten)],
        Record::Sealed(_) => vec![either(Step::SealMarkWaits, Step::SealMarkWritten)],
        Record::Unsealed { .. } => vec![Step::UnsealMark],
        Record::Snapshot(_) => vec![either(Step::CheckpointMarkWaits, Step::CheckpointMarkWritten)],
        Record::HardState(_)
        | Record::Committed { .. }
        | Record::Destroyed
        | Record::LossAccepted
        | Record::Damaged { .. } => Vec::new(),
    }
}

const fn of_command(kind: Kind, written: bool) -> Option<Step> {
    let (waits, done) = match kind {
        Kind::Records => (Step::AppendWaits, Step::AppendWritten),
        Kind::Roll => (Step::RollWaits, Step::RollWritten),
        Kind::TierIntent => (Step::IntentWaits, Step::IntentWritten),
        Kind::TierAppend => (Step::AppendCommitWaits, Step::AppendCommitWritten),
        Kind::CkptPublished => (Step::PublishCommitWaits, Step::PublishCommitWritten),
        Kind::TierReplace | Kind::LeafReplaced => (Step::MergeCommit, Step::MergeCommit),
        Kind::NodeFolded => (Step::FoldCommit, Step::FoldCommit),
        Kind::TierTrim => (Step::TrimCommit, Step::TrimCommit),
        Kind::TierReaped => (Step::DeleteCommit, Step::DeleteCommit),
        _ => return None,
    };
    Some(if written { done } else { waits })
}
