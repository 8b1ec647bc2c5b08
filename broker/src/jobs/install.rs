//! A checkpoint in the place of a log that lags behind what others still hold: of the bucket (TIERING.md 11b), or of another node,
//! and then with the sealed files that it needs (11c), some at a time.

use bytes::Bytes;
use varve_common::{GroupId, NodeId, Offset};
use varve_formats::{
    PartitionIdentity, command::PublishedCheckpoint, keys::CheckpointName, limits::CHECKPOINT_BYTES_MAX,
    state::RollEntry,
};
use varve_objects::{Class, GetError, Store as _};
use varve_replica::{
    GroupState, Installable, JobOutcome, LocalCheckpoint, SealMark,
    checkpoint::{self, Decoded},
    seeding::Seed,
};
use varve_snapshot::{
    local,
    verify::{Damage, Expected, verify_named},
};

use super::Surroundings;
use crate::transfer::{
    Came, FetchError, Wanted,
    limits::{BATCH_BYTES, BATCH_FILES},
};

/// Who lags, what it has, and whom it may ask.
pub(super) struct Lacking<'a> {
    pub(super) group: GroupId,
    pub(super) identity: &'a PartitionIdentity,
    /// The nodes that have the checkpoint, and files; none where it is in the bucket.
    pub(super) from: &'a [NodeId],
    /// The files that are here.
    pub(super) seals: &'a [SealMark],
}

/// What came of the files that lack.
#[derive(Default)]
struct Fetched {
    /// Their marks are to be written.
    seals: Vec<SealMark>,
    /// Up to where another node has trimmed its records.
    trimmed: Offset,
}

/// Why nothing was installed. The log stays what it is, and the leader sends this replica to another in time.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error("{0} bytes are no checkpoint")]
    TooLarge(u64),
    #[error(transparent)]
    Get(#[from] GetError),
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("it is of another entry than its leader says")]
    OfAnother,
    #[error("records below it are on nodes only")]
    RecordsLocal,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Write(#[from] local::WriteError),
}

impl Surroundings {
    /// Brings it, verifies it whole and makes it durable; only then may raft hear of it, and only where no sealed file lacks. Else
    /// some of those come first.
    pub(super) async fn install(
        &self,
        lacking: &Lacking<'_>,
        wanted: &PublishedCheckpoint,
    ) -> Result<JobOutcome, InstallError> {
        let Lacking { group, identity, .. } = *lacking;
        // A checkpoint in memory, and its state, are what a move takes most of: no more of them at a time than of moves.
        let _turn = if lacking.from.is_empty() { None } else { self.transfers.turn().await };
        let (bytes, kept) = self.bring(lacking, wanted).await?;
        let found = verify_named(&bytes, wanted.sha256, Some(&Expected::of(identity, group)))?;
        let header = &found.header;
        let place = (header.state.index, header.state.term);
        if place != (wanted.state_index, wanted.state_term) {
            return Err(InstallError::OfAnother);
        }
        if header.records_local && lacking.from.is_empty() {
            return Err(InstallError::RecordsLocal);
        }
        let membership = Seed::of(header).membership;
        let state = match checkpoint::restore(found).map_err(Damage::from)? {
            Decoded::Partition { state, .. } => GroupState::Partition(state),
            Decoded::Metadata { state, .. } => GroupState::Metadata(state),
        };
        let mark = match kept {
            Some(mark) => mark,
            None => local::write_installed(&*self.disk, &self.data, group, place, &bytes)?,
        };
        drop(bytes);
        let rolls = if let GroupState::Partition(state) = &state { &**state.records().rolls } else { &[] };
        let Fetched { seals, trimmed } = self.fetch_some(lacking, rolls).await?;
        if !seals.is_empty() {
            return Ok(JobOutcome::Fetched(seals));
        }
        let checkpoint =
            LocalCheckpoint { index: mark.index, term: mark.term, file: mark.file, sha256: mark.sha256 };
        Ok(JobOutcome::Installable(Box::new(Installable { checkpoint, membership, state, trimmed })))
    }

    /// Its bytes, of which nothing is known but where they are to be had; and its mark where an earlier round has brought it.
    async fn bring(
        &self,
        lacking: &Lacking<'_>,
        wanted: &PublishedCheckpoint,
    ) -> Result<(Bytes, Option<local::Mark>), InstallError> {
        let Lacking { group, identity, from, .. } = *lacking;
        if wanted.bytes > CHECKPOINT_BYTES_MAX as u64 {
            return Err(InstallError::TooLarge(wanted.bytes));
        }
        if !from.is_empty() {
            let place = (wanted.state_index, wanted.state_term);
            let kept = local::read_installed(&*self.disk, &self.data, group, place, wanted.sha256);
            return match kept {
                Some((bytes, mark)) => Ok((bytes, Some(mark))),
                None => Ok((self.transfers.checkpoint(from, group, wanted).await?, None)),
            };
        }
        let name =
            CheckpointName { applied_index: wanted.applied_index, term: wanted.key_term, uid: wanted.uid };
        let partition = (group != GroupId::METADATA).then_some(identity);
        let key = self.checkpoint_key(identity.incarnation, partition, name);
        let bytes = self.stores.of(Class::Bootstrap).get(&key).await?;
        self.transfers.count_from_bucket(bytes.len() as u64);
        Ok((bytes, None))
    }

    /// The oldest files that lack, as many as are marked together; none where nothing lacks any more. What came counts, though the
    /// next one did not.
    async fn fetch_some(&self, lacking: &Lacking<'_>, rolls: &[RollEntry]) -> Result<Fetched, InstallError> {
        let Lacking { group, identity, from, seals } = *lacking;
        let is_here = |roll: &&RollEntry| {
            seals.binary_search_by_key(&roll.base, |seal| seal.base).is_ok_and(|at| seals[at].end == roll.end)
        };
        let lacks: Vec<&RollEntry> = rolls.iter().filter(|roll| !is_here(roll)).collect();
        let mut left: u64 = lacks.iter().map(|roll| roll.bytes).sum();
        self.transfers.note_lacking(group, left);
        if lacks.is_empty() {
            return Ok(Fetched::default());
        }
        if from.is_empty() {
            return Err(InstallError::RecordsLocal);
        }
        let (mut fetched, mut bytes) = (Fetched::default(), 0);
        for roll in lacks {
            let wanted = Wanted { group, identity, roll, from };
            match self.transfers.segment(wanted, &self.local, &self.wal).await {
                Ok(Came::Whole(seal)) => {
                    bytes += seal.bytes;
                    fetched.seals.push(seal);
                }
                Ok(Came::Trimmed) => fetched.trimmed = fetched.trimmed.max(roll.end),
                Err(error) if fetched.seals.is_empty() => {
                    self.transfers.note_lacking(group, 0);
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::debug!(%group, %error, "the next sealed file does not come now");
                    break;
                }
            }
            left -= roll.bytes;
            self.transfers.note_lacking(group, left);
            if fetched.seals.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
                break;
            }
        }
        Ok(fetched)
    }
}
