//! The shard's thread: takes letters, turns the driver, answers requests.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use varve_common::{Clock, GroupId, LogIndex, Monotonic, NodeId, Offset, Term};
use varve_consensus::{Envelope, Fetch, LeaderReport, ReadError};
use varve_formats::command::MetadataCommand;
use varve_replica::{Input, Job, Now, PartitionView, PeerInput, Reply, Ticket, metadata::Image};
use varve_tiering::tail::TailCache;

use super::{
    inbound::Held,
    mailbox::{Inbox, Mail, Mailbox},
    views::Views,
};
use crate::{
    driver::{Driver, Event, Ports, Writes},
    metrics::{Handles, Metrics},
    peers::Outgoing,
};

/// How often time is told to the core when nothing else happens.
const TICK: Duration = Duration::from_millis(100);

/// Where jobs go.
pub trait StartJob: Send + 'static {
    /// Runs the job in the background; `Mail::JobDone` follows.
    fn start(&self, job: Job);

    /// Reads the log for a peer; `Mail::Peer` follows.
    fn fetch(&self, group: GroupId, fetch: Fetch);

    /// Removes the files of a replica that has left this node, in the background; `Event::Swept` follows.
    fn sweep(&self, group: GroupId);
}

/// Where frames to peers go.
pub trait Outbox: Send + Sync {
    /// Sends a frame, or drops it; never waits.
    fn send(&self, to: NodeId, frame: Outgoing);
}

/// What the thread is made of.
pub struct ShardThread<J> {
    /// This node.
    pub node: NodeId,
    /// The core and its surroundings.
    pub driver: Driver,
    /// Where letters come from.
    pub inbox: Inbox,
    /// Where answers of the log go.
    pub mailbox: Mailbox,
    /// The log.
    pub wal: varve_wal::Handle,
    /// The jobs.
    pub jobs: J,
    /// What readers see.
    pub views: Views,
    /// What consumers at the tail read.
    pub tail: TailCache,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The way to the other nodes; `None` where there are none.
    pub outbox: Option<Arc<dyn Outbox>>,
    /// Where changes go that the driver wants of the metadata.
    pub proposals: mpsc::Sender<MetadataCommand>,
    /// Told once when the log has failed: the process must end.
    pub failed: oneshot::Sender<String>,
}

impl<J: StartJob> ShardThread<J> {
    /// Runs until `Mail::Stop`, or until nobody can send letters.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("shard".to_owned()).spawn(move || self.run())
    }

    fn take_apart(self) -> (Driver, Inbox, ThreadPorts<J>) {
        let ports = ThreadPorts {
            node: self.node,
            mailbox: self.mailbox,
            wal: self.wal,
            jobs: self.jobs,
            views: self.views,
            tail: self.tail,
            clock: self.clock,
            metrics: self.metrics,
            outbox: self.outbox,
            proposals: self.proposals,
            waiting: HashMap::new(),
            campaign: None,
            confirming: HashMap::new(),
            confirmed: 0,
            replies: Vec::new(),
            held: Vec::new(),
            failed: Some(self.failed),
        };
        (self.driver, self.inbox, ports)
    }

    fn run(self) {
        let (mut driver, inbox, mut ports) = self.take_apart();
        let clock = Arc::clone(&ports.clock);
        let mut stopping = false;
        let mut drained: Option<oneshot::Sender<()>> = None;
        let mut ticked: Option<Monotonic> = None;
        while !stopping {
            let now = Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() };
            let patience = driver.next_look().map_or(TICK, |due| due.since(now.monotonic).min(TICK));
            let Some(letters) = inbox.take(patience) else { break };
            let now = Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() };
            let mut events = Vec::with_capacity(letters.len() + 1);
            for letter in letters {
                match letter {
                    Mail::Request { ticket, input, answer } => {
                        ports.waiting.insert(ticket, (answer, now.monotonic));
                        events.push(Event::Core(*input));
                    }
                    Mail::Input(input) => events.push(Event::Core(*input)),
                    Mail::Event(event) => events.push(*event),
                    Mail::Peer(input, memory) => events.push(ports.hold(input, memory)),
                    Mail::Confirm(group, answer) => events.push(ports.confirm(group, answer)),
                    Mail::Written(acks) => events.extend(acks.into_iter().map(Event::Written)),
                    Mail::WriteFailed(why) => {
                        events.push(Event::Core(Input::PersistFailed));
                        ports.fail(why);
                    }
                    Mail::JobDone(group, outcome) => {
                        events.push(Event::Core(Input::JobDone { group, outcome }));
                    }
                    Mail::Pressure(pressure) => driver.press(pressure),
                    Mail::Look(look) => look(&driver),
                    Mail::Drain(sender) => {
                        driver.drain();
                        drained = Some(sender);
                    }
                    Mail::Stop => stopping = true,
                }
            }
            let since_last = ticked.map_or(TICK, |ticked| now.monotonic.since(ticked));
            if since_last >= TICK {
                ticked = Some(now.monotonic);
                events.push(Event::Tick { late_by: late_by(since_last) });
            }
            driver.turn(now, events, &mut ports);
            if since_last >= TICK {
                ports.tell_silent(&driver);
            }
            ports.answer();
            if drained.is_some() && driver.is_drained() {
                // Whoever waited may have lost patience.
                drained.take().map(|sender| sender.send(()));
            }
        }
    }
}

/// How many ticks were missed before this one.
const fn late_by(since_last: Duration) -> usize {
    (since_last.as_millis() / TICK.as_millis()) as usize - 1
}

fn entries(record: &varve_wal::GroupRecord) -> u64 {
    match &record.record {
        varve_wal::Record::Entries(entries) => entries.len() as u64,
        _ => 0,
    }
}

/// Counts what goes to another node; gives the election in which votes were asked for last.
fn count(handles: &Handles, frame: &Outgoing, last: Option<(GroupId, Term)>) -> Option<(GroupId, Term)> {
    match frame {
        Outgoing::Message(Envelope { group, message, .. }) => {
            handles.raft_messages.get_or_create(&[("kind", message.kind())]).inc();
            handles.raft_sent_entries.inc_by(message.entries() as u64);
            let campaign = message.is_campaign().then(|| (*group, message.term()));
            // Each of the others is asked.
            handles.raft_campaigns.inc_by(u64::from(campaign.is_some() && campaign != last));
            campaign.or(last)
        }
        Outgoing::Pulse(pulse) => {
            let sent = |kind| handles.raft_messages.get_or_create(&[("kind", kind)]);
            sent("pulse").inc();
            sent("heartbeat").inc_by(pulse.beats.len() as u64);
            sent("heartbeat_response").inc_by(pulse.answers.len() as u64);
            last
        }
    }
}

struct ThreadPorts<J> {
    node: NodeId,
    mailbox: Mailbox,
    wal: varve_wal::Handle,
    jobs: J,
    views: Views,
    tail: TailCache,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    outbox: Option<Arc<dyn Outbox>>,
    proposals: mpsc::Sender<MetadataCommand>,
    /// Who waits for an answer, and since when.
    waiting: HashMap<Ticket, (oneshot::Sender<Reply>, Monotonic)>,
    /// The election in which a replica here asked for votes last.
    campaign: Option<(GroupId, Term)>,
    /// Who waits for a quorum, by ticket.
    confirming: HashMap<u64, oneshot::Sender<Result<LogIndex, ReadError>>>,
    confirmed: u64,
    /// Answers of this turn. They leave when it is done: the log has its next batch by then, and who is told of a new
    /// topic finds its partitions open.
    replies: Vec<(Ticket, Reply)>,
    /// Memory of what peers said this turn: the log has counted it when the turn is done.
    held: Vec<Held>,
    /// Told once why the process must end.
    failed: Option<oneshot::Sender<String>>,
}

impl<J> ThreadPorts<J> {
    fn confirm(&mut self, group: GroupId, answer: oneshot::Sender<Result<LogIndex, ReadError>>) -> Event {
        self.confirmed += 1;
        self.confirming.insert(self.confirmed, answer);
        Event::Peer(PeerInput::Read { ticket: self.confirmed, group })
    }

    fn hold(&mut self, input: PeerInput, memory: Option<Held>) -> Event {
        self.held.extend(memory);
        Event::Peer(input)
    }

    fn fail(&mut self, why: String) {
        // The receiver is gone only when the process is ending already.
        self.failed.take().map(|failed| failed.send(why));
    }

    /// Tells readers which brokers are not heard of.
    fn tell_silent(&self, driver: &Driver) {
        if driver.shard().has_peers() {
            let image = self.views.image();
            let brokers = image.brokers.keys().copied();
            self.views.set_silent(brokers.filter(|node| !driver.shard().is_alive(*node)).collect());
        }
    }

    /// The turn is done.
    fn answer(&mut self) {
        self.held.clear();
        let now = self.clock.monotonic();
        for (ticket, reply) in self.replies.drain(..) {
            if let Some((answer, asked)) = self.waiting.remove(&ticket) {
                if matches!(reply, Reply::Produced { .. } | Reply::Metadata(_)) {
                    self.metrics.handles.raft_commit_latency.observe(now.since(asked).as_secs_f64());
                }
                // A client that went away does not want its answer.
                drop(answer.send(reply));
            }
        }
    }
}

impl<J: StartJob> Ports for ThreadPorts<J> {
    fn write(&mut self, writes: Writes) {
        let (mailbox, metrics, clock) =
            (self.mailbox.clone(), Arc::clone(&self.metrics), Arc::clone(&self.clock));
        let bytes: u64 = writes.records.iter().map(varve_wal::GroupRecord::bytes).sum();
        metrics.handles.wal_appended.inc_by(bytes);
        metrics.handles.wal_batch_bytes.observe(bytes as f64);
        metrics.handles.raft_entries.inc_by(writes.records.iter().map(entries).sum());
        let (acks, began) = (writes.acks, clock.monotonic());
        self.wal.submit(
            writes.records,
            Box::new(move |written| {
                metrics.handles.wal_commit_latency.observe(clock.monotonic().since(began).as_secs_f64());
                mailbox.send(match written {
                    Ok(()) => Mail::Written(acks),
                    Err(failure) => Mail::WriteFailed(failure.to_string()),
                });
            }),
        );
    }

    fn start(&mut self, job: Job) {
        self.jobs.start(job);
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }

    fn tail(&mut self, group: GroupId, base: Offset, end: Offset, batch: Bytes) {
        self.tail.push(group, base, end, batch);
    }

    fn publish(&mut self, group: GroupId, view: Arc<PartitionView>) {
        self.views.publish(group, view);
    }

    fn metadata(&mut self, image: Arc<Image>) {
        self.views.set_image(&image);
    }

    fn stopped(&mut self, group: GroupId, why: &str) {
        self.views.set_damaged(group, why);
        let name = self.views.name(group);
        tracing::error!(%group, name, why, "group stopped; the others go on");
        if group == GroupId::METADATA && self.outbox.is_some() {
            // Without its metadata a node would serve what the others have changed long ago; alone, it is all there is.
            self.fail(format!("the metadata's replica stopped: {why}"));
        }
    }

    fn offline(&mut self, group: GroupId, why: &str, left: Option<Arc<PartitionView>>) {
        // First of all: nobody takes what is left for the whole.
        self.stopped(group, why);
        if let Some(left) = left {
            self.views.publish(group, left);
        }
    }

    fn gone(&mut self, group: GroupId) {
        self.views.remove(group);
        self.tail.remove(group);
    }

    fn sweep(&mut self, group: GroupId) {
        self.jobs.sweep(group);
    }

    fn propose(&mut self, command: MetadataCommand) {
        // What finds no room is said again, as what was lost on its way is. Nobody listens only when the process is ending.
        let _ = self.proposals.try_send(command);
    }

    fn send(&mut self, to: NodeId, frame: Outgoing) {
        if let Some(outbox) = &self.outbox {
            self.campaign = count(&self.metrics.handles, &frame, self.campaign);
            outbox.send(to, frame);
        }
    }

    fn fetch(&mut self, group: GroupId, fetch: Fetch) {
        self.jobs.fetch(group, fetch);
    }

    fn leaders(&mut self, reports: Vec<LeaderReport>) {
        let elected = self.views.learn(&reports);
        self.metrics.handles.raft_leader_changes.inc_by(elected.len() as u64);
        let own = elected.iter().filter(|node| **node == self.node).count();
        self.metrics.handles.raft_elected.inc_by(own as u64);
    }

    fn read_done(&mut self, ticket: u64, outcome: Result<LogIndex, ReadError>) {
        if let Some(answer) = self.confirming.remove(&ticket) {
            // Whoever asked may have gone.
            let _ = answer.send(outcome);
        }
    }
}
