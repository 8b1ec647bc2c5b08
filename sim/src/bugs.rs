//! The bugs that are seeded to see that the checkers find them.

use varve_replica::bugs as replica;
use varve_wal::bugs::Bugs;

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// A bug behind a test-only switch in one of the rooms.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($(#[$doc])* $name),* }

        impl Bug {
            /// Every bug.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

bugs! {
    /// W1: the log says that it is synced, and is not.
    AckBeforeFsync = "ack-before-fsync",
    /// R5: term, vote and commit are not written.
    HardStateNotPersisted = "hard-state-not-persisted",
    /// H2, S3: checkpoints leave the producer table out.
    DedupDroppedFromCheckpoint = "dedup-dropped-from-checkpoint",
    /// H7: only the last batch of a producer is remembered.
    DedupWindowOne = "dedup-window-one",
    /// W2: checksums are not looked at.
    CrcIgnored = "crc-ignored",
    /// W3: the log goes on behind what a crash left.
    TornTailAppendedBehind = "torn-tail-appended-behind",
    /// B4: what is announced counts as tiered when the log is cut.
    CutBeforeAppend = "cut-before-append",
    /// B4: a sealed file counts before its mark is fsynced.
    CutBeforeSealMark = "cut-before-seal-mark",
    /// B3: bucket-class commands take effect whatever their fence says.
    FenceIgnored = "fence-ignored",
    /// B1: the embedded store answers before anything is fsynced.
    EmbeddedPutUnsynced = "embedded-put-unsynced",
    /// S4: a checkpoint that is missing or damaged counts as an empty group.
    DamagedCheckpointIsEmpty = "damaged-checkpoint-is-empty",
    /// W6: any dead file goes, not only the oldest.
    FilesFreedOutOfOrder = "files-freed-out-of-order",
    /// W6: the forward rewrite writes what was captured earlier.
    QueuedForwardRewrite = "queued-forward-rewrite",
    /// R9: a range is closed by a rule of the node.
    RollByLocalRule = "roll-by-local-rule",
}

impl Bug {
    /// The bug of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }

    /// The log's switches.
    #[must_use]
    pub fn wal(bug: Option<Self>) -> Bugs {
        Bugs {
            ack_before_fsync: bug == Some(Self::AckBeforeFsync),
            hard_state_not_persisted: bug == Some(Self::HardStateNotPersisted),
            crc_ignored: bug == Some(Self::CrcIgnored),
            torn_tail_appended_behind: bug == Some(Self::TornTailAppendedBehind),
            files_freed_out_of_order: bug == Some(Self::FilesFreedOutOfOrder),
            queued_forward_rewrite: bug == Some(Self::QueuedForwardRewrite),
        }
    }

    const fn replica(self) -> Option<replica::Bug> {
        match self {
            Self::DedupDroppedFromCheckpoint => Some(replica::Bug::DedupDroppedFromCheckpoint),
            Self::DedupWindowOne => Some(replica::Bug::DedupWindowOne),
            Self::CutBeforeAppend => Some(replica::Bug::CutBeforeAppend),
            Self::CutBeforeSealMark => Some(replica::Bug::CutBeforeSealMark),
            Self::FenceIgnored => Some(replica::Bug::FenceIgnored),
            Self::RollByLocalRule => Some(replica::Bug::RollByLocalRule),
            _ => None,
        }
    }

    /// Sets the switches that belong to the thread.
    pub fn plant(bug: Option<Self>) {
        replica::seed(bug.and_then(Self::replica));
        varve_objects::bugs::seed_unsynced_puts(bug == Some(Self::EmbeddedPutUnsynced));
        varve_broker::driver::bugs::seed_damaged_is_empty(bug == Some(Self::DamagedCheckpointIsEmpty));
    }

    /// Runs `act` without any bug: for the model, which is right by definition.
    pub fn without<T>(bug: Option<Self>, act: impl FnOnce() -> T) -> T {
        Self::plant(None);
        let result = act();
        Self::plant(bug);
        result
    }
}
