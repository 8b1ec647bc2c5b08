//! What this node gives to others: pieces of files whose marks, or whose offers, say what they are.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use tokio::sync::Semaphore;
use varve_common::{Access, Clock, Disk, GroupId, codec::DecodeError, disk::read_exact_at};
use varve_replica::{Holdings, LocalCheckpoint};
use varve_snapshot::local;
use varve_tiering::LocalSegments;

use super::{
    Pace, TransferOptions,
    frame::{File, Reply, Request},
    limits::SERVED_PIECES_MAX,
};

/// Answers other nodes.
pub struct Library {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    local: LocalSegments,
    piece_bytes: u64,
    pace: Pace,
    room: Semaphore,
}

impl Library {
    /// Over the files of this node.
    #[must_use]
    pub fn new(
        disk: Arc<dyn Disk>,
        data: PathBuf,
        local: LocalSegments,
        options: TransferOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let pace = Pace::new(clock, options.bytes_per_second);
        let room = Semaphore::new(SERVED_PIECES_MAX);
        Self { disk, data, local, piece_bytes: options.piece_bytes, pace, room }
    }

    /// What is asked, so that its group may be asked what it holds.
    pub fn read(request: Bytes) -> Result<Request, DecodeError> {
        Request::decode(request)
    }

    /// Whether a request is of the checkpoint on offer, or of a file that it needs, and has its answer here.
    #[must_use]
    pub fn is_on_the_way(request: &Request, holdings: &Holdings) -> bool {
        holdings.offered.as_ref().is_some_and(|offered| match request.file {
            File::Checkpoint(sha256) => offered.sha256 == sha256,
            File::Segment(base, end) => {
                let mut seals = holdings.seals.iter();
                seals.any(|seal| (seal.base, seal.end) == (base, end) && seal.last_index <= offered.index)
            }
        })
    }

    /// A piece, when the budget has room for it. Blocks for as long as the disk does.
    pub async fn answer(&self, request: Request, holdings: Option<Holdings>) -> Reply {
        let Some(holdings) = holdings else { return Reply::NotHere };
        let Ok(_turn) = self.room.acquire().await else { return Reply::NotHere };
        let bytes = u64::from(request.bytes_max).min(self.piece_bytes);
        let range = request.position..request.position.saturating_add(bytes);
        let reply = match request.file {
            File::Checkpoint(sha256) => {
                let offered = holdings.offered.filter(|offered| offered.sha256 == sha256);
                offered.and_then(|offered| self.checkpoint(request.group, &offered, range))
            }
            File::Segment(_, end) if end <= holdings.log_start => Some(Reply::Trimmed),
            File::Segment(base, end) => {
                let mark = holdings.seals.iter().find(|seal| seal.base == base && seal.end == end);
                mark.and_then(|mark| {
                    let piece = self.local.read_piece(request.group, mark, range).ok()?;
                    Some(Reply::Piece { length: mark.bytes, sha256: mark.sha256, piece })
                })
            }
        };
        if let Some(Reply::Piece { piece, .. }) = &reply {
            self.pace.take(piece.len() as u64).await;
        }
        reply.unwrap_or(Reply::NotHere)
    }

    fn checkpoint(
        &self,
        group: GroupId,
        offered: &LocalCheckpoint,
        range: std::ops::Range<u64>,
    ) -> Option<Reply> {
        let path = local::directory(&self.data, group).join(&offered.file);
        let file = self.disk.open(&path, Access::Buffered).ok()?;
        let length = file.len().ok()?;
        let (start, end) = (range.start.min(length), range.end.min(length));
        let piece = read_exact_at(&*file, start, (end - start) as usize).ok()?;
        Some(Reply::Piece { length, sha256: offered.sha256, piece: Bytes::from(piece) })
    }
}
