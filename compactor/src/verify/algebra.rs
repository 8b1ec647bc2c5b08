//! L0: a manifest against itself. Pure.

use varve_common::{Offset, Term};
use varve_formats::manifest::{Entry, EntryKind, NodeReference, Sums};
use varve_tiering::upload::STORE_ID;

/// Takes what a walk shows, in its order.
pub(super) struct Algebra {
    log_start: Offset,
    end: Option<Offset>,
    term: Term,
}

impl Algebra {
    pub(super) const fn new(log_start: Offset) -> Self {
        Self { log_start, end: None, term: Term::ZERO }
    }

    /// What is wrong with a node that was read.
    pub(super) fn node(&self, node: &NodeReference, holds: &Sums) -> Option<String> {
        let says = Sums {
            base: node.base,
            last: node.last,
            entries: node.entries,
            segment_bytes: node.segment_bytes,
            batch_bytes: node.batch_bytes.unwrap_or(holds.batch_bytes),
            max_timestamp: node.max_timestamp,
        };
        (says != *holds).then(|| format!("it holds {holds:?}, what names it says {says:?}"))
    }

    /// Passes over a range that cannot be looked at.
    pub(super) const fn skip(&mut self, node: &NodeReference) {
        self.end = Some(node.end());
    }

    /// What is wrong with the next entry.
    pub(super) fn entry(&mut self, entry: &Entry) -> Vec<String> {
        let mut wrong = Vec::new();
        let (base, last) = (entry.base, entry.last);
        if last < base {
            wrong.push(format!("the entry ends at {last} and begins at {base}"));
        }
        match self.end {
            Some(end) if base < end => wrong.push(format!("the entry at {base} overlaps what ends at {end}")),
            // What was trimmed before it was tiered may be missing.
            Some(end) if base > end && base > self.log_start => {
                wrong.push(format!("nothing holds {end} to {base}"));
            }
            None if base > self.log_start => {
                wrong.push(format!("the log starts at {} and the manifest at {base}", self.log_start));
            }
            _ => {}
        }
        let covered = last.next().since(base);
        let exact = entry.kind != EntryKind::Compacted;
        if entry.count > covered || (exact && entry.count != covered) {
            wrong.push(format!("{} records in {base} to {last}", entry.count));
        }
        if entry.max_timestamp < entry.min_timestamp {
            wrong.push(format!("its times run from {} to {}", entry.min_timestamp, entry.max_timestamp));
        }
        if entry.terms.0 < self.term || entry.terms.1 < entry.terms.0 {
            wrong.push(format!("terms {} to {} come after term {}", entry.terms.0, entry.terms.1, self.term));
        }
        if entry.store_id != STORE_ID || entry.position != 0 || entry.kind == EntryKind::Pack {
            wrong.push("it is in a store or of a kind that this release does not know".to_owned());
        }
        self.end = Some(entry.end().max(self.end.unwrap_or_default()));
        self.term = self.term.max(entry.terms.1);
        wrong
    }
}
