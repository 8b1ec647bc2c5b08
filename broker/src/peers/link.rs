//! The connection that carries this node's messages to one peer: dialled, kept, made anew.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use varve_common::NodeId;

use super::{
    Shared,
    dial::{DialError, Dialled, dial},
    frame::{FrameError, Kind, put},
    handshake::Purpose,
    limits::{Limits, WRITE_BYTES},
    outgoing::Outgoing,
    queue::Queue,
    status::{LinkState, LinkStatus, Traffic},
    talk::{Heard, Input, Output, write},
};

/// The way to one peer, and what is known of the way back.
pub struct Link {
    node: NodeId,
    /// What waits to go there.
    pub queue: Queue,
    /// What went and came.
    pub traffic: Traffic,
    /// Something changed: dial without waiting longer.
    pub wake: Notify,
    /// Ends the link.
    pub gone: CancellationToken,
    state: Mutex<State>,
}

struct State {
    address: Option<String>,
    /// Where the last connection led; `None` once it was told that nobody listens there.
    reached: Option<String>,
    link: LinkState,
    /// Ends the peer's own connection, when a newer one comes.
    inbound: CancellationToken,
}

impl Link {
    /// A link that nobody runs yet.
    pub fn new(node: NodeId, limits: &Limits) -> Self {
        let state = State {
            address: None,
            reached: None,
            link: LinkState::Unknown,
            inbound: CancellationToken::new(),
        };
        Self {
            node,
            queue: Queue::new(limits),
            traffic: Traffic::default(),
            wake: Notify::new(),
            gone: CancellationToken::new(),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of the peer's own is here; the one before it ends. The peer can be reached, as it seems: it is dialled at once.
    pub fn replace_inbound(&self) -> CancellationToken {
        let token = CancellationToken::new();
        std::mem::replace(&mut self.state().inbound, token.clone()).cancel();
        self.wake.notify_one();
        token
    }

    /// What it shows of itself.
    pub fn status(&self) -> LinkStatus {
        let (queued_frames, queued_bytes, dropped_frames) = self.queue.usage();
        let (state, traffic) = (self.state(), &self.traffic);
        LinkStatus {
            node: self.node,
            address: state.address.clone(),
            state: state.link.clone(),
            inbound: traffic.inbound.load(Ordering::Relaxed) > 0,
            queued_frames,
            queued_bytes,
            sent_frames: traffic.sent_frames.load(Ordering::Relaxed),
            sent_bytes: traffic.sent_bytes.load(Ordering::Relaxed),
            received_frames: traffic.received_frames.load(Ordering::Relaxed),
            received_bytes: traffic.received_bytes.load(Ordering::Relaxed),
            dropped_frames,
            connects: traffic.connects.load(Ordering::Relaxed),
        }
    }

    /// Keeps the link until it is no longer wanted.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        tokio::select! {
            () = self.keep(&shared) => {}
            () = self.tell_overflows(&shared) => {}
            () = self.gone.cancelled() => {}
            () = shared.stopping.cancelled() => {}
        }
        self.queue.close();
    }

    async fn tell_overflows(&self, shared: &Shared) {
        loop {
            self.queue.overflowed().await;
            shared.handler.unreachable(self.node);
        }
    }

    async fn keep(&self, shared: &Shared) {
        let mut pause = shared.limits.pause_min;
        for round in 0.. {
            let address = self.route(shared, round).await;
            let began = shared.clock.monotonic();
            let why = self.attempt(shared, &address).await;
            if shared.clock.monotonic().since(began) > shared.limits.pause_max + shared.limits.dial_max {
                pause = shared.limits.pause_min;
            }
            if self.queue.close() {
                tracing::warn!(node = %self.node, address, why, "peer cannot be reached");
                shared.handler.unreachable(self.node);
            }
            self.state().link = LinkState::Down { why };
            self.rest(shared, pause).await;
            pause = (2 * pause).min(shared.limits.pause_max);
        }
    }

    /// The next address to try, when this node is in a cluster and one is known.
    async fn route(&self, shared: &Shared, round: usize) -> String {
        loop {
            let candidates = if shared.speaks() { shared.routes.candidates(self.node) } else { vec![] };
            if !candidates.is_empty() {
                return candidates[round % candidates.len()].clone();
            }
            self.state().link = LinkState::Unknown;
            if self.queue.suspend() {
                shared.handler.unreachable(self.node);
            }
            self.wake.notified().await;
        }
    }

    /// Waits between two dials: half of `pause` and some of the other half, but not longer than until something changes.
    async fn rest(&self, shared: &Shared, pause: Duration) {
        let half = pause / 2;
        let jitter = half.mul_f64((shared.entropy.next_u64() >> 11) as f64 / (1_u64 << 53) as f64);
        shared.clock.sleep(shared.limits.pause_min.min(half)).await;
        tokio::select! {
            () = shared.clock.sleep(half + jitter) => {}
            () = self.wake.notified() => {}
        }
    }

    /// One connection, from the dial to its end; says why it ended.
    async fn attempt(&self, shared: &Shared, address: &str) -> String {
        self.queue.open();
        {
            let mut state = self.state();
            state.address = Some(address.to_owned());
            state.link = LinkState::Dialling;
        }
        match dial(shared, address, Some(self.node), Purpose::Messages).await {
            Ok(dialled) => {
                let process = dialled.welcome.process;
                {
                    let mut state = self.state();
                    state.link = LinkState::Up { process };
                    state.reached = Some(address.to_owned());
                }
                self.queue.connected();
                self.traffic.connects.fetch_add(1, Ordering::Relaxed);
                tracing::info!(node = %self.node, address, process, "connected to peer");
                self.drive(shared, dialled).await
            }
            Err(error) => {
                match error {
                    DialError::OtherNode(_) => shared.recheck(address),
                    DialError::Connect(io::ErrorKind::ConnectionRefused) => self.tell_gone(shared, address),
                    _ => {}
                }
                error.to_string()
            }
        }
    }

    fn tell_gone(&self, shared: &Shared, address: &str) {
        if self.state().reached.take_if(|reached| reached == address).is_some() {
            shared.handler.gone(self.node);
        }
    }

    async fn drive(&self, shared: &Shared, dialled: Dialled) -> String {
        let Dialled { mut input, mut output, .. } = dialled;
        let heard = Heard::new(Arc::clone(&shared.clock));
        tokio::select! {
            error = self.write(shared, &mut output) => error.to_string(),
            error = listen(&mut input, &heard) => error.to_string(),
            () = heard.silence(shared.limits.silent_max) => "no sign of life".to_owned(),
        }
    }

    /// Sends what waits, and that it lives when nothing does.
    async fn write(&self, shared: &Shared, output: &mut Output) -> FrameError {
        let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
        loop {
            self.queue.take(WRITE_BYTES, &mut batch);
            let mut frames = 0;
            for frame in batch.drain(..) {
                frames += usize::from(encode(shared, &frame, &mut buffer));
            }
            if buffer.is_empty() {
                tokio::select! {
                    () = self.queue.filled() => continue,
                    () = shared.clock.sleep(shared.limits.ping_every) => {}
                }
                put(&mut buffer, Kind::Ping, |_| ()).expect("nothing is not too much");
            }
            let bytes = buffer.len();
            if let Err(error) = write(output, &mut buffer).await {
                return error;
            }
            self.traffic.sent(frames, bytes);
        }
    }
}

/// Reads signs of life until there are none.
async fn listen(input: &mut Input, heard: &Heard) -> FrameError {
    loop {
        match input.frames.next(&mut input.half, &[Kind::Alive]).await {
            Ok(_) => heard.mark(),
            Err(error) => return error,
        };
    }
}

/// Writes a frame behind the others; whether it is within the bounds that its receiver holds it to.
fn encode(shared: &Shared, frame: &Outgoing, buffer: &mut BytesMut) -> bool {
    let done = match frame {
        Outgoing::Message(envelope) => put(buffer, Kind::Message, |buffer| envelope.encode_into(buffer)),
        Outgoing::Pulse(pulse) => put(buffer, Kind::Pulse, |buffer| buffer.put_slice(&pulse.encode())),
    };
    if done.is_err() {
        shared.refusals.count("own frame too large");
        shared.quiet.complain("own frame too large", None);
    }
    done.is_ok()
}
