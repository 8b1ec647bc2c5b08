//! Records as Arrow IPC files.

use arrow_ipc::{
    CompressionType,
    writer::{FileWriter, IpcWriteOptions},
};
use varve_formats::PartitionIdentity;

use super::{
    About, EncodeError, Encoder, Format, Row,
    rows::{Rows, schema},
};

/// `.arrow` (also known as Feather 2), zstd.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrow;

impl Format for Arrow {
    fn suffix(&self) -> &'static str {
        "arrow"
    }

    fn tree(&self) -> &'static str {
        "archive-arrow"
    }

    fn begin(&self, _: &PartitionIdentity) -> Result<Box<dyn Encoder>, EncodeError> {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
        let writer = FileWriter::try_new_with_options(Vec::new(), &schema(), options)?;
        Ok(Box::new(ArrowEncoder { writer, rows: Rows::new() }))
    }
}

struct ArrowEncoder {
    writer: FileWriter<Vec<u8>>,
    rows: Rows,
}

impl ArrowEncoder {
    fn flush(&mut self) -> Result<(), EncodeError> {
        if let Some(batch) = self.rows.batch()? {
            self.writer.write(&batch)?;
        }
        Ok(())
    }
}

impl Encoder for ArrowEncoder {
    fn row(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        if self.rows.push(row) { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>, about: &About) -> Result<Vec<u8>, EncodeError> {
        self.flush()?;
        for (name, value) in about.footer() {
            self.writer.write_metadata(name, value);
        }
        Ok(self.writer.into_inner()?)
    }
}
