//! One run: a node that lives, dies and starts again on its disk, its clients, and the model that knows the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use varve_common::{Clock, Digest, GroupId, ObjectKey, Offset, Term};
use varve_objects::testing::MemoryStore;
use varve_replica::{PartitionView, Reply, metadata::Image};
use varve_tiering::{LocalSegments, Slab};
use varve_wal::{Record, RecoveredGroup, testing::MemoryDisk};

use crate::{
    bugs::Bug,
    checkers::{check_log, check_view},
    client::Clients,
    clock::SimClock,
    crashes::{self, Crashes, Step},
    cut::{check_cut, check_unsealed},
    jobs::{RemoteStore, remote_store},
    model::Model,
    node::{CLUSTER, INCARNATION, Node, OpenedLog, Start, open_log},
    plan::{Length, Plan},
    ports::Seen,
    shadow::Shadow,
    trace::Trace,
    violation::{Checked, violation},
};

/// What a run did: for seeing that it did something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps of the scheduler.
    pub steps: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Lives that ended in a power cut.
    pub power_cuts: u64,
    /// Lives that ended in a kill.
    pub kills: u64,
    /// Lives that ended because the log failed.
    pub failures: u64,
    /// Times that the disk was full.
    pub full_disks: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Jobs that ended well.
    pub jobs: u64,
    /// Jobs that failed.
    pub failed_jobs: u64,
    /// Reads that were checked.
    pub reads: u64,
    /// Searches by time that were checked.
    pub times: u64,
    /// Lives in which reads failed.
    pub unreadable: u64,
    /// Cold chunks that came from the cache on disk.
    pub cached: u64,
    /// Those that did not read back as they were written.
    pub spoiled: u64,
    /// Cuts of logs.
    pub cuts: u64,
    /// Groups that were given up while the node ran.
    pub given_up: u64,
    /// Commands that a zombie left in a log.
    pub zombies: u64,
}

/// A run under way.
pub struct World {
    /// Chance.
    pub random: ChaCha8Rng,
    /// Time.
    pub clock: SimClock,
    /// What the seed chose.
    pub plan: Plan,
    /// The seeded bug.
    pub bug: Option<Bug>,
    /// The disk, over all lives.
    pub disk: MemoryDisk,
    /// The life, if there is one.
    pub node: Option<Node>,
    /// Who asks.
    pub clients: Clients,
    /// What the log must hold.
    pub model: Model,
    /// The replica that never crashes.
    pub shadow: Shadow,
    /// What is shown of each partition.
    pub views: BTreeMap<GroupId, Arc<PartitionView>>,
    /// The newest that clients were shown of each partition, over all lives (H10).
    pub promised: BTreeMap<GroupId, Arc<PartitionView>>,
    /// The newest metadata that was shown.
    pub image: Option<Arc<Image>>,
    /// Partitions that serve no more, for a reason that was reported.
    pub offline: BTreeSet<GroupId>,
    /// Bytes of the log were damaged on purpose, ever.
    pub rotten: bool,
    /// Other files that were damaged.
    pub rotten_files: BTreeSet<PathBuf>,
    /// Checkpoints that could not be read when they were to be, and were written once more: as of the same index, under the
    /// same name. Until the new mark is durable the old one names other bytes; the checkpoint before it is whole.
    pub rewritten: BTreeSet<PathBuf>,
    /// What each object held when it was first seen (B1: they never change), as a checksum.
    pub contents: BTreeMap<ObjectKey, u32>,
    /// The bucket that outlives nodes, and its objects.
    pub remote: (Arc<MemoryStore>, Arc<RemoteStore>),
    /// The steps of this life between which the disk is full.
    pub full_disk_at: Option<(usize, usize)>,
    /// The step of this life from which on some reads fail.
    pub unreadable_at: Option<usize>,
    /// The step of this life at which a bit flips.
    pub rots_at: Option<usize>,
    /// At which steps it was crashed.
    pub crashes: Crashes,
    /// Readers under way.
    pub reading: usize,
    /// Everything heals: nothing but damage excuses an error.
    pub healed: bool,
    /// All that happened.
    pub trace: Trace,
    /// For the summary.
    pub counts: Counts,
    /// Groups to compare with the shadow.
    touched: BTreeSet<GroupId>,
}

impl World {
    /// Before the first start.
    #[must_use]
    pub fn new(seed: u64, length: Length, bug: Option<Bug>, trace: Trace) -> Self {
        let clock = SimClock::default();
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            remote: remote_store(seed, &clock),
            full_disk_at: None,
            reading: 0,
            healed: false,
            clock,
            plan: Plan::of(seed, length),
            bug,
            disk: MemoryDisk::default(),
            node: None,
            clients: Clients::default(),
            model: Model::default(),
            shadow: Shadow::new(CLUSTER, INCARNATION),
            views: BTreeMap::new(),
            promised: BTreeMap::new(),
            image: None,
            offline: BTreeSet::new(),
            rotten: false,
            rotten_files: BTreeSet::new(),
            rewritten: BTreeSet::new(),
            contents: BTreeMap::new(),
            unreadable_at: None,
            rots_at: None,
            crashes: Crashes::default(),
            trace,
            counts: Counts::default(),
            touched: BTreeSet::new(),
        }
    }

    /// Starts the node; whether it serves. Checks what the log recovered before anything is built on it.
    pub fn start(&mut self) -> Checked<bool> {
        let seed = self.random.random();
        let (plan, clock) = (self.plan.clone(), self.clock.clone());
        let remote = Arc::clone(&self.remote.1);
        let start = Start { clock: &clock, seed, plan: &plan, bug: self.bug, remote: &remote, seat: None };
        let log = match open_log(&self.disk, &start) {
            Ok(log) => log,
            Err(error) if self.disk.is_dead() || self.rotten || self.is_unreadable() => {
                self.trace.note(format_args!("start fails: {error}"));
                return Ok(false);
            }
            Err(error) => return Err(violation("W2", format!("the log does not open: {error}"))),
        };
        self.check_recovered(&log)?;
        let log = match self.haunt(log, &start)? {
            Some(log) => log,
            None => return Ok(false),
        };
        self.trace.note(format_args!(
            "start: {} groups, {} torn bytes",
            log.recovery.groups.len(),
            log.recovery.torn_bytes
        ));
        match Node::start(&self.disk, log, &start) {
            Ok(node) => self.node = Some(node),
            Err(why) if self.disk.is_dead() || self.may_stop(GroupId::METADATA) => {
                self.trace.note(format_args!("start fails: {why}"))
            }
            Err(why) => return Err(violation("S4", format!("the node does not start: {why}"))),
        }
        self.offline = self.model.damaged.clone();
        self.absorb()?;
        Ok(self.node.is_some())
    }

    pub(crate) fn check_recovered(&mut self, log: &OpenedLog) -> Checked {
        self.model.recovered(&log.recovery, &log.reader, self.rotten)?;
        if self.rotten {
            return Ok(());
        }
        // Of a deleted topic the files may go before the mark that says so: the metadata does not name it any more.
        let kept = log.recovery.groups.iter().filter(|(group, _)| !self.clients.deleted.contains(group));
        for (group, found) in kept {
            self.check_files(*group, found)?;
        }
        Ok(())
    }

    /// W5: a mark stands only for a file that is whole under its name: of a checkpoint, or sealed.
    fn check_files(&self, group: GroupId, found: &RecoveredGroup) -> Checked {
        let files: BTreeMap<_, _> = self.disk.files().into_iter().collect();
        let mut named = Vec::new();
        for mark in &found.snapshots {
            let path = varve_snapshot::local::directory(Path::new("/data"), group).join(&mark.file);
            named.push((path, mark.sha256));
        }
        let local = LocalSegments::new(Arc::new(self.disk.clone()), PathBuf::from("/data/segments"));
        for mark in found.seals.values() {
            named.push((local.path(group, mark.base, mark.end), mark.sha256));
        }
        for (path, sha256) in named {
            if self.rotten_files.contains(&path) || self.rewritten.contains(&path) {
                continue;
            }
            if files.get(&path).is_none_or(|bytes| Digest::of(bytes) != sha256) {
                return Err(violation(
                    "W5",
                    format!("{group}: {} is not what its mark says", path.display()),
                ));
            }
        }
        Ok(())
    }

    /// The node ends: by a power cut, or killed.
    pub fn crash(&mut self, power: bool) {
        self.trace.note(format_args!("crash, power {power}"));
        self.note_steps();
        self.counts.unreadable += u64::from(self.is_unreadable());
        if let Some(mut node) = self.node.take() {
            let cached = node.cold.log.cold().chunks().slab().map(Slab::counts).unwrap_or_default();
            self.counts.cached += cached.hits;
            self.counts.spoiled += cached.corrupt;
            node.executor.kill();
        }
        self.clock.forget_timers();
        self.disk = if power {
            self.counts.power_cuts += 1;
            self.disk.power_cut(self.random.random())
        } else {
            self.counts.kills += 1;
            self.disk.process_kill()
        };
        self.clients.disconnected(&mut self.random);
        self.views.clear();
        self.reading = 0;
    }

    /// What the crash comes in the middle of.
    fn note_steps(&mut self) {
        let died = self.disk.died_in().and_then(|(operation, path)| crashes::of_operation(operation, &path));
        let mut steps: BTreeSet<Step> = died.into_iter().collect();
        steps.extend(self.model.pending().flat_map(|record| crashes::of_record(&record.record, true)));
        if let Some(node) = &self.node {
            let waiting = node.ports.writes.iter().flat_map(|writes| &writes.records);
            steps.extend(waiting.flat_map(|record| crashes::of_record(&record.record, false)));
            let running = node.running.iter().filter(|(_, count)| **count > 0);
            steps.extend(running.filter_map(|(kind, _)| crashes::of_job(*kind)));
        }
        for step in steps {
            self.trace.note(format_args!("in: {}", step.name()));
            self.crashes.note(step);
        }
    }

    /// Looks at everything that the node showed, in order.
    pub fn absorb(&mut self) -> Checked {
        let Some(node) = &mut self.node else { return Ok(()) };
        let (seen, failed) = (std::mem::take(&mut node.ports.seen), node.failed);
        let image = node.ports.image.take();
        for seen in seen {
            self.look_at(seen, failed)?;
        }
        if let Some(image) = image {
            self.trace.note(format_args!("image {} of {} topics", image.index, image.topics.len()));
            self.clients.adopt(&image);
            self.touched.insert(GroupId::METADATA);
            self.image = Some(image);
        }
        Ok(())
    }

    fn look_at(&mut self, seen: Seen, failed: bool) -> Checked {
        match seen {
            Seen::Reply(ticket, reply) => {
                self.trace.note(format_args!("{ticket:?}: {reply:?}"));
                if let Reply::Produced { .. } | Reply::Duplicate { .. } = reply {
                    self.counts.acknowledged += 1;
                    if failed {
                        return Err(violation(
                            "W4",
                            format!("{ticket:?} is acknowledged by a log that failed"),
                        ));
                    }
                }
                let acked = self.clients.answered(ticket, &reply, self.trace.events())?;
                if let Some((group, end)) = acked
                    && !self.clients.deleted.contains(&group)
                    && self.views.get(&group).is_none_or(|view| view.high_watermark < end)
                {
                    return Err(violation("H10", format!("{group}: acknowledged up to {end} and not shown")));
                }
            }
            Seen::View(group, view) => {
                self.trace.note(format_args!(
                    "{group}: ready {} start {} local {} tiered {} watermark {}",
                    view.ready, view.log_start, view.local_start, view.tiered_end, view.high_watermark
                ));
                check_view(group, self.promised.get(&group), &view)?;
                self.check_shown(group, &view)?;
                if view.ready {
                    self.promised.insert(group, view.clone());
                }
                self.views.insert(group, view);
                self.touched.insert(group);
            }
            Seen::Stopped(group, why) => {
                self.trace.note(format_args!("{group} stops: {why}"));
                if !self.may_stop(group) {
                    return Err(violation("S4", format!("{group} stops and nothing was damaged: {why}")));
                }
                self.offline.insert(group);
            }
            Seen::Gone(group) => {
                self.trace.note(format_args!("{group} is gone"));
                self.views.remove(&group);
            }
        }
        Ok(())
    }

    /// R5: a leader's term is durable before anybody sees it lead. H3: what is not shown any more was deleted by somebody.
    /// B9: nor is more gone than retention asks for, and what was deleted stays so.
    fn check_shown(&self, group: GroupId, view: &PartitionView) -> Checked {
        let durable = self.model.durable.0.get(&group).and_then(|group| group.hard_state);
        let term = durable.map_or(Term::ZERO, |state| state.term);
        if view.ready && term.leader_epoch() < view.leader_epoch {
            return Err(violation(
                "R5",
                format!("{group}: leads in {:?}, {term} is durable", view.leader_epoch),
            ));
        }
        let named = self.image.as_ref().and_then(|image| image.partition_of(group));
        let named = named.filter(|(topic, ..)| !self.clients.forgetful.contains(&topic.id));
        let keeps_all = named.is_some_and(|(topic, ..)| !topic.configs.contains_key("retention.bytes"));
        let asked = self.clients.trimmed.get(&group).copied().unwrap_or_default();
        if keeps_all && view.log_start > asked {
            let detail = format!("{group}: begins at {}, and only {asked} was asked for", view.log_start);
            return Err(violation("H3", detail));
        }
        let kept = named.and_then(|(topic, ..)| topic.configs.get("retention.bytes")?.parse::<u64>().ok());
        let before = self.promised.get(&group).map_or(Offset::ZERO, |promised| promised.log_start);
        if let Some(kept) = kept.filter(|_| view.ready)
            && view.log_start > asked.max(before)
            && held_bytes(view) < kept
        {
            let detail =
                format!("{group}: begins at {}, and holds {} bytes", view.log_start, held_bytes(view));
            return Err(violation("B9", detail));
        }
        if view.ready && view.log_start < self.clients.deleted_below(group) {
            return Err(violation(
                "B9",
                format!("{group}: begins at {}, below what was deleted", view.log_start),
            ));
        }
        Ok(())
    }

    /// R9, S1, S3: where the node has applied what the shadow has, the states are equal.
    pub fn compare(&mut self) -> Checked {
        let Some(node) = &self.node else { return Ok(()) };
        for group in std::mem::take(&mut self.touched) {
            if self.offline.contains(&group) || self.model.damaged.contains(&group) {
                continue;
            }
            let Some((index, hash)) = node.driver.shard().state_hash(group) else { continue };
            let (shadow, durable) = (&mut self.shadow, &self.model.durable);
            let expected = Bug::without(self.bug, || shadow.hash_at(durable, group, index))?;
            if expected.is_some_and(|expected| expected != hash) {
                let detail = format!("{group}: the state at {index} is not what its log says");
                return Err(violation("S3", detail));
            }
        }
        Ok(())
    }

    /// What the node is about to write, held against what is durable: B4, R8.
    pub fn check_writes(&mut self) -> Checked {
        let Some(node) = &self.node else { return Ok(()) };
        let records = node.ports.writes.iter().flat_map(|writes| &writes.records);
        for record in records {
            match &record.record {
                Record::Truncated { index, .. } if !self.model.damaged.contains(&record.group) => {
                    self.counts.cuts += 1;
                    let (shadow, durable) = (&mut self.shadow, &self.model.durable);
                    let state = Bug::without(self.bug, || shadow.partition(durable, record.group))?;
                    let group = durable.0.get(&record.group);
                    check_cut(record.group, *index, group, state)?;
                }
                Record::Unsealed { base, end } if !self.model.damaged.contains(&record.group) => {
                    let (shadow, durable) = (&mut self.shadow, &self.model.durable);
                    let state = Bug::without(self.bug, || shadow.partition(durable, record.group))?;
                    check_unsealed(record.group, *base..*end, state)?;
                }
                Record::Damaged { .. } => self.counts.given_up += 1,
                Record::Snapshot(mark) => {
                    let group = self.model.durable.0.get(&record.group);
                    let term = group.and_then(|group| group.entries.get(&mark.index)).map(|entry| entry.term);
                    if term != Some(mark.term) && !self.model.damaged.contains(&record.group) {
                        let detail =
                            format!("{}: a checkpoint at {} of {:?}", record.group, mark.index, mark.term);
                        return Err(violation("R8", detail));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// H1-H4, H6, H7, H13 over every partition's durable log.
    pub fn check_logs(&self) -> Checked {
        for (group, model) in &self.model.durable.0 {
            let lost = self.model.damaged.contains(group) || self.clients.deleted.contains(group);
            if *group != GroupId::METADATA && !lost {
                check_log(*group, model, &self.clients.history)?;
            }
        }
        Ok(())
    }

    /// Wall-clock time.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }
}

/// What retention counts of a partition: whole ranges in the bucket and on the node, and what is not rolled yet.
fn held_bytes(view: &PartitionView) -> u64 {
    let nodes = view.root.nodes.iter().map(|node| node.log_bytes());
    let entries = view.root.entries.iter().map(|entry| entry.batch_bytes);
    let rolls = view.rolls.iter().map(|roll| roll.bytes);
    nodes.chain(entries).chain(rolls).sum::<u64>() + view.open.bytes
}
