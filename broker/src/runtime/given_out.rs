//! Numbers that were given out by what was lost.
//!
//! The metadata of which a part was given up (`varve storage recover --accept-loss`) knows less than partitions whose checkpoints are
//! younger: a producer id that it gave out may stand in them, with sequences of batches that were acknowledged. Given out once more, its
//! first batches would be taken for those, acknowledged and never written. So before the node serves anybody it passes over more
//! numbers than were ever given out in between.

use std::path::Path;

use varve_common::Disk;
use varve_formats::command::MetadataCommand;

use super::{
    backend::NodeBackend,
    errors::RunError,
    small_file::{self, SmallFileError},
};

/// There from the acceptance of a loss on, until the numbers are passed over.
const FILE: &str = "loss-accepted";
/// Producer ids: blocks of a thousand for each node and start.
const PRODUCER_IDS: u32 = 1 << 31;
/// Replicas of this node.
const REPLICA_IDS: u32 = 1 << 20;

/// Something was given up; before that is durable, so that no crash forgets it.
pub fn note(disk: &dyn Disk, root: &Path) -> Result<(), SmallFileError> {
    small_file::replace(disk, root, FILE, &small_file::seal(b"accepted"))
}

/// Passes over what may have been given out, where something was given up since this was last done. Once more does no harm.
pub(super) async fn pass_over(disk: &dyn Disk, root: &Path, backend: &NodeBackend) -> Result<(), RunError> {
    if small_file::read(disk, &root.join(FILE))?.is_none() {
        return Ok(());
    }
    let commands = [
        MetadataCommand::AllocateProducerIds { count: PRODUCER_IDS },
        MetadataCommand::AllocateReplicaIds { node: backend.node.get(), count: REPLICA_IDS },
    ];
    for command in commands {
        backend.change(command).await.map_err(RunError::Register)?;
    }
    small_file::remove(disk, root, FILE)?;
    Ok(())
}
