//! Cuts what passes into pieces, and says when each is due.
//!
//! Nodes speak in frames, `length u24 (little-endian, of the body) | check | version | five more bytes | body`. A piece is what was read of one frame, or, where
//! the weather does something to whole frames, all of it. What does not look like frames (TLS) passes as it is.

use std::time::{Duration, Instant};

use super::weather::Weather;
use crate::chance::Chance;

const HEADER_BYTES: usize = 10;
/// The fifth byte of a frame.
const FRAME_VERSION: u8 = 2;
/// How much later a frame comes that others overtake.
const OVERTAKEN_MS: u64 = 40;

/// Something to deliver.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// When.
    pub due: Instant,
    /// Pieces that are due at once go in this order.
    pub number: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// What was done to frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub corrupted: u64,
    pub swapped: u64,
    pub repeated: u64,
    pub lost: u64,
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Stream {
    chance: Chance,
    /// Read, and not a piece yet: the beginning of a header, or of a frame that must be whole.
    held: Vec<u8>,
    /// Bytes of the current frame that are still to come and pass as they come.
    passing: usize,
    /// No frames here.
    is_opaque: bool,
    line_free: Instant,
    last_due: Instant,
    number: u64,
    pub done: Done,
}

impl Stream {
    /// A new connection's.
    pub fn new(chance: Chance, now: Instant) -> Self {
        Self {
            chance,
            held: Vec::new(),
            passing: 0,
            is_opaque: false,
            line_free: now,
            last_due: now,
            number: 0,
            done: Done::default(),
        }
    }

    /// What was read, as pieces.
    pub fn take(&mut self, mut bytes: &[u8], weather: &Weather, now: Instant) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            if self.is_opaque {
                pieces.push(self.piece(bytes.to_vec(), weather, now));
                break;
            }
            if self.passing > 0 {
                let (passed, rest) = bytes.split_at(self.passing.min(bytes.len()));
                self.passing -= passed.len();
                pieces.push(self.piece(passed.to_vec(), weather, now));
                bytes = rest;
                continue;
            }
            bytes = self.begin(bytes, weather, now, &mut pieces);
        }
        pieces
    }

    /// The beginning of a frame: held until its length is known, and, where something happens to whole frames, until it is whole.
    fn begin<'a>(
        &mut self,
        bytes: &'a [u8],
        weather: &Weather,
        now: Instant,
        pieces: &mut Vec<Piece>,
    ) -> &'a [u8] {
        let (head, rest) = bytes.split_at(HEADER_BYTES.saturating_sub(self.held.len()).min(bytes.len()));
        self.held.extend(head);
        if self.held.len() < HEADER_BYTES {
            return rest;
        }
        let length = u32::from_le_bytes([self.held[0], self.held[1], self.held[2], 0]) as usize;
        if self.held[4] != FRAME_VERSION {
            self.is_opaque = true;
            let held = std::mem::take(&mut self.held);
            pieces.push(self.piece(held, weather, now));
            return rest;
        }
        let whole = HEADER_BYTES + length;
        let by_frames = weather.corrupt_permille + weather.swap_permille + weather.repeat_permille > 0;
        let (body, rest) = rest.split_at((whole - self.held.len()).min(rest.len()));
        self.held.extend(body);
        if self.held.len() == whole {
            let frame = std::mem::take(&mut self.held);
            self.frame(frame, weather, now, pieces);
        } else if !by_frames {
            self.passing = whole - self.held.len();
            let held = std::mem::take(&mut self.held);
            pieces.push(self.piece(held, weather, now));
        }
        rest
    }

    /// A whole frame, to which something may happen.
    fn frame(&mut self, mut frame: Vec<u8>, weather: &Weather, now: Instant, pieces: &mut Vec<Piece>) {
        if self.chance.below(1000) < weather.corrupt_permille {
            let at = self.chance.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << self.chance.below(8);
            self.done.corrupted += 1;
        }
        if self.chance.below(1000) < weather.repeat_permille {
            self.done.repeated += 1;
            pieces.push(self.piece(frame.clone(), weather, now));
        }
        let before = self.last_due;
        let mut piece = self.piece(frame, weather, now);
        if self.chance.below(1000) < weather.swap_permille {
            self.done.swapped += 1;
            self.last_due = before;
            piece.due += Duration::from_millis(1 + self.chance.below(OVERTAKEN_MS));
        }
        pieces.push(piece);
    }

    fn piece(&mut self, bytes: Vec<u8>, weather: &Weather, now: Instant) -> Piece {
        let mut times = 0;
        while times < 8 && self.chance.hits(weather.loss_percent) {
            times += 1;
        }
        self.done.lost += u64::from(times > 0);
        let jitter = self.chance.below(weather.jitter_ms + 1);
        self.line_free = self.line_free.max(now);
        if let Some(width) = weather.bytes_per_second {
            self.line_free += Duration::from_secs_f64(bytes.len() as f64 / width as f64);
        }
        let way = Duration::from_millis(weather.delay_ms + jitter) + Weather::resent(times);
        self.last_due = self.last_due.max(self.line_free + way);
        self.number += 1;
        Piece { due: self.last_due, number: self.number, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend([2, 6, 0, 0, 0, 0]);
        frame.extend(body);
        frame
    }

    fn in_order(mut pieces: Vec<Piece>) -> Vec<u8> {
        pieces.sort_by_key(|piece| (piece.due, piece.number));
        pieces.into_iter().flat_map(|piece| piece.bytes).collect()
    }

    fn carried(weather: Weather, chunk: usize) -> (Vec<u8>, Vec<u8>, Done, Duration) {
        let now = Instant::now();
        let mut stream = Stream::new(Chance::of(7), now);
        let sent: Vec<u8> = (0..200_u8).flat_map(|number| frame(&vec![number; number.into()])).collect();
        let pieces: Vec<Piece> =
            sent.chunks(chunk).flat_map(|bytes| stream.take(bytes, &weather, now)).collect();
        let last = pieces.iter().map(|piece| piece.due).max().unwrap();
        (sent, in_order(pieces), stream.done, last - now)
    }

    #[test]
    fn what_is_late_lost_or_slow_comes_whole_and_in_order() {
        for chunk in [1, 7, 64, 100_000] {
            for weather in [Weather::FINE, Weather::late(100), Weather::lossy(20), Weather::THIN] {
                let (sent, came, done, took) = carried(weather, chunk);
                assert_eq!(sent, came, "{weather} in chunks of {chunk}");
                assert_eq!((done.corrupted, done.swapped, done.repeated), (0, 0, 0));
                assert_eq!(took > Duration::ZERO, weather != Weather::FINE);
            }
        }
    }

    #[test]
    fn frames_are_changed_swapped_and_repeated_whole() {
        let (sent, came, done, _) = carried(Weather { corrupt_permille: 100, ..Weather::FINE }, 64);
        let other = sent.iter().zip(&came).filter(|(one, other)| one != other).count();
        assert!(done.corrupted > 5 && other as u64 == done.corrupted && sent.len() == came.len());
        let (sent, came, done, _) = carried(Weather { repeat_permille: 100, ..Weather::FINE }, 64);
        assert!(done.repeated > 5 && came.len() > sent.len());
        let (sent, came, done, _) = carried(Weather { swap_permille: 100, ..Weather::FINE }, 64);
        assert!(done.swapped > 5 && came != sent && came.len() == sent.len());
    }

    #[test]
    fn what_is_no_frame_passes() {
        let now = Instant::now();
        let mut stream = Stream::new(Chance::of(1), now);
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on";
        let weather = Weather { corrupt_permille: 1000, ..Weather::FINE };
        let pieces = hello.chunks(3).flat_map(|bytes| stream.take(bytes, &weather, now)).collect();
        assert_eq!(in_order(pieces), hello);
    }
}
