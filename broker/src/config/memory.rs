//! How much memory the process may take, and how it is divided: every budget has a size that is enough for any machine, and on
//! one that has less, or in a control group that allows less, it is a share of that.
//!
//! ```text
//! memory = min(machine, control group and those above it)      varve.memory.bytes.max says otherwise
//! |  requests 1/8  | uploads 1/8 | answers 1/16 | merges 1/16 | tail 1/16 | chunks 1/16 | indices 1/32 | archive 1/32 | opened 1/16 |  the rest, more than a third |
//! ```
//! The rest is for what no budget counts: state, buffers of copies on their way, the allocator's slack. What the write-ahead
//! log has in its queue is records of requests in flight, and is bounded with them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::Share;

/// A budget's least share: below it nothing moves.
const LEAST_BYTES: u64 = 1 << 20;
/// Two segments as they come: one is uploaded out of memory while the next one fills.
const TAIL_BYTES: u64 = 128 << 20;

/// How many bytes of memory each part of the process may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// What they are shares of; `None` where nobody could say how much there is.
    pub memory: Option<u64>,
    /// Requests that arrive or are in flight.
    pub requests: u64,
    /// Answers with records that have not left.
    pub answers: u64,
    /// Segments on their way to the object store.
    pub uploads: u64,
    /// Merges and repairs there.
    pub merges: u64,
    /// Newest batches, for consumers at the tail and for uploads.
    pub tail: u64,
    /// Chunks of cold objects.
    pub chunks: u64,
    /// Manifest nodes and block indices of cold objects.
    pub indices: u64,
    /// Records of a file for other systems.
    pub archive: u64,
    /// Batches that are decompressed on their way in.
    pub opened: u64,
}

/// A budget: enough for any machine, and one of so many parts of a small one's memory.
const fn share(memory: Option<u64>, most: u64, one_in: u64) -> u64 {
    let Some(memory) = memory else { return most };
    let share = memory / one_in;
    if share > most {
        most
    } else if share < LEAST_BYTES {
        LEAST_BYTES
    } else {
        share
    }
}

impl Budgets {
    /// The budgets within so much memory.
    #[must_use]
    pub const fn within(memory: Option<u64>) -> Self {
        Self {
            memory,
            requests: share(memory, 512 << 20, 8),
            answers: share(memory, 256 << 20, 16),
            uploads: share(memory, 256 << 20, 8),
            merges: share(memory, 80 << 20, 16),
            tail: share(memory, TAIL_BYTES, 16),
            chunks: share(memory, 64 << 20, 16),
            indices: share(memory, 64 << 20, 32),
            archive: share(memory, 128 << 20, 32),
            opened: share(memory, 256 << 20, 16),
        }
    }

    /// The budgets within what is configured, or else within so much memory; what is said of one of them wins.
    pub(super) fn configured(share: impl Fn(&'static str) -> Share, memory: Option<u64>) -> Self {
        // Of what nobody could measure there is no share.
        let resolve = |name, all: Option<u64>| match (share(name), all) {
            (Share::Bytes(bytes), _) => Some(bytes),
            (Share::Percent(percent), Some(all)) => Some(all / 100 * u64::from(percent)),
            (Share::Auto | Share::Percent(_), _) => None,
        };
        let all = resolve("varve.memory.bytes.max", memory).or(memory);
        let auto = Self::within(all);
        Self {
            requests: resolve("varve.requests.bytes.max", all).unwrap_or(auto.requests),
            chunks: resolve("varve.cold.cache.bytes", all).unwrap_or(auto.chunks),
            ..auto
        }
    }

    const fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("requests", self.requests),
            ("answers", self.answers),
            ("uploads", self.uploads),
            ("merges", self.merges),
            ("tail", self.tail),
            ("chunks", self.chunks),
            ("indices", self.indices),
            ("archive", self.archive),
            ("opened", self.opened),
        ]
    }
}

impl fmt::Display for Budgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.memory {
            Some(memory) => f.write_str(&shown(memory))?,
            None => f.write_str("unknown")?,
        }
        let parts = self.named().map(|(name, bytes)| format!("{name} {}", shown(bytes)));
        write!(f, " ({})", parts.join(", "))
    }
}

/// Bytes as a configuration may say them, without loss where they are few enough to matter.
#[must_use]
pub fn shown(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{}MiB", bytes >> 20),
        bytes => format!("{bytes}"),
    }
}

/// What the machine has and its control group allows, read below `root`: `/`, but for tests. `None` where neither says.
#[must_use]
pub fn available(root: &Path) -> Option<u64> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_limit(root, line));
    machine(root).into_iter().chain(limits).min()
}

fn machine(root: &Path) -> Option<u64> {
    let text = read(&root.join("proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// The least limit of a control group, and of those that it is in, from its line in `/proc/self/cgroup`. Within a container the path
/// may be one of the machine's: then what is mounted at the top is the container's own.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (mount, file) = match (number, controllers) {
        ("0", "") => ("sys/fs/cgroup", "memory.max"),
        (_, controllers) if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let top = root.join(mount);
    let mut folders: Vec<PathBuf> = vec![top.clone()];
    for part in Path::new(path.trim_start_matches('/')).components() {
        let below = folders.last().map_or_else(|| top.clone(), |folder| folder.join(part));
        folders.push(below);
    }
    // "max" and what is not there limit nothing.
    let limit = |folder: PathBuf| read(&folder.join(file))?.trim().parse::<u64>().ok();
    folders.into_iter().filter_map(limit).min()
}

#[allow(
    clippy::disallowed_methods,
    reason = "files of the kernel, and the configuration is this room's to read"
)]
fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests make the kernel's files")]
mod tests {
    use std::fs;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// A machine with these files below its root.
    fn machine_of(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available(root.path())
    }

    const MEMORY: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:  1 kB\n");

    #[test]
    fn a_machine_without_control_groups_has_what_it_has() {
        assert_eq!(machine_of(&[]), None);
        assert_eq!(machine_of(&[MEMORY]), Some(8 * GIB));
        assert_eq!(machine_of(&[MEMORY, ("proc/self/cgroup", "0::/\n3:cpu:/a\nnonsense\n")]), Some(8 * GIB));
    }

    #[test]
    fn a_unified_group_limits_and_so_does_one_above_it() {
        let group = ("proc/self/cgroup", "0::/system.slice/varve.service\n");
        let above = ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
        let own = |text| ("sys/fs/cgroup/system.slice/varve.service/memory.max", text);
        assert_eq!(machine_of(&[MEMORY, group, above, own("max\n")]), Some(GIB));
        assert_eq!(machine_of(&[MEMORY, group, above, own("268435456\n")]), Some(GIB / 4));
        assert_eq!(
            machine_of(&[MEMORY, group, own("99999999999999\n")]),
            Some(8 * GIB),
            "more than there is"
        );
        // In a container: the path may be the machine's, the mount is the container's.
        assert_eq!(machine_of(&[MEMORY, group, ("sys/fs/cgroup/memory.max", "536870912")]), Some(GIB / 2));
    }

    #[test]
    fn a_memory_group_of_the_first_version_limits_too() {
        let group = ("proc/self/cgroup", "9:name=systemd:/\n4:cpuset,memory:/docker/ab\n0::/\n");
        let own = ("sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "268435456\n");
        let top = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(machine_of(&[MEMORY, group, own, top]), Some(GIB / 4));
        assert_eq!(machine_of(&[MEMORY, group, top]), Some(8 * GIB));
    }

    #[test]
    fn budgets_leave_a_third_of_a_small_machine_and_are_enough_on_a_large_one() {
        let large = Budgets::within(Some(64 * GIB));
        assert_eq!(Budgets { memory: None, ..large }, Budgets::within(None));
        assert_eq!((large.requests, large.uploads, large.merges), (512 << 20, 256 << 20, 80 << 20));
        for memory in [GIB / 4, GIB, 3 * GIB, 64 * GIB] {
            let taken: u64 = Budgets::within(Some(memory)).named().iter().map(|(_, bytes)| bytes).sum();
            assert!(taken <= memory * 10 / 16, "{taken} of {memory}");
        }
        assert_eq!(
            Budgets::within(Some(256 << 20)).to_string(),
            "256MiB (requests 32MiB, answers 16MiB, uploads 32MiB, merges 16MiB, tail 16MiB, chunks 16MiB, indices 8MiB, archive 8MiB, opened 16MiB)"
        );
    }
}
