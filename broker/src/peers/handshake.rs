//! Who speaks on a connection, and what for: `Hello`, and `Welcome` or `Refused`.

use std::fmt;

use bytes::Bytes;
use varve_common::{
    ClusterId, NodeId,
    codec::{DecodeError, Decoder, Encoder},
};

/// The newest way of speaking that this release knows: both sides take the older of theirs.
pub const SPOKEN: u8 = 1;

/// The oldest way of speaking that this release knows.
pub const SPOKEN_MIN: u8 = 1;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Messages and pulses of the node that dialled.
    Messages,
    /// Calls by the node that dialled.
    Calls,
    /// Only to learn who answers.
    Name,
    /// Calls for pieces of files, which are large and may take their time.
    Pieces,
}

/// What the node that dialled says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The newest way of speaking that it knows.
    pub spoken: u8,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub from: NodeId,
    /// Who it believes to have dialled; `None` where it knows a name only.
    pub to: Option<NodeId>,
    /// Its process, drawn at its start.
    pub process: u64,
    /// What it wants the connection for.
    pub purpose: Purpose,
}

/// What the other answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The way of speaking from here on.
    pub spoken: u8,
    /// Itself.
    pub node: NodeId,
    /// Its cluster: the same.
    pub cluster: ClusterId,
    /// Its process, drawn at its start.
    pub process: u64,
}

/// Why a node does not want to speak with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is in no cluster yet.
    NotFormed,
    /// It is in another cluster.
    OtherCluster(ClusterId),
    /// It is another node than the one that was wanted.
    OtherNode(NodeId),
    /// It speaks only in newer ways, or the other does.
    Version(u8),
    /// It has the number that the caller gives as its own.
    SameNode,
    /// What the caller says of itself is not what its certificate says.
    Certificate,
    /// There are enough connections.
    Busy,
    /// It does not know yet what it is.
    NotReady,
    /// A reason that later releases know.
    Other(u8),
}

impl Refusal {
    /// What the log and the metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFormed => "not in a cluster yet",
            Self::OtherCluster(_) => "another cluster",
            Self::OtherNode(_) => "another node than was wanted",
            Self::Version(_) => "no common version",
            Self::SameNode => "two nodes with one id",
            Self::Certificate => "node id is not the certificate's",
            Self::Busy => "too many connections",
            Self::NotReady => "not ready to answer",
            Self::Other(_) => "refused for a reason of a later release",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster(cluster) => write!(f, "it is in another cluster, {cluster}"),
            Self::OtherNode(node) => write!(f, "it is node {node}"),
            other => f.write_str(other.name()),
        }
    }
}

impl Hello {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| {
            frame.u8(self.spoken);
            frame.raw(&self.cluster.0);
            frame.u32(self.from.get());
            frame.u32(self.to.map_or(0, NodeId::get));
            frame.u64(self.process);
            frame.u8(match self.purpose {
                Purpose::Messages => 0,
                Purpose::Calls => 1,
                Purpose::Name => 2,
                Purpose::Pieces => 3,
            });
        });
        encoder.finish()
    }

    /// Reads it.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        whole(bytes, |frame| {
            Ok(Self {
                spoken: frame.u8()?,
                cluster: cluster(frame)?,
                from: node(frame)?,
                to: NodeId::new(frame.u32()?),
                process: frame.u64()?,
                purpose: match frame.u8()? {
                    0 => Purpose::Messages,
                    1 => Purpose::Calls,
                    2 => Purpose::Name,
                    3 => Purpose::Pieces,
                    _ => return Err(frame.error("unknown purpose of a connection")),
                },
            })
        })
    }
}

impl Welcome {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| {
            frame.u8(self.spoken);
            frame.u32(self.node.get());
            frame.raw(&self.cluster.0);
            frame.u64(self.process);
        });
        encoder.finish()
    }

    /// Reads it.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        whole(bytes, |frame| {
            let (spoken, node) = (frame.u8()?, node(frame)?);
            Ok(Self { spoken, node, cluster: cluster(frame)?, process: frame.u64()? })
        })
    }
}

impl Refusal {
    /// Its bytes.
    pub fn encode(self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| match self {
            Self::NotFormed => frame.u8(1),
            Self::OtherCluster(cluster) => {
                frame.u8(2);
                frame.raw(&cluster.0);
            }
            Self::OtherNode(node) => {
                frame.u8(3);
                frame.u32(node.get());
            }
            Self::Version(spoken) => {
                frame.u8(4);
                frame.u8(spoken);
            }
            Self::SameNode => frame.u8(5),
            Self::Certificate => frame.u8(6),
            Self::Busy => frame.u8(7),
            Self::NotReady => frame.u8(8),
            Self::Other(why) => frame.u8(why),
        });
        encoder.finish()
    }

    /// Reads it.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        whole(bytes, |frame| {
            Ok(match frame.u8()? {
                1 => Self::NotFormed,
                2 => Self::OtherCluster(cluster(frame)?),
                3 => Self::OtherNode(node(frame)?),
                4 => Self::Version(frame.u8()?),
                5 => Self::SameNode,
                6 => Self::Certificate,
                7 => Self::Busy,
                8 => Self::NotReady,
                other => Self::Other(other),
            })
        })
    }
}

fn whole<T>(
    bytes: Bytes,
    fields: impl FnOnce(&mut Decoder) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.frame(fields)?;
    decoder.finish()?;
    Ok(value)
}

fn cluster(decoder: &mut Decoder) -> Result<ClusterId, DecodeError> {
    let bytes = decoder.raw(16)?;
    Ok(ClusterId(bytes.as_ref().try_into().expect("raw gives as many bytes as asked")))
}

fn node(decoder: &mut Decoder) -> Result<NodeId, DecodeError> {
    NodeId::new(decoder.u32()?).ok_or_else(|| decoder.error("no node id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_round_trip_and_refuse_what_is_cut() {
        let (one, two) = (NodeId::new(1).unwrap(), NodeId::new(2));
        let cluster = ClusterId([9; 16]);
        for purpose in [Purpose::Messages, Purpose::Calls, Purpose::Name] {
            let hello = Hello { spoken: 1, cluster, from: one, to: two, process: 7, purpose };
            assert_eq!(Hello::decode(hello.encode()), Ok(hello));
            assert_eq!(Hello::decode(Hello { to: None, ..hello }.encode()), Ok(Hello { to: None, ..hello }));
            for cut in 0..hello.encode().len() {
                assert!(Hello::decode(hello.encode().slice(..cut)).is_err());
            }
        }
        let welcome = Welcome { spoken: 1, node: one, cluster, process: 8 };
        assert_eq!(Welcome::decode(welcome.encode()), Ok(welcome));
        let refusals = [
            Refusal::NotFormed,
            Refusal::OtherCluster(cluster),
            Refusal::OtherNode(one),
            Refusal::Version(3),
            Refusal::SameNode,
            Refusal::Certificate,
            Refusal::Busy,
            Refusal::NotReady,
            Refusal::Other(200),
        ];
        for refusal in refusals {
            assert_eq!(Refusal::decode(refusal.encode()), Ok(refusal));
        }
    }
}
