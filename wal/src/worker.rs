//! The production threads: each takes what waits, writes it as one batch and syncs it in a lane of its own.
//!
//! ```text
//! thread 0:  |take, append|      sync      |answer|keep house|take, append| ...
//! thread 1:               |take, append|      sync      |answer| ...
//!            <-- holds the core -->                            <-- holds the core -->
//! ```
//! Whoever holds the core writes and keeps house; nobody holds it during a sync. So two batches are on their way to the
//! disk while both cores and the clients prepare the next.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use varve_common::GroupId;

use crate::{
    errors::{AppendError, Full, Poisoned, SyncError},
    fill::Filler,
    flight::Flight,
    maintain::Maintained,
    record::{GroupRecord, Record},
    thread::{Failure, Finding, Gate, Pressure, Request, Stopped, Taken},
    writer::Writer,
};

/// What the threads share: one at a time has it.
pub(crate) struct Core {
    writer: Writer,
    filler: Filler,
    /// Requests that found no room, and whatever of their groups came behind them.
    parked: VecDeque<Request>,
    /// How many batches were written.
    batches: u64,
    /// Whether the first step of this life is behind.
    begun: bool,
}

/// One thread.
pub(crate) struct Worker {
    pub lane: usize,
    pub core: Arc<Mutex<Core>>,
    pub gate: Arc<Gate>,
}

/// A batch that is written: its place among the answers, whose it is, and the sync that it needs.
struct Written {
    number: u64,
    requests: Vec<Request>,
    flight: Option<Flight>,
}

impl Worker {
    pub(crate) fn run(self) -> Stopped {
        self.work().inspect_err(|poisoned| self.fail(*poisoned))
    }

    fn work(&self) -> Stopped {
        loop {
            let Some(written) = self.hold_core()? else { return Ok(()) };
            let Written { number, requests, flight } = written;
            let result = flight.map_or(Ok(()), |flight| self.fly(flight));
            self.gate.answer(number, requests, result)?;
        }
    }

    fn fly(&self, flight: Flight) -> Result<(), SyncError> {
        let result = flight.run();
        self.gate.sync_ended();
        result
    }

    /// With the core in hand: keeps house and rests until something is to be written, and writes it. Nothing at the end.
    fn hold_core(&self) -> Result<Option<Written>, Poisoned> {
        let mut core = self.core.lock().expect("no holder of this lock panics");
        core.begin()?;
        loop {
            core.keep_house(&self.gate)?;
            let Taken { requests, last } = self.gate.take()?;
            // A slow disk is no idle one.
            let idle = requests.is_empty() && self.gate.answered() == core.batches;
            let written = core.write(requests, self.lane, &self.gate)?;
            if (idle || last)
                && let Err(poisoned) = core.rest()
            {
                return core.keep(written.map_or_else(Vec::new, |written| written.requests), poisoned);
            }
            if last && written.is_none() {
                core.keep_house(&self.gate)?;
                core.parked.drain(..).for_each(|request| self.gate.refuse(request, Failure::ShutDown));
                return Ok(None);
            }
            if written.is_some() {
                return Ok(written);
            }
            if idle {
                core.fill_ahead(&self.gate)?;
                core.writer.rest_round()?;
            }
        }
    }

    fn fail(&self, poisoned: Poisoned) {
        let parked = match self.core.lock() {
            Ok(mut core) => std::mem::take(&mut core.parked),
            Err(_) => VecDeque::new(),
        };
        self.gate.fail(poisoned);
        parked.into_iter().for_each(|request| (request.on_done)(Err(Failure::Failed(poisoned))));
    }
}

impl Core {
    pub(crate) fn new(writer: Writer, filler: Filler) -> Self {
        Self { writer, filler, parked: VecDeque::new(), batches: 0, begun: false }
    }

    fn begin(&mut self) -> Result<(), Poisoned> {
        if !std::mem::replace(&mut self.begun, true) {
            self.writer.make_way()?;
        }
        Ok(())
    }

    /// After a burst, and at the end.
    fn rest(&mut self) -> Result<(), Poisoned> {
        match self.writer.settle() {
            Err(AppendError::Failed(poisoned)) => return Err(poisoned),
            // Full cannot hinder: room for the empty batch is kept in each file.
            Ok(()) | Err(AppendError::Full(_) | AppendError::Invalid { .. }) => {}
        }
        self.writer.sync().map_err(|SyncError(poisoned)| poisoned)
    }

    fn keep_house(&mut self, gate: &Gate) -> Result<(), Poisoned> {
        let done = self.writer.maintain()?;
        self.filler.turn(&mut self.writer)?;
        let pressure = match done.full {
            Some(why) if !self.parked.is_empty() => Pressure::Full(why),
            _ if !self.parked.is_empty() => Pressure::Full(Full::Budget),
            _ => Pressure::None,
        };
        gate.tell(findings_of(done), pressure);
        Ok(())
    }

    /// Writes zeros ahead while nobody wants anything.
    fn fill_ahead(&mut self, gate: &Gate) -> Result<(), Poisoned> {
        while gate.is_quiet() && self.writer.fill_ahead()? {}
        Ok(())
    }

    /// One write for all requests, and those that waited for room; one by one where the whole is refused. Nothing where
    /// nothing was written.
    fn write(
        &mut self,
        requests: Vec<Request>,
        lane: usize,
        gate: &Gate,
    ) -> Result<Option<Written>, Poisoned> {
        let mut batch: Vec<Request> = self.parked.drain(..).collect();
        batch.extend(requests);
        if batch.is_empty() {
            return Ok(None);
        }
        batch.iter_mut().for_each(|request| self.writer.drop_of_damaged(&mut request.records));
        let all: Vec<GroupRecord> =
            batch.iter().flat_map(|request| request.records.iter().cloned()).collect();
        let requests = match self.writer.stage(&all) {
            Ok(_) => batch,
            Err(AppendError::Failed(poisoned)) => return self.keep(batch, poisoned),
            Err(AppendError::Full(_) | AppendError::Invalid { .. }) => self.one_by_one(batch, gate)?,
        };
        if requests.is_empty() {
            return Ok(None);
        }
        match self.writer.begin_sync(lane) {
            Ok(flight) => {
                self.batches += 1;
                if flight.is_some() {
                    gate.sync_begun();
                }
                Ok(Some(Written { number: self.batches - 1, requests, flight }))
            }
            Err(SyncError(poisoned)) => self.keep(requests, poisoned),
        }
    }

    /// Keeps requests to be failed with all others.
    fn keep<T>(&mut self, batch: Vec<Request>, poisoned: Poisoned) -> Result<T, Poisoned> {
        self.parked.extend(batch);
        Err(poisoned)
    }

    fn one_by_one(&mut self, batch: Vec<Request>, gate: &Gate) -> Result<Vec<Request>, Poisoned> {
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
            match self.writer.stage(&request.records) {
                Ok(_) => written.push(request),
                Err(AppendError::Full(_)) => {
                    blocked.extend(request.records.iter().map(|record| record.group));
                    self.parked.push_back(request);
                }
                Err(AppendError::Invalid { group, what }) => {
                    gate.refuse(request, Failure::Invalid { group, what });
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
}

fn findings_of(done: Maintained) -> impl Iterator<Item = Finding> {
    let rotten = done.rotten.into_iter().map(Finding::Rot);
    rotten.chain(done.set_aside.map(Finding::SetAside)).chain(done.not_set_aside.map(Finding::NotSetAside))
}

/// Marks free space and depend on no entry that waits.
fn is_mark(record: &Record) -> bool {
    !matches!(record, Record::Entries(_) | Record::HardState(_))
}
