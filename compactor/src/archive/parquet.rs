//! Records as Parquet.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaDataReader, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use varve_common::{Digest, Offset};
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

/// What a file says of itself; `None` where it is no whole file of this partition.
pub(crate) fn about_of(file: &Bytes, identity: &PartitionIdentity) -> Option<About> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file).ok()?;
    let pairs = metadata.file_metadata().key_value_metadata()?.iter();
    let says: BTreeMap<&str, &str> =
        pairs.filter_map(|pair| Some((pair.key.as_str(), pair.value.as_deref()?))).collect();
    let number = |name: &str| says.get(name)?.parse::<u64>().ok();
    let is_ours = says.get("cluster_id") == Some(&identity.cluster.to_string().as_str())
        && says.get("topic_id") == Some(&identity.topic_id.to_string().as_str())
        && says.get("partition") == Some(&identity.partition.0.to_string().as_str());
    let records = number("record_count")?;
    let is_whole = u64::try_from(metadata.file_metadata().num_rows()) == Ok(records);
    (is_ours && is_whole).then_some(())?;
    let time = |name: &str| says.get(name)?.parse::<i64>().ok();
    Some(About {
        identity: identity.clone(),
        offsets: Offset(number("first_offset")?)..Offset(number("last_offset")?.checked_add(1)?),
        records,
        times: time("min_timestamp_ms").zip(time("max_timestamp_ms")),
        source_sha256: digest(says.get("source_sha256")?)?,
    })
}

/// A digest as it is written in footers and lists.
pub(crate) fn digest(hex: &str) -> Option<Digest> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    Some(Digest(bytes?.try_into().ok()?))
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
