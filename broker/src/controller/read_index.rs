//! ReadIndex between nodes: a follower asks where a leader's records end, and the leader answers once a quorum has said that it
//! still leads. Whatever was acknowledged before the question is below that.

use bytes::Bytes;
use varve_common::{
    GroupId, Offset,
    codec::{DecodeError, Decoder, Encoder},
};

/// What one group takes in a reply.
const ANSWER_BYTES: usize = 16;

/// Where the records of groups end that the asked node leads; the others are missing.
#[must_use]
pub fn encode(confirmed: &[(GroupId, Offset)]) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.list(confirmed.iter(), |encoder, (group, end)| {
        encoder.u64(group.0);
        encoder.u64(end.0);
    });
    encoder.finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(reply: Bytes) -> Result<Vec<(GroupId, Offset)>, DecodeError> {
    let mut decoder = Decoder::new(reply);
    let confirmed =
        decoder.list(ANSWER_BYTES, |decoder| Ok((GroupId(decoder.u64()?), Offset(decoder.u64()?))))?;
    decoder.finish()?;
    Ok(confirmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_round_trip_and_what_is_cut_is_refused() {
        let confirmed = vec![(GroupId(7), Offset(5)), (GroupId(9), Offset(0))];
        let encoded = encode(&confirmed);
        assert_eq!(decode(encoded.clone()), Ok(confirmed));
        for end in 0..encoded.len() {
            assert!(decode(encoded.slice(..end)).is_err());
        }
    }
}
