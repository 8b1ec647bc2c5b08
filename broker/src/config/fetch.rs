//! What is served to who fetches, and how much of it.

use super::Reader;

/// Bounds on fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The most that one response carries.
    pub bytes_max: u32,
    /// Incremental sessions that are remembered.
    pub sessions_max: usize,
    /// What is served of partitions that others lead.
    pub follower_read: FollowerRead,
}

/// What a node serves of partitions that others lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerRead {
    /// Nothing.
    None,
    /// What it knows to be committed.
    Stale,
    /// The same, with all that was acknowledged before the fetch.
    Linearizable,
}

impl FollowerRead {
    fn from_name(name: &str) -> Self {
        match name {
            "none" => Self::None,
            "linearizable" => Self::Linearizable,
            _ => Self::Stale,
        }
    }
}

impl Reader<'_> {
    pub(super) fn fetch(&self) -> Fetch {
        Fetch {
            bytes_max: u32::try_from(self.bytes("fetch.max.bytes")).unwrap_or(i32::MAX as u32),
            sessions_max: self.number("max.incremental.fetch.session.cache.slots") as usize,
            follower_read: FollowerRead::from_name(self.text("varve.follower.read")),
        }
    }
}
