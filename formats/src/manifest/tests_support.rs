//! Entries and references for tests.

use varve_common::{Digest, LogIndex, Offset, Term};

use super::{Entry, EntryKind, NodeReference};

/// An entry that covers base to last.
pub(crate) fn entry(base: u64, last: u64) -> Entry {
    Entry {
        store_id: 0,
        kind: EntryKind::Raw,
        incarnation: 1,
        term: Term(7),
        uid: base + 1_000,
        position: 0,
        length: 500,
        base: Offset(base),
        last: Offset(last),
        count: last + 1 - base,
        min_timestamp: 10,
        max_timestamp: 20,
        first_index: LogIndex(3),
        roll_index: LogIndex(9),
        roll_term: Term(7),
        terms: (Term(6), Term(7)),
        txn_index_empty: true,
        delete_horizon_ms: 0,
        batch_bytes: 600,
        sha256: Digest([3; 32]),
    }
}

/// A node that covers base to last in one entry.
pub(crate) fn node(level: u8, base: u64, last: u64) -> NodeReference {
    NodeReference {
        level,
        incarnation: 1,
        uid: base + 2_000,
        base: Offset(base),
        last: Offset(last),
        entries: 1,
        segment_bytes: 500,
        max_timestamp: 20,
        length: 300,
        sha256: Digest([4; 32]),
        batch_bytes: None,
    }
}
