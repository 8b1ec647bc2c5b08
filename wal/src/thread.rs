//! The production thread: natural group commit. While one batch is being synced, submissions gather; then all of them
//! are the next batch. Nobody waits for a timer, and one fsync serves all groups.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Duration,
};

use varve_common::GroupId;

use crate::{
    damage::SetAside,
    errors::{AppendError, Full, Poisoned, Rot, SyncError},
    fill::Filler,
    limits::{GROUP_COMMIT_BYTES_MAX, QUEUE_BYTES_MAX},
    record::{GroupRecord, Record},
    writer::Writer,
};

/// Told once when what was submitted is durable, or never will be. Runs on the WAL thread: it must not block.
pub type OnDone = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// Why a submission is not durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The log has failed; nothing is acknowledged any more and the process must end: Fatal.
    #[error(transparent)]
    Failed(Poisoned),
    /// The submission breaks a promise; others are not affected: Invalid.
    #[error("{group}: {what}")]
    Invalid {
        /// Whose record it is.
        group: GroupId,
        /// What is wrong.
        what: &'static str,
    },
    /// The log was shut down before: Fatal.
    #[error("write-ahead log is shut down")]
    ShutDown,
}

/// Whether entries would be taken now: asked before anything is proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pressure {
    /// Yes.
    #[default]
    None,
    /// No room: entries wait until it returns; marks and hard states are still taken.
    Full(Full),
    /// Never again.
    Failed,
}

/// What housekeeping found that somebody must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Entries do not read back: their owner decides what that means.
    Rot(Rot),
    /// Damaged bytes lie in a file of their own now.
    SetAside(SetAside),
    /// Damaged bytes could not be set aside yet; they keep their log file.
    NotSetAside(std::io::ErrorKind),
}

/// How the thread ended.
pub type Stopped = Result<(), Poisoned>;

struct Request {
    records: Vec<GroupRecord>,
    bytes: u64,
    on_done: OnDone,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    bytes: u64,
    pressure: Pressure,
    stop: bool,
    failed: Option<Poisoned>,
    findings: Vec<Finding>,
}

struct Gate {
    queue: Mutex<Queue>,
    /// Something to write, or to stop for.
    work: Condvar,
    /// Room for more.
    room: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}

/// Submits to the WAL thread. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    gate: Arc<Gate>,
    thread: Arc<Mutex<Option<JoinHandle<Stopped>>>>,
}

/// How often the idle thread looks after its files, and how soon after a burst it settles the log.
const IDLE: Duration = Duration::from_millis(50);

/// Starts the thread, which owns the writer from here on.
pub fn spawn(writer: Writer) -> std::io::Result<Handle> {
    let gate = Arc::new(Gate { queue: Mutex::default(), work: Condvar::new(), room: Condvar::new() });
    let filler = Filler::spawn()?;
    let worker = Worker { writer, filler, gate: Arc::clone(&gate), parked: VecDeque::new() };
    let thread = std::thread::Builder::new().name("wal".to_owned()).spawn(move || worker.run())?;
    Ok(Handle { gate, thread: Arc::new(Mutex::new(Some(thread))) })
}

impl Handle {
    /// Hands records over; `on_done` is told once. Records of one group keep their order, but where the log is full
    /// marks overtake waiting entries. Blocks while the queue holds more than it may (limits::QUEUE_BYTES_MAX).
    pub fn submit(&self, records: Vec<GroupRecord>, on_done: OnDone) {
        let bytes = records.iter().map(GroupRecord::bytes).sum();
        let mut queue = self.gate.lock();
        while queue.bytes > QUEUE_BYTES_MAX && queue.failed.is_none() && !queue.stop {
            queue = self.gate.room.wait(queue).expect("no holder of this lock panics");
        }
        let refused = queue.failed.map(Failure::Failed).or(queue.stop.then_some(Failure::ShutDown));
        if let Some(failure) = refused {
            drop(queue);
            on_done(Err(failure));
            return;
        }
        queue.bytes += bytes;
        queue.waiting.push_back(Request { records, bytes, on_done });
        drop(queue);
        self.gate.work.notify_one();
    }

    /// Whether entries would be taken now.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.gate.lock().pressure
    }

    /// What was found since this was last asked.
    #[must_use]
    pub fn take_findings(&self) -> Vec<Finding> {
        std::mem::take(&mut self.gate.lock().findings)
    }

    /// Bytes submitted and not yet durable.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.gate.lock().bytes
    }

    /// Writes what was submitted, settles and syncs the log, and ends the thread. Later submissions fail.
    pub fn shutdown(&self) -> Stopped {
        self.gate.lock().stop = true;
        self.gate.work.notify_one();
        self.gate.room.notify_all();
        let thread = self.thread.lock().expect("no holder of this lock panics").take();
        thread.map_or(Ok(()), |thread| thread.join().expect("the wal thread does not panic"))
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("queued_bytes", &self.queued_bytes()).finish_non_exhaustive()
    }
}

struct Worker {
    writer: Writer,
    filler: Filler,
    gate: Arc<Gate>,
    /// Requests that found no room, and whatever of their groups came behind them.
    parked: VecDeque<Request>,
}

impl Worker {
    fn run(mut self) -> Stopped {
        if let Err(poisoned) = self.writer.make_way() {
            return self.fail(poisoned);
        }
        loop {
            let (requests, stop) = self.take();
            if let Err(poisoned) = self.round(requests, stop) {
                return self.fail(poisoned);
            }
            if stop && self.gate.lock().waiting.is_empty() {
                self.parked.drain(..).for_each(|request| (request.on_done)(Err(Failure::ShutDown)));
                return Ok(());
            }
        }
    }

    /// Waits for work, or a while; takes what one batch may hold.
    fn take(&mut self) -> (Vec<Request>, bool) {
        let mut queue = self.gate.lock();
        if queue.waiting.is_empty() && !queue.stop {
            (queue, _) = self.gate.work.wait_timeout(queue, IDLE).expect("no holder of this lock panics");
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(request) = queue.waiting.front() {
            bytes += request.bytes;
            if bytes > GROUP_COMMIT_BYTES_MAX && !taken.is_empty() {
                break;
            }
            taken.extend(queue.waiting.pop_front());
        }
        (taken, queue.stop)
    }

    fn round(&mut self, requests: Vec<Request>, stop: bool) -> Result<(), Poisoned> {
        let idle = requests.is_empty();
        let mut batch: Vec<Request> = self.parked.drain(..).collect();
        batch.extend(requests);
        let result = self.write(batch);
        result?;
        if idle || stop {
            match self.writer.settle() {
                Err(AppendError::Failed(poisoned)) => return Err(poisoned),
                // Full cannot hinder: room for the empty batch is kept in each file.
                Ok(()) | Err(AppendError::Full(_) | AppendError::Invalid { .. }) => {}
            }
            self.writer.sync().map_err(|SyncError(poisoned)| poisoned)?;
        }
        let done = self.writer.maintain()?;
        self.filler.turn(&mut self.writer)?;
        while idle && !stop && self.gate.lock().waiting.is_empty() && self.writer.fill_ahead()? {}
        let mut queue = self.gate.lock();
        queue.findings.extend(findings_of(done.rotten, done.set_aside, done.not_set_aside));
        queue.pressure = match done.full {
            Some(why) if !self.parked.is_empty() => Pressure::Full(why),
            _ if !self.parked.is_empty() => Pressure::Full(Full::Budget),
            _ => Pressure::None,
        };
        Ok(())
    }

    /// One write and one sync for all requests; one by one where the whole is refused.
    fn write(&mut self, mut batch: Vec<Request>) -> Result<(), Poisoned> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.iter_mut().for_each(|request| self.writer.drop_of_damaged(&mut request.records));
        let all: Vec<GroupRecord> =
            batch.iter().flat_map(|request| request.records.iter().cloned()).collect();
        let written = match self.writer.append(&all) {
            Ok(_) => batch,
            Err(AppendError::Failed(poisoned)) => return self.keep(batch, poisoned),
            Err(AppendError::Full(_) | AppendError::Invalid { .. }) => self.one_by_one(batch)?,
        };
        if let Err(SyncError(poisoned)) = self.writer.sync() {
            return self.keep(written, poisoned);
        }
        let bytes: u64 = written.iter().map(|request| request.bytes).sum();
        self.gate.lock().bytes -= bytes;
        self.gate.room.notify_all();
        written.into_iter().for_each(|request| (request.on_done)(Ok(())));
        Ok(())
    }

    /// Keeps requests to be failed with all others.
    fn keep(&mut self, batch: Vec<Request>, poisoned: Poisoned) -> Result<(), Poisoned> {
        self.parked.extend(batch);
        Err(poisoned)
    }

    fn one_by_one(&mut self, batch: Vec<Request>) -> Result<Vec<Request>, Poisoned> {
        let mut written = Vec::new();
        let mut blocked: BTreeSet<GroupId> = BTreeSet::new();
        let mut requests = batch.into_iter();
        while let Some(request) = requests.next() {
            let ordered = request.records.iter().any(|record| !is_mark(&record.record));
            if ordered && request.records.iter().any(|record| blocked.contains(&record.group)) {
                // Whatever else it holds waits with it, and so must all that follows on that.
                blocked.extend(request.records.iter().map(|record| record.group));
                self.parked.push_back(request);
                continue;
            }
            match self.writer.append(&request.records) {
                Ok(_) => written.push(request),
                Err(AppendError::Full(_)) => {
                    blocked.extend(request.records.iter().map(|record| record.group));
                    self.parked.push_back(request);
                }
                Err(AppendError::Invalid { group, what }) => {
                    self.gate.lock().bytes -= request.bytes;
                    (request.on_done)(Err(Failure::Invalid { group, what }));
                }
                Err(AppendError::Failed(poisoned)) => {
                    self.parked.extend(written);
                    self.parked.push_back(request);
                    self.parked.extend(requests);
                    return Err(poisoned);
                }
            }
        }
        Ok(written)
    }

    /// Everything that waits fails, and everything later.
    fn fail(mut self, poisoned: Poisoned) -> Stopped {
        let waiting: Vec<Request> = {
            let mut queue = self.gate.lock();
            queue.failed = Some(poisoned);
            queue.pressure = Pressure::Failed;
            queue.bytes = 0;
            queue.waiting.drain(..).collect()
        };
        self.gate.room.notify_all();
        let all = self.parked.drain(..).chain(waiting);
        all.for_each(|request| (request.on_done)(Err(Failure::Failed(poisoned))));
        Err(poisoned)
    }
}

fn findings_of(
    rotten: Vec<Rot>,
    aside: Option<SetAside>,
    failed: Option<std::io::ErrorKind>,
) -> impl Iterator<Item = Finding> {
    let rotten = rotten.into_iter().map(Finding::Rot);
    rotten.chain(aside.map(Finding::SetAside)).chain(failed.map(Finding::NotSetAside))
}

/// Marks free space and depend on no entry that waits.
fn is_mark(record: &Record) -> bool {
    !matches!(record, Record::Entries(_) | Record::HardState(_))
}
