//! Seeds that a directory names (DNS): it fills while nodes start, so those that came first must not found a cluster of their own.
//!
//! How many nodes found the cluster is configured beside the directory's name. Only a set of exactly so many is ever promised, and
//! all of them must name the same set, as with seeds that are configured one by one; with any other number a node may only join what
//! is formed. Once a disk has promised, its set is the promise's, whatever the directory says then.
//!
//! A directory that names only who is ready hides a cluster that is not, and with it the names that would keep new disks from
//! founding another: without a bucket that all share, whose claim refuses the second, nobody begins one unless it is told to.

use super::{Formation, FormationRecord, Founder, SeedSet, Waiting};

/// A disk that has promised goes on with the seeds of its promise.
pub(super) fn keep_promised(founder: &mut Founder, record: &FormationRecord) {
    if let (Some(_), Some((_, seeds))) = (founder.count, record.promise()) {
        founder.seeds = seeds.clone();
    }
}

impl Formation {
    /// The directory names other seeds than before.
    pub(super) fn rename(&mut self, seeds: SeedSet) {
        let is_free = self.record == FormationRecord::Empty && self.writing.is_none();
        if self.founder.count.is_some() && is_free && self.founder.seeds != seeds {
            self.answers.retain(|seed, _| seeds.contains(seed));
            self.founder.seeds = seeds;
        }
    }

    /// Whether there are as many seeds as found a cluster, and it may be founded.
    pub(super) fn check_count(&self) -> Result<(), Waiting> {
        if !self.founder.founds && self.record == FormationRecord::Empty {
            return Err(Waiting::NobodyFormed);
        }
        let seeds = &self.founder.seeds;
        match self.founder.count {
            Some(count) if count != seeds.len() => {
                Err(Waiting::Count { found: seeds.len(), count, seeds: seeds.clone() })
            }
            _ => Ok(()),
        }
    }
}
