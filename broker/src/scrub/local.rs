//! What is on this node's disk.

use varve_common::{Access, ObjectKey};
use varve_common::{Digest, LogIndex, disk::read_exact_at};
use varve_formats::manifest::Entry;
use varve_replica::{LocalCheckpoint, SealMark};
use varve_snapshot::local;
use varve_tiering::DamageCause;
use varve_wal::ReadError;

use super::{Outcome, Pass, Place, Target};

/// How many bytes of entries one read of the log asks for.
const READ_BYTES: u64 = 1 << 20;

impl Pass<'_> {
    /// Every record of the group. The log itself takes note of what does not read back, and tells the group.
    pub(super) async fn log(&self, target: &Target) {
        let mut from = target.log.start;
        while from < target.log.end {
            match self.places.wal.entries(target.group, from, READ_BYTES) {
                Ok(entries) => {
                    let Some(last) = entries.last() else { break };
                    from = last.index.next();
                    self.took(Place::Log, entries.iter().map(|entry| entry.data.len() as u64).sum()).await;
                }
                // Cut meanwhile.
                Err(ReadError::Missing { .. }) => {
                    let bounds = self.places.wal.bounds(target.group);
                    let first = bounds.map_or(LogIndex::ZERO, |bounds| bounds.truncated.0.next());
                    if first <= from {
                        break;
                    }
                    from = first;
                }
                Err(error @ ReadError::Corrupt { index, .. }) => {
                    let index = index.max(from);
                    let outcome = self.repairs.entries(target, index).await;
                    self.found(
                        target,
                        Place::Log,
                        format!("entries from {index}"),
                        error.to_string(),
                        outcome,
                    );
                    from = index.next();
                }
                Err(error @ ReadError::Io { .. }) => {
                    return self.unreadable(target, "the log", &error.to_string());
                }
            }
        }
    }

    /// Sealed files, against the SHA-256 of their marks.
    pub(super) async fn sealed(&self, target: &Target) {
        for seal in target.seals.iter() {
            if let Err(damaged) = self.places.local.check(target.group, seal) {
                self.on_sealed(target, seal, damaged).await;
            }
            self.took(Place::SealedFile, seal.bytes).await;
        }
    }

    async fn on_sealed(&self, target: &Target, seal: &SealMark, damaged: varve_tiering::Damaged) {
        let Some(now) = self.again(target).await.filter(|now| now.seals.contains(seal)) else { return };
        let what = format!("offsets {} to {}", seal.base, seal.end);
        if let DamageCause::Disk(why) = &damaged.cause {
            return self.unreadable(target, &what, why);
        }
        let outcome = match self.restore(&now, seal).await {
            Some(repaired) => repaired,
            None => {
                self.places.local.suspect(target.group, seal, &damaged);
                self.repairs.sealed(&now, seal).await
            }
        };
        self.found(target, Place::SealedFile, what, damaged.to_string(), outcome);
    }

    /// The bucket's copy in the place of the file, where it is the same to the byte.
    async fn restore(&self, target: &Target, seal: &SealMark) -> Option<Outcome> {
        let same = |entry: &&Entry| entry.sha256 == seal.sha256 && entry.length == seal.bytes;
        let entry = target.root.entries.iter().find(same)?;
        let key = self.key_of(target, entry)?;
        let bytes = varve_objects::get_verified(&*self.places.store, &key, entry.length, entry.sha256).await;
        let replaced = self.places.local.replace(target.group, seal, &bytes.ok()?);
        replaced.is_ok().then_some(Outcome::Repaired("from the object store"))
    }

    pub(super) fn key_of(&self, target: &Target, entry: &Entry) -> Option<ObjectKey> {
        let identity = target.identity.as_ref()?;
        self.places.keys.entry(identity.topic_id, identity.partition, entry)
    }

    /// Both local checkpoints, against the SHA-256 of their marks.
    pub(super) async fn checkpoints(&self, target: &Target) {
        for checkpoint in &target.checkpoints {
            let (bytes, damage) = self.check_checkpoint(target, checkpoint);
            if let Some(cause) = damage
                && self.again(target).await.is_some_and(|now| now.checkpoints.contains(checkpoint))
            {
                let outcome = self.repairs.checkpoint(target, checkpoint.index).await;
                let what = format!("as of entry {}, {}", checkpoint.index, checkpoint.file);
                self.found(target, Place::LocalCheckpoint, what, cause, outcome);
            }
            self.took(Place::LocalCheckpoint, bytes).await;
        }
    }

    fn check_checkpoint(&self, target: &Target, checkpoint: &LocalCheckpoint) -> (u64, Option<String>) {
        let path = local::directory(&self.places.data, target.group).join(&checkpoint.file);
        let read = self.places.disk.open(&path, Access::Buffered).and_then(|file| {
            let length = file.len()?.min(varve_formats::limits::CHECKPOINT_BYTES_MAX as u64);
            read_exact_at(&*file, 0, length as usize)
        });
        match read {
            Ok(bytes) if Digest::of(&bytes) == checkpoint.sha256 => (bytes.len() as u64, None),
            Ok(bytes) => (bytes.len() as u64, Some("its sha-256 is not what its mark says".to_owned())),
            Err(error) => (0, Some(error.to_string())),
        }
    }
}
