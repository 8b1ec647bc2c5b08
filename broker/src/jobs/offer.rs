//! Checkpoints and sealed files between nodes (TIERING.md 11c): what a leader puts where members find it, and what a node that lost a
//! file brings back.

use varve_common::{GroupId, Term};
use varve_formats::{command::PublishedCheckpoint, keys::CheckpointName};
use varve_replica::{Job, JobOutcome, LocalCheckpoint, SealMark, checkpoint::Captured};
use varve_snapshot::local;

use super::{Surroundings, install::Lacking, outcome, published};
use crate::transfer::{Came, FetchError, Wanted};

impl Surroundings {
    /// What makes a checkpoint or a file move between nodes.
    pub(super) async fn move_files(&self, job: Job) -> JobOutcome {
        let (group, kind) = (job.group(), job.kind());
        match job {
            Job::Offer { term, captured, .. } => {
                let done = self.offer(group, term, &captured);
                outcome(kind, done, |(checkpoint, file)| JobOutcome::Offered { checkpoint, file })
            }
            Job::Install { identity, checkpoint, from, seals, .. } => {
                let lacking = Lacking { group, identity: &identity, from: &from, seals: &seals };
                outcome(kind, self.install(&lacking, &checkpoint).await, |outcome| outcome)
            }
            Job::Refetch { identity, roll, seal, from, .. } => {
                let wanted = Wanted { group, identity: &identity, roll: &roll, from: &from };
                outcome(kind, self.refetch(wanted, seal).await, JobOutcome::Refetched)
            }
            _ => unreachable!("no other job moves anything"),
        }
    }

    /// Writes it beside the local ones; whoever is sent to it asks for it by its digest.
    fn offer(
        &self,
        group: GroupId,
        term: Term,
        captured: &Captured,
    ) -> Result<(PublishedCheckpoint, LocalCheckpoint), local::WriteError> {
        let header = captured.header();
        let (place, applied) = ((header.state.index, header.state.term), header.applied.index);
        let encoded = captured.encode(self.codec);
        let written = local::write_offered(&*self.disk, &self.data, group, place, (applied, &encoded.bytes))?;
        let name = CheckpointName { applied_index: applied, term, uid: 0 };
        let whole = (encoded.bytes.len() as u64, encoded.sha256);
        let checkpoint = published(captured, name, whole, self.clock.wall_ms());
        let file = LocalCheckpoint {
            index: written.index,
            term: written.term,
            file: written.file,
            sha256: encoded.sha256,
        };
        Ok((checkpoint, file))
    }

    /// The same file where another node has it, else another with the same records.
    async fn refetch(&self, wanted: Wanted<'_>, lost: SealMark) -> Result<SealMark, FetchError> {
        let _turn = self.transfers.turn().await;
        match self.transfers.segment(wanted, &self.local, &self.wal).await? {
            Came::Whole(seal) => Ok(seal),
            // This replica will hear of it, and lets go of the file then.
            Came::Trimmed => Err(FetchError::Nobody(format!("the range from {} on is trimmed", lost.base))),
        }
    }
}
