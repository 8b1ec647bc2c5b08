//! The scheduler: a seed decides what happens to the cluster.

use std::panic::AssertUnwindSafe;

use rand::RngExt;
use varve_common::{GroupId, NodeId, Offset};
use varve_replica::Input;

use super::{
    bugs::Bug,
    world::{Counts, World},
};
use crate::{
    faults::DISK_BYTES,
    jobs::rates,
    trace::Trace,
    violation::{Checked, Violation},
};

/// Steps of a run.
const STEPS: usize = 4_000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of which seed.
    pub seed: u64,
    /// Equal for equal seeds.
    pub hash: u64,
    /// What happened.
    pub counts: Counts,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// The trace, where it was asked for.
    pub lines: Vec<String>,
}

/// What a run is given beside its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// A seeded bug.
    pub bug: Option<Bug>,
    /// Records are on nodes only: with a store for the metadata, or without any.
    pub streaming: Option<bool>,
    /// How many files the log of each node may take; `None` for what the seed says.
    pub log_files: Option<u64>,
}

/// Runs a seed with so many nodes.
#[must_use]
pub fn run(seed: u64, nodes: u32, bug: Option<Bug>, trace: Trace) -> Outcome {
    run_as(seed, nodes, Setup { bug, ..Setup::default() }, trace)
}

/// The same, not in all as the seed says.
#[must_use]
pub fn run_as(seed: u64, nodes: u32, setup: Setup, trace: Trace) -> Outcome {
    let Setup { bug, log_files, streaming } = setup;
    Bug::plant(bug);
    let mut world = World::new(seed, nodes, trace);
    if let Some(files) = log_files {
        world.plan.wal_bytes_max = files * world.plan.wal_file_bytes;
    } else if streaming.is_none() && seed.is_multiple_of(4) {
        world = world.keeping_logs();
    }
    if let Some(has_store) = streaming {
        world = world.streaming(has_store);
    }
    world.bug = bug;
    let outcome = watch(seed, world, World::run);
    Bug::plant(None);
    outcome
}

/// What comes of a run, however it ends.
pub(super) fn watch(seed: u64, mut world: World, run: impl FnOnce(&mut World) -> Checked) -> Outcome {
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    let violation = crate::run::violation_of(result, &mut world.trace);
    let lines = world.trace.lines().to_vec();
    Outcome { seed, hash: world.trace.hash(), counts: world.counts, violation, lines }
}

impl World {
    fn run(&mut self) -> Checked {
        for id in self.ids() {
            self.start(id)?;
        }
        self.elect()?;
        for _ in 0..STEPS {
            self.step()?;
            self.bury()?;
        }
        self.make_peace()
    }

    /// Nodes whose disk died, or failed, end.
    pub(super) fn bury(&mut self) -> Checked {
        for id in self.ids() {
            let machine = &self.machines[&id];
            let failed = machine.node.as_ref().is_some_and(|node| node.failed);
            if machine.disk.is_dead() || failed {
                let power = self.random.random_bool(0.5);
                self.crash(id, power)?;
            }
        }
        Ok(())
    }

    fn any(&mut self) -> NodeId {
        let ids = self.ids();
        ids[self.random.random_range(0..ids.len())]
    }

    /// One step: something happens, and everything that can be checked at once is.
    pub(super) fn step(&mut self) -> Checked {
        self.counts.steps += 1;
        let id = self.any();
        match self.random.random_range(0..200) {
            0..60 => {
                for _ in 0..self.random.random_range(1..8) {
                    if let Some(arrival) = self.network.happen(&mut self.random, 3) {
                        self.arrive(arrival)?;
                    }
                }
            }
            60..84 => self.ask().map(|_| ())?,
            84..112 => {
                let count = self.random.random_range(1..8);
                self.append(id, count)?;
                if self.random.random_bool(0.8) {
                    self.sync(id)?;
                }
            }
            112..122 => self.sync(id)?,
            122..150 => self.work(id).map(|_| ())?,
            150..172 => self.tick()?,
            172..176 => self.manage()?,
            176..184 => self.keep_house(id)?,
            184 => {
                let power = self.random.random_bool(0.5);
                if self.machines[&id].node.is_some() && self.random.random_bool(0.5) {
                    self.crash(id, power)?;
                }
            }
            185..189 => {
                if self.machines[&id].node.is_none() && self.start(id)? {
                    let Self { machines, random, .. } = self;
                    machines.get_mut(&id).expect("it was just started").plant_faults(random);
                }
            }
            189 => {
                let ids = self.ids();
                self.network.cut_some(&mut self.random, &ids);
            }
            190..193 => self.network.cut.clear(),
            193 => self.machine(id).stalled = [3, 6, 15][self.random.random_range(0..3)],
            194 => self.fill_or_free(id),
            195 => {
                let rate = [0, 10, 50][self.random.random_range(0..3)];
                self.remote.1.set_rates(rates(rate));
            }
            196..198 => {
                let groups: Vec<GroupId> = self.machines[&id].views.keys().copied().collect();
                if let Some(group) = groups.get(self.random.random_range(0..groups.len().max(1))) {
                    self.read(id, *group, Offset::ZERO);
                }
            }
            198 => self.confirm(id)?,
            _ => self.compare()?,
        }
        Ok(())
    }

    /// A disk fills, or somebody makes room.
    fn fill_or_free(&mut self, id: NodeId) {
        let Self { machines, random, plan, .. } = self;
        if plan.full_disks > 0 && random.random_bool(0.3) {
            machines.get_mut(&id).expect("machines are never taken away").fill(random);
        } else {
            machines.values_mut().for_each(|machine| machine.disk.resize(DISK_BYTES));
        }
    }

    /// What a node's log thread and its watches do from time to time.
    fn keep_house(&mut self, id: NodeId) -> Checked {
        if let Some(node) = &mut self.machine(id).node {
            node.maintain();
            node.press();
        }
        self.absorb(id)
    }

    /// The operator does something.
    fn manage(&mut self) -> Checked {
        let Some(leader) = self.leader(GroupId::METADATA) else { return Ok(()) };
        let Some(image) = self.machines[&leader].image.clone() else { return Ok(()) };
        let input = if image.topics.len() < self.plan.topics {
            Some(self.clients.create_topic(&mut self.random, self.plan.tiered))
        } else if self.random.random_range(0..30) == 0 {
            self.clients.delete_topic(&image, &mut self.random)
        } else if self.random.random_range(0..4) == 0 {
            self.trim()
        } else {
            None
        };
        let Some(input) = input else { return Ok(()) };
        let Input::DeleteRecords { group, .. } = &input else { return self.operate(input) };
        match self.leader(*group) {
            Some(to) => self.turn(to, input),
            None => Ok(()),
        }
    }

    fn trim(&mut self) -> Option<Input> {
        let views = self.machines.values().flat_map(|machine| &machine.views);
        let ready: Vec<_> =
            views.filter(|(group, view)| view.ready && !self.clients.internal.contains(group)).collect();
        let (group, view) = *ready.get(self.random.random_range(0..ready.len().max(1)))?;
        let span = view.high_watermark.since(view.log_start);
        let before = Offset(view.log_start.0 + self.random.random_range(0..=span / 2));
        Some(self.clients.delete_records(*group, before))
    }
}
