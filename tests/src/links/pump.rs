//! One direction of one connection: read, wait, write.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::watch,
    time::sleep_until,
};

use super::{
    Shared, Sky, Way, Weather,
    stream::{Done, Piece, Stream},
};
use crate::chance::Chance;

const READ_BYTES: usize = 16 << 10;
/// What is on its way at once, about, before no more is read: the sender's socket fills then, as with any slow line.
const BYTES_MAX: usize = 256 << 10;

/// See the module.
pub struct Pump {
    shared: Arc<Shared>,
    sky: watch::Receiver<Sky>,
    way: Way,
    stream: Stream,
    /// On its way: due, number, bytes.
    queue: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    bytes: usize,
    /// The sender has ended it.
    has_ended: bool,
}

impl Pump {
    pub fn new(shared: &Arc<Shared>, way: Way, chance: Chance) -> Self {
        Self {
            shared: Arc::clone(shared),
            sky: shared.sky.subscribe(),
            way,
            stream: Stream::new(chance, Instant::now()),
            queue: BinaryHeap::new(),
            bytes: 0,
            has_ended: false,
        }
    }

    /// Carries bytes until the sender ends, and then its end. Where the receiver is gone the rest goes nowhere, and the other direction tells.
    pub async fn run(mut self, mut input: OwnedReadHalf, mut output: OwnedWriteHalf) {
        let mut buffer = vec![0; READ_BYTES];
        let mut is_heard = true;
        while !(self.has_ended && self.queue.is_empty()) {
            let weather = self.sky.borrow_and_update().of(self.way);
            let is_cut = weather.is_cut;
            let due = self.queue.peek().map(|Reverse((due, ..))| *due);
            // When it is fine again nothing waits for the line that was.
            let due = due.map(|due| if weather == Weather::FINE { Instant::now() } else { due });
            let can_read = !self.has_ended && !is_cut && self.bytes < BYTES_MAX;
            tokio::select! {
                // Lives as long as `shared`.
                _ = self.sky.changed() => {}
                read = input.read(&mut buffer), if can_read => self.take(read, &buffer),
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() && !is_cut => {
                    let Some(Reverse((_, _, bytes))) = self.queue.pop() else { continue };
                    self.bytes -= bytes.len();
                    is_heard = is_heard && output.write_all(&bytes).await.is_ok();
                    self.shared.counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
            }
        }
        // Its end, too, comes when the weather lets it.
        let way = self.way;
        let _ = self.sky.wait_for(|sky| !sky.of(way).is_cut).await;
        let _ = output.shutdown().await;
    }

    fn take(&mut self, read: io::Result<usize>, buffer: &[u8]) {
        let Ok(count @ 1..) = read else {
            self.has_ended = true;
            return;
        };
        let weather = self.sky.borrow().of(self.way);
        let before = self.stream.done;
        for Piece { due, number, bytes } in self.stream.take(&buffer[..count], &weather, Instant::now()) {
            self.bytes += bytes.len();
            self.queue.push(Reverse((due, number, bytes)));
        }
        self.count(before);
    }

    fn count(&self, before: Done) {
        let (counts, done) = (&self.shared.counts, self.stream.done);
        for (counter, more) in [
            (&counts.corrupted, done.corrupted - before.corrupted),
            (&counts.swapped, done.swapped - before.swapped),
            (&counts.repeated, done.repeated - before.repeated),
            (&counts.lost, done.lost - before.lost),
        ] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }
}
