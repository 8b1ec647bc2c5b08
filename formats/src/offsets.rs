//! Records of `__consumer_offsets`, in Kafka's own schemas (its `group-coordinator` module), so that tools which read that
//! topic find what they expect.
//!
//! ```text
//! key    1 | group | topic | partition i32            value  3 | offset i64 | leader epoch i32 | metadata | commit time i64
//!                                                     1 | offset i64 | metadata | commit time i64 | expiry i64
//! key    2 | group                                    value  3 | protocol type | generation i32 | protocol | leader
//!                                                              | state time i64 | members
//! member id | instance id | client id | host | rebalance ms i32 | session ms i32 | subscription | assignment
//! ```
//! Numbers are big-endian, a version is an i16 in front, strings carry an i16 length and bytes an i32 one (-1: null). No value:
//! the key is gone. Keys 0 and values of earlier versions are read as well. The id of an offset's topic is in a header of its
//! record ([`TOPIC_ID_HEADER`]), which Kafka's value of this version has no place for.

use bytes::{Buf as _, BufMut as _, Bytes};

/// The header that names the topic of an offset: 16 bytes.
pub const TOPIC_ID_HEADER: &str = "topic-id";

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The offset of a group in a partition.
    Offset {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A group's members and generation.
    Group(String),
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next record that the group wants.
    pub offset: i64,
    /// The epoch of the record before it, -1 where the client did not say.
    pub leader_epoch: i32,
    /// What the client put beside it.
    pub metadata: String,
    /// When it was committed, milliseconds since 1970.
    pub commit_ms: i64,
    /// When it goes, where a client of old said so (OffsetCommit 2 to 4); retention says it of all others.
    pub expire_ms: Option<i64>,
}

/// A group as of a rebalance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    /// `consumer`, `connect`, or what else the members said.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol that was chosen; none without members.
    pub protocol: Option<String>,
    /// The leading member's id.
    pub leader: Option<String>,
    /// When the group came to this, milliseconds since 1970; -1: unknown.
    pub state_ms: i64,
    /// Its members.
    pub members: Vec<MemberValue>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    /// Its id.
    pub id: String,
    /// The id that it was configured with (KIP-345).
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// How long a rebalance waits for it.
    pub rebalance_ms: i32,
    /// How long it may be silent.
    pub session_ms: i32,
    /// What it said of itself under the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

impl Key {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Offset { group, topic, partition } => {
                out.put_i16(1);
                put_string(&mut out, group);
                put_string(&mut out, topic);
                out.put_i32(*partition);
            }
            Self::Group(group) => {
                out.put_i16(2);
                put_string(&mut out, group);
            }
        }
        out
    }

    /// `None`: a key of a later release, or of somebody else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let key = match reader.i16()? {
            0 | 1 => {
                Self::Offset { group: reader.string()?, topic: reader.string()?, partition: reader.i32()? }
            }
            2 => Self::Group(reader.string()?),
            _ => return None,
        };
        reader.0.is_empty().then_some(key)
    }
}

impl OffsetValue {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // As Kafka: the one version that has a place for it has none for the epoch, which clients of old do not say.
        let version = if self.expire_ms.is_some() { 1 } else { 3 };
        out.put_i16(version);
        out.put_i64(self.offset);
        if version == 3 {
            out.put_i32(self.leader_epoch);
        }
        put_string(&mut out, &self.metadata);
        out.put_i64(self.commit_ms);
        if let Some(expire_ms) = self.expire_ms {
            out.put_i64(expire_ms);
        }
        out
    }

    /// `None`: a value of a later release, or of somebody else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let version = reader.i16()?;
        if !(0..=3).contains(&version) {
            return None;
        }
        let value = Self {
            offset: reader.i64()?,
            leader_epoch: if version == 3 { reader.i32()? } else { -1 },
            metadata: reader.string()?,
            commit_ms: reader.i64()?,
            expire_ms: if version == 1 { Some(reader.i64()?) } else { None },
        };
        reader.0.is_empty().then_some(value)
    }
}

impl GroupValue {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i16(3);
        put_string(&mut out, &self.protocol_type);
        out.put_i32(self.generation);
        put_nullable(&mut out, self.protocol.as_deref());
        put_nullable(&mut out, self.leader.as_deref());
        out.put_i64(self.state_ms);
        out.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_string(&mut out, &member.id);
            put_nullable(&mut out, member.instance_id.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            out.put_i32(member.rebalance_ms);
            out.put_i32(member.session_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out
    }

    /// `None`: a value of a later release, or of somebody else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let version = reader.i16()?;
        if !(0..=3).contains(&version) {
            return None;
        }
        let mut value = Self {
            protocol_type: reader.string()?,
            generation: reader.i32()?,
            protocol: reader.nullable()?,
            leader: reader.nullable()?,
            state_ms: if version >= 2 { reader.i64()? } else { -1 },
            members: Vec::new(),
        };
        for _ in 0..reader.i32()? {
            value.members.push(reader.member(version)?);
        }
        reader.0.is_empty().then_some(value)
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_nullable(out, Some(text));
}

/// Strings come from requests, whose lengths are 16 bits, or are ids that begin with a bounded part of one: a longer one cannot be.
fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return out.put_i16(-1) };
    let length = i16::try_from(text.len()).expect("no string of a request is longer than 32767 bytes");
    out.put_i16(length);
    out.put_slice(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).expect("no request is longer than two GiB"));
    out.put_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn i16(&mut self) -> Option<i16> {
        self.0.try_get_i16().ok()
    }

    fn i32(&mut self) -> Option<i32> {
        self.0.try_get_i32().ok()
    }

    fn i64(&mut self) -> Option<i64> {
        self.0.try_get_i64().ok()
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn nullable(&mut self) -> Option<Option<String>> {
        match self.i16()? {
            -1 => Some(None),
            length => {
                let bytes = self.take(usize::try_from(length).ok()?)?;
                Some(Some(std::str::from_utf8(bytes).ok()?.to_owned()))
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.nullable()?
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.i32()?).ok()?;
        self.take(length).map(Bytes::copy_from_slice)
    }

    fn member(&mut self, version: i16) -> Option<MemberValue> {
        let id = self.string()?;
        let instance_id = if version >= 3 { self.nullable()? } else { None };
        let (client_id, client_host) = (self.string()?, self.string()?);
        let first = self.i32()?;
        // Version 0 knew the session's time alone.
        let (rebalance_ms, session_ms) = if version >= 1 { (first, self.i32()?) } else { (first, first) };
        let (subscription, assignment) = (self.bytes()?, self.bytes()?);
        Some(MemberValue {
            id,
            instance_id,
            client_id,
            client_host,
            rebalance_ms,
            session_ms,
            subscription,
            assignment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupValue {
        GroupValue {
            protocol_type: "consumer".into(),
            generation: 7,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            state_ms: 1_000,
            members: vec![MemberValue {
                id: "m1".into(),
                instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                rebalance_ms: 300_000,
                session_ms: 45_000,
                subscription: Bytes::from_static(b"s"),
                assignment: Bytes::from_static(b"as"),
            }],
        }
    }

    #[test]
    fn keys_and_values_are_kafkas_bytes() {
        let key = Key::Offset { group: "g".into(), topic: "t".into(), partition: 3 };
        assert_eq!(key.encode(), b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        assert_eq!(Key::Group("g".into()).encode(), b"\0\x02\0\x01g");
        let value =
            OffsetValue { offset: 5, leader_epoch: 2, metadata: "m".into(), commit_ms: 9, expire_ms: None };
        assert_eq!(value.encode(), b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x02\0\x01m\0\0\0\0\0\0\0\x09");
        let value = OffsetValue { leader_epoch: -1, expire_ms: Some(10), ..value };
        assert_eq!(value.encode(), b"\0\x01\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x0a");
        assert_eq!(OffsetValue::decode(&value.encode()), Some(value));
        let bytes = group().encode();
        assert_eq!(bytes[..16], *b"\0\x03\0\x08consumer\0\0\0\x07");
    }

    #[test]
    fn what_is_written_reads_back_and_nothing_shorter_does() {
        let value = OffsetValue {
            offset: 5,
            leader_epoch: -1,
            metadata: String::new(),
            commit_ms: 9,
            expire_ms: None,
        };
        let (offset, whole) = (value.encode(), group().encode());
        assert_eq!(OffsetValue::decode(&offset), Some(value));
        assert_eq!(GroupValue::decode(&whole), Some(group()));
        for key in
            [Key::Group("g".into()), Key::Offset { group: "g".into(), topic: "t".into(), partition: 0 }]
        {
            let bytes = key.encode();
            assert!((0..bytes.len()).all(|end| Key::decode(&bytes[..end]).is_none()));
            assert_eq!(Key::decode(&bytes), Some(key));
        }
        assert!((0..offset.len()).all(|end| OffsetValue::decode(&offset[..end]).is_none()));
        assert!((0..whole.len()).all(|end| GroupValue::decode(&whole[..end]).is_none()));
    }

    #[test]
    fn values_of_earlier_kafkas_are_read() {
        let old = b"\0\x01\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x0a";
        let value = OffsetValue {
            offset: 5,
            leader_epoch: -1,
            metadata: "m".into(),
            commit_ms: 9,
            expire_ms: Some(10),
        };
        assert_eq!(OffsetValue::decode(old), Some(value));
        let old = b"\0\0\0\x01c\0\0\0\x02\xff\xff\xff\xff\0\0\0\0";
        let value = GroupValue::decode(old).expect("version 0");
        assert_eq!((value.generation, value.protocol, value.state_ms), (2, None, -1));
        assert_eq!(GroupValue::decode(b"\0\x04"), None);
        assert_eq!(Key::decode(b"\0\x05\0\x01g"), None);
    }
}
