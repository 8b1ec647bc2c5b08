//! Records as `consume` writes them with `-f json`, as a form of exported files.

use varve_compactor::archive::{About, EncodeError, Encoder, Format, Row};
use varve_formats::PartitionIdentity;

use crate::record::Record;

/// `.jsonl`
pub struct JsonLines;

impl Format for JsonLines {
    fn suffix(&self) -> &'static str {
        "jsonl"
    }

    fn tree(&self) -> &'static str {
        "archive-jsonl"
    }

    fn begin(&self, identity: &PartitionIdentity) -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(Box::new(Lines {
            topic: identity.topic.clone(),
            partition: identity.partition.0,
            bytes: Vec::new(),
        }))
    }
}

struct Lines {
    topic: String,
    partition: i32,
    bytes: Vec<u8>,
}

impl Encoder for Lines {
    fn row(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        if !row.meta.is_control {
            let record = Record::of(&self.topic, self.partition, row.record);
            self.bytes.extend_from_slice(record.to_json().to_string().as_bytes());
            self.bytes.push(b'\n');
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &About) -> Result<Vec<u8>, EncodeError> {
        Ok(self.bytes)
    }
}
