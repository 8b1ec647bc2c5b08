//! What a crash left on the disk that no mark names.

use std::{io, path::Path};

use varve_common::Disk;
use varve_snapshot::local;
use varve_tiering::LocalSegments;

/// Removes sealed files and checkpoints without a mark. Those of a damaged group stay: they are evidence.
pub(super) fn remove(
    disk: &dyn Disk,
    data: &Path,
    sealed: &LocalSegments,
    recovery: &varve_wal::Recovery,
) -> io::Result<()> {
    for (group, found) in recovery.groups.iter().filter(|(_, found)| found.damage.is_none()) {
        let marks: Vec<local::Mark> = found.snapshots.iter().map(mark).collect();
        if let Err(error) = local::remove_surplus(disk, data, *group, &marks) {
            tracing::warn!(%group, %error, "checkpoints without a mark could not be removed");
        }
    }
    for group in sealed.groups()? {
        let Some(found) = recovery.groups.get(&group).filter(|found| found.damage.is_none()) else {
            continue;
        };
        let marked: Vec<_> = found.seals.values().map(|mark| (mark.base, mark.end)).collect();
        let removed = sealed.remove_surplus(group, &marked)?;
        if removed > 0 {
            tracing::info!(%group, removed, "removed files that a crash left without a mark");
        }
    }
    Ok(())
}

fn mark(mark: &varve_wal::SnapshotMark) -> local::Mark {
    local::Mark { index: mark.index, term: mark.term, file: mark.file.clone(), sha256: mark.sha256 }
}
