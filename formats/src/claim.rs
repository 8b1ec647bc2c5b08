//! The claim on a bucket prefix: one cluster a prefix (TIERING.md 7, 8).

use bytes::Bytes;
use varve_common::{
    ClusterId, Incarnation, NodeId,
    codec::{DecodeError, Decoder, Encoder},
};

use crate::envelope;

const CLAIM_MAGIC: [u8; 8] = *b"VARVECLM";
const COMPLETE_MAGIC: [u8; 8] = *b"VARVECMP";
const VERSION: u16 = 1;

/// The format that this release writes under a claimed prefix.
pub const FORMAT: u16 = 1;

/// Says whose the prefix is, from one life of the cluster on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub cluster: ClusterId,
    /// The life that begins with this claim; also in its key.
    pub incarnation: Incarnation,
    /// Wall-clock time.
    pub created_ms: i64,
    /// The node that made it.
    pub node: NodeId,
    /// The format of what lies under the prefix.
    pub format: u16,
    /// Of a cluster that was copied here from another's bucket: which. Its first life is that copy.
    pub origin: Option<Origin>,
}

/// The life of a cluster of which another is a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its life.
    pub incarnation: Incarnation,
}

impl Claim {
    /// The object's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        envelope::seal(CLAIM_MAGIC, VERSION, |frame| {
            encode_life(frame, self.cluster, self.incarnation);
            frame.i64(self.created_ms);
            frame.u32(self.node.get());
            frame.u16(self.format);
            // A frame that ends here has none.
            if let Some(origin) = self.origin {
                encode_life(frame, origin.cluster, origin.incarnation);
            }
        })
    }

    /// Reads the object's bytes.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, DecodeError> {
        envelope::open(CLAIM_MAGIC, VERSION, bytes, |frame| {
            let (cluster, incarnation) = decode_life(frame)?;
            let created_ms = frame.i64()?;
            let node = NodeId::new(frame.u32()?).ok_or_else(|| frame.error("a node id is out of range"))?;
            let format = frame.u16()?;
            let origin = (!frame.is_empty()).then(|| decode_life(frame)).transpose()?;
            let origin = origin.map(|(cluster, incarnation)| Origin { cluster, incarnation });
            Ok(Self { cluster, incarnation, created_ms, node, format, origin })
        })
    }
}

/// Says that every group has a verified checkpoint in an incarnation: from then on restore starts from it, and never
/// from an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Whose.
    pub cluster: ClusterId,
    /// Which life.
    pub incarnation: Incarnation,
    /// Wall-clock time.
    pub completed_ms: i64,
    /// How many groups have a checkpoint in it.
    pub groups: u64,
    /// A random number of the restore that says so, by which it knows its own: several may have resumed one life. 0 where none is
    /// said, as by releases before 2026-11-22.
    pub token: u64,
}

impl Complete {
    /// The object's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        envelope::seal(COMPLETE_MAGIC, VERSION, |frame| {
            encode_life(frame, self.cluster, self.incarnation);
            frame.i64(self.completed_ms);
            frame.u64(self.groups);
            if self.token != 0 {
                frame.u64(self.token);
            }
        })
    }

    /// Reads the object's bytes.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, DecodeError> {
        envelope::open(COMPLETE_MAGIC, VERSION, bytes, |frame| {
            let (cluster, incarnation) = decode_life(frame)?;
            let (completed_ms, groups) = (frame.i64()?, frame.u64()?);
            let token = if frame.remaining() == 0 { 0 } else { frame.u64()? };
            Ok(Self { cluster, incarnation, completed_ms, groups, token })
        })
    }
}

pub(crate) fn encode_life(frame: &mut Encoder, cluster: ClusterId, incarnation: Incarnation) {
    frame.raw(&cluster.0);
    frame.u32(incarnation.0);
}

pub(crate) fn decode_life(frame: &mut Decoder) -> Result<(ClusterId, Incarnation), DecodeError> {
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&frame.raw(16)?);
    Ok((ClusterId(cluster), Incarnation(frame.u32()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, Form};

    fn claim() -> Claim {
        let cluster = ClusterId::from_random(9);
        let node = NodeId::new(3).unwrap();
        let (incarnation, created_ms) = (Incarnation(2), 1_700_000_000_000);
        Claim { cluster, incarnation, created_ms, node, format: FORMAT, origin: None }
    }

    #[test]
    fn claims_round_trip_and_match_their_fixtures() {
        let bytes = fixtures::check("claim", Form::Exact, &claim().to_bytes());
        assert_eq!(Claim::from_bytes(&bytes), Ok(claim()));
        let origin = Origin { cluster: ClusterId::from_random(8), incarnation: Incarnation(4) };
        let copy = Claim { origin: Some(origin), ..claim() };
        let bytes = fixtures::check("claim_of_a_copy", Form::Exact, &copy.to_bytes());
        assert_eq!(Claim::from_bytes(&bytes), Ok(copy));
        let Claim { cluster, incarnation, .. } = claim();
        for (name, token) in [("claim_complete", 0), ("claim_complete_token", 77)] {
            let complete = Complete { cluster, incarnation, completed_ms: 5, groups: 12, token };
            let bytes = fixtures::check(name, Form::Exact, &complete.to_bytes());
            assert_eq!(Complete::from_bytes(&bytes), Ok(complete));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_claim_is_seen() {
        fixtures::each_mutation(&claim().to_bytes(), |bytes| assert!(Claim::from_bytes(&bytes).is_err()));
    }

    #[test]
    fn a_claim_is_never_taken_for_its_completion() {
        assert!(Complete::from_bytes(&claim().to_bytes()).is_err());
    }
}
