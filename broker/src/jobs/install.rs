//! A checkpoint of the bucket in the place of a log that lags behind what others still hold (TIERING.md 11b).

use varve_common::GroupId;
use varve_formats::{
    PartitionIdentity, command::PublishedCheckpoint, keys::CheckpointName, limits::CHECKPOINT_BYTES_MAX,
};
use varve_objects::GetError;
use varve_replica::{
    GroupState, Installable, LocalCheckpoint,
    checkpoint::{self, Decoded},
    seeding::Seed,
};
use varve_snapshot::{
    local,
    verify::{Damage, Expected, verify_named},
};

use super::Surroundings;

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
    Write(#[from] local::WriteError),
}

impl Surroundings {
    /// Downloads it, verifies it whole and makes it durable; only then may raft hear of it.
    pub(super) async fn install(
        &self,
        group: GroupId,
        identity: &PartitionIdentity,
        wanted: &PublishedCheckpoint,
    ) -> Result<Installable, InstallError> {
        if wanted.bytes > CHECKPOINT_BYTES_MAX as u64 {
            return Err(InstallError::TooLarge(wanted.bytes));
        }
        let name =
            CheckpointName { applied_index: wanted.applied_index, term: wanted.key_term, uid: wanted.uid };
        let partition = (group != GroupId::METADATA).then_some(identity);
        let key = self.checkpoint_key(identity.incarnation, partition, name);
        let bytes = self.store.get(&key).await?;
        let found = verify_named(&bytes, wanted.sha256, Some(&Expected::of(identity, group)))?;
        let header = &found.header;
        let place = (header.state.index, header.state.term);
        if place != (wanted.state_index, wanted.state_term) {
            return Err(InstallError::OfAnother);
        }
        if header.records_local {
            return Err(InstallError::RecordsLocal);
        }
        let membership = Seed::of(header).membership;
        let state = match checkpoint::restore(found).map_err(Damage::from)? {
            Decoded::Partition { state, .. } => GroupState::Partition(state),
            Decoded::Metadata { state, .. } => GroupState::Metadata(state),
        };
        let mark = local::write_installed(&*self.disk, &self.data, group, place, &bytes)?;
        let checkpoint =
            LocalCheckpoint { index: mark.index, term: mark.term, file: mark.file, sha256: mark.sha256 };
        Ok(Installable { checkpoint, membership, state })
    }
}
