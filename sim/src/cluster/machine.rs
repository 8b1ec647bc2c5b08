//! A machine: its disk over all lives, what that must hold, and the node that runs on it, if one does.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use varve_common::{Disk, GroupId, LogIndex, NodeId};
use varve_replica::{PartitionView, metadata::Image};
use varve_wal::testing::{Injected, MemoryDisk, Target};

use super::bugs::Bug;
use crate::{
    clock::SimClock,
    crashes::{RARE_TARGETS, TARGETS},
    faults::DISK_BYTES,
    jobs::RemoteStore,
    model::Model,
    node::{FOUNDER_COUNTER, Node, Seat, Start, open_log},
    plan::Plan,
    violation::{Checked, violation},
};

/// A machine of a cluster.
pub struct Machine {
    /// Which node it is.
    pub id: NodeId,
    /// Its disk.
    pub disk: MemoryDisk,
    /// What its log must hold.
    pub model: Model,
    /// The life, if there is one.
    pub node: Option<Node>,
    /// The counter of its replica of the metadata.
    pub metadata: u64,
    /// Since which step of a run it waits for such a replica: until then it does not start.
    pub unseated: Option<usize>,
    /// How many lives there were.
    pub life: u64,
    /// What is shown of each partition in this life.
    pub views: BTreeMap<GroupId, Arc<PartitionView>>,
    /// The newest that this node showed as a leader, over all lives.
    pub promised: BTreeMap<GroupId, Arc<PartitionView>>,
    /// The newest metadata that was shown in this life.
    pub image: Option<Arc<Image>>,
    /// How far each group was applied when that was last looked at.
    pub applied: BTreeMap<GroupId, LogIndex>,
    /// Ticks that it misses: it does not run.
    pub stalled: usize,
    /// Its disk takes writes, and makes none of them durable.
    pub stands: bool,
    /// Ticks that it has missed.
    pub missed: usize,
}

/// What a start needs.
pub struct Surroundings<'a> {
    /// Time.
    pub clock: &'a SimClock,
    /// How the log is kept.
    pub plan: &'a Plan,
    /// The bucket.
    pub remote: &'a Arc<RemoteStore>,
    /// Who founded the cluster.
    pub founders: &'a [NodeId],
    /// The seeded bug.
    pub bug: Option<Bug>,
}

impl Machine {
    /// A machine that was never switched on.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            disk: MemoryDisk::default(),
            model: Model::with_peers(),
            node: None,
            metadata: FOUNDER_COUNTER,
            unseated: None,
            life: 0,
            views: BTreeMap::new(),
            promised: BTreeMap::new(),
            image: None,
            applied: BTreeMap::new(),
            stalled: 0,
            stands: false,
            missed: 0,
        }
    }

    /// Starts the node; whether it runs. Checks what the log recovered before anything is built on it.
    pub fn start(&mut self, seed: u64, surroundings: &Surroundings<'_>) -> Checked<bool> {
        self.life += 1;
        // Whoever starts it looks whether there is room.
        self.disk.resize(DISK_BYTES);
        let Surroundings { clock, plan, remote, founders, bug } = *surroundings;
        let (life, metadata) = (self.life, self.metadata);
        let seat = Seat { node: self.id, life, founders: founders.to_vec(), metadata };
        let start = Start { clock, seed, plan, bug: Bug::of_log(bug), remote, seat: Some(seat) };
        let log = match open_log(&self.disk, &start) {
            Ok(log) => log,
            Err(_) if self.disk.is_dead() => return Ok(false),
            Err(error) => {
                return Err(violation("W2", format!("{}: the log does not open: {error}", self.id)));
            }
        };
        self.model.recovered(&log.recovery, &log.reader, false)?;
        match Node::start(&self.disk, log, &start) {
            Ok(node) => self.node = Some(node),
            Err(_) if self.disk.is_dead() => {}
            Err(why) => return Err(violation("S4", format!("{} does not start: {why}", self.id))),
        }
        Ok(self.node.is_some())
    }

    /// The node ends: by a power cut, or killed.
    pub fn crash(&mut self, power: bool, random: &mut ChaCha8Rng) {
        if let Some(mut node) = self.node.take() {
            node.executor.kill();
        }
        let seed = random.random();
        self.disk = if power { self.disk.power_cut(seed) } else { self.disk.process_kill() };
        self.views.clear();
        self.image = None;
        self.applied.clear();
        (self.stalled, self.missed, self.stands) = (0, 0, false);
    }

    /// The disk fills.
    pub fn fill(&mut self, random: &mut ChaCha8Rng) {
        let space = self.disk.space(Path::new("/data")).expect("a disk in memory says how large it is");
        let used = space.total_bytes - space.free_bytes;
        self.disk.resize(used + random.random_range(0..40 << 10));
    }

    /// What goes wrong with the disk in this life.
    pub fn plant_faults(&mut self, random: &mut ChaCha8Rng) {
        let now = self.disk.operations();
        match random.random_range(0..8) {
            0 => self.disk.inject(now + random.random_range(1..400), Injected::Dies),
            1 => self.disk.inject(now + random.random_range(1..300), Injected::Eio),
            2 | 3 => {
                for _ in 0..4 {
                    let targets = if random.random_bool(0.4) { TARGETS } else { RARE_TARGETS };
                    let (operation, below) = targets[random.random_range(0..targets.len())];
                    let spared = random.random_range(0..3);
                    self.disk.inject_at(Target { operation, below: below.into(), spared }, Injected::Dies);
                }
            }
            _ => {}
        }
    }
}
