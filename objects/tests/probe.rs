//! The probe against a store that lies in one respect at a time.

use std::ops::Range;

use bytes::Bytes;
use varve_common::{Digest, ObjectKey, clock::BoxFuture};
use varve_objects::{
    Body, Failure, GetError, HeadError, Page, PutError, Store, Suffix,
    probe::{Check, ProbeError, Report, Warning, probe},
    testing::MemoryStore,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    Nothing,
    Overwrites,
    AcknowledgesEveryRacer,
    IgnoresRanges,
    ShortensRangesPastTheEnd,
    RefusesSuffixes,
    ForgetsInListings,
    ListsBackwards,
    KeepsDeleted,
    DeniesDeletes,
    TakesWrongChecksums,
}

struct Liar {
    lie: Lie,
    store: MemoryStore,
}

impl Liar {
    fn new(lie: Lie) -> Self {
        Self { lie, store: MemoryStore::default() }
    }
}

impl Store for Liar {
    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        body: Body,
        sha256: Digest,
    ) -> BoxFuture<'a, Result<(), PutError>> {
        Box::pin(async move {
            let racing = key.as_str().contains("/racing-creates/");
            match self.lie {
                Lie::Overwrites => {
                    self.store.tamper(key, body.joined());
                    Ok(())
                }
                Lie::AcknowledgesEveryRacer if racing => {
                    let _ = self.store.put_new(key, body, sha256).await;
                    Ok(())
                }
                Lie::TakesWrongChecksums => {
                    let digest = body.digest();
                    self.store.put_new(key, body, digest).await
                }
                _ => self.store.put_new(key, body, sha256).await,
            }
        })
    }

    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Bytes, GetError>> {
        self.store.get(key)
    }

    fn get_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, GetError>> {
        Box::pin(async move {
            match self.lie {
                Lie::IgnoresRanges => self.store.get(key).await,
                Lie::ShortensRangesPastTheEnd => {
                    let end = self.store.head(key).await.unwrap();
                    if range.end > end {
                        return Ok(Bytes::new());
                    }
                    self.store.get_range(key, range).await
                }
                _ => self.store.get_range(key, range).await,
            }
        })
    }

    fn get_suffix<'a>(&'a self, key: &'a ObjectKey, bytes: u64) -> BoxFuture<'a, Result<Suffix, GetError>> {
        if self.lie == Lie::RefusesSuffixes {
            return Box::pin(async { Err(Failure::Invalid("no suffixes here".into()).into()) });
        }
        self.store.get_suffix(key, bytes)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<u64, HeadError>> {
        self.store.head(key)
    }

    fn list<'a>(
        &'a self,
        folder: &'a str,
        start_after: Option<&'a ObjectKey>,
    ) -> BoxFuture<'a, Result<Page, Failure>> {
        Box::pin(async move {
            let mut page = self.store.list(folder, start_after).await?;
            match self.lie {
                Lie::ForgetsInListings => drop(page.objects.pop()),
                Lie::ListsBackwards => page.objects.reverse(),
                _ => {}
            }
            Ok(page)
        })
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Failure>> {
        if self.lie == Lie::KeepsDeleted {
            return Box::pin(async { Ok(()) });
        }
        if self.lie == Lie::DeniesDeletes {
            return Box::pin(async { Err(Failure::Denied("403 AccessDenied".into())) });
        }
        self.store.delete(key)
    }
}

#[tokio::test]
async fn an_honest_store_passes_and_is_left_clean() {
    for prefix in ["", "some/prefix"] {
        let store = Liar::new(Lie::Nothing);
        assert_eq!(probe(&store, prefix, 1).await, Ok(Report::default()));
        assert_eq!(store.store.objects(), vec![]);
    }
}

#[tokio::test]
async fn fault_55_a_store_that_ignores_create_only_is_refused_and_left_clean() {
    let store = Liar::new(Lie::Overwrites);
    let result = probe(&store, "p", 1).await;
    assert!(matches!(result, Err(ProbeError::Unsafe { check: Check::CreateOnly, .. })), "{result:?}");
    assert_eq!(store.store.objects(), vec![]);
}

/// It is asked again and again, by a broker whose right to delete is still to come.
#[tokio::test]
async fn fault_59_where_deletes_are_denied_a_probe_leaves_nothing() {
    let store = Liar::new(Lie::DeniesDeletes);
    let result = probe(&store, "p", 1).await;
    let is_told = |result| {
        matches!(result, Err(ProbeError::Failed { check: Check::Delete, failure: Failure::Denied(_) }))
    };
    assert!(is_told(result.clone()), "{result:?}");
    assert_eq!(store.store.objects(), vec![]);
}

#[tokio::test]
async fn every_other_broken_promise_is_named() {
    let lies = [
        (Lie::AcknowledgesEveryRacer, Check::RacingCreates),
        (Lie::IgnoresRanges, Check::Range),
        (Lie::ShortensRangesPastTheEnd, Check::Range),
        (Lie::RefusesSuffixes, Check::Suffix),
        (Lie::ForgetsInListings, Check::List),
        (Lie::ListsBackwards, Check::List),
        (Lie::KeepsDeleted, Check::Delete),
    ];
    for (lie, wanted) in lies {
        match probe(&Liar::new(lie), "p", 1).await {
            Err(ProbeError::Unsafe { check, .. }) => assert_eq!(check, wanted, "{lie:?}"),
            other => panic!("{lie:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_store_that_takes_wrong_checksums_is_to_be_read_back() {
    let report = probe(&Liar::new(Lie::TakesWrongChecksums), "p", 1).await;
    assert_eq!(report, Ok(Report { warnings: vec![Warning::ReadBackEveryPut] }));
}
