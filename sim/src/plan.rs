//! What a seed makes of a run: the surroundings and how often each thing goes wrong.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_common::Access;

/// Where the bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// On the node's own disk.
    Embedded,
    /// Elsewhere: it outlives the node, and fails by itself.
    Remote,
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// For every change.
    Short,
    /// For the night.
    Long,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the bucket is.
    pub store: StoreKind,
    /// How many times the node is started.
    pub lives: usize,
    /// Steps of one life, unless it ends before.
    pub steps: usize,
    /// Of a thousand lives, how many end within some operation of the disk.
    pub dies_within: u32,
    /// Of a hundred ends, how many are power cuts; the others are kills.
    pub power_cuts: u32,
    /// Of a hundred lives, how many meet a failing write or fsync.
    pub io_errors: u32,
    /// Of a hundred lives, how many meet a full disk.
    pub full_disks: u32,
    /// Of a hundred starts, how many find a flipped bit; of lives, half as many meet one.
    pub rot: u32,
    /// Of a hundred lives, how many meet reads that fail; of starts, half as many.
    pub read_errors: u32,
    /// Of a thousand requests to the store, how many fail in each way.
    pub store_faults: u16,
    /// Of a hundred lives, in how many the remote store is stopped.
    pub store_stops: u32,
    /// Through the page cache or, as production does, past it: then every batch takes whole blocks.
    pub wal_access: Access,
    /// The size of a WAL file.
    pub wal_file_bytes: u64,
    /// The log's budget: a small one is soon short of room, and then files are sealed.
    pub wal_bytes_max: u64,
    /// `varve.tier.max.age.ms`.
    pub upload_age: Duration,
    /// Topics that exist at a time.
    pub topics: usize,
    /// Whether the operator deletes topics and records.
    pub deletes: bool,
    /// Whether topics tier; `None` for most.
    pub tiered: Option<bool>,
    /// Whether there is a store that all nodes share: without one nothing tiers.
    pub has_store: bool,
    /// Bytes of a group's log after which it is checkpointed, and as many changes of any size.
    pub checkpoint_after: (u64, u64),
    /// Of a hundred lives, how many find a zombie's command in the log.
    pub zombies: u32,
    /// Whether merging gets so little room that what it finds was folded into a leaf before.
    pub merges_late: bool,
    /// Whether topics are exported, too (`varve.archive.parquet`).
    pub archives: bool,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64, length: Length) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x706c_616e);
        let (lives, steps) = match length {
            Length::Short => (random.random_range(3..7), random.random_range(150..500)),
            Length::Long => (random.random_range(8..30), random.random_range(300..2_000)),
        };
        let mut sometimes = |rate: u32| if random.random_bool(0.5) { rate } else { 0 };
        let (io_errors, full_disks, rot) = (sometimes(30), sometimes(25), sometimes(40));
        let (store_faults, zombies) = (sometimes(60) as u16, sometimes(40));
        let (read_errors, store_stops) = (sometimes(50), sometimes(50));
        // Files past the cache hold about as many batches.
        let (wal_access, wal_file_bytes) =
            if seed / 4 % 2 == 1 { (Access::Direct, 64 << 10) } else { (Access::Buffered, 32 << 10) };
        Self {
            store: if random.random_bool(0.5) { StoreKind::Embedded } else { StoreKind::Remote },
            lives,
            steps,
            dies_within: 800,
            power_cuts: [30, 70, 100][random.random_range(0..3)],
            io_errors,
            full_disks,
            rot,
            read_errors,
            store_faults,
            store_stops,
            wal_access,
            wal_file_bytes,
            wal_bytes_max: if random.random_bool(0.6) { 12 * wal_file_bytes } else { 32 * wal_file_bytes },
            upload_age: Duration::from_millis([200, 2_000, 20_000][random.random_range(0..3)]),
            topics: random.random_range(1..4),
            deletes: true,
            tiered: None,
            has_store: true,
            checkpoint_after: (6 << 10, 25),
            zombies,
            merges_late: seed % 4 == 1,
            archives: seed % 8 == 7,
        }
    }
}
