//! Records by count and SHA-256: of the bucket and of a broker, the same for the same records.

use varve_common::{Digest, checksum::DigestBuilder};

use crate::record::Record;

/// What some records come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub records: u64,
    pub bytes: u64,
    pub sha256: Digest,
}

/// Takes records in their order.
#[derive(Clone, Default)]
pub struct Tally {
    records: u64,
    bytes: u64,
    digest: DigestBuilder,
}

impl Tally {
    /// Everything that a client sees of a record, each field with its length, so that none runs into the next.
    pub fn take(&mut self, record: &Record) {
        self.records += 1;
        self.digest.update(&record.offset.to_le_bytes());
        self.digest.update(&record.timestamp.to_le_bytes());
        self.field(record.key.as_deref());
        self.field(record.value.as_deref());
        self.digest.update(&(record.headers.len() as u64).to_le_bytes());
        for (key, value) in &record.headers {
            self.field(Some(key.as_bytes()));
            self.field(value.as_deref());
        }
    }

    fn field(&mut self, bytes: Option<&[u8]>) {
        let length = bytes.map_or(-1, |bytes| bytes.len() as i64);
        self.digest.update(&length.to_le_bytes());
        self.digest.update(bytes.unwrap_or_default());
        self.bytes += bytes.map_or(0, <[u8]>::len) as u64;
    }

    pub fn sum(self) -> Sum {
        Sum { records: self.records, bytes: self.bytes, sha256: self.digest.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
        Record {
            topic: "t".into(),
            partition: 0,
            offset: 7,
            timestamp: 9,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: vec![("h".into(), None)],
        }
    }

    fn of(record: &Record) -> Digest {
        let mut tally = Tally::default();
        tally.take(record);
        tally.sum().sha256
    }

    #[test]
    fn whatever_differs_in_a_record_differs_in_the_sum() {
        let base = record(Some(b"ab"), Some(b"c"));
        let mut others = vec![
            record(Some(b"a"), Some(b"bc")),
            record(None, Some(b"c")),
            record(Some(b"ab"), None),
            record(Some(b"ab"), Some(b"")),
        ];
        for change in 0..4 {
            let mut other = base.clone();
            match change {
                0 => other.offset += 1,
                1 => other.timestamp += 1,
                2 => other.headers[0].1 = Some(vec![]),
                _ => other.headers.clear(),
            }
            others.push(other);
        }
        assert!(others.iter().all(|other| of(other) != of(&base)));
        assert_eq!(of(&base.clone()), of(&base));
    }
}
