//! The production threads, seen by those who submit: a bounded queue, and an answer for each submission.
//!
//! Natural group commit: while a batch is being synced, submissions gather; then all of them are the next batch, or before,
//! once they are worth a sync of their own. Nobody waits for a timer, and one fsync serves all groups. What the threads do is
//! in `worker.rs`.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Duration,
};

use varve_common::GroupId;

use crate::{
    damage::SetAside,
    errors::{Full, Poisoned, Rot, SyncError},
    fill::Filler,
    limits::{GROUP_COMMIT_BYTES_MAX, LANES, QUEUE_BYTES_MAX, SECOND_SYNC_BYTES},
    record::GroupRecord,
    worker::{Core, Worker},
    writer::Writer,
};

/// Told once when what was submitted is durable, or never will be. Runs on a WAL thread: it must not block.
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

/// How a thread ended.
pub type Stopped = Result<(), Poisoned>;

/// What one caller wants durable.
pub(crate) struct Request {
    pub records: Vec<GroupRecord>,
    pub bytes: u64,
    pub on_done: OnDone,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    waiting_bytes: u64,
    /// What waits, and what is not answered yet.
    bytes: u64,
    /// How many batches are being synced.
    syncing: usize,
    pressure: Pressure,
    stop: bool,
    failed: Option<Poisoned>,
    findings: Vec<Finding>,
}

impl Queue {
    /// Whether what waits should be the next batch now. Little of it waits for the sync that is in flight: the next one then
    /// serves more.
    fn is_ripe(&self) -> bool {
        !self.waiting.is_empty() && (self.syncing == 0 || self.waiting_bytes >= SECOND_SYNC_BYTES)
    }
}

/// Whose answers go out next: batches are told of in the order in which they were written.
#[derive(Default)]
struct Turns {
    next: u64,
    failed: Option<Poisoned>,
}

/// Between those who submit and the threads.
#[derive(Default)]
pub(crate) struct Gate {
    queue: Mutex<Queue>,
    /// Something to write, or to stop for.
    work: Condvar,
    /// Room for more.
    room: Condvar,
    turns: Mutex<Turns>,
    /// Another batch has been told of.
    turn: Condvar,
}

/// What a thread found at the gate.
pub(crate) struct Taken {
    /// As much as one batch may hold; none where nothing came for a while.
    pub requests: Vec<Request>,
    /// The log is shut down, and nothing will come behind these.
    pub last: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().expect("no holder of this lock panics")
    }

    /// Waits for work, or a while; takes what one batch may hold.
    pub(crate) fn take(&self) -> Result<Taken, Poisoned> {
        let rests = |queue: &mut Queue| !queue.is_ripe() && !queue.stop && queue.failed.is_none();
        let (mut queue, _) =
            self.work.wait_timeout_while(self.lock(), IDLE, rests).expect("no holder of this lock panics");
        if let Some(poisoned) = queue.failed {
            return Err(poisoned);
        }
        let ripe = queue.is_ripe() || queue.stop;
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while ripe && let Some(request) = queue.waiting.front() {
            bytes += request.bytes;
            if bytes > GROUP_COMMIT_BYTES_MAX && !requests.is_empty() {
                break;
            }
            queue.waiting_bytes -= request.bytes;
            requests.extend(queue.waiting.pop_front());
        }
        let last = queue.stop && queue.waiting.is_empty();
        Ok(Taken { requests, last })
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let queue = self.lock();
        queue.waiting.is_empty() && !queue.stop
    }

    /// Tells what housekeeping found, and whether entries are taken.
    pub(crate) fn tell(&self, findings: impl IntoIterator<Item = Finding>, pressure: Pressure) {
        let mut queue = self.lock();
        queue.findings.extend(findings);
        queue.pressure = pressure;
    }

    /// Answers one request that is in no batch.
    pub(crate) fn refuse(&self, request: Request, failure: Failure) {
        self.release(request.bytes);
        (request.on_done)(Err(failure));
    }

    /// A batch is written and on its way: told by whoever takes the next.
    pub(crate) fn sync_begun(&self) {
        self.lock().syncing += 1;
    }

    /// It has landed, or failed to.
    pub(crate) fn sync_ended(&self) {
        self.lock().syncing -= 1;
        self.work.notify_one();
    }

    /// Answers the batch with this number in its turn. After the first that failed all do: what is behind a hole in the log
    /// is not kept by a restart.
    pub(crate) fn answer(
        &self,
        number: u64,
        batch: Vec<Request>,
        result: Result<(), SyncError>,
    ) -> Result<(), Poisoned> {
        let mut turns = self.turns();
        if let Err(SyncError(poisoned)) = result {
            turns.failed.get_or_insert(poisoned);
            self.turn.notify_all();
        }
        while turns.next != number && turns.failed.is_none() {
            turns = self.turn.wait(turns).expect("no holder of this lock panics");
        }
        let result = turns.failed.map_or(Ok(()), Err);
        drop(turns);
        self.release(batch.iter().map(|request| request.bytes).sum());
        batch.into_iter().for_each(|request| (request.on_done)(result.map_err(Failure::Failed)));
        self.turns().next = number + 1;
        self.turn.notify_all();
        result
    }

    /// How many batches were told of.
    pub(crate) fn answered(&self) -> u64 {
        self.turns().next
    }

    fn release(&self, bytes: u64) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        drop(queue);
        self.room.notify_all();
    }

    /// Everything that waits fails, and everything later.
    pub(crate) fn fail(&self, poisoned: Poisoned) {
        self.turns().failed.get_or_insert(poisoned);
        self.turn.notify_all();
        let waiting: Vec<Request> = {
            let mut queue = self.lock();
            queue.failed = Some(poisoned);
            queue.pressure = Pressure::Failed;
            queue.bytes = 0;
            queue.waiting.drain(..).collect()
        };
        self.work.notify_all();
        self.room.notify_all();
        waiting.into_iter().for_each(|request| (request.on_done)(Err(Failure::Failed(poisoned))));
    }
}

/// Submits to the WAL threads. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    gate: Arc<Gate>,
    threads: Arc<Mutex<Vec<JoinHandle<Stopped>>>>,
}

/// How often an idle thread looks after the files, and how soon after a burst it settles the log.
const IDLE: Duration = Duration::from_millis(50);

/// Starts the threads, which own the writer from here on.
pub fn spawn(writer: Writer) -> std::io::Result<Handle> {
    let gate = Arc::new(Gate::default());
    let core = Arc::new(Mutex::new(Core::new(writer, Filler::spawn()?)));
    let worker = |lane| {
        let worker = Worker { lane, core: Arc::clone(&core), gate: Arc::clone(&gate) };
        std::thread::Builder::new().name(format!("wal-{lane}")).spawn(move || worker.run())
    };
    let threads = (0..LANES).map(worker).collect::<Result<_, _>>()?;
    Ok(Handle { gate, threads: Arc::new(Mutex::new(threads)) })
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
        queue.waiting_bytes += bytes;
        queue.waiting.push_back(Request { records, bytes, on_done });
        if queue.is_ripe() {
            drop(queue);
            self.gate.work.notify_one();
        }
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

    /// Writes what was submitted, settles and syncs the log, and ends the threads. Later submissions fail.
    pub fn shutdown(&self) -> Stopped {
        self.gate.lock().stop = true;
        self.gate.work.notify_all();
        self.gate.room.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().expect("no holder of this lock panics"));
        let ended: Vec<Stopped> =
            threads.into_iter().map(|thread| thread.join().expect("a wal thread does not panic")).collect();
        ended.into_iter().collect()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("queued_bytes", &self.queued_bytes()).finish_non_exhaustive()
    }
}
