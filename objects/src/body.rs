//! What is put: bytes in pieces, so that an upload need not copy them together.

use bytes::{Bytes, BytesMut};
use varve_common::{Digest, checksum::DigestBuilder};

/// The bytes of one object. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body(Vec<Bytes>);

impl Body {
    /// The pieces, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// The length of all pieces together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The SHA-256 of all pieces.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut builder = DigestBuilder::default();
        self.0.iter().for_each(|piece| builder.update(piece));
        builder.finish()
    }

    /// One piece: copied together where there are several.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        if let [piece] = self.0.as_slice() {
            return piece.clone();
        }
        let mut joined = BytesMut::with_capacity(self.bytes() as usize);
        self.0.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined.freeze()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces)
    }
}
