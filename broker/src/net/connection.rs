//! One connection: frames in, answers out in order, until one of its ends closes.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Context, Limits, Observer, Pace, Service,
    budget::{Budget, Share},
    frame::{Frame, FrameError, FrameReader},
    limits::{WRITE_BYTES_MAX, WRITE_SLICES_MAX},
    running::Running,
};

/// What all connections of a server share.
pub struct Shared {
    pub service: Arc<dyn Service>,
    pub observer: Arc<dyn Observer>,
    pub limits: Limits,
    pub budget: Budget,
    /// Answer what is there, read nothing more.
    pub stopping: CancellationToken,
    /// End at once.
    pub killed: CancellationToken,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As connections do; not worth a line.
    Normal(&'static str),
    /// The other side is at fault: one rate-limited line.
    Foreign(&'static str),
}

/// The state of one connection.
pub struct Connection {
    shared: Arc<Shared>,
    context: Arc<Context>,
    input: OwnedReadHalf,
    output: OwnedWriteHalf,
    reader: FrameReader,
    /// Requests that run, in order.
    running: Running,
    /// A request that waits until those before it are answered.
    waiting: Option<Frame>,
    /// Whether the running request is one that runs alone.
    alone: bool,
    /// When the last request came or the last answer left.
    active: Instant,
    requests: u64,
}

/// What the connection does next.
enum Event {
    Frame(Result<Option<Frame>, FrameError>),
    Answer(Answer),
    Deadline,
    Stopping,
}

impl Connection {
    pub fn new(shared: Arc<Shared>, context: Arc<Context>, socket: TcpStream) -> Self {
        let (input, output) = socket.into_split();
        let reader = FrameReader::new(shared.limits.frame_bytes_max, shared.budget.clone());
        Self {
            shared,
            context,
            input,
            output,
            reader,
            running: Running::default(),
            waiting: None,
            alone: false,
            active: Instant::now(),
            requests: 0,
        }
    }

    /// Serves until the end.
    pub async fn run(mut self) -> End {
        loop {
            let event = self.event().await;
            self.shared.observer.received(self.reader.take_received());
            let end = match event {
                Event::Frame(frame) => self.on_frame(frame),
                Event::Answer(answer) => self.on_answer(answer).await,
                Event::Deadline => self.on_deadline(),
                Event::Stopping => return self.drain().await,
            };
            if let Err(end) = end {
                return end;
            }
        }
    }

    /// Waits for whatever comes first. Nothing is lost when one of the others is dropped.
    async fn event(&mut self) -> Event {
        let deadline = self.deadline();
        let readable = self.waiting.is_none() && self.running.has_place();
        let busy = !self.running.is_empty();
        tokio::select! {
            biased;
            Some(answer) = self.running.next(), if busy => Event::Answer(answer),
            () = self.shared.stopping.cancelled() => Event::Stopping,
            frame = self.reader.next(&mut self.input), if readable => Event::Frame(frame),
            () = sleep_until(deadline) => Event::Deadline,
        }
    }

    fn on_frame(&mut self, frame: Result<Option<Frame>, FrameError>) -> Result<(), End> {
        let frame = frame.map_err(|error| match error {
            FrameError::Ended => End::Normal("ended by client"),
            FrameError::Cut => End::Normal("ended by client within a frame"),
            FrameError::Broken => End::Normal("broken"),
            FrameError::Foreign(what) => End::Foreign(what),
        })?;
        let Some(frame) = frame else { return Ok(()) };
        self.requests += 1;
        self.active = Instant::now();
        self.waiting = Some(frame);
        self.start_waiting();
        Ok(())
    }

    /// Starts the request that waits, if those before it let it.
    fn start_waiting(&mut self) {
        let Some(frame) = self.waiting.take() else { return };
        let pace = self.shared.service.pace(&frame.bytes);
        let is_free = self.running.is_empty() || (pace == Pace::Pipelined && !self.alone);
        if !is_free || !self.running.has_room_for(&frame.bytes) {
            self.waiting = Some(frame);
            return;
        }
        self.alone = pace == Pace::Alone;
        let (bytes, share) = (frame.bytes.len(), frame.share);
        let answer = self.shared.service.call(&self.context, frame.bytes);
        self.running.push(bytes, async move {
            let answer = answer.await;
            drop(share);
            answer
        });
    }

    /// Writes an answer, and those that are ready behind it with the same call.
    async fn on_answer(&mut self, answer: Answer) -> Result<(), End> {
        let mut waiting = Waiting::default();
        waiting.push(answer)?;
        while waiting.bytes < WRITE_BYTES_MAX {
            match self.running.ready() {
                Some(answer) => waiting.push(answer)?,
                None => break,
            }
        }
        let bytes = waiting.bytes;
        waiting.write(&self.output, self.shared.limits.write_stall_max).await?;
        self.shared.observer.sent(bytes);
        self.active = Instant::now();
        self.reader.resume();
        self.start_waiting();
        Ok(())
    }

    /// The instant at which patience ends.
    fn deadline(&self) -> Instant {
        let limits = &self.shared.limits;
        let busy = !self.running.is_empty() || self.waiting.is_some();
        match self.reader.partial() {
            Some((began, bytes)) if !busy => {
                let earned = Duration::from_micros(bytes as u64 * 1_000_000 / limits.rate_bytes_min.max(1));
                let frame = began + limits.frame_max + earned;
                if self.requests == 0 {
                    frame.min(self.active + limits.first_request_max + earned)
                } else {
                    frame
                }
            }
            None if self.requests == 0 => self.active + limits.first_request_max,
            _ => self.active + limits.idle_max,
        }
    }

    fn on_deadline(&mut self) -> Result<(), End> {
        if !self.running.is_empty() {
            self.active = Instant::now();
            return Ok(());
        }
        match self.reader.partial() {
            Some(_) => Err(End::Foreign("frame did not arrive in time")),
            None if self.requests == 0 => Err(End::Foreign("no request in time")),
            None => Err(End::Normal("idle")),
        }
    }

    /// Answers what runs and what was read whole, reads nothing more.
    async fn drain(mut self) -> End {
        let drain_max = self.shared.limits.drain_max;
        let all = async {
            while let Some(answer) = self.running.next().await {
                if self.on_answer(answer).await.is_err() {
                    return;
                }
            }
            let _ = self.output.shutdown().await;
        };
        match timeout(drain_max, all).await {
            Ok(()) => End::Normal("shutdown"),
            Err(_) => End::Normal("shutdown before all was answered"),
        }
    }
}

/// Answers on their way out.
#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Their memory counts until all of them have left.
    shares: Vec<Share>,
}

impl Waiting {
    fn push(&mut self, answer: Answer) -> Result<(), End> {
        let pieces = match answer {
            Answer::Respond(pieces) => pieces,
            Answer::Hold(pieces, share) => {
                self.shares.push(share);
                pieces
            }
            Answer::Nothing => return Ok(()),
            Answer::Close(why) => return Err(End::Foreign(why)),
        };
        self.bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        self.pieces.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        Ok(())
    }

    /// Writes everything from where it lies; a client that takes nothing for `stall_max` is given up. Between the pieces of a
    /// large answer the thread's other connections have their turn: a reader that keeps up never makes the kernel say "wait".
    async fn write(mut self, output: &OwnedWriteHalf, stall_max: Duration) -> Result<(), End> {
        let mut in_a_row = 0;
        while !self.pieces.is_empty() {
            match self.write_some(output) {
                Ok(0) => return Err(End::Normal("broken")),
                Ok(written) => {
                    self.consume(written);
                    in_a_row += written;
                    if in_a_row >= WRITE_BYTES_MAX {
                        in_a_row = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match timeout(stall_max, output.writable()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(End::Normal("broken")),
                        Err(_) => return Err(End::Foreign("answers are not read")),
                    }
                }
                Err(_) => return Err(End::Normal("broken")),
            }
        }
        Ok(())
    }

    /// One call to the kernel; its list of pieces is not kept while the connection waits.
    fn write_some(&self, output: &OwnedWriteHalf) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let (mut count, mut room) = (0, WRITE_BYTES_MAX);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(&piece[..piece.len().min(room)]);
            (count, room) = (count + 1, room - slice.len());
            if room == 0 {
                break;
            }
        }
        output.try_write_vectored(&slices[..count])
    }

    fn consume(&mut self, mut written: usize) {
        while let Some(first) = self.pieces.front_mut() {
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_large_answer_lets_others_have_their_turn_and_arrives_as_it_was() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_, output) = listener.accept().await.unwrap().0.into_split();
        let bytes: Bytes = (0..3 * WRITE_BYTES_MAX + 7).map(|at| (at / 5) as u8).collect();
        let mut waiting = Waiting::default();
        // Small pieces, and one that no call takes whole.
        let small = (0..999).map(|at| bytes.slice(at * 9..at * 9 + 9)).chain([bytes.slice(999 * 9..)]);
        assert!(waiting.push(Answer::Respond(small.collect())).is_ok());
        let (done, turns) = (Cell::new(false), Cell::new(0));
        let write = async {
            assert!(waiting.write(&output, Duration::from_secs(60)).await.is_ok());
            done.set(true);
        };
        let read = async {
            let mut all = vec![0; bytes.len()];
            client.read_exact(&mut all).await.unwrap();
            assert!(all == bytes, "other bytes arrived");
        };
        let others = async {
            while !done.get() {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(write, read, others);
        assert!(turns.get() >= 3, "{} turns", turns.get());
    }
}
