//! The room between the write-ahead log and the bucket: uploads, sealed files, and reading a partition wherever its
//! records are. TIERING.md 1-4 and 10 hold the protocol; `replica` decides, this room carries out.
//!
//! ```text
//!   write-ahead log ---- source (held against the roll) ----> seal    {data}/segments/{group}/{base}-{end}.seg
//!        |                                             \----> upload  one create-only PUT -> manifest::Entry
//!        |                                                    fold    manifest nodes       -> NodeReference
//!        |                                                    merge   small segments       -> manifest::Entry
//!        v                                                    remove  what tombstones name
//!   view: tail (memory) -> WAL -> sealed file -> cold: root -> node -> footer, index -> blocks -> chunks
//!                                                      chunks: memory -> slab (disk) -> in turn, the store
//! ```
//!
//! It may touch the disk (sealed files, through `varve_common::Disk`), the store (through `varve_objects::Store`) and
//! the write-ahead log (reads only). No clock, no chance, no executor: futures run wherever they are polled, and
//! background fills go through [`Spawn`].
//!
//! Invariants
//! - What the manifest does not name does not exist; what it names is never "no data" ([`ColdError::Missing`]).
//! - What is sealed or uploaded holds the bytes of the log for that range (B6): contiguous, with the length and the
//!   digest that the roll promised, or it is not named.
//! - A sealed file that is not what its mark promises is damaged, never absent.
//! - Hot and cold overlap and never gap (B7): a read takes the first place, from hot to cold, that holds the offset.
//! - Memory is bounded: uploads by [`UploadBudget`], cold reads by the chunk cache, the chunks on their way, the node and
//!   index caches, the last glimpses and the share that read-ahead may fill; open files by number.
//! - Nobody who reads cold keeps another waiting for more than its turn; no disk or file of the chunk cache is the cause of
//!   an error, and no byte of it is served that has not the CRC it came with ([`Slab`]).

mod ahead;
pub mod budget;
pub mod chunks;
pub mod cold;
pub mod extent;
pub mod fold;
mod glimpse;
pub mod limits;
mod lru;
pub mod merge;
pub mod rebuild;
pub mod receive;
pub mod remove;
pub mod seal;
mod segment;
pub mod slab;
pub mod source;
pub mod tail;
pub mod timestamps;
mod turns;
pub mod upload;
pub mod view;

#[cfg(test)]
mod tests;

pub use budget::UploadBudget;
pub use chunks::{ChunkCache, Spawn};
pub use cold::{ColdError, ColdOptions, ColdReader};
pub use extent::PartitionExtent;
pub use fold::put_node;
pub use merge::MergeError;
pub use rebuild::{RebuildError, rebuild_leaf};
pub use receive::{ReceiveError, Receiving};
pub use remove::{RemoveError, Remover};
pub use seal::{DamageCause, Damaged, LocalSegments, RolledSegment, SealError};
pub use slab::{Admission, Slab, SlabCounts, SlabOptions};
pub use source::{RangeSource, SourceError};
pub use tail::{Batches, ReadLimits, TailCache};
pub use timestamps::TimestampOffset;
pub use turns::Consumer;
pub use upload::{UploadError, UploadKey, UploadMemory, Uploader, Uploaders};
pub use view::{Hot, LogView, ReadError};
