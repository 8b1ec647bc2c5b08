//! What every [`Store`] does alike: one suite for S3 servers, directories and the simulator's store.
//!
//! [`run`] leaves nothing behind in the folder it is given, and needs that folder empty.

use bytes::Bytes;
use futures_util::future::join_all;
use thiserror::Error;
use varve_common::{Digest, ObjectKey};

use crate::{Body, Failure, GetError, HeadError, Listed, PutError, Store, Suffix, limits::RACING_WRITERS};

/// A store that is not like the others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{case}: {detail}")]
pub struct Violation {
    /// The behaviour in question.
    pub case: &'static str,
    /// What was found instead.
    pub detail: String,
}

/// Runs every case under `folder`.
pub async fn run(store: &dyn Store, folder: &str) -> Result<(), Violation> {
    let suite = Suite { store, folder };
    suite.create_only().await?;
    suite.racing_creates().await?;
    suite.ranges().await?;
    suite.suffixes().await?;
    suite.empty_object().await?;
    suite.missing_object().await?;
    suite.big_body().await?;
    suite.hostile_keys().await?;
    suite.refused_keys().await?;
    suite.listing().await?;
    suite.clean_up().await
}

/// The size of the big body: several of any store's own pieces.
const BIG_BYTES: usize = 8 << 20;

/// Legal keys that break naive signing, escaping or ordering (FAULTS T42), ascending by bytes.
const HOSTILE: [&str; 9] = [
    "$&'()*+,;=",
    "...",
    "a b",
    "a%2Fb",
    "date=2026-01-01/topic=x y",
    "plus+plus",
    "q?x=1#y",
    "~tilde!@:",
    "\u{e9}/\u{65e5}\u{672c}",
];

struct Suite<'a> {
    store: &'a dyn Store,
    folder: &'a str,
}

/// Compares what was found with what every store gives.
fn expect<T: PartialEq + std::fmt::Debug>(case: &'static str, found: T, wanted: T) -> Result<(), Violation> {
    if found == wanted {
        return Ok(());
    }
    let mut detail = format!("found {found:?}, wanted {wanted:?}");
    detail.truncate(detail.floor_char_boundary(2000));
    Err(Violation { case, detail })
}

impl Suite<'_> {
    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(format!("{}/{name}", self.folder))
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> Result<(), PutError> {
        let body = Bytes::copy_from_slice(bytes);
        self.store.put_new(&self.key(name), body.into(), Digest::of(bytes)).await
    }

    async fn create_only(&self) -> Result<(), Violation> {
        expect("a new key is created", self.put("once", b"first").await, Ok(()))?;
        let again = self.put("once", b"second").await;
        expect("a taken key is refused", again, Err(PutError::AlreadyExists))?;
        let found = self.store.get(&self.key("once")).await;
        expect("a refused put changes nothing", found, Ok(Bytes::from_static(b"first")))
    }

    async fn racing_creates(&self) -> Result<(), Violation> {
        let key = self.key("race");
        let bodies: Vec<Bytes> = (0..RACING_WRITERS).map(|writer| vec![writer as u8; 4096].into()).collect();
        let puts = bodies.iter().map(|body| self.store.put_new(&key, body.clone().into(), Digest::of(body)));
        let results = join_all(puts).await;
        let winners: Vec<usize> = (0..bodies.len()).filter(|&writer| results[writer].is_ok()).collect();
        expect("one of racing creates wins", winners.len(), 1)?;
        let found = self.store.get(&key).await;
        expect("the winner's bytes are there", found, Ok(bodies[winners[0]].clone()))
    }

    async fn ranges(&self) -> Result<(), Violation> {
        expect("a new key is created", self.put("digits", b"0123456789").await, Ok(()))?;
        let key = self.key("digits");
        let inside = [(0..10, "0123456789"), (0..1, "0"), (3..7, "3456"), (9..10, "9")];
        for (range, wanted) in inside {
            let found = self.store.get_range(&key, range).await;
            expect("a range inside is read exactly", found, Ok(Bytes::from(wanted)))?;
        }
        for range in [8..11, 10..11, 100..200, 0..11, 4..4] {
            let found = self.store.get_range(&key, range.clone()).await;
            expect("a range that is not all there is refused", found, Err(GetError::OutOfRange(range)))?;
        }
        Ok(())
    }

    async fn suffixes(&self) -> Result<(), Violation> {
        let key = self.key("digits");
        for (asked, wanted) in [(1, "9"), (4, "6789"), (10, "0123456789"), (500, "0123456789")] {
            let found = self.store.get_suffix(&key, asked).await;
            let wanted = Suffix { bytes: Bytes::from(wanted), object_bytes: 10 };
            expect("a suffix is as long as asked or the whole", found, Ok(wanted))?;
        }
        let found = self.store.get_suffix(&key, 0).await;
        expect("a suffix of nothing is refused", found, Err(GetError::OutOfRange(0..0)))
    }

    async fn empty_object(&self) -> Result<(), Violation> {
        expect("an empty object is created", self.put("empty", b"").await, Ok(()))?;
        let key = self.key("empty");
        expect("an empty object is read", self.store.get(&key).await, Ok(Bytes::new()))?;
        expect("an empty object has no length", self.store.head(&key).await, Ok(0))?;
        let wanted = Suffix { bytes: Bytes::new(), object_bytes: 0 };
        expect("an empty object has an empty suffix", self.store.get_suffix(&key, 8).await, Ok(wanted))?;
        let found = self.store.get_range(&key, 0..1).await;
        expect("an empty object has no range", found, Err(GetError::OutOfRange(0..1)))
    }

    async fn missing_object(&self) -> Result<(), Violation> {
        let key = self.key("absent/object");
        let case = "what is not there is not found";
        expect(case, self.store.get(&key).await, Err(GetError::NotFound))?;
        expect(case, self.store.get_range(&key, 0..1).await, Err(GetError::NotFound))?;
        expect(case, self.store.get_suffix(&key, 1).await, Err(GetError::NotFound))?;
        expect(case, self.store.head(&key).await, Err(HeadError::NotFound))?;
        expect("what is not there can be deleted", self.store.delete(&key).await, Ok(()))
    }

    async fn big_body(&self) -> Result<(), Violation> {
        let bytes: Bytes =
            (0..BIG_BYTES).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect::<Vec<u8>>().into();
        let pieces: Vec<Bytes> = (0..bytes.len())
            .step_by(999_983)
            .map(|from| bytes.slice(from..bytes.len().min(from + 999_983)))
            .collect();
        let key = self.key("big");
        let put = self.store.put_new(&key, Body::from(pieces), Digest::of(&bytes)).await;
        expect("a big body in pieces is put", put, Ok(()))?;
        expect("the length is known", self.store.head(&key).await, Ok(BIG_BYTES as u64))?;
        let found = self.store.get(&key).await.map(|body| Digest::of(&body));
        expect("bytes come back unchanged", found, Ok(Digest::of(&bytes)))?;
        let middle = 3_000_001..5_000_003;
        let found = self.store.get_range(&key, middle.start as u64..middle.end as u64).await;
        let found = found.map(|body| Digest::of(&body));
        expect("a big range comes back unchanged", found, Ok(Digest::of(&bytes[middle])))
    }

    async fn hostile_keys(&self) -> Result<(), Violation> {
        let long = format!("long/{}", "x".repeat(200));
        for name in HOSTILE.iter().copied().chain([long.as_str()]) {
            let case = "t42: a hostile but legal key is a key like another";
            let body = name.as_bytes();
            let name = format!("hostile/{name}");
            expect(case, self.put(&name, body).await, Ok(()))?;
            let found = self.store.get(&self.key(&name)).await;
            expect(case, found, Ok(Bytes::copy_from_slice(body)))?;
            expect(case, self.store.head(&self.key(&name)).await, Ok(body.len() as u64))?;
        }
        let mut wanted: Vec<String> =
            HOSTILE.iter().copied().chain([long.as_str()]).map(|name| format!("hostile/{name}")).collect();
        wanted.sort_unstable();
        let page = self.store.list(self.key("hostile").as_str(), None).await;
        let found = page.map(|page| page.objects.into_iter().map(|listed| listed.key).collect::<Vec<_>>());
        expect(
            "hostile keys are listed as they are",
            found,
            Ok(wanted.iter().map(|name| self.key(name)).collect()),
        )
    }

    async fn refused_keys(&self) -> Result<(), Violation> {
        let wide = "x".repeat(300);
        for name in ["../up", "a//b", "./a", "a/", "a\0b", wide.as_str()] {
            let put = self.put(name, b"x").await;
            let refused = matches!(put, Err(PutError::Failed(Failure::Invalid(_))));
            expect("a key that some store cannot hold is refused by all", refused, true)?;
        }
        Ok(())
    }

    async fn listing(&self) -> Result<(), Violation> {
        let names = ["b", "a/2", "a/10", "a-b", "a/1/deep", "a0", "c/x"];
        for name in names {
            expect("a new key is created", self.put(&format!("list/{name}"), name.as_bytes()).await, Ok(()))?;
        }
        let folder = self.key("list");
        let listed =
            |name: &&str| Listed { key: self.key(&format!("list/{name}")), bytes: name.len() as u64 };
        let mut wanted: Vec<Listed> = names.iter().map(listed).collect();
        wanted.sort_by(|left, right| left.key.cmp(&right.key));
        let page = self.store.list(folder.as_str(), None).await;
        let found = page.map(|page| (page.objects, page.more));
        expect("keys are listed by their bytes", found, Ok((wanted.clone(), false)))?;
        for start in 0..wanted.len() {
            let page = self.store.list(folder.as_str(), Some(&wanted[start].key)).await;
            let found = page.map(|page| page.objects);
            expect("a listing goes on after a key", found, Ok(wanted[start + 1..].to_vec()))?;
        }
        let between = self.key("list/a/15");
        let after: Vec<Listed> = wanted.iter().filter(|listed| listed.key > between).cloned().collect();
        let page = self.store.list(folder.as_str(), Some(&between)).await;
        expect("a listing goes on after a key that is not there", page.map(|page| page.objects), Ok(after))?;
        let page = self.store.list(self.key("list/a").as_str(), None).await;
        let inner = page.map(|page| page.objects.len());
        expect("a folder is not a prefix of names", inner, Ok(3))?;
        let page = self.store.list(self.key("nowhere").as_str(), None).await;
        expect("an empty folder lists nothing", page.map(|page| page.objects), Ok(Vec::new()))
    }

    /// Deletes all, which is the last case.
    async fn clean_up(&self) -> Result<(), Violation> {
        let case = "what is deleted is gone";
        let page = self.store.list(self.folder, None).await;
        let page = page.map_err(|failure| Violation { case, detail: failure.to_string() })?;
        for listed in &page.objects {
            expect(case, self.store.delete(&listed.key).await, Ok(()))?;
            expect(case, self.store.head(&listed.key).await, Err(HeadError::NotFound))?;
        }
        let page = self.store.list(self.folder, None).await;
        expect(case, page.map(|page| page.objects), Ok(Vec::new()))
    }
}
