//! Reading a file that has no (intact) index: the longest valid prefix, and what can be said about the rest.
//!
//! ```text
//! | batch | batch | bad ... | batch (synced_position beyond the bad one) | batch | torn
//!                   ^ corruption: those bytes were durable once             ^ never acknowledged, erased
//! ```

use std::io;

use bytes::Bytes;
use varve_common::{DiskFile, GroupId, ReplicaId, WalPosition, aligned::AlignedBytes, codec::Decoder};

use crate::{
    frame::{
        BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, FileHeader, RECORD_HEADER_BYTES, RecordHeader, Summary,
    },
    index::Place,
    limits::{ALIGNMENT, BLOCK_BYTES, SCAN_BYTES},
    record::{Content, decode_entries},
};

/// What one step of a scan found.
#[derive(Debug)]
pub(crate) enum Found {
    /// A good record.
    Record(Summary),
    /// A record whose payload is corrupt, of this group.
    Bad(GroupId, ReplicaId, Place),
    /// Bytes that were durable and belong to nobody knows whom.
    Unattributed(Place),
}

/// Reads a file piece by piece. Most of a young file is zeros: what is not written to costs no memory.
pub(crate) fn load(file: &dyn DiskFile, length: u64) -> io::Result<Bytes> {
    let mut piece = AlignedBytes::zeros(SCAN_BYTES);
    let zeros = vec![0; piece.len()];
    let mut bytes = vec![0; length as usize];
    let mut at = 0;
    while at < bytes.len() {
        let wanted = piece.len().min((bytes.len() - at).next_multiple_of(BLOCK_BYTES as usize));
        let read = file.read_at(&mut piece[..wanted], at as u64)?.min(bytes.len() - at);
        if piece[..read] != zeros[..read] {
            bytes[at..at + read].copy_from_slice(&piece[..read]);
        }
        at += read;
        if read < wanted {
            break;
        }
    }
    bytes.truncate(at);
    Ok(bytes.into())
}

/// A file's bytes, with what is known about them.
pub(crate) struct Scan<'a> {
    pub header: &'a FileHeader,
    /// The whole file, from its first byte.
    pub bytes: &'a Bytes,
    /// Where its batches end, if a trailer or the next file's header says so.
    pub known_end: Option<WalPosition>,
    pub check_crc: bool,
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanned {
    pub end: WalPosition,
    /// What the good batches say to have been durable before them; zero where there is none.
    pub synced: WalPosition,
    pub torn_bytes: u64,
    pub corrupt: bool,
}

impl Scan<'_> {
    fn at(&self, position: WalPosition) -> &[u8] {
        let from = (position.since(self.header.base) as usize).min(self.bytes.len());
        &self.bytes[from..]
    }

    /// Hands every record to `found`, in order.
    pub(crate) fn run(&self, found: &mut impl FnMut(Found)) -> Scanned {
        let mut position = self.header.first_batch();
        let mut later: Option<Vec<BatchHeader>> = None;
        let (mut corrupt, mut synced) = (false, WalPosition::default());
        loop {
            if self.known_end.is_some_and(|end| position >= end) {
                return Scanned { end: position, synced, torn_bytes: 0, corrupt };
            }
            if let Some((header, summaries, end)) = self.batch(position) {
                synced = synced.max(header.synced_position);
                summaries.into_iter().for_each(|summary| found(Found::Record(summary)));
                position = end;
                continue;
            }
            let later = later.get_or_insert_with(|| self.later_batches(position));
            let durable =
                self.known_end.is_some() || later.iter().any(|batch| batch.synced_position > position);
            if !durable {
                return Scanned {
                    end: position,
                    synced,
                    torn_bytes: self.torn_bytes(position, later),
                    corrupt,
                };
            }
            corrupt = true;
            let next = later.iter().map(|batch| batch.position).find(|next| *next > position);
            let end = next.or(self.known_end).expect("a later batch or the end is why this is corruption");
            self.salvage(position, end, found);
            position = end;
        }
    }

    /// One whole batch, if every byte of it is good.
    fn batch(&self, position: WalPosition) -> Option<(BatchHeader, Vec<Summary>, WalPosition)> {
        let header = BatchHeader::decode(self.at(position), self.header.salt, position)?;
        let start = position.plus(BATCH_HEADER_BYTES as u64);
        let end = start.plus(u64::from(header.length));
        let mut summaries = Vec::new();
        let mut at = start;
        while at < end {
            let (record, content) = self.record(at)?;
            summaries.push(summary(&record, at, content?));
            at = at.plus(record.span());
        }
        (at == end && summaries.len() == header.count as usize).then(|| (header, summaries, self.align(end)))
    }

    fn align(&self, position: WalPosition) -> WalPosition {
        let inside = position.since(self.header.base).next_multiple_of(self.header.alignment);
        self.header.base.plus(inside)
    }

    /// The record at a position: `None` where its header is bad, no content where only the payload is.
    fn record(&self, position: WalPosition) -> Option<(RecordHeader, Option<Content>)> {
        let bytes = self.at(position);
        let record = if self.check_crc {
            RecordHeader::decode(bytes, self.header.salt, position)?
        } else {
            RecordHeader::decode_unchecked(bytes)?
        };
        let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + record.length as usize);
        let good = payload.filter(|payload| {
            !self.check_crc || record.payload_is_intact(self.header.salt, position, payload)
        });
        let content = good.and_then(|payload| {
            let mut decoder = Decoder::new(self.bytes.slice_ref(payload));
            let content = Content::decode(record.kind, &mut decoder).ok()?;
            if let Content::Entries(head) = content {
                decode_entries(head, &mut decoder).ok()?;
            }
            Some(content)
        });
        Some((record, content))
    }

    /// Intact batch headers behind a position.
    fn later_batches(&self, position: WalPosition) -> Vec<BatchHeader> {
        let magic = BATCH_MAGIC.to_le_bytes();
        let mut found = Vec::new();
        let mut at = position;
        for chunk in self.at(position).chunks_exact(ALIGNMENT as usize) {
            if chunk[..4] == magic && self.known_end.is_none_or(|end| at < end) {
                found.extend(BatchHeader::decode(self.at(at), self.header.salt, at));
            }
            at = at.plus(ALIGNMENT);
        }
        found
    }

    fn torn_bytes(&self, position: WalPosition, later: &[BatchHeader]) -> u64 {
        let last = later
            .last()
            .map(|batch| batch.position.plus(BATCH_HEADER_BYTES as u64 + u64::from(batch.length)));
        let file_end = self.header.base.plus(self.bytes.len() as u64);
        last.map_or(0, |end| end.min(file_end).since(position))
    }

    /// Names what can be named between `from` and `end`: good records still count, for they were durable.
    fn salvage(&self, from: WalPosition, end: WalPosition, found: &mut impl FnMut(Found)) {
        // The header of the bad batch holds nothing of any group: losing it alone costs nobody anything.
        let mut at = from.plus(BATCH_HEADER_BYTES as u64);
        let mut unattributed = false;
        let stop = |at: WalPosition| at >= end || self.at(at).len() < RECORD_HEADER_BYTES;
        while !stop(at) {
            match self.record(at).filter(|(record, _)| at.plus(record.span()) <= self.align(end)) {
                Some((record, Some(content))) => {
                    found(Found::Record(summary(&record, at, content)));
                    at = at.plus(record.span());
                }
                Some((record, None)) => {
                    let end = at.plus(record.span());
                    found(Found::Bad(record.group, record.replica, place(at, end)));
                    at = end;
                }
                None if self.is_padding(at, end) => return,
                None => {
                    // Said once, and before any later record is taken in.
                    if !unattributed {
                        found(Found::Unattributed(place(at, end)));
                        unattributed = true;
                    }
                    at = at.plus(ALIGNMENT);
                }
            }
        }
        if self.at(end).is_empty() && !unattributed {
            found(Found::Unattributed(place(at, end)));
        }
    }

    /// Whether only the zeros that fill a block lie up to `end`: none where batches are not aligned to blocks.
    fn is_padding(&self, at: WalPosition, end: WalPosition) -> bool {
        let rest = end.since(at);
        rest < self.header.alignment
            && self.at(at).get(..rest as usize).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    }
}

/// What lies between two positions of one file, which is shorter than 4 GiB.
fn place(from: WalPosition, to: WalPosition) -> Place {
    Place { position: from, bytes: to.since(from) as u32 }
}

fn summary(record: &RecordHeader, position: WalPosition, content: Content) -> Summary {
    Summary {
        group: record.group,
        replica: record.replica,
        flags: record.flags,
        position,
        bytes: record.span() as u32,
        content,
    }
}
