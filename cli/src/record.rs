//! A record as a person or a program reads it: JSON, one object per line, and back.
//!
//! Bytes that are UTF-8 stand as text. Others stand as base64, and a field beside them says so: `key_encoding`,
//! `value_encoding`, and `encoding` in a header, each `"base64"`. What is absent is `null`.

use serde_json::{Map, Value, json};
use varve_protocol::batch;

use crate::{base64, client::producer::NewRecord};

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// Of one in a batch.
    pub fn of(topic: &str, partition: i32, record: &batch::Record<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Self {
            topic: topic.to_owned(),
            partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: owned(record.key),
            value: owned(record.value),
            headers: record.headers.iter().map(|(key, value)| ((*key).to_owned(), owned(*value))).collect(),
        }
    }

    /// One JSON object.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("topic".into(), json!(self.topic));
        object.insert("partition".into(), json!(self.partition));
        object.insert("offset".into(), json!(self.offset));
        object.insert("timestamp".into(), json!(self.timestamp));
        put(&mut object, "key", "key_encoding", self.key.as_deref());
        put(&mut object, "value", "value_encoding", self.value.as_deref());
        if !self.headers.is_empty() {
            let header = |(key, value): &(String, Option<Vec<u8>>)| {
                let mut object = Map::new();
                object.insert("key".into(), json!(key));
                put(&mut object, "value", "encoding", value.as_deref());
                Value::Object(object)
            };
            object.insert("headers".into(), self.headers.iter().map(header).collect());
        }
        Value::Object(object)
    }
}

fn put(object: &mut Map<String, Value>, name: &str, encoding: &str, bytes: Option<&[u8]>) {
    let value = match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => json!(text),
        Some(Err(_)) => {
            object.insert(encoding.into(), json!("base64"));
            json!(base64::encode(bytes.unwrap_or_default()))
        }
    };
    object.insert(name.into(), value);
}

/// Reads what [`Record::to_json`] writes. Topic, partition and offset say where the record was, not where it goes:
/// they are not looked at.
pub fn from_json(line: &[u8]) -> Result<NewRecord, String> {
    let value: Value = serde_json::from_slice(line).map_err(|cause| cause.to_string())?;
    let object = value.as_object().ok_or("expected a JSON object")?;
    let headers = match object.get("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(headers) => {
            let headers = headers.as_array().ok_or("headers: expected a list")?;
            headers.iter().map(header).collect::<Result<_, _>>()?
        }
    };
    let timestamp = match object.get("timestamp") {
        None | Some(Value::Null) => None,
        Some(timestamp) => Some(timestamp.as_i64().ok_or("timestamp: expected milliseconds")?),
    };
    Ok(NewRecord {
        key: take(object, "key", "key_encoding")?,
        value: take(object, "value", "value_encoding")?,
        headers,
        timestamp,
        partition: None,
    })
}

fn header(value: &Value) -> Result<(String, Option<Vec<u8>>), String> {
    let object = value.as_object().ok_or("headers: expected objects")?;
    let key = object.get("key").and_then(Value::as_str).ok_or("headers: expected a key")?;
    Ok((key.to_owned(), take(object, "value", "encoding")?))
}

fn take(object: &Map<String, Value>, name: &str, encoding: &str) -> Result<Option<Vec<u8>>, String> {
    let is_base64 = match object.get(encoding).map(|encoding| encoding.as_str()) {
        None => false,
        Some(Some("base64")) => true,
        Some(_) => return Err(format!("{encoding}: expected \"base64\"")),
    };
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if is_base64 => {
            base64::decode(text).map(Some).ok_or_else(|| format!("{name}: not base64"))
        }
        Some(Value::String(text)) => Ok(Some(text.clone().into_bytes())),
        Some(other) => Ok(Some(other.to_string().into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trips_bytes_text_and_null() {
        let record = Record {
            topic: "t".into(),
            partition: 3,
            offset: 47,
            timestamp: 1_700_000_000_123,
            key: Some(vec![0xff, 0, 1]),
            value: Some("zwölf \"\n".into()),
            headers: vec![
                ("a".into(), None),
                ("a".into(), Some(vec![0x80])),
                ("b".into(), Some(b"c".into())),
            ],
        };
        let line = record.to_json().to_string();
        assert!(!line.contains('\n'), "one line");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["key_encoding"], "base64");
        assert_eq!(value.get("value_encoding"), None, "text needs no encoding");
        let again = from_json(line.as_bytes()).unwrap();
        let NewRecord { key, value, headers, timestamp, partition } = again;
        assert_eq!((key, value, headers), (record.key, record.value, record.headers));
        assert_eq!((timestamp, partition), (Some(record.timestamp), None));
    }

    #[test]
    fn a_tombstone_stays_one() {
        let again = from_json(br#"{"key":"k","value":null}"#).unwrap();
        assert_eq!((again.key, again.value), (Some(b"k".to_vec()), None));
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        for line in [
            "",
            "1",
            "{\"headers\":1}",
            r#"{"value":"!","value_encoding":"base64"}"#,
            r#"{"value":"","value_encoding":"hex"}"#,
        ] {
            assert!(from_json(line.as_bytes()).is_err(), "{line}");
        }
    }
}
