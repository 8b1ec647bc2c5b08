//! What this node has from others: piece by piece, from whoever has it.

use std::{io, sync::atomic::Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::SemaphorePermit;
use varve_common::{Digest, GroupId, NodeId};
use varve_formats::{
    PartitionIdentity, command::PublishedCheckpoint, limits::CHECKPOINT_BYTES_MAX, state::RollEntry,
};
use varve_replica::SealMark;
use varve_tiering::{LocalSegments, ReceiveError, Receiving};
use varve_wal::Reader;

use super::{
    Transfers,
    frame::{File, Reply, Request},
    limits::{ASK_AGAIN, FILE_OVERHEAD_MAX, ROUNDS_MAX},
};

/// Why something did not come. Nothing is lost: it is asked for again.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There are no other nodes.
    #[error("there is no other node")]
    Alone,
    /// None of them has it, or gave all of it.
    #[error("no node gave it, the last one: {0}")]
    Nobody(String),
    /// It does not fit here.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
}

/// How a sealed file ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Here, whole, under its name; its mark is to be written.
    Whole(SealMark),
    /// Another node has trimmed it by command: nobody needs it.
    Trimmed,
}

/// Which sealed file, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Of which group.
    pub group: GroupId,
    /// What its footer must say.
    pub identity: &'a PartitionIdentity,
    /// What its records must be.
    pub roll: &'a RollEntry,
    /// Whom to ask, the likeliest first.
    pub from: &'a [NodeId],
}

struct Piece {
    length: u64,
    sha256: Digest,
    bytes: Bytes,
}

enum Answer {
    Piece(Piece),
    Trimmed,
    No(String),
}

impl Transfers {
    /// One of the moves that this node makes at a time.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.0.moves.acquire().await.ok()
    }

    /// The checkpoint that a leader sent this node to, whole; its digest is held against the pointer's.
    pub async fn checkpoint(
        &self,
        from: &[NodeId],
        group: GroupId,
        wanted: &PublishedCheckpoint,
    ) -> Result<Bytes, FetchError> {
        let file = File::Checkpoint(wanted.sha256);
        let mut bytes = BytesMut::new();
        let mut last = String::new();
        for node in self.rounds(from)? {
            loop {
                if bytes.len() as u64 >= wanted.bytes.min(CHECKPOINT_BYTES_MAX as u64) {
                    return Ok(bytes.freeze());
                }
                match self.ask(node, group, file, bytes.len() as u64).await {
                    Answer::Piece(piece) if piece.length == wanted.bytes && !piece.bytes.is_empty() => {
                        bytes.extend_from_slice(&piece.bytes);
                    }
                    Answer::No(why) => {
                        last = why;
                        break;
                    }
                    Answer::Piece(_) | Answer::Trimmed => {
                        "what it has is another".clone_into(&mut last);
                        break;
                    }
                }
            }
            self.0.pace.clock().sleep(ASK_AGAIN).await;
        }
        Err(FetchError::Nobody(last))
    }

    /// A sealed file, whole and under its name.
    pub async fn segment(
        &self,
        wanted: Wanted<'_>,
        local: &LocalSegments,
        wal: &Reader,
    ) -> Result<Came, FetchError> {
        let Wanted { group, identity, roll, from } = wanted;
        let file = File::Segment(roll.base, roll.end);
        let mut receiving: Option<Receiving> = None;
        let mut last = String::new();
        for node in self.rounds(from)? {
            loop {
                let position = receiving.as_ref().map_or(0, Receiving::position);
                let piece = match self.ask(node, group, file, position).await {
                    Answer::Trimmed => return Ok(Came::Trimmed),
                    Answer::Piece(piece) => piece,
                    Answer::No(why) => {
                        last = why;
                        break;
                    }
                };
                let mark = mark_of(roll, &piece);
                let begun = receiving.take().filter(|file| *file.mark() == mark);
                // The same records in other bytes: from its beginning, whatever it says of what lies here.
                if begun.is_none() && position > 0 {
                    continue;
                }
                let fits = !piece.bytes.is_empty()
                    && piece.bytes.len() as u64 <= piece.length - position.min(piece.length);
                if piece.length > roll.bytes.saturating_add(FILE_OVERHEAD_MAX) || !fits {
                    "what it has is no file of this range".clone_into(&mut last);
                    receiving = begun;
                    break;
                }
                let mut file = match begun {
                    Some(file) => file,
                    None => local.receive(group, mark)?,
                };
                file.push(&piece.bytes)?;
                if !file.is_whole() {
                    receiving = Some(file);
                    continue;
                }
                match file.finish(identity, roll, wal.clone()) {
                    Ok(mark) => {
                        self.0.files.fetch_add(1, Ordering::Relaxed);
                        return Ok(Came::Whole(mark));
                    }
                    Err(ReceiveError::Disk(error)) => return Err(error.into()),
                    Err(damaged) => {
                        tracing::warn!(%group, %node, base = %roll.base, %damaged, "a sealed file from another node is not what it should be");
                        last = damaged.to_string();
                        break;
                    }
                }
            }
            self.0.pace.clock().sleep(ASK_AGAIN).await;
        }
        Err(FetchError::Nobody(last))
    }

    fn rounds(&self, from: &[NodeId]) -> Result<impl Iterator<Item = NodeId> + use<>, FetchError> {
        let nodes = from.to_vec();
        if self.0.way.is_none() || nodes.is_empty() {
            return Err(FetchError::Alone);
        }
        let count = nodes.len() * ROUNDS_MAX;
        Ok(nodes.into_iter().cycle().take(count))
    }

    async fn ask(&self, node: NodeId, group: GroupId, file: File, position: u64) -> Answer {
        let Some(way) = &self.0.way else { return Answer::No("there is no other node".to_owned()) };
        let bytes_max = u32::try_from(self.0.options.piece_bytes).unwrap_or(u32::MAX);
        let request = Request { group, file, position, bytes_max }.encode();
        let reply = match way.ask(node, request).await {
            Ok(reply) => Reply::decode(reply),
            Err(why) => return Answer::No(format!("node {node}: {why}")),
        };
        match reply {
            Ok(Reply::Piece { length, sha256, piece }) if piece.len() as u64 <= u64::from(bytes_max) => {
                self.0.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
                self.0.pace.take(piece.len() as u64).await;
                Answer::Piece(Piece { length, sha256, bytes: piece })
            }
            Ok(Reply::Trimmed) => Answer::Trimmed,
            Ok(Reply::NotHere) => Answer::No(format!("node {node} does not have it")),
            Ok(Reply::NotUnderstood) => Answer::No(format!("node {node} is of another release")),
            Ok(Reply::Piece { .. }) => Answer::No(format!("node {node} gives more than was asked for")),
            Err(error) => Answer::No(format!("node {node}: {error}")),
        }
    }
}

/// Of the range it says what the roll says; of the file what came with it.
const fn mark_of(roll: &RollEntry, piece: &Piece) -> SealMark {
    SealMark {
        base: roll.base,
        end: roll.end,
        first_index: roll.first_index,
        last_index: roll.roll_index,
        last_term: roll.roll_term,
        bytes: piece.length,
        sha256: piece.sha256,
    }
}
