//! Who asks the store, from what must not wait to what may wait for ever (TIERING.md 12).

use std::fmt;

/// On whose behalf a request is made. The order is the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Uploads while the log has no room: producers wait for them. Never chosen by a caller:
    /// [`super::Budgets::press`] makes all uploads such.
    PressedUpload,
    /// Reads that a client waits for, and what is read ahead for it.
    ClientRead,
    /// Checkpoints and tails that a node or a cluster starts from.
    Bootstrap,
    /// Segments on their way to the bucket.
    Upload,
    /// Checkpoints, manifest nodes and their collection.
    Checkpoint,
    /// Segments that are merged or compacted.
    Merge,
    /// Objects that are read to see whether they are whole.
    Scrub,
    /// What leaves for other systems.
    Export,
}

impl Class {
    /// Each of them, from high to low.
    pub const ALL: [Self; 8] = [
        Self::PressedUpload,
        Self::ClientRead,
        Self::Bootstrap,
        Self::Upload,
        Self::Checkpoint,
        Self::Merge,
        Self::Scrub,
        Self::Export,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PressedUpload => "pressed_upload",
            Self::ClientRead => "client_read",
            Self::Bootstrap => "bootstrap",
            Self::Upload => "upload",
            Self::Checkpoint => "checkpoint",
            Self::Merge => "merge",
            Self::Scrub => "scrub",
            Self::Export => "export",
        }
    }

    /// The part of the node's budget, of a hundred, that it gets whatever the others do.
    pub(super) const fn percent(self) -> u8 {
        match self {
            Self::PressedUpload => 20,
            Self::ClientRead => 30,
            Self::Bootstrap => 10,
            Self::Upload => 20,
            Self::Checkpoint => 8,
            Self::Merge => 6,
            Self::Scrub => 4,
            Self::Export => 2,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const _: () = {
    let (mut sum, mut at) = (0, 0);
    while at < Class::ALL.len() {
        sum += Class::ALL[at].percent();
        assert!(Class::ALL[at] as usize == at, "the order is the order of precedence");
        at += 1;
    }
    assert!(sum == 100);
};
