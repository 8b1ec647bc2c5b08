//! Calls to one other node: a question, a reply, a deadline. They share one connection, which is made when it is needed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::{Notify, oneshot};
use varve_common::{
    NodeId,
    codec::{DecodeError, Decoder},
};

use super::{
    Shared,
    dial::{DialError, Dialled, dial},
    frame::{CALL_HEAD_BYTES, FrameError, Kind, put},
    handshake::Purpose,
    limits::{CALL_BYTES_MAX, CALLS_BYTES_MAX, CALLS_MAX, WRITE_BYTES},
    talk::{Heard, Input, Output, within, write},
};

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// This node is in no cluster yet. The other was not asked.
    #[error("this node is in no cluster yet")]
    NotFormed,
    /// Nobody has said where that node is. It was not asked.
    #[error("nobody knows where node {0} is")]
    Unknown(NodeId),
    /// Too many calls wait for that node. It was not asked.
    #[error("too many calls wait for node {0}")]
    Busy(NodeId),
    /// The question is larger than a frame may be. The other was not asked.
    #[error("a call of {0} bytes is too large")]
    TooLarge(usize),
    /// It could not be reached. It was not asked.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke, or the other gave no reply that fits: what was asked for may have been done.
    #[error("no reply: {0}")]
    Lost(String),
    /// It took too long: what was asked for may have been done.
    #[error("no reply in time")]
    Late,
}

impl CallError {
    /// Whether the other node may have done what it was asked for.
    #[must_use]
    pub const fn may_be_done(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Late)
    }
}

impl From<DialError> for CallError {
    fn from(error: DialError) -> Self {
        if error == DialError::NotFormed { Self::NotFormed } else { Self::Unreachable(error.to_string()) }
    }
}

/// How a call ended at the node that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// With a reply.
    Done = 0,
    /// With a reply that fits no frame.
    TooLarge = 1,
    /// Too late for whoever asked.
    Late = 2,
}

/// What stands before the body of a call and of a reply: `id u64 | number u32 | length u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHead {
    /// Which call of the connection.
    pub id: u64,
    /// A call's patience in ms; a reply's [`Outcome`].
    pub number: u32,
}

impl CallHead {
    /// The head and the body.
    pub fn encode(self, body: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(CALL_HEAD_BYTES + body.len());
        self.put(body, &mut buffer);
        buffer
    }

    fn put(self, body: &[u8], buffer: &mut BytesMut) {
        buffer.put_u64_le(self.id);
        buffer.put_u32_le(self.number);
        buffer.put_u32_le(u32::try_from(body.len()).expect("a call's body is far below 4 GiB"));
        buffer.put_slice(body);
    }

    /// Reads both.
    pub fn decode(frame: Bytes) -> Result<(Self, Bytes), DecodeError> {
        let mut decoder = Decoder::new(frame);
        let head = Self { id: decoder.u64()?, number: decoder.u32()? };
        let body = decoder.bytes()?;
        decoder.finish()?;
        Ok((head, body))
    }
}

type Waiter = oneshot::Sender<Result<Bytes, CallError>>;

/// Calls to one node.
pub struct Caller {
    purpose: Purpose,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Not sent yet, in order.
    waiting: VecDeque<(CallHead, Bytes)>,
    /// Who waits for which reply, and how many bytes were asked.
    waiters: BTreeMap<u64, (usize, Waiter)>,
    bytes: usize,
    /// Whether a task makes or keeps the connection.
    kept: bool,
}

/// Takes a call back whose caller waits no longer.
struct Taken<'a>(&'a Caller, u64);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.take_back(self.1);
    }
}

impl Caller {
    /// Calls of one kind.
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose, state: Mutex::default(), filled: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the reply for `patience` at the most.
    pub async fn call(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        to: NodeId,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, CallError> {
        if body.len() > CALL_BYTES_MAX {
            return Err(CallError::TooLarge(body.len()));
        }
        let (id, reply) = self.put(shared, to, body, patience)?;
        let taken = Taken(self, id);
        match within(&*shared.clock, patience, reply).await {
            Some(Ok(reply)) => reply,
            Some(Err(_)) => Err(CallError::Lost("the node stops".to_owned())),
            None if taken.0.take_back(id) => {
                Err(CallError::Unreachable("it could not be asked in time".to_owned()))
            }
            None => Err(CallError::Late),
        }
    }

    fn put(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        to: NodeId,
        body: Bytes,
        patience: Duration,
    ) -> Result<(u64, oneshot::Receiver<Result<Bytes, CallError>>), CallError> {
        let (waiter, reply) = oneshot::channel();
        let mut state = self.state();
        if state.waiters.len() >= CALLS_MAX || state.bytes + body.len() > CALLS_BYTES_MAX {
            return Err(CallError::Busy(to));
        }
        let id = state.next;
        state.next += 1;
        state.bytes += body.len();
        state.waiters.insert(id, (body.len(), waiter));
        let number = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        state.waiting.push_back((CallHead { id, number }, body));
        if !std::mem::replace(&mut state.kept, true) {
            shared.spawn(Arc::clone(self).keep(Arc::clone(shared), to));
        }
        drop(state);
        self.filled.notify_one();
        Ok((id, reply))
    }

    /// Nobody waits for it any more; whether it was not sent yet, and will not be.
    fn take_back(&self, id: u64) -> bool {
        let mut state = self.state();
        if let Some((bytes, _)) = state.waiters.remove(&id) {
            state.bytes -= bytes;
        }
        let before = state.waiting.len();
        state.waiting.retain(|(head, _)| head.id != id);
        state.waiting.len() < before
    }

    async fn keep(self: Arc<Self>, shared: Arc<Shared>, to: NodeId) {
        loop {
            let (error, stops) = tokio::select! {
                error = self.connect(&shared, to) => (error, false),
                () = shared.stopping.cancelled() => (CallError::Lost("the node stops".to_owned()), true),
            };
            if self.fail(&error, stops) {
                return;
            }
        }
    }

    /// The connection is gone, or there was none, and `error` says why. What was sent may have been done; what was not waits for
    /// another connection, unless there was none or will be none. Whether nobody waits and the task ends.
    fn fail(&self, error: &CallError, stops: bool) -> bool {
        let mut state = self.state();
        let was_connected = matches!(error, CallError::Lost(_));
        let unsent: BTreeSet<u64> = state.waiting.iter().map(|(head, _)| head.id).collect();
        if stops || !was_connected {
            state.waiting.clear();
        }
        let (goes_on, mut held) = (!state.waiting.is_empty(), 0);
        for (id, (bytes, waiter)) in state.waiters.extract_if(.., |id, _| !(goes_on && unsent.contains(id))) {
            held += bytes;
            let error = match error {
                CallError::Lost(why) if unsent.contains(&id) => CallError::Unreachable(why.clone()),
                error => error.clone(),
            };
            // Nobody there: it was just taken back.
            let _ = waiter.send(Err(error));
        }
        state.bytes -= held;
        state.kept = goes_on;
        !goes_on
    }

    /// Makes the connection and uses it until it breaks or nobody needs it.
    async fn connect(&self, shared: &Shared, to: NodeId) -> CallError {
        let mut last = CallError::Unknown(to);
        for address in shared.routes.candidates(to) {
            match dial(shared, &address, Some(to), self.purpose).await {
                Ok(dialled) => return CallError::Lost(self.talk(shared, dialled).await),
                Err(error) => last = error.into(),
            }
        }
        last
    }

    async fn talk(&self, shared: &Shared, dialled: Dialled) -> String {
        let Dialled { mut input, mut output, .. } = dialled;
        let heard = Heard::new(Arc::clone(&shared.clock));
        tokio::select! {
            why = self.send(shared, &mut output) => why.map_or("idle".to_owned(), |error| error.to_string()),
            error = self.receive(&mut input, &heard) => error.to_string(),
            () = heard.silence(shared.limits.silent_max) => "no sign of life".to_owned(),
        }
    }

    /// Sends calls, and that it lives when there are none; ends where it broke, or `None` where nobody called for long.
    async fn send(&self, shared: &Shared, output: &mut Output) -> Option<FrameError> {
        let (mut buffer, mut used) = (BytesMut::new(), shared.clock.monotonic());
        loop {
            if self.take(&mut buffer) > 0 {
                used = shared.clock.monotonic();
            } else {
                tokio::select! {
                    () = self.filled.notified() => continue,
                    () = shared.clock.sleep(shared.limits.ping_every) => {}
                }
                let idle = shared.clock.monotonic().since(used) > shared.limits.call_idle_max;
                if idle && self.state().waiters.is_empty() {
                    return None;
                }
                put(&mut buffer, Kind::Ping, |_| ()).expect("nothing is not too much");
            }
            if let Err(error) = write(output, &mut buffer).await {
                return Some(error);
            }
        }
    }

    /// Writes calls that wait into `buffer`; how many.
    fn take(&self, buffer: &mut BytesMut) -> usize {
        let (mut state, mut taken) = (self.state(), 0);
        while buffer.len() < WRITE_BYTES
            && let Some((head, body)) = state.waiting.pop_front()
        {
            put(buffer, Kind::Call, |buffer| head.put(&body, buffer))
                .expect("held to its bound when it was made");
            taken += 1;
        }
        taken
    }

    async fn receive(&self, input: &mut Input, heard: &Heard) -> FrameError {
        loop {
            let frame = match input.frames.next(&mut input.half, &[Kind::Reply, Kind::Alive]).await {
                Ok(frame) => frame,
                Err(error) => return error,
            };
            heard.mark();
            if let Some(frame) = frame
                && frame.kind == Kind::Reply
                && let Err(error) = self.on_reply(frame.body)
            {
                return FrameError::malformed(Kind::Reply)(error);
            }
        }
    }

    fn on_reply(&self, frame: Bytes) -> Result<(), DecodeError> {
        let (head, body) = CallHead::decode(frame)?;
        let mut state = self.state();
        let Some((bytes, waiter)) = state.waiters.remove(&head.id) else { return Ok(()) };
        state.bytes -= bytes;
        drop(state);
        let reply = match head.number {
            done if done == Outcome::Done as u32 => Ok(body),
            late if late == Outcome::Late as u32 => Err(CallError::Late),
            _ => Err(CallError::Lost("the reply is too large".to_owned())),
        };
        // Whoever asked may have given up in this moment.
        let _ = waiter.send(reply);
        Ok(())
    }
}

#[cfg(test)]
impl Caller {
    /// How many calls wait for a reply, and the bytes of their questions.
    pub fn held(&self) -> (usize, usize) {
        let state = self.state();
        (state.waiters.len(), state.bytes)
    }

    /// Whether there is a connection, or one is being made.
    pub fn is_kept(&self) -> bool {
        self.state().kept
    }
}
