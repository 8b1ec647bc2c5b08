//! The one shape of archived records: an Arrow `RecordBatch`, for Parquet and for Arrow IPC alike.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
        TimestampMicrosecondBuilder,
    },
};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use varve_protocol::batch::TimestampType;

use super::{EncodeError, Row};

/// Rows of one batch…
const ROWS_MAX: usize = 8_192;
/// …unless their keys, values and headers take so much.
const BYTES_MAX: usize = 8 << 20;

/// The columns, in order.
pub(super) fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    let optional = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("offset", DataType::Int64),
        optional("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("timestamp_type", DataType::Int32),
        optional("key", DataType::Binary),
        optional("value", DataType::Binary),
        field("headers", DataType::List(header_item())),
        field("leader_epoch", DataType::Int32),
        optional("producer_id", DataType::Int64),
        optional("producer_epoch", DataType::Int32),
        optional("sequence", DataType::Int32),
        field("is_transactional", DataType::Boolean),
        field("is_control", DataType::Boolean),
        field("txn_outcome", DataType::Utf8),
    ]))
}

fn header_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)].into()
}

fn header_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Struct(header_fields()), false))
}

/// Collects rows until they are a batch.
pub(super) struct Rows {
    offset: Int64Builder,
    timestamp: TimestampMicrosecondBuilder,
    timestamp_type: Int32Builder,
    key: BinaryBuilder,
    value: BinaryBuilder,
    headers: ListBuilder<StructBuilder>,
    leader_epoch: Int32Builder,
    producer_id: Int64Builder,
    producer_epoch: Int32Builder,
    sequence: Int32Builder,
    is_transactional: BooleanBuilder,
    is_control: BooleanBuilder,
    txn_outcome: StringBuilder,
    rows: usize,
    bytes: usize,
}

impl Rows {
    pub(super) fn new() -> Self {
        let header = StructBuilder::new(
            header_fields(),
            vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())],
        );
        Self {
            offset: Int64Builder::new(),
            timestamp: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            timestamp_type: Int32Builder::new(),
            key: BinaryBuilder::new(),
            value: BinaryBuilder::new(),
            headers: ListBuilder::new(header).with_field(header_item()),
            leader_epoch: Int32Builder::new(),
            producer_id: Int64Builder::new(),
            producer_epoch: Int32Builder::new(),
            sequence: Int32Builder::new(),
            is_transactional: BooleanBuilder::new(),
            is_control: BooleanBuilder::new(),
            txn_outcome: StringBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Takes a row; says whether there are enough for a batch.
    pub(super) fn push(&mut self, row: &Row<'_>) -> bool {
        let Row { meta, record } = *row;
        self.offset.append_value(record.offset);
        let micros = (record.timestamp >= 0).then(|| record.timestamp.saturating_mul(1_000));
        self.timestamp.append_option(micros);
        self.timestamp_type.append_value(i32::from(meta.timestamp_type == TimestampType::LogAppendTime));
        self.key.append_option(record.key);
        self.value.append_option(record.value);
        self.push_headers(&record.headers);
        self.leader_epoch.append_value(meta.leader_epoch);
        let produced = meta.producer_id >= 0;
        self.producer_id.append_option(produced.then_some(meta.producer_id));
        self.producer_epoch.append_option(produced.then_some(i32::from(meta.producer_epoch)));
        let sequence = produced && meta.base_sequence >= 0;
        // Sequences wrap around at 2^31, as Kafka's do.
        let number = (i64::from(meta.base_sequence) + i64::from(record.offset_delta)) & i64::from(i32::MAX);
        self.sequence.append_option(sequence.then_some(number as i32));
        self.is_transactional.append_value(meta.is_transactional);
        self.is_control.append_value(meta.is_control);
        self.txn_outcome.append_value(if meta.is_transactional { "committed" } else { "none" });
        self.rows += 1;
        self.bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    fn push_headers(&mut self, headers: &[(&str, Option<&[u8]>)]) {
        let list = self.headers.values();
        for (key, value) in headers {
            list.field_builder::<StringBuilder>(0).expect("made so above").append_value(key);
            list.field_builder::<BinaryBuilder>(1).expect("made so above").append_option(*value);
            list.append(true);
            self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        }
        self.headers.append(true);
    }

    /// What was taken since the last batch; `None` where there is nothing.
    pub(super) fn batch(&mut self) -> Result<Option<RecordBatch>, EncodeError> {
        if self.rows == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (0, 0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.offset.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.timestamp_type.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.leader_epoch.finish()),
            Arc::new(self.producer_id.finish()),
            Arc::new(self.producer_epoch.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.is_transactional.finish()),
            Arc::new(self.is_control.finish()),
            Arc::new(self.txn_outcome.finish()),
        ];
        Ok(Some(RecordBatch::try_new(schema(), columns)?))
    }
}

impl From<ArrowError> for EncodeError {
    fn from(error: ArrowError) -> Self {
        Self(error.to_string())
    }
}
