//! History as files that other tools read: Parquet, Arrow, JSON lines (`varve archive export`).
//!
//! ```text
//! {prefix}/{cluster}/archive/v1/topic=…/partition=…/date=yyyy-mm-dd/{first:020}-{last:020}-{topic id}.parquet     and nothing else in there
//! {prefix}/{cluster}/archive-arrow/v1/…                       …arrow      the same by another format, in a tree of its own
//! {prefix}/{cluster}/archive-meta/v1/{format}/{topic id, hex}/{partition:05}/{first:020}-{last:020}.json    one for each file
//!
//! offsets wanted - those of files that are there = ranges -> batches -> cut -> rows -> encoder -> PUT create-only -> its entry in the list
//! ```
//! Invariants
//! - A file is written once, whole, under a name that says what is in it; nothing is replaced and nothing is deleted.
//! - The same offsets become the same files, byte for byte, whoever exports them and however often: where a file ends depends
//!   on the records alone ([`cut`]). So a run that was killed is run again, and what was there is found there.
//! - No two files of a tree hold the same offset: a reader that takes all of them sees every record once.
//! - Memory: the file that is being made and the row group that is being filled ([`cut::FILE_BYTES_MAX`]), for each partition
//!   that is exported at a time; and what the reader holds.

pub mod cover;
pub mod cut;
mod export;
mod file;
pub mod follow;
mod ipc;
pub(crate) mod list;
mod parquet;
mod rows;
#[cfg(test)]
mod tests;

use std::ops::Range;

use varve_common::{Digest, Offset};
use varve_formats::PartitionIdentity;
use varve_protocol::batch::{BatchMeta, Record};

pub use export::{ExportError, Exported, Exporter, Outcome};
pub use ipc::Arrow;
pub use list::Listed;
pub use parquet::Parquet;
pub(crate) use parquet::{about_of, digest};

/// The version of columns and footers.
pub const FORMAT_VERSION: u32 = 1;
/// Who wrote a file.
pub const WRITER: &str = concat!("varve ", env!("CARGO_PKG_VERSION"));

/// A form of files.
pub trait Format: Send + Sync {
    /// What the files' names end with, without the dot; also their folder in the lists.
    fn suffix(&self) -> &'static str;
    /// The tree they lie in.
    fn tree(&self) -> &'static str;
    /// Begins a file.
    fn begin(&self, identity: &PartitionIdentity) -> Result<Box<dyn Encoder>, EncodeError>;
}

/// Makes one file.
pub trait Encoder: Send {
    /// Takes the next record.
    fn row(&mut self, row: &Row<'_>) -> Result<(), EncodeError>;
    /// Ends the file; gives its bytes.
    fn finish(self: Box<Self>, about: &About) -> Result<Vec<u8>, EncodeError>;
}

/// A record with what its batch says of it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The batch.
    pub meta: &'a BatchMeta,
    /// The record.
    pub record: &'a Record<'a>,
}

/// A file cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(pub String);

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Whose records.
    pub identity: PartitionIdentity,
    /// The offsets that it covers.
    pub offsets: Range<Offset>,
    /// Records in it.
    pub records: u64,
    /// The smallest and the largest timestamp, in milliseconds; `None` where no record has one.
    pub times: Option<(i64, i64)>,
    /// SHA-256 of the batches as they lie in segments, one after the other.
    pub source_sha256: Digest,
}

impl About {
    /// Its last offset.
    #[must_use]
    pub const fn last(&self) -> Offset {
        Offset(self.offsets.end.0 - 1)
    }

    /// Names and values for a footer, in a fixed order.
    #[must_use]
    pub fn footer(&self) -> Vec<(&'static str, String)> {
        let mut footer = vec![
            ("cluster_id", self.identity.cluster.to_string()),
            ("topic", self.identity.topic.clone()),
            ("topic_id", self.identity.topic_id.to_string()),
            ("partition", self.identity.partition.0.to_string()),
            ("first_offset", self.offsets.start.to_string()),
            ("last_offset", self.last().to_string()),
            ("record_count", self.records.to_string()),
        ];
        if let Some((min, max)) = self.times {
            footer.push(("min_timestamp_ms", min.to_string()));
            footer.push(("max_timestamp_ms", max.to_string()));
        }
        footer.push(("source_sha256", self.source_sha256.to_string()));
        footer.push(("writer", WRITER.to_owned()));
        footer.push(("format_version", FORMAT_VERSION.to_string()));
        footer
    }
}
