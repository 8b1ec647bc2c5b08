//! The term of every entry from the truncation point on, in a few words per leader change.

use varve_common::{LogIndex, Term};

use crate::TermRun;

/// Term runs, oldest first; the first begins at the truncation point. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    runs: Vec<TermRun>,
}

impl Terms {
    pub(crate) fn new(truncated: LogIndex, term: Term) -> Self {
        Self { runs: vec![TermRun { start: truncated, term }] }
    }

    /// The truncation point.
    pub(crate) fn truncated(&self) -> TermRun {
        self.runs[0]
    }

    /// Says that entries from `start` on are of `term`, forgetting what was said of them before.
    pub(crate) fn push(&mut self, start: LogIndex, term: Term) {
        let keep = self.runs.partition_point(|run| run.start < start);
        assert!(keep > 0, "entries at or below the truncation point never change");
        self.runs.truncate(keep);
        if self.runs[keep - 1].term != term {
            self.runs.push(TermRun { start, term });
        }
    }

    /// The term at `index`, at or above the truncation point; the caller checks the log's end.
    pub(crate) fn get(&self, index: LogIndex) -> Option<Term> {
        let after = self.runs.partition_point(|run| run.start <= index);
        after.checked_sub(1).map(|place| self.runs[place].term)
    }

    /// Moves the truncation point up to `index`.
    pub(crate) fn truncate_front(&mut self, index: LogIndex) {
        let after = self.runs.partition_point(|run| run.start <= index);
        self.runs.drain(..after - 1);
        self.runs[0].start = index;
    }

    /// The runs.
    pub(crate) fn runs(&self) -> &[TermRun] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_answer_from_the_truncation_point_on() {
        let mut terms = Terms::new(LogIndex(10), Term(2));
        for (index, term) in [(11, 2), (12, 3), (13, 3), (14, 5), (13, 4), (14, 4)] {
            terms.push(LogIndex(index), Term(term));
        }
        let all = |terms: &Terms| {
            (9..=14).map(|index| terms.get(LogIndex(index)).map(|term| term.0)).collect::<Vec<_>>()
        };
        assert_eq!(all(&terms), [None, Some(2), Some(2), Some(3), Some(4), Some(4)]);
        terms.truncate_front(LogIndex(12));
        assert_eq!(all(&terms), [None, None, None, Some(3), Some(4), Some(4)]);
        assert_eq!(terms.truncated(), TermRun { start: LogIndex(12), term: Term(3) });
        assert_eq!(terms.runs().len(), 2);
    }
}
