//! A file that is being made.

use std::ops::Range;

use bytes::Bytes;
use varve_common::{Digest, Offset, checksum::DigestBuilder};
use varve_formats::PartitionIdentity;
use varve_protocol::batch::{BatchHeader, Records};

use super::{About, Encoder, Format, Row, cut::Day, export::ExportError};
use crate::history::ReadRecordsError;

pub(super) struct Open {
    encoder: Box<dyn Encoder>,
    pub(super) day: Day,
    pub(super) first: Offset,
    pub(super) next: Offset,
    records: u64,
    times: Option<(i64, i64)>,
    source: DigestBuilder,
}

/// A file that is whole, and not put.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) about: About,
    pub(super) bytes: Bytes,
    pub(super) sha256: Digest,
}

impl Open {
    pub(super) fn begin(
        format: &dyn Format,
        identity: &PartitionIdentity,
        day: Day,
        first: Offset,
    ) -> Result<Self, ExportError> {
        let encoder = format.begin(identity)?;
        Ok(Self {
            encoder,
            day,
            first,
            next: first,
            records: 0,
            times: None,
            source: DigestBuilder::default(),
        })
    }

    /// Takes what of a batch lies in the range.
    pub(super) fn take(
        &mut self,
        batch: &BatchHeader<'_>,
        records: &Records<'_>,
        range: &Range<Offset>,
    ) -> Result<(), ExportError> {
        let meta = batch.meta();
        for record in records.iter() {
            let record = record.map_err(|cause| damaged(batch, cause.to_string()))?;
            if record.offset < range.start.to_wire() || record.offset >= range.end.to_wire() {
                continue;
            }
            self.encoder.row(&Row { meta, record: &record })?;
            self.records += 1;
            if record.timestamp >= 0 {
                let (min, max) = self.times.unwrap_or((record.timestamp, record.timestamp));
                self.times = Some((min.min(record.timestamp), max.max(record.timestamp)));
            }
        }
        self.source.update(batch.bytes());
        self.next = Offset::from_wire(meta.next_offset()).unwrap_or(self.next).min(range.end);
        Ok(())
    }

    /// Ends the file with what it has.
    pub(super) fn finish(self, identity: &PartitionIdentity) -> Result<Whole, ExportError> {
        let about = About {
            identity: identity.clone(),
            offsets: self.first..self.next,
            records: self.records,
            times: self.times,
            source_sha256: self.source.finish(),
        };
        let bytes = Bytes::from(self.encoder.finish(&about)?);
        let sha256 = Digest::of(&bytes);
        Ok(Whole { about, bytes, sha256 })
    }
}

pub(super) fn damaged(batch: &BatchHeader<'_>, cause: String) -> ExportError {
    let offset = Offset::from_wire(batch.meta().base_offset).unwrap_or_default();
    ReadRecordsError::Batch { offset, cause }.into()
}
