//! Who: nodes, groups, replicas, topics, clusters.

use std::fmt;

/// A node of the cluster: 1 to 2^24 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The largest id that fits beside a counter in a [`ReplicaId`].
    pub const MAX: u32 = (1 << 24) - 1;

    /// The id, or `None` outside 1..=[`NodeId::MAX`].
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id == 0 || id > Self::MAX { None } else { Some(Self(id)) }
    }

    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One Raft group: the metadata group, or one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The metadata group of the cluster.
    pub const METADATA: Self = Self(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// One incarnation of one replica of one group (RAFT.md 1): `node << 40 | counter`. A disk that was wiped returns
/// under a new counter, so that an amnesiac is never counted as the voter it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(u64);

impl ReplicaId {
    const COUNTER_BITS: u32 = 40;

    /// The replica with this counter (1 to 2^40 - 1: 0 would make raft's invalid id) on this node.
    #[must_use]
    pub const fn new(node: NodeId, counter: u64) -> Option<Self> {
        if counter == 0 || counter >> Self::COUNTER_BITS != 0 {
            return None;
        }
        Some(Self((node.0 as u64) << Self::COUNTER_BITS | counter))
    }

    /// Reads back what [`ReplicaId::get`] gave, `None` where node or counter is out of range.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match NodeId::new((raw >> Self::COUNTER_BITS) as u32) {
            Some(node) => Self::new(node, raw & ((1 << Self::COUNTER_BITS) - 1)),
            None => None,
        }
    }

    /// The id as raft and the write-ahead log hold it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The node that this replica lives on.
    #[must_use]
    pub const fn node(self) -> NodeId {
        NodeId((self.0 >> Self::COUNTER_BITS) as u32)
    }

    /// Which of the replicas that were ever handed out on its node.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & ((1 << Self::COUNTER_BITS) - 1)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.0 & ((1 << Self::COUNTER_BITS) - 1))
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A version 4 UUID (RFC 9562) made of the given random bits.
            #[must_use]
            pub const fn from_random(random: u128) -> Self {
                let mut bytes = random.to_be_bytes();
                bytes[6] = bytes[6] & 0x0f | 0x40;
                bytes[8] = bytes[8] & 0x3f | 0x80;
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            /// Kafka's form: URL-safe base64 without padding.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                let bits = u128::from_be_bytes(self.0);
                for digit in 0..22 {
                    let shift = 122_i32 - 6 * digit;
                    let value = if shift >= 0 { bits >> shift } else { bits << -shift };
                    write!(f, "{}", ALPHABET[(value & 63) as usize] as char)?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_base64(text).map(Self).ok_or(ParseIdError)
            }
        }
    };
}

uuid_id! {
    /// A topic for all its life (KIP-516); a topic made anew under an old name has another id.
    TopicId
}
uuid_id! {
    /// A cluster; kept by a restore in place, new for a clone.
    ClusterId
}

impl ClusterId {
    /// What nodes of one life know each other by: the cluster's id, in a later life with its number in it. Nodes of an earlier
    /// life that come back are of another cluster to those of this one, whatever both say of their groups.
    #[must_use]
    pub fn in_life(mut self, incarnation: Incarnation) -> Self {
        let number = (incarnation.0.wrapping_sub(Incarnation::FIRST.0)).to_be_bytes();
        self.0.iter_mut().rev().zip(number.iter().rev()).for_each(|(byte, number)| *byte ^= number);
        self
    }
}

impl TopicId {
    /// The id that stands for "none" on the wire.
    pub const ZERO: Self = Self([0; 16]);
}

/// The text is not the 22 characters of a base64 UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a base64 uuid of 22 characters")]
pub struct ParseIdError;

fn parse_base64(text: &str) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut bits: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        // 22 digits hold 132 bits: the last digit gives its upper two bits only.
        bits = if place < 21 { bits << 6 | u128::from(value) } else { bits << 2 | u128::from(value >> 4) };
    }
    Some(bits.to_be_bytes())
}

/// A partition's number within its topic, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub i32);

impl fmt::Display for PartitionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One life of a cluster on a bucket prefix, from 1; a restore starts the next (TIERING.md 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The life in which a cluster is founded.
    pub const FIRST: Self = Self(1);

    /// The life after this one: lives are counted without a gap.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }

    /// The life before this one, `None` before the first.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        if self.0 > Self::FIRST.0 { Some(Self(self.0 - 1)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_id_round_trips_and_refuses_zero() {
        let node = NodeId::new(7).unwrap();
        let replica = ReplicaId::new(node, 42).unwrap();
        assert_eq!(ReplicaId::from_raw(replica.get()), Some(replica));
        assert_eq!((replica.node(), replica.to_string().as_str()), (node, "7.42"));
        assert_eq!(ReplicaId::new(node, 0), None);
        assert_eq!(ReplicaId::from_raw(42), None);
    }

    #[test]
    fn nodes_of_another_life_are_of_another_cluster() {
        let cluster = ClusterId::from_random(5);
        let life = |number| cluster.in_life(Incarnation(number));
        assert_eq!(life(1), cluster);
        assert!(life(2) != life(1) && life(3) != life(2) && life(3) != life(1));
    }

    #[test]
    fn uuids_print_as_kafka_prints_them() {
        let id = TopicId([0xff; 16]);
        assert_eq!(id.to_string(), "_____________________w");
        let random = TopicId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(random.to_string().parse(), Ok(random));
        assert_eq!("short".parse::<TopicId>(), Err(ParseIdError));
    }
}
