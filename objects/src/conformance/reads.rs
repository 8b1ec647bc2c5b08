//! Whole objects, ranges and ends.

use bytes::Bytes;
use varve_common::Digest;

use super::{Case, Violation};
use crate::{Body, GetError, HeadError, Suffix};

/// The size of the big body: several of any store's own pieces.
const BIG_BYTES: usize = 8 << 20;
const DIGITS: &str = "0123456789";

impl Case<'_> {
    pub(super) async fn range(&self) -> Result<(), Violation> {
        self.given("one", DIGITS.as_bytes()).await?;
        let key = self.key("one");
        for (range, wanted) in [(0..10, DIGITS), (0..1, "0"), (3..7, "3456"), (9..10, "9")] {
            let found = self.store.get_range(&key, range).await;
            self.expect("a range inside is read exactly", found, Ok(Bytes::from(wanted)))?;
        }
        for range in [8..11, 10..11, 100..200, 4..4] {
            let found = self.store.get_range(&key, range.clone()).await;
            self.expect("a range that is not all there is refused", found, Err(GetError::OutOfRange(range)))?;
        }
        Ok(())
    }

    pub(super) async fn suffix(&self) -> Result<(), Violation> {
        self.given("one", DIGITS.as_bytes()).await?;
        let key = self.key("one");
        for (asked, wanted) in [(1, "9"), (4, "6789"), (10, DIGITS), (500, DIGITS)] {
            let found = self.store.get_suffix(&key, asked).await;
            let wanted = Suffix { bytes: Bytes::from(wanted), object_bytes: 10 };
            self.expect("a suffix is as long as asked or the whole", found, Ok(wanted))?;
        }
        let found = self.store.get_suffix(&key, 0).await;
        self.expect("a suffix of nothing is refused", found, Err(GetError::OutOfRange(0..0)))
    }

    pub(super) async fn empty_object(&self) -> Result<(), Violation> {
        self.given("one", b"").await?;
        let key = self.key("one");
        self.expect("an empty object is read", self.store.get(&key).await, Ok(Bytes::new()))?;
        self.expect("an empty object has no length", self.store.head(&key).await, Ok(0))?;
        let wanted = Suffix { bytes: Bytes::new(), object_bytes: 0 };
        self.expect("an empty object has an empty suffix", self.store.get_suffix(&key, 8).await, Ok(wanted))?;
        let found = self.store.get_range(&key, 0..1).await;
        self.expect("an empty object has no range", found, Err(GetError::OutOfRange(0..1)))
    }

    pub(super) async fn missing_object(&self) -> Result<(), Violation> {
        let key = self.key("absent/object");
        let case = "what is not there is not found";
        self.expect(case, self.store.get(&key).await, Err(GetError::NotFound))?;
        self.expect(case, self.store.get_range(&key, 0..1).await, Err(GetError::NotFound))?;
        self.expect(case, self.store.get_suffix(&key, 1).await, Err(GetError::NotFound))?;
        self.expect(case, self.store.head(&key).await, Err(HeadError::NotFound))
    }

    pub(super) async fn big_body(&self) -> Result<(), Violation> {
        let bytes: Bytes =
            (0..BIG_BYTES).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect::<Vec<u8>>().into();
        let pieces: Vec<Bytes> = (0..bytes.len())
            .step_by(999_983)
            .map(|from| bytes.slice(from..bytes.len().min(from + 999_983)))
            .collect();
        let key = self.key("body");
        let put = self.store.put_new(&key, Body::from(pieces), Digest::of(&bytes)).await;
        self.expect("a big body in pieces is put", put, Ok(()))?;
        self.expect("the length is known", self.store.head(&key).await, Ok(BIG_BYTES as u64))?;
        let found = self.store.get(&key).await.map(|body| Digest::of(&body));
        self.expect("bytes come back unchanged", found, Ok(Digest::of(&bytes)))?;
        let middle = 3_000_001..5_000_003;
        let found = self.store.get_range(&key, middle.start as u64..middle.end as u64).await;
        let found = found.map(|body| Digest::of(&body));
        self.expect("a big range comes back unchanged", found, Ok(Digest::of(&bytes[middle])))
    }
}
