//! What goes wrong with the disk, beside power cuts: it dies at some step, fails, fills up, cannot be read, rots.

use std::path::{Path, PathBuf};

use rand::RngExt;
use varve_common::{Access, Disk, GroupId};
use varve_objects::testing::FaultRates;
use varve_snapshot::local;
use varve_wal::testing::{Injected, Operation, Target};

use crate::{
    crashes::{RARE_TARGETS, TARGETS},
    jobs::{CACHE, rates},
    world::World,
};

/// The size of a disk that is not full.
pub const DISK_BYTES: u64 = 1 << 40;

/// The directories whose files are read.
const READ_FROM: [&str; 4] = ["/data/wal", "/data/segments", "/data/groups", "/data/objects/data"];

/// So often, in steps of a life, the cache of cold chunks rots, with one bit in so many bytes.
const SPOILS_EVERY: usize = 97;
const SPOILED_APART: usize = 256;

impl World {
    /// Whether something happens that does so to this share.
    pub fn chance(&mut self, of_a_hundred: u32) -> bool {
        self.random.random_range(0..100) < of_a_hundred
    }

    /// What will go wrong in this life.
    pub fn plant_faults(&mut self) {
        let now = self.disk.operations();
        if self.random.random_range(0..1_000) < self.plan.dies_within {
            match self.random.random_range(0..4) {
                0 => self.disk.inject(now + self.random.random_range(1..400), Injected::Dies),
                1 => self.die_at(TARGETS),
                // Several places, for most of these never come: whichever is reached first.
                _ => (0..7).for_each(|_| self.die_at(RARE_TARGETS)),
            }
        }
        if self.chance(self.plan.io_errors) {
            let after = self.random.random_range(1..300);
            self.disk.inject(now + after, Injected::Eio);
        }
        self.full_disk_at = None;
        if self.chance(self.plan.full_disks) {
            let at = self.random.random_range(0..self.plan.steps);
            self.full_disk_at = Some((at, at + self.random.random_range(20..200)));
        }
        self.unreadable_at = None;
        if self.chance(self.plan.read_errors) {
            self.unreadable_at = Some(self.random.random_range(0..self.plan.steps));
        }
        self.rots_at = None;
        if self.chance(self.plan.rot / 2) {
            self.rots_at = Some(self.random.random_range(0..self.plan.steps));
        }
        let stopped = FaultRates { error_before: 1_000, ..FaultRates::default() };
        let stops = self.chance(self.plan.store_stops);
        self.remote.1.set_rates(if stops { stopped } else { rates(self.plan.store_faults / 7) });
    }

    fn die_at(&mut self, targets: &[(Operation, &str)]) {
        let (operation, below) = targets[self.random.random_range(0..targets.len())];
        let spared = self.random.random_range(0..3);
        self.disk.inject_at(Target { operation, below: below.into(), spared }, Injected::Dies);
    }

    /// What goes wrong at this step of a life.
    pub fn strike(&mut self, step: usize) {
        self.fill_disk(step);
        if self.unreadable_at == Some(step) {
            self.break_reads();
        }
        if self.rots_at == Some(step) {
            self.rot();
        }
        if step % SPOILS_EVERY == SPOILS_EVERY / 2 {
            self.spoil_cache();
        }
    }

    /// The next reads somewhere fail.
    pub fn break_reads(&mut self) {
        let below = READ_FROM[self.random.random_range(0..READ_FROM.len())];
        let count = self.random.random_range(1..6);
        self.trace.note(format_args!("the next {count} reads of {below} fail"));
        self.disk.fail_reads(Path::new(below), count);
    }

    /// Whether reads failed in this life.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.disk.read_errors() > 0
    }

    /// The disk fills, and later somebody makes room.
    fn fill_disk(&mut self, step: usize) {
        let Some((full, heals)) = self.full_disk_at else { return };
        if step == full {
            let space = self.disk.space(Path::new("/data")).expect("a disk in memory says how large it is");
            let used = space.total_bytes - space.free_bytes;
            let left = self.random.random_range(0..40 << 10);
            self.trace.note(format_args!("disk is full but for {left} bytes"));
            self.counts.full_disks += 1;
            self.disk.resize(used + left);
        } else if step == heals {
            self.trace.note(format_args!("disk has room again"));
            self.disk.resize(DISK_BYTES);
        }
    }

    /// Flips a bit in a log file that is closed, a checkpoint, a sealed file or an object.
    pub fn rot(&mut self) {
        let files = self.disk.files();
        let kinds = ["wal", "ckpt", "seg"];
        let mut logs = Vec::new();
        let mut targets = Vec::new();
        for (path, bytes) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
            if end == "wal" {
                logs.push((path, bytes));
            } else if kinds.contains(&end) || path.starts_with("/data/objects/data") {
                targets.push((path, bytes));
            }
        }
        logs.truncate(logs.len().saturating_sub(2));
        // Which kind comes first: objects are many, checkpoints few.
        let kind = self.random.random_range(0..4);
        let of_kind = |path: &Path| READ_FROM.iter().position(|below| path.starts_with(below)) == Some(kind);
        targets.extend(logs);
        if targets.iter().any(|(path, _)| of_kind(path)) {
            targets.retain(|(path, _)| of_kind(path));
        }
        if targets.is_empty() {
            return;
        }
        let (path, bytes) = targets[self.random.random_range(0..targets.len())];
        let bit = self.random.random_range(0..bytes.len() as u64 * 8);
        self.trace.note(format_args!("rot: bit {bit} of {}", path.display()));
        self.disk.flip_bit(path, bit);
        if path.starts_with("/data/wal") {
            self.rotten = true;
        } else {
            self.rotten_files.insert(path.clone());
        }
        self.counts.flips += 1;
    }

    /// Puts other bytes in the place of a file, which counts as damaged from then on.
    pub fn overwrite(&mut self, path: &Path, bytes: &[u8]) {
        let file = self.disk.open(path, Access::Buffered).expect("the file is there");
        file.set_len(bytes.len() as u64).and_then(|()| file.write_at(bytes, 0)).expect("the disk has room");
        file.sync_data().expect("the disk is whole");
        self.rotten_files.insert(path.to_owned());
    }

    /// Flips bits all over the cold chunks' cache. That excuses nothing: a cache is never the cause of an error, and
    /// never serves what it did not get.
    fn spoil_cache(&mut self) {
        let path = Path::new(CACHE);
        let bytes =
            self.disk.files().iter().find(|(file, _)| file == path).map_or(0, |(_, bytes)| bytes.len());
        if bytes == 0 {
            return;
        }
        self.trace.note(format_args!("the cache of cold chunks rots"));
        let places = (0..bytes as u64).step_by(SPOILED_APART);
        places.for_each(|place| self.disk.flip_bit(path, place * 8));
    }

    /// Whether some file of a group is damaged, below this directory.
    #[must_use]
    pub fn is_rotten_below(&self, directory: &Path) -> bool {
        self.rotten_files.iter().any(|path| path.starts_with(directory))
    }

    /// Whether a group may stop: its log is damaged, or a sealed file, or every checkpoint that its marks name; or it was given
    /// up in an earlier life.
    #[must_use]
    pub fn may_stop(&self, group: GroupId) -> bool {
        if self.rotten || self.is_unreadable() || self.model.damaged.contains(&group) {
            return true;
        }
        if self.is_rotten_below(&Path::new("/data/segments").join(format!("{:016x}", group.0))) {
            return true;
        }
        let marks = self.model.durable.0.get(&group).map_or(&[][..], |group| &group.snapshots);
        let damaged = |file: &str| {
            let path: PathBuf = local::directory(Path::new("/data"), group).join(file);
            self.rotten_files.contains(&path)
        };
        !marks.is_empty() && marks.iter().all(|mark| damaged(&mark.file))
    }
}
