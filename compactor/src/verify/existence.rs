//! L1: what is named against what is there.
//!
//! ```text
//! walk     -> fingerprint and length of every object that is named, sorted     17 bytes an object
//! listing  -> each key is found among them: seen; else it is extra
//! walk     -> those that were not seen: HEAD, then they are missing
//! ```

use varve_common::{Digest, ObjectKey};

/// What stands for a key.
pub(super) fn fingerprint(key: &ObjectKey) -> u64 {
    let digest = Digest::of(key.as_str().as_bytes()).0;
    u64::from_le_bytes(digest[..8].try_into().expect("eight of thirty-two"))
}

/// How a key that is listed compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is named, with this length.
    Named,
    /// It is named with another length.
    Length(u64),
    /// Nothing names it.
    Extra,
}

/// What is named.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<(u64, u64)>,
    seen: Vec<bool>,
}

impl Names {
    pub(super) fn add(&mut self, key: &ObjectKey, length: u64) {
        self.names.push((fingerprint(key), length));
    }

    /// Once all were added.
    pub(super) fn sort(&mut self) {
        self.names.sort_unstable();
        self.names.dedup();
        self.seen = vec![false; self.names.len()];
    }

    fn place(&self, key: &ObjectKey) -> Option<usize> {
        let print = fingerprint(key);
        self.names.binary_search_by_key(&print, |name| name.0).ok()
    }

    /// A key that is listed.
    pub(super) fn see(&mut self, key: &ObjectKey, bytes: u64) -> Seen {
        let Some(place) = self.place(key) else { return Seen::Extra };
        self.seen[place] = true;
        let length = self.names[place].1;
        if length == bytes { Seen::Named } else { Seen::Length(length) }
    }

    pub(super) fn has_missing(&self) -> bool {
        self.seen.iter().any(|seen| !seen)
    }

    pub(super) fn is_missing(&self, key: &ObjectKey) -> bool {
        self.place(key).is_some_and(|place| !self.seen[place])
    }
}
