//! The scheduler: a seed decides what happens next.

use std::{panic::AssertUnwindSafe, path::Path, sync::Arc, time::Duration};

use rand::RngExt;
use varve_broker::driver::Event;
use varve_common::{Clock, GroupId, Offset};
use varve_replica::{Input, PartitionView};
use varve_tiering::ReadError;

use crate::{
    bucket::Depth,
    bugs::Bug,
    checkers::{check_read, check_time},
    crashes::Crashes,
    faults::DISK_BYTES,
    history::SendId,
    jobs::{Done, ReadDone, TimeDone, embedded_path, is_failure},
    plan::Length,
    trace::Trace,
    violation::{Checked, Violation, violation},
    world::{Counts, World},
};

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
    /// At which steps it was crashed.
    pub crashes: Crashes,
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
    let violation = violation_of(result, &mut world.trace);
    let lines = world.trace.lines().to_vec();
    Outcome { seed, hash: world.trace.hash(), counts: world.counts, crashes: world.crashes, violation, lines }
}

pub(crate) fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// What went wrong, noted in the trace, too.
pub(crate) fn violation_of(result: std::thread::Result<Checked>, trace: &mut Trace) -> Option<Violation> {
    let violation = match result {
        Ok(ended) => ended.err(),
        Err(panic) => Some(violation("panic", message_of(&*panic))),
    };
    if let Some(violation) = &violation {
        trace.note(format_args!("{violation}"));
    }
    violation
}

impl World {
    fn run(&mut self) -> Checked {
        for _ in 0..self.plan.lives {
            if self.chance(self.plan.read_errors / 2) {
                self.break_reads();
            }
            if !self.start()? {
                if !self.disk.is_dead() && !self.is_unreadable() {
                    return Ok(());
                }
                self.crash(false);
                continue;
            }
            self.plant_faults();
            self.live()?;
            self.scan(Depth::Names)?;
            self.end();
        }
        self.finale()
    }

    fn live(&mut self) -> Checked {
        let mut left_after_failure = 20;
        for step in 0..self.plan.steps {
            self.strike(step);
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

    fn end(&mut self) {
        self.disk.resize(DISK_BYTES);
        let power = self.chance(self.plan.power_cuts);
        self.crash(power);
        if self.chance(self.plan.rot) {
            self.rot();
        }
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
                match self.random.random_range(0..4) {
                    0 => self.begin_sync(),
                    1 => self.land(),
                    _ => self.sync(),
                }
                self.absorb()?;
                // As the log's thread does after each round; now and then it is slow.
                if self.random.random_bool(0.8) {
                    self.with_node(crate::node::Node::maintain);
                }
            }
            68..82 => self.work()?,
            82..84 => self.read(),
            84..85 => self.find_time(),
            85..92 => self.pass_time(),
            92..93 => {
                self.with_node(crate::node::Node::maintain);
                self.with_node(crate::node::Node::tell_of_files);
            }
            93..97 => self.with_node(crate::node::Node::press),
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
        if self.node.as_ref().is_none_or(crate::node::Node::is_crowded) {
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
            Some(self.clients.create_topic(&mut self.random, self.plan.tiered))
        } else if !self.plan.deletes {
            None
        } else if self.random.random_range(0..30) == 0 {
            image.and_then(|image| self.clients.delete_topic(&image, &mut self.random))
        } else if self.plan.tiered.is_none() && self.random.random_range(0..8) == 0 {
            image.and_then(|image| self.clients.switch_tier(&image, &mut self.random))
        } else if self.random.random_range(0..4) == 0 {
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

    /// Producers fill the log until they must wait, faster than anybody looks at its room.
    pub fn fill(&mut self) -> Checked {
        while self.node.as_ref().is_some_and(|node| !node.is_crowded() && !node.failed) {
            (0..8).for_each(|_| self.ask());
            self.append()?;
            self.sync();
            self.absorb()?;
            self.check_writes()?;
        }
        // What they are waiting for by then goes into the log, or is parked.
        for _ in 0..64 {
            self.append()?;
            self.sync();
            self.absorb()?;
            self.check_writes()?;
        }
        Ok(())
    }

    /// The log's thread writes what waits for it, without a sync.
    pub fn append(&mut self) -> Checked {
        let count = self.random.random_range(1..8);
        let Some(node) = &mut self.node else { return Ok(()) };
        node.append(&mut self.model, count)
    }

    fn sync(&mut self) {
        if let Some(node) = &mut self.node {
            node.sync(&mut self.model);
        }
    }

    fn begin_sync(&mut self) {
        if let Some(node) = &mut self.node {
            node.begin_sync(&self.model);
        }
    }

    fn land(&mut self) {
        if let Some(node) = &mut self.node {
            node.land(&mut self.model);
        }
    }

    /// A background job or a reader goes one step further.
    pub fn work(&mut self) -> Checked {
        let jobs = self.node.as_mut().map(|node| std::mem::take(&mut node.ports.jobs)).unwrap_or_default();
        for job in jobs {
            self.check_order(&job)?;
            let Some(node) = &mut self.node else { return Ok(()) };
            self.trace.note(format_args!("job {:?} of {}", job.kind(), job.group()));
            *node.running.entry(job.kind()).or_default() += 1;
            let task = node.cold.job(job);
            node.executor.spawn(task);
        }
        let Some(node) = &mut self.node else { return Ok(()) };
        for task in node.cold.spawned.take() {
            node.executor.spawn(Box::pin(async move {
                task.await;
                Done::Nothing
            }));
        }
        for group in std::mem::take(&mut node.ports.sweeps) {
            let sweep = node.cold.sweep(group);
            node.executor.spawn(sweep);
        }
        match node.executor.step() {
            Some(Some(Done::Job(kind, group, outcome))) => {
                *node.running.entry(kind).or_insert(1) -= 1;
                let failed = is_failure(&outcome);
                self.counts.failed_jobs += u64::from(failed);
                self.counts.jobs += u64::from(!failed);
                self.trace.note(format_args!("{group}: {outcome:?}"));
                self.check_written(group, &outcome)?;
                let Some(node) = &mut self.node else { return Ok(()) };
                node.turn([Input::JobDone { group, outcome }]);
                Ok(())
            }
            Some(Some(Done::Swept(group))) => {
                node.turn([Event::Swept(group)]);
                Ok(())
            }
            Some(Some(Done::Read(read))) => {
                self.reading -= 1;
                self.check_reader(*read)
            }
            Some(Some(Done::Time(found))) => {
                self.reading -= 1;
                self.check_found(*found)
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

    /// Somebody asks for an offset by time.
    fn find_time(&mut self) {
        let ready: Vec<_> = self.views.iter().filter(|(_, view)| view.ready).collect();
        let sent = &self.clients.history.sent;
        if self.reading >= READERS_MAX || ready.is_empty() || sent.is_empty() {
            return;
        }
        let (group, view) = ready[self.random.random_range(0..ready.len())];
        let near = &sent[&SendId(self.random.random_range(0..sent.len() as u64))].timestamps[0];
        let largest = self.random.random_range(0..4) == 0;
        let asked = if largest { None } else { Some(near + self.random.random_range(-2..=2)) };
        let Some(node) = &mut self.node else { return };
        let task = node.cold.find_time(*group, asked, view.clone());
        node.executor.spawn(task);
        self.reading += 1;
    }

    /// H12.
    fn check_found(&mut self, done: TimeDone) -> Checked {
        let TimeDone { group, asked, view, result } = done;
        let Some(model) = self.model.durable.0.get(&group) else { return Ok(()) };
        match result {
            Ok(found) => {
                self.counts.times += 1;
                self.trace.note(format_args!("{group}: time {asked:?} is at {found:?}"));
                check_time(group, asked, &view, found, model, &self.clients.history)
            }
            Err(error) => self.excuse(group, &view, "time", error),
        }
    }

    /// H3, H8, B6, B7 at whatever instant it was.
    fn check_reader(&mut self, read: ReadDone) -> Checked {
        let ReadDone { group, from, view, result } = read;
        let Some(model) = self.model.durable.0.get(&group) else { return Ok(()) };
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
            Err(error) => self.excuse(group, &view, "read", error),
        }
    }

    /// B7: whatever is shown can be read, but for what is damaged or gone meanwhile, and for a store that fails.
    fn excuse(&mut self, group: GroupId, view: &Arc<PartitionView>, what: &str, error: ReadError) -> Checked {
        self.trace.note(format_args!("{group}: {what}: {error}"));
        let stale = !self.views.get(&group).is_some_and(|newest| Arc::ptr_eq(newest, view));
        let objects = self.is_rotten_below(embedded_path());
        let excused = match &error {
            ReadError::Cold(_) => !self.healed || objects,
            ReadError::Local(_) | ReadError::Wal(_) => self.is_rotten_below(Path::new("/data/segments")),
            _ => false,
        };
        if excused || stale || self.rotten || self.is_unreadable() || self.disk.is_dead() {
            return Ok(());
        }
        let (start, end) = (view.log_start, view.high_watermark);
        Err(violation("B7", format!("{group}: {what} of {start}..{end}: {error}")))
    }

    /// Time goes on, to the next timer or by some step.
    pub fn pass_time(&mut self) {
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
