//! The scheduler: a seed decides what happens next.

use std::{panic::AssertUnwindSafe, path::Path, sync::Arc, time::Duration};

use rand::RngExt;
use varve_common::{Clock, Disk, GroupId, Offset};
use varve_replica::{Input, PartitionView};
use varve_tiering::ReadError;
use varve_wal::testing::Injected;

use crate::{
    bugs::Bug,
    checkers::check_read,
    jobs::{Done, ReadDone, is_failure, rates},
    plan::Length,
    trace::Trace,
    violation::{Checked, Violation, violation},
    world::{Counts, World},
};

/// The size of a disk that is not full.
const DISK_BYTES: u64 = 1 << 40;

/// Readers at a time.
const READERS_MAX: usize = 3;

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

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, length: Length, bug: Option<Bug>, trace: Trace) -> Outcome {
    Bug::plant(bug);
    let mut world = World::new(seed, length, bug, trace);
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    Bug::plant(None);
    let violation = match result {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(violation("panic", message_of(&*panic))),
    };
    if let Some(violation) = &violation {
        world.trace.note(format_args!("{violation}"));
    }
    let lines = world.trace.lines().to_vec();
    Outcome { seed, hash: world.trace.hash(), counts: world.counts, violation, lines }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

impl World {
    fn run(&mut self) -> Checked {
        for _ in 0..self.plan.lives {
            if !self.start()? {
                if !self.disk.is_dead() {
                    return Ok(());
                }
                self.crash(false);
                continue;
            }
            self.plant_faults();
            self.live()?;
            self.end();
        }
        self.finale()
    }

    fn chance(&mut self, of_a_hundred: u32) -> bool {
        self.random.random_range(0..100) < of_a_hundred
    }

    /// What will go wrong in this life.
    fn plant_faults(&mut self) {
        let now = self.disk.operations();
        if self.random.random_range(0..1_000) < self.plan.dies_within {
            let after = self.random.random_range(1..400);
            self.disk.inject(now + after, Injected::Dies);
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
        self.remote.1.set_rates(rates(self.plan.store_faults / 7));
    }

    fn live(&mut self) -> Checked {
        let mut left_after_failure = 20;
        for step in 0..self.plan.steps {
            self.fill_disk(step);
            self.step()?;
            if self.disk.is_dead() {
                return Ok(());
            }
            if self.node.as_ref().is_some_and(|node| node.failed) {
                self.counts.failures += u64::from(left_after_failure == 20);
                left_after_failure -= 1;
                if left_after_failure == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
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

    fn end(&mut self) {
        self.disk.resize(DISK_BYTES);
        let power = self.chance(self.plan.power_cuts);
        self.crash(power);
        if self.chance(self.plan.rot) {
            self.rot();
        }
    }

    /// Flips a bit in a file that is closed, or in a checkpoint.
    fn rot(&mut self) {
        let files = self.disk.files();
        let mut logs: Vec<_> =
            files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "wal")).collect();
        logs.sort();
        logs.truncate(logs.len().saturating_sub(2));
        let is_checkpoint = |path: &Path| {
            path.starts_with("/data/groups") && path.extension().is_some_and(|end| end == "ckpt")
        };
        let checkpoints = files.iter().filter(|(path, _)| is_checkpoint(path));
        let targets: Vec<_> =
            logs.into_iter().chain(checkpoints).filter(|(_, bytes)| !bytes.is_empty()).collect();
        if targets.is_empty() {
            return;
        }
        let (path, bytes) = targets[self.random.random_range(0..targets.len())];
        let bit = self.random.random_range(0..bytes.len() as u64 * 8);
        self.trace.note(format_args!("rot: bit {bit} of {}", path.display()));
        self.disk.flip_bit(path, bit);
        self.rotten = true;
        self.counts.flips += 1;
    }

    /// One step: something happens, and everything that can be checked at once is.
    pub fn step(&mut self) -> Checked {
        self.counts.steps += 1;
        let draw = self.random.random_range(0..100);
        match draw {
            0..30 => self.ask(),
            30..34 => self.operate(),
            34..52 => self.append()?,
            52..68 => {
                self.sync();
                self.absorb()?;
                // As the log's thread does after each round; now and then it is slow.
                if self.random.random_bool(0.8) {
                    self.with_node(crate::node::Node::maintain);
                }
            }
            68..82 => self.work()?,
            82..84 => self.read(),
            84..92 => self.pass_time(),
            92..95 => self.with_node(crate::node::Node::maintain),
            95..97 => self.with_node(crate::node::Node::press),
            97..98 => self.with_node(crate::node::Node::settle),
            _ => self.with_node(|node| node.turn([Input::Tick])),
        }
        self.absorb()?;
        self.check_writes()?;
        if draw % 4 == 0 && !self.disk.is_dead() {
            self.compare()?;
        }
        Ok(())
    }

    fn with_node(&mut self, act: impl FnOnce(&mut crate::node::Node)) {
        if let Some(node) = &mut self.node {
            act(node);
        }
    }

    /// A client asks for something.
    pub fn ask(&mut self) {
        let (now, time_ms) = (self.trace.events(), self.wall_ms());
        if self.node.as_ref().is_none_or(crate::node::Node::is_parked) {
            return;
        }
        if let Some(input) = self.clients.produce(&mut self.random, time_ms, now) {
            if let Input::Produce { ticket, group, meta, .. } = &input {
                self.trace.note(format_args!("{ticket:?}: {group} crc {:08x}", meta.crc));
            }
            self.with_node(|node| node.turn([input]));
        }
    }

    /// The operator does something.
    fn operate(&mut self) {
        let image = self.image.clone();
        let topics = image.as_ref().map_or(0, |image| image.topics.len());
        let input = if topics < self.plan.topics {
            Some(self.clients.create_topic(&mut self.random))
        } else if self.random.random_range(0..30) == 0 {
            image.and_then(|image| self.clients.delete_topic(&image, &mut self.random))
        } else if self.random.random_range(0..8) == 0 {
            self.trim()
        } else {
            None
        };
        if let Some(input) = input {
            self.trace.note(format_args!("{input:?}"));
            self.with_node(|node| node.turn([input]));
        }
    }

    fn trim(&mut self) -> Option<Input> {
        let ready: Vec<_> = self.views.iter().filter(|(_, view)| view.ready).collect();
        let (group, view) = *ready.get(self.random.random_range(0..ready.len().max(1)))?;
        let span = view.high_watermark.since(view.log_start);
        let before = Offset(view.log_start.0 + self.random.random_range(0..=span / 2));
        Some(self.clients.delete_records(*group, before))
    }

    fn append(&mut self) -> Checked {
        let count = self.random.random_range(1..8);
        let Some(node) = &mut self.node else { return Ok(()) };
        node.append(&mut self.model, count)
    }

    fn sync(&mut self) {
        if let Some(node) = &mut self.node {
            node.sync(&mut self.model);
        }
    }

    /// A background job or a reader goes one step further.
    fn work(&mut self) -> Checked {
        let Some(node) = &mut self.node else { return Ok(()) };
        for job in std::mem::take(&mut node.ports.jobs) {
            self.trace.note(format_args!("job {:?} of {}", job.kind(), job.group()));
            let task = node.cold.job(job);
            node.executor.spawn(task);
        }
        for task in node.cold.spawned.take() {
            node.executor.spawn(Box::pin(async move {
                task.await;
                Done::Nothing
            }));
        }
        match node.executor.step() {
            Some(Some(Done::Job(group, outcome))) => {
                let failed = is_failure(&outcome);
                self.counts.failed_jobs += u64::from(failed);
                self.counts.jobs += u64::from(!failed);
                self.trace.note(format_args!("{group}: {outcome:?}"));
                node.turn([Input::JobDone { group, outcome }]);
                Ok(())
            }
            Some(Some(Done::Read(read))) => {
                self.reading -= 1;
                self.check_reader(*read)
            }
            _ => Ok(()),
        }
    }

    /// Somebody begins to read some partition from somewhere.
    fn read(&mut self) {
        let ready: Vec<_> = self.views.iter().filter(|(_, view)| view.ready).collect();
        if self.reading >= READERS_MAX || ready.is_empty() {
            return;
        }
        let (group, view) = ready[self.random.random_range(0..ready.len())];
        let span = view.high_watermark.since(view.log_start);
        let from = Offset(view.log_start.0 + self.random.random_range(0..=span));
        self.spawn_reader(*group, from, view.clone());
    }

    /// Begins to read.
    pub fn spawn_reader(&mut self, group: GroupId, from: Offset, view: Arc<PartitionView>) {
        let Some(node) = &mut self.node else { return };
        let task = node.cold.read(group, from, view);
        node.executor.spawn(task);
        self.reading += 1;
    }

    /// H3, H8, B6, B7 at whatever instant it was.
    fn check_reader(&mut self, read: ReadDone) -> Checked {
        let ReadDone { group, from, view, result } = read;
        let Some(model) = self.model.durable.0.get(&group) else { return Ok(()) };
        let stale = !self.views.get(&group).is_some_and(|newest| Arc::ptr_eq(newest, &view));
        match result {
            Ok((chunks, next)) => {
                self.counts.reads += 1;
                self.trace.note(format_args!("{group}: read {from}..{next}"));
                if next != view.high_watermark {
                    return Err(violation(
                        "B7",
                        format!("{group}: read {from}..{next} of {}", view.high_watermark),
                    ));
                }
                check_read(group, from, next, &chunks, model)
            }
            Err(error) => {
                self.trace.note(format_args!("{group}: read from {from}: {error}"));
                let excused = match &error {
                    ReadError::Cold(_) => !self.healed,
                    _ => stale,
                };
                if excused || stale || self.rotten || self.disk.is_dead() {
                    return Ok(());
                }
                Err(violation(
                    "B7",
                    format!(
                        "{group}: {from} of {}..{} cannot be read: {error}",
                        view.log_start, view.high_watermark
                    ),
                ))
            }
        }
    }

    fn pass_time(&mut self) {
        let now = self.clock.monotonic();
        let jump = [1, 20, 300, 2_000][self.random.random_range(0..4)];
        let mut until = now.plus(Duration::from_millis(jump));
        if let Some(timer) = self.clock.next_timer()
            && self.random.random_bool(0.5)
        {
            until = timer.max(now);
        }
        self.clock.advance(until);
        self.with_node(|node| node.turn([Input::Tick]));
    }
}
