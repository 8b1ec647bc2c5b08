//! Late ticks: a process that was stopped, or starved of its CPU, must not take the silence for its leader's death.

use crate::limits::LATE_TICKS_FORGIVEN;

/// Counts late ticks in a row.
#[derive(Debug, Default)]
pub(crate) struct LateTicks {
    in_a_row: u32,
}

impl LateTicks {
    /// A tick came `late_by` ticks after its time; whether timers start anew. A process that is late for ever must take
    /// part in elections all the same, so no more than two in a row are forgiven.
    pub(crate) fn forgives(&mut self, late_by: usize, election_ticks: usize) -> bool {
        if late_by * 2 < election_ticks {
            self.in_a_row = 0;
            return false;
        }
        self.in_a_row += 1;
        self.in_a_row <= LATE_TICKS_FORGIVEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_late_ticks_in_a_row_are_forgiven_and_no_more() {
        let mut late = LateTicks::default();
        let forgiven: Vec<bool> =
            [4, 5, 9, 5, 5, 0, 5].into_iter().map(|ticks| late.forgives(ticks, 10)).collect();
        assert_eq!(forgiven, [false, true, true, false, false, false, true]);
    }
}
