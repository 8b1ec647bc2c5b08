//! Scrub on a running node: in the background, so that all is read within an interval, and now when somebody asks. What is
//! damaged is repaired by the groups themselves: here they are asked, and watched until they have done it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::Notify;
use varve_common::{
    Access, Clock, Disk, Entropy, GroupId, Incarnation, LogIndex, Monotonic, clock::BoxFuture,
    disk::read_exact_at,
};
use varve_formats::manifest::{Entry, NodeReference};
use varve_replica::{Action, GroupStatus, Input, JobKind, Rot, SealMark};

use super::{
    mailbox::{Mail, Mailbox},
    views::Views,
};
use crate::{
    metrics::Metrics,
    scrub::{Outcome, Pace, Pass, Places, Progress, PutAgain, Repairs, Target},
};

/// After a start the disk has better things to do.
const START_PAUSE: Duration = Duration::from_secs(600);
/// How often the place that a pass has reached is noted.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);
/// How often a group is looked at that was asked to repair something.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a group is given to let go of something.
const DECIDE_LIMIT: Duration = Duration::from_secs(3);
/// How long a group is given to write something anew.
const REPAIR_LIMIT: Duration = Duration::from_secs(60);
/// Where it is noted when the last pass ended, and how far the one that was broken off came.
const NOTE: &str = "scrub.json";
/// The longest note that is believed.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// What may be asked of the scrub from outside. Shared.
#[derive(Default)]
pub struct Control {
    progress: Mutex<Arc<Progress>>,
    wake: Notify,
}

impl Control {
    /// Asks for a pass as fast as the rate allows, from the beginning. What [`Control::progress`] gives from now on is that pass.
    pub fn start(&self) {
        let asked = Progress::default();
        asked.ask();
        self.set(Arc::new(asked));
        self.wake.notify_one();
    }

    /// The pass that runs, or the last one of this process.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress.lock().expect("no holder of this lock panics"))
    }

    fn set(&self, progress: Arc<Progress>) {
        *self.progress.lock().expect("no holder of this lock panics") = progress;
    }
}

/// What the scrub of a node stands on.
pub struct Sources {
    /// What is read.
    pub places: Places,
    /// The shard's thread.
    pub mailbox: Mailbox,
    /// Which partitions there are, and which have stopped.
    pub views: Views,
    /// For uids.
    pub entropy: Arc<dyn Entropy>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// This life of the cluster.
    pub incarnation: Incarnation,
    /// All is read again within this; `None` for never.
    pub interval: Option<Duration>,
    /// Bytes per second, at most.
    pub rate_max: u64,
    /// Who asks.
    pub control: Arc<Control>,
}

/// When a pass ended, and where the next one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Note {
    finished_ms: i64,
    next_group: u64,
}

enum Cause {
    Due,
    Asked,
}

/// Scrubs until it is dropped.
pub async fn watch(sources: Sources) {
    let path = sources.places.data.join(NOTE);
    let mut note = read_note(&*sources.places.disk, &path);
    let mut cause = sources.wait(note, START_PAUSE).await;
    loop {
        let (pace, first) = match cause {
            Cause::Asked => (Pace::fastest(Arc::clone(&sources.clock), sources.rate_max), 0),
            Cause::Due => {
                let interval = sources.interval.unwrap_or(Duration::MAX);
                (Pace::within(Arc::clone(&sources.clock), sources.rate_max, interval), note.next_group)
            }
        };
        let progress = Arc::new(Progress::counted(sources.metrics.handles.clone()));
        progress.start(sources.clock.wall_ms());
        sources.control.set(Arc::clone(&progress));
        sources.metrics.handles.scrub_running.set(1);
        let asked = tokio::select! {
            () = sources.pass(&progress, &pace, GroupId(first), &path, note) => false,
            () = sources.control.wake.notified() => true,
        };
        sources.metrics.handles.scrub_running.set(0);
        if asked {
            cause = Cause::Asked;
            continue;
        }
        progress.finish(sources.clock.wall_ms());
        tracing::info!(report = %progress.to_json(), "scrub has read everything");
        note = Note { finished_ms: sources.clock.wall_ms(), next_group: 0 };
        write_note(&*sources.places.disk, &path, note);
        cause = sources.wait(note, Duration::ZERO).await;
    }
}

impl Sources {
    /// Until a pass is due, and at least so long, or until somebody asks for one.
    async fn wait(&self, note: Note, at_least: Duration) -> Cause {
        let due = async {
            let Some(interval) = self.interval else { return std::future::pending().await };
            let passed = self.clock.wall_ms().saturating_sub(note.finished_ms).max(0) as u64;
            let left = interval.saturating_sub(Duration::from_millis(passed));
            self.clock.sleep(left.max(at_least.min(interval))).await;
        };
        tokio::select! {
            () = due => Cause::Due,
            () = self.control.wake.notified() => Cause::Asked,
        }
    }

    async fn pass(&self, progress: &Progress, pace: &Pace, first: GroupId, path: &Path, before: Note) {
        let pass = Pass::new(&self.places, self, progress, pace);
        let noting = async {
            loop {
                self.clock.sleep(NOTE_INTERVAL).await;
                let next_group = progress.next_group().0;
                write_note(&*self.places.disk, path, Note { next_group, ..before });
            }
        };
        tokio::select! {
            () = pass.run(first) => {}
            () = noting => {}
        }
    }

    async fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.mailbox.look(move |driver| driver.shard().status(group)).await.ok()?
    }

    /// What is still known of a partition that has stopped: its files and its objects are read all the same, and files are
    /// repaired from the bucket. `None` where no state of it is left, or it is gone.
    fn offline(&self, group: GroupId) -> Option<Target> {
        self.views.damage(group)?;
        let view = self.views.partition(group)?;
        Some(Target {
            group,
            name: self.views.name(group),
            identity: Some(view.identity.clone()),
            incarnation: self.incarnation,
            offline: true,
            log: LogIndex::ZERO..LogIndex::ZERO,
            log_bytes: 0,
            seals: Arc::clone(&view.seals),
            checkpoints: Vec::new(),
            published: Vec::new(),
            root: Arc::clone(&view.root),
        })
    }

    fn ask(&self, input: Input) {
        self.mailbox.send(Mail::Input(Box::new(input)));
    }

    /// Looks at a group until something can be said of it, or the time is over.
    async fn until(
        &self,
        group: GroupId,
        limit: Duration,
        mut say: impl FnMut(&GroupStatus) -> Option<Outcome> + Send,
    ) -> Option<Outcome> {
        let deadline = self.clock.monotonic().plus(limit);
        while self.clock.monotonic() < deadline {
            if let Some(why) = self.views.damage(group) {
                return Some(Outcome::Unrepaired(why.to_string()));
            }
            if let Some(outcome) = self.status(group).await.as_ref().and_then(&mut say) {
                return Some(outcome);
            }
            self.clock.sleep(LOOK_INTERVAL).await;
        }
        None
    }
}

fn in_time(outcome: Option<Outcome>) -> Outcome {
    outcome.unwrap_or_else(|| {
        Outcome::Unrepaired("the group did not do it in time; see its log lines".to_owned())
    })
}

impl Repairs for Sources {
    fn groups(&self) -> BoxFuture<'_, Vec<GroupId>> {
        let image = self.views.image();
        let mut groups: Vec<GroupId> =
            image.topics.values().flat_map(|topic| topic.partitions.iter().map(|at| at.group)).collect();
        groups.push(GroupId::METADATA);
        Box::pin(std::future::ready(groups))
    }

    fn target(&self, group: GroupId) -> BoxFuture<'_, Option<Target>> {
        Box::pin(async move {
            let Some(status) = self.status(group).await else { return self.offline(group) };
            let end = self.places.wal.bounds(group).map_or(LogIndex::ZERO, |bounds| bounds.last.0.next());
            Some(Target {
                group,
                name: if group == GroupId::METADATA { "metadata".to_owned() } else { self.views.name(group) },
                identity: status.identity,
                incarnation: self.incarnation,
                offline: false,
                log: status.truncated.0.next()..end,
                log_bytes: status.log_bytes,
                seals: status.seals,
                checkpoints: status.local_checkpoints,
                published: status.published,
                root: status.root,
            })
        })
    }

    fn entries<'a>(&'a self, target: &'a Target, _from: LogIndex) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            // The log tells the group what it found; a group that has lost something stops.
            let lost = self.until(target.group, DECIDE_LIMIT, |_| None).await;
            lost.unwrap_or(Outcome::HeldElsewhere(
                "the state, sealed files or the object store; the log is cut behind it",
            ))
        })
    }

    fn sealed<'a>(&'a self, target: &'a Target, seal: &'a SealMark) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let mut comes = false;
            let mut decided = |status: &GroupStatus| {
                let came = comes && !status.broken.contains(&seal.base);
                comes |= status.broken.contains(&seal.base);
                let gone = !came && !status.seals.contains(seal);
                came.then_some(Outcome::Repaired("from another node")).or(gone
                    .then_some(Outcome::HeldElsewhere("the object store or the log; the file is given up")))
            };
            if let Some(outcome) = self.until(target.group, DECIDE_LIMIT, &mut decided).await {
                return outcome;
            }
            // It may have come between two looks, or take longer.
            if self.places.local.check(target.group, seal).is_ok() {
                return Outcome::Repaired("from another node");
            }
            let waits = self.status(target.group).await;
            if waits.is_some_and(|status| status.broken.contains(&seal.base)) {
                return in_time(self.until(target.group, REPAIR_LIMIT, decided).await);
            }
            in_time(None)
        })
    }

    fn checkpoint<'a>(&'a self, target: &'a Target, index: LogIndex) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let newest = target.checkpoints.last().map_or(LogIndex::ZERO, |newest| newest.index);
            self.ask(Input::Rotten { group: target.group, rot: Rot::Checkpoint(index) });
            let newer = |status: &GroupStatus| {
                let written = status.local_checkpoints.last().is_some_and(|last| last.index > newest);
                written.then_some(Outcome::Repaired("another was taken of the state in memory"))
            };
            let written = self.until(target.group, DECIDE_LIMIT, newer).await;
            let other = target.checkpoints.iter().any(|checkpoint| checkpoint.index != index);
            written.unwrap_or_else(|| match other {
                true => Outcome::HeldElsewhere("the other one; the next change takes a new one"),
                false => in_time(None),
            })
        })
    }

    fn published<'a>(&'a self, target: &'a Target, uid: u64) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (group, newest) = (target.group, target.published.last().map(|newest| newest.uid));
            if group != GroupId::METADATA {
                self.ask(Input::Act { group, action: Action::Advance });
            }
            let drawn = self.entropy.next_u64().max(1);
            self.ask(Input::Act { group, action: Action::PublishCheckpoint { uid: drawn } });
            let another = |status: &GroupStatus| {
                let last = status.published.last().map(|last| last.uid);
                let is_out = Some(uid) != newest && !status.published.iter().any(|known| known.uid == uid);
                (last != newest || is_out)
                    .then_some(Outcome::Repaired("another was published under a new key"))
            };
            in_time(self.until(group, REPAIR_LIMIT, another).await)
        })
    }

    fn object<'a>(&'a self, target: &'a Target, entry: &'a Entry) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (group, uid) = (target.group, self.entropy.next_u64().max(1));
            let put = PutAgain::of(uid, entry, &target.root);
            let announce = Action::Announce { uid, base: entry.base, end: entry.end() };
            self.ask(Input::Act { group, action: announce });
            in_time(self.until(group, REPAIR_LIMIT, |status| put.outcome(status)).await)
        })
    }

    fn leaf<'a>(&'a self, target: &'a Target, leaf: &'a NodeReference) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (group, uid) = (target.group, self.entropy.next_u64().max(1));
            let failed_before = self.status(group).await.and_then(|status| mend_failure(&status));
            self.ask(Input::Act { group, action: Action::MendLeaf { uid, leaf: leaf.uid } });
            let mended = |status: &GroupStatus| {
                if status.root.nodes.iter().any(|node| node.uid == uid) {
                    return Some(Outcome::Repaired(
                        "made again from the segments that it names, under a new key",
                    ));
                }
                let failed = mend_failure(status) != failed_before;
                let why = || match &status.jobs.last_failure {
                    Some((JobKind::Mend, why)) => why.clone(),
                    _ => "it could not be made again".to_owned(),
                };
                failed.then(|| Outcome::Unrepaired(why()))
            };
            // All that it names is read: as long as that goes on it is waited for.
            loop {
                if let Some(outcome) = self.until(group, REPAIR_LIMIT, mended).await {
                    return outcome;
                }
                let runs = |status: GroupStatus| status.jobs.runs(JobKind::Mend);
                if !self.status(group).await.is_some_and(runs) {
                    return in_time(None);
                }
            }
        })
    }
}

fn mend_failure(status: &GroupStatus) -> Option<Monotonic> {
    status.jobs.failures.get(&JobKind::Mend).map(|(_, last)| *last)
}

fn read_note(disk: &dyn Disk, path: &Path) -> Note {
    let read = || -> Option<Note> {
        let file = disk.open(path, Access::Buffered).ok()?;
        let length = file.len().ok().filter(|length| *length <= NOTE_BYTES_MAX)?;
        let value: Value = serde_json::from_slice(&read_exact_at(&*file, 0, length as usize).ok()?).ok()?;
        Some(Note { finished_ms: value["finished_ms"].as_i64()?, next_group: value["next_group"].as_u64()? })
    };
    // Without one everything is read again: nothing is lost by that.
    read().unwrap_or_default()
}

/// Not synced: what a crash takes of it costs a pass, at most.
fn write_note(disk: &dyn Disk, path: &Path, note: Note) {
    let temporary: PathBuf = path.with_extension("tmp");
    let text = json!({"finished_ms": note.finished_ms, "next_group": note.next_group}).to_string();
    let write = || {
        let _ = disk.remove(&temporary);
        disk.create(&temporary, Access::Buffered)?.write_at(text.as_bytes(), 0)?;
        disk.rename(&temporary, path)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "how far scrub came could not be noted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, path) = (varve_wal::NativeDisk, folder.path().join(NOTE));
        assert_eq!(read_note(&disk, &path), Note::default());
        let note = Note { finished_ms: 17, next_group: 4 };
        write_note(&disk, &path, note);
        assert_eq!(read_note(&disk, &path), note);
        disk.open(&path, Access::Buffered).unwrap().write_at(b"x", 0).unwrap();
        assert_eq!(read_note(&disk, &path), Note::default());
    }
}
