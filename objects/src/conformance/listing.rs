//! Keys and their order.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use varve_common::{Digest, ObjectKey};

use super::{Case, Violation};
use crate::{Failure, Listed, PutError, limits::LIST_PAGE_MAX};

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

/// What lies beyond one page, and how many puts are under way at once.
const BEYOND_A_PAGE: usize = 3;
const PUTS_AT_ONCE: usize = 16;

impl Case<'_> {
    pub(super) async fn list(&self) -> Result<(), Violation> {
        let names = ["b", "a/2", "a/10", "a-b", "a0", "c/x"];
        for name in names {
            self.given(name, name.as_bytes()).await?;
        }
        let listed = |name: &&str| Listed { key: self.key(name), bytes: name.len() as u64 };
        let mut wanted: Vec<Listed> = names.iter().map(listed).collect();
        wanted.sort_by(|left, right| left.key.cmp(&right.key));
        let page = self.store.list(&self.folder, None).await;
        let found = page.map(|page| (page.objects, page.more));
        self.expect("keys are listed by their bytes", found, Ok((wanted.clone(), false)))?;
        for after in [wanted[0].key.clone(), wanted[4].key.clone(), self.key("a/15")] {
            let page = self.store.list(&self.folder, Some(&after)).await;
            let rest: Vec<Listed> = wanted.iter().filter(|listed| listed.key > after).cloned().collect();
            let case = "a listing goes on after a key, there or not";
            self.expect(case, page.map(|page| page.objects), Ok(rest))?;
        }
        let page = self.store.list(self.key("a").as_str(), None).await;
        let inner = page.map(|page| page.objects.len());
        self.expect("a folder is not a prefix of names", inner, Ok(2))?;
        let page = self.store.list(self.key("nowhere").as_str(), None).await;
        self.expect("an empty folder lists nothing", page.map(|page| page.objects), Ok(Vec::new()))
    }

    pub(super) async fn list_pages(&self) -> Result<(), Violation> {
        let key = |number: usize| self.key(&format!("{}/{number:05}", number % 3));
        let count = LIST_PAGE_MAX + BEYOND_A_PAGE;
        let puts = stream::iter((0..count).map(key)).map(Ok).try_for_each_concurrent(
            PUTS_AT_ONCE,
            |key| async move {
                match self.store.put_new(&key, Bytes::new().into(), Digest::of(b"")).await {
                    Err(PutError::AlreadyExists) => Ok(()),
                    put => put,
                }
            },
        );
        self.expect("many objects are put", puts.await, Ok(()))?;
        let mut wanted: Vec<ObjectKey> = (0..count).map(key).collect();
        wanted.sort_unstable();
        let mut found: Vec<ObjectKey> = Vec::new();
        loop {
            let page = self.store.list(&self.folder, found.last()).await;
            let Ok(page) = &page else { return self.expect("a listing is answered", page.map(drop), Ok(())) };
            found.extend(page.objects.iter().map(|listed| listed.key.clone()));
            if !page.more || page.objects.is_empty() {
                break;
            }
        }
        if found != wanted {
            let detail = format!("{} of {} keys, or another order", found.len(), wanted.len());
            return Err(self.broken("all pages together are all keys", detail));
        }
        let deletes =
            stream::iter(&found).map(Ok).try_for_each_concurrent(PUTS_AT_ONCE, |key| self.store.delete(key));
        self.expect("many objects are deleted", deletes.await, Ok(()))
    }

    pub(super) async fn keys(&self) -> Result<(), Violation> {
        let long = format!("long/{}", "x".repeat(200));
        let names: Vec<&str> = HOSTILE.iter().copied().chain([long.as_str()]).collect();
        for name in &names {
            let case = "t42: a hostile but legal key is a key like another";
            self.given(name, name.as_bytes()).await?;
            let found = self.store.get(&self.key(name)).await;
            self.expect(case, found, Ok(Bytes::copy_from_slice(name.as_bytes())))?;
            self.expect(case, self.store.head(&self.key(name)).await, Ok(name.len() as u64))?;
        }
        let mut wanted: Vec<ObjectKey> = names.iter().map(|name| self.key(name)).collect();
        wanted.sort_unstable();
        let page = self.store.list(&self.folder, None).await;
        let found = page.map(|page| page.objects.into_iter().map(|listed| listed.key).collect::<Vec<_>>());
        self.expect("hostile keys are listed as they are", found, Ok(wanted))?;
        let wide = "x".repeat(300);
        for name in ["../up", "a//b", "./a", "a/", "a\0b", wide.as_str()] {
            let put = self.put(name, b"x").await;
            if !matches!(put, Err(PutError::Failed(Failure::Invalid(_)))) {
                let case = "a key that some store cannot hold is refused by all";
                return Err(self.broken(case, format!("{name:?}: {put:?}")));
            }
        }
        Ok(())
    }
}
