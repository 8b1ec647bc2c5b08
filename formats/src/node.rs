//! A manifest node: an immutable object that holds entries or references that left the root.
//!
//! ```text
//! magic 8 | version u16 | frame { level, cluster, incarnation, topic id, partition, entries | references } | crc32c u32
//! ```

use bytes::Bytes;
use varve_common::{
    Digest, Offset,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::{
    envelope,
    identity::PartitionIdentity,
    limits::{NODE_BYTES_MAX, NODE_LEVEL_MAX},
    manifest::{FoldPlan, NodeReference, Place},
    stored::{decode_list, encode_list},
};

const MAGIC: [u8; 8] = *b"VARVENOD";
const VERSION: u16 = 1;

/// A node and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Whose.
    pub identity: PartitionIdentity,
    /// What it holds.
    pub body: FoldPlan,
}

impl Node {
    /// The object's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        envelope::seal(MAGIC, VERSION, |frame| {
            frame.u8(self.body.level());
            self.identity.encode(frame);
            encode_body(frame, &self.body);
        })
    }

    /// The object's bytes and the reference that stands for them in the root.
    #[must_use]
    pub fn seal(&self, uid: u64) -> (Bytes, NodeReference) {
        let bytes = self.to_bytes();
        let written = (bytes.len() as u64, Digest::of(&bytes));
        let reference = self.body.reference(self.identity.incarnation.0, uid, written);
        (bytes, reference)
    }

    /// Reads the object's bytes.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > NODE_BYTES_MAX {
            return Err(DecodeError { what: "a node is larger than nodes may be", position: NODE_BYTES_MAX });
        }
        envelope::open(MAGIC, VERSION, bytes, |frame| {
            let level = frame.u8()?;
            let identity = PartitionIdentity::decode(frame)?;
            let body = decode_body(frame, level)?;
            check_order(&body).map_err(|what| frame.error(what))?;
            Ok(Self { identity, body })
        })
    }

    /// Reads the object's bytes and holds them against the reference that led here and the partition that it is of.
    pub fn verify(
        bytes: &Bytes,
        reference: &NodeReference,
        identity: &PartitionIdentity,
    ) -> Result<Self, DecodeError> {
        let error = |what| DecodeError { what, position: 0 };
        if bytes.len() as u64 != reference.length || Digest::of(bytes) != reference.sha256 {
            return Err(error("not the bytes that the reference names"));
        }
        let node = Self::from_bytes(bytes)?;
        if !node.identity.same_partition(identity) || node.identity.incarnation.0 != reference.incarnation {
            return Err(error("a node of another partition or incarnation"));
        }
        let sums = node.body.sums();
        if (node.body.level(), sums.base, sums.last) != (reference.level, reference.base, reference.last) {
            return Err(error("not the range that the reference names"));
        }
        Ok(node)
    }

    /// See `manifest::Root::find`.
    #[must_use]
    pub fn find(&self, offset: Offset) -> Option<Place<'_>> {
        self.places().into_iter().find(|place| place.end() > offset)
    }

    /// All places, in the order of their offsets.
    #[must_use]
    pub fn places(&self) -> Vec<Place<'_>> {
        match &self.body {
            FoldPlan::Leaf(entries) => entries.iter().map(Place::Entry).collect(),
            FoldPlan::Inner { references, .. } => references.iter().map(Place::Node).collect(),
        }
    }

    /// See `manifest::Root::find_timestamp`.
    #[must_use]
    pub fn find_timestamp(&self, timestamp: i64, from: Offset) -> Option<Place<'_>> {
        self.places().into_iter().find(|place| place.end() > from && place.max_timestamp() >= timestamp)
    }
}

fn encode_body(frame: &mut Encoder, body: &FoldPlan) {
    match body {
        FoldPlan::Leaf(entries) => encode_list(frame, entries),
        FoldPlan::Inner { references, .. } => encode_list(frame, references),
    }
}

fn decode_body(frame: &mut Decoder, level: u8) -> Result<FoldPlan, DecodeError> {
    match level {
        0 => Ok(FoldPlan::Leaf(decode_list(frame)?)),
        1..=NODE_LEVEL_MAX => Ok(FoldPlan::Inner { level, references: decode_list(frame)? }),
        _ => Err(frame.error("a node's level is out of range")),
    }
}

/// A node holds something, in order, and only what lies on lower levels: a walk down always ends.
fn check_order(body: &FoldPlan) -> Result<(), &'static str> {
    let ordered = match body {
        FoldPlan::Leaf(entries) => {
            !entries.is_empty() && entries.windows(2).all(|pair| pair[0].end() <= pair[1].base)
        }
        FoldPlan::Inner { level, references } => {
            !references.is_empty()
                && references.windows(2).all(|pair| pair[0].end() <= pair[1].base)
                && references.iter().all(|node| node.level < *level)
        }
    };
    if ordered { Ok(()) } else { Err("a node is empty, out of order or refers upwards") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{self, Form},
        identity::tests_support::identity,
        manifest::tests_support::{entry, node},
    };

    fn leaf() -> Node {
        Node { identity: identity(), body: FoldPlan::Leaf(vec![entry(0, 9), entry(10, 19)]) }
    }

    fn inner() -> Node {
        let references = vec![node(1, 0, 9), node(0, 10, 19)];
        Node { identity: identity(), body: FoldPlan::Inner { level: 2, references } }
    }

    #[test]
    fn nodes_round_trip_and_match_their_fixtures() {
        for (name, node) in [("node_leaf", leaf()), ("node_inner", inner())] {
            let (bytes, reference) = node.seal(5);
            let bytes = fixtures::check(name, Form::Exact, &bytes);
            assert_eq!(Node::verify(&bytes, &reference, &identity()), Ok(node));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_node_is_seen() {
        fixtures::each_mutation(&leaf().to_bytes(), |bytes| assert!(Node::from_bytes(&bytes).is_err()));
    }

    #[test]
    fn a_node_of_another_partition_is_refused() {
        let (bytes, reference) = leaf().seal(5);
        let mut other = identity();
        other.partition.0 += 1;
        let error = Node::verify(&bytes, &reference, &other).unwrap_err();
        assert_eq!(error.what, "a node of another partition or incarnation");
    }

    #[test]
    fn a_node_that_refers_upwards_is_refused() {
        let mut node = inner();
        let FoldPlan::Inner { references, .. } = &mut node.body else { unreachable!("made as inner") };
        references[0].level = 2;
        assert!(Node::from_bytes(&node.to_bytes()).is_err());
    }

    #[test]
    fn nodes_find_offsets_and_times() {
        let node = leaf();
        assert_eq!(node.find(Offset(10)), Some(Place::Entry(&entry(10, 19))));
        assert_eq!(node.find(Offset(20)), None);
        assert_eq!(node.find_timestamp(20, Offset(0)), Some(Place::Entry(&entry(0, 9))));
        assert_eq!(node.find_timestamp(21, Offset(0)), None);
    }
}
