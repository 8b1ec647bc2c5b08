//! Records as Parquet.

use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use varve_formats::PartitionIdentity;

use super::{
    About, EncodeError, Encoder, Format, Row, WRITER,
    rows::{Rows, schema},
};

/// DuckDB's own row group: it works on several at a time.
const ROW_GROUP_ROWS: usize = 122_880;
const ROW_GROUP_BYTES: usize = 64 << 20;
const ZSTD_LEVEL: i32 = 3;

/// `.parquet`, zstd.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parquet;

impl Format for Parquet {
    fn suffix(&self) -> &'static str {
        "parquet"
    }

    fn tree(&self) -> &'static str {
        "archive"
    }

    fn begin(&self, _: &PartitionIdentity) -> Result<Box<dyn Encoder>, EncodeError> {
        let writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties()?))?;
        Ok(Box::new(ParquetEncoder { writer, rows: Rows::new() }))
    }
}

fn properties() -> Result<WriterProperties, EncodeError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(WRITER.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: 0,
            descending: false,
            nulls_first: false,
        }]));
    for column in ["offset", "timestamp"] {
        let path = ColumnPath::from(column);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
            .set_column_statistics_enabled(path, EnabledStatistics::Page);
    }
    // Values are seldom equal: their dictionary would only grow until it is given up.
    Ok(properties.set_column_dictionary_enabled(ColumnPath::from("value"), false).build())
}

struct ParquetEncoder {
    writer: ArrowWriter<Vec<u8>>,
    rows: Rows,
}

impl ParquetEncoder {
    fn flush(&mut self) -> Result<(), EncodeError> {
        if let Some(batch) = self.rows.batch()? {
            self.writer.write(&batch)?;
        }
        Ok(())
    }
}

impl Encoder for ParquetEncoder {
    fn row(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        if self.rows.push(row) { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>, about: &About) -> Result<Vec<u8>, EncodeError> {
        self.flush()?;
        for (name, value) in about.footer() {
            self.writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
        }
        Ok(self.writer.into_inner()?)
    }
}

impl From<ParquetError> for EncodeError {
    fn from(error: ParquetError) -> Self {
        Self(error.to_string())
    }
}
