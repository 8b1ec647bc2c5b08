//! The shard's mailbox: everything that reaches the shard's thread comes through here.
//!
//! It needs no bound of its own. Requests are bounded by the connections' byte budget, write answers by what was
//! written, job outcomes by the planner, which runs few jobs a group.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
};
use std::time::Duration;

use tokio::sync::oneshot;
use varve_common::{GroupId, LogIndex};
use varve_compactor::Pressure;
use varve_consensus::ReadError;
use varve_replica::{Figures, Input, JobOutcome, PeerInput, Reply, Ticket};

use super::inbound::Held;
use crate::{
    controller::progress::Progress,
    driver::{Ack, Driver, Event},
};

/// Inputs that one turn takes in at the most, so that replies of early ones do not wait for late ones.
const TURN_INPUTS_MAX: usize = 1_024;

/// A look at the core between two turns.
pub type Look = Box<dyn FnOnce(&Driver) + Send>;

/// One letter.
pub enum Mail {
    /// A client's request and where its answer goes.
    Request {
        /// Its ticket, also inside `input`.
        ticket: Ticket,
        /// What is asked.
        input: Box<Input>,
        /// Who waits.
        answer: oneshot::Sender<Reply>,
    },
    /// An input that nobody waits for.
    Input(Box<Input>),
    /// An event of any kind that nobody waits for.
    Event(Box<Event>),
    /// Something from, or about, the other nodes.
    Peer(PeerInput, Option<Held>),
    /// Somebody wants to know that this node leads a group now, and which entry holds all that was acknowledged before.
    Confirm(GroupId, oneshot::Sender<Result<LogIndex, ReadError>>),
    /// A batch is fsynced.
    Written(Vec<Ack>),
    /// A batch could not be written: nothing will be.
    WriteFailed(String),
    /// A job ended.
    JobDone(GroupId, JobOutcome),
    /// How short of room the log is, and who must let go of it.
    Pressure(Pressure),
    /// Somebody wants to know something of the core, and is told at once.
    Look(Look),
    /// The node is about to stop: what can leave for the bucket does; the sender is told when nothing is left.
    Drain(oneshot::Sender<()>),
    /// The node stops: the thread ends when what it was told before is done.
    Stop,
}

/// The sending side.
#[derive(Clone)]
pub struct Mailbox {
    sender: Sender<Mail>,
    tickets: Arc<AtomicU64>,
}

/// The shard's thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

/// Makes a mailbox and its receiving side.
#[must_use]
pub fn mailbox() -> (Mailbox, Inbox) {
    let (sender, receiver) = channel();
    (Mailbox { sender, tickets: Arc::default() }, Inbox { receiver })
}

impl Mailbox {
    /// Sends a letter; false where nobody reads any more.
    pub fn send(&self, mail: Mail) -> bool {
        self.sender.send(mail).is_ok()
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&self, input: impl FnOnce(Ticket) -> Input) -> Result<Reply, Stopped> {
        self.ask(input).await.map_err(|_| Stopped)
    }

    /// Waits until a quorum says that this node leads a group, and until all that was acknowledged before is applied here.
    pub async fn confirm(&self, group: GroupId) -> Result<Result<LogIndex, ReadError>, Stopped> {
        let (answer, waiter) = oneshot::channel();
        self.send(Mail::Confirm(group, answer));
        waiter.await.map_err(|_| Stopped)
    }

    /// Looks at the core.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Driver) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, waiter) = oneshot::channel();
        // Whoever asked may have gone.
        self.send(Mail::Look(Box::new(move |driver| drop(answer.send(look(driver))))));
        waiter.await.map_err(|_| Stopped)
    }

    /// How far the replicas are of what this node leads of these groups. A node that stops leads nothing.
    pub async fn progress(&self, groups: Vec<GroupId>) -> Vec<Progress> {
        let led =
            move |driver: &Driver| groups.into_iter().filter_map(|group| driver.progress(group)).collect();
        self.look(led).await.unwrap_or_default()
    }

    /// What the groups come to together.
    pub async fn figures(&self) -> Result<Figures, Stopped> {
        self.look(|driver| driver.shard().figures()).await
    }

    /// Sends a request now; the answer comes through the receiver.
    pub fn ask(&self, input: impl FnOnce(Ticket) -> Input) -> oneshot::Receiver<Reply> {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let (answer, waiter) = oneshot::channel();
        // Where the thread is gone the letter is dropped, and with it `answer`: the waiter learns of it.
        self.send(Mail::Request { ticket, input: Box::new(input(ticket)), answer });
        waiter
    }
}

/// The receiving side.
pub struct Inbox {
    receiver: Receiver<Mail>,
}

impl Inbox {
    /// Waits for letters at most `patience` and takes what is there; an empty list when none came, `None` when
    /// nobody can send any more.
    pub fn take(&self, patience: Duration) -> Option<Vec<Mail>> {
        let first = match self.receiver.recv_timeout(patience) {
            Ok(mail) => mail,
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let mut letters = vec![first];
        while letters.len() < TURN_INPUTS_MAX {
            match self.receiver.try_recv() {
                Ok(mail) => letters.push(mail),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Some(letters)
    }
}
