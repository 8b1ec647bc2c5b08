//! Puts and deletes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::join_all;
use varve_common::Digest;

use super::{Case, Violation};
use crate::{Failure, GetError, HeadError, PutError, limits::RACING_WRITERS, put_or_confirm};

/// A body that is under way for a while.
const SLOW_BYTES: usize = 2 << 20;

/// After how many looks at a put its client goes away: at once, in the middle of the body, near the answer.
const LOOKS: [u32; 7] = [1, 2, 3, 5, 8, 16, 64];

/// How often a put is repeated while the store says "again".
const REPEATS_MAX: u32 = 10;

impl Case<'_> {
    /// The claim on a prefix rests on it (TIERING.md 8): who asked in vain for the key of the next life must see it as soon
    /// as somebody has made it, so that no answer "not found" may be remembered on the way.
    pub(super) async fn create_only(&self) -> Result<(), Violation> {
        let absent = self.store.get(&self.key("one")).await;
        self.expect("what nobody put is not found", absent, Err(GetError::NotFound))?;
        self.given("one", b"first").await?;
        let again = self.put("one", b"second").await;
        self.expect("a taken key is refused", again, Err(PutError::AlreadyExists))?;
        let found = self.store.get(&self.key("one")).await;
        self.expect(
            "a first put is found, a refused one changes nothing",
            found,
            Ok(Bytes::from_static(b"first")),
        )
    }

    pub(super) async fn racing_creates(&self) -> Result<(), Violation> {
        self.race((0..RACING_WRITERS).map(|writer| vec![writer as u8; 4096 + writer].into()).collect()).await
    }

    pub(super) async fn overlapping_creates(&self) -> Result<(), Violation> {
        self.race((0..2).map(|writer| vec![writer as u8; SLOW_BYTES + writer].into()).collect()).await
    }

    async fn race(&self, bodies: Vec<Bytes>) -> Result<(), Violation> {
        let key = self.key("one");
        let puts = bodies.iter().map(|body| self.store.put_new(&key, body.clone().into(), Digest::of(body)));
        let results = join_all(puts).await;
        let winners: Vec<usize> = (0..bodies.len()).filter(|&writer| results[writer].is_ok()).collect();
        let case = "one of racing creates wins";
        // A loser may be told to come again rather than that the key is taken; anything else is a failure.
        for result in &results {
            if let Err(PutError::Failed(failure)) = result
                && (winners.is_empty() || !failure.is_retriable())
            {
                return self.expect(case, result.clone(), Ok(()));
            }
        }
        if winners.len() != 1 {
            return Err(self.broken(case, format!("{} of {} won", winners.len(), bodies.len())));
        }
        let found = self.store.get(&key).await.map(|found| Digest::of(&found));
        self.expect("the winner's bytes are there", found, Ok(Digest::of(&bodies[winners[0]])))
    }

    pub(super) async fn checksum(&self) -> Result<(), Violation> {
        let body = Bytes::from_static(b"these bytes are not what their checksum says");
        let key = self.key("one");
        let put = self.store.put_new(&key, body.into(), Digest::of(b"others")).await;
        match put {
            Err(PutError::Failed(Failure::Corrupt(_) | Failure::Invalid(_))) => {}
            Ok(()) | Err(PutError::AlreadyExists) => {
                return Err(self.broken("a wrong checksum is refused", "the put succeeded"));
            }
            failed => return self.expect("a wrong checksum is refused", failed, Ok(())),
        }
        let found = self.store.head(&key).await;
        self.expect("a refused put leaves nothing", found, Err(HeadError::NotFound))
    }

    /// Neither the client nor the store knows how far a put came whose connection ended: it may have taken effect, in
    /// part is what it may not.
    pub(super) async fn given_up(&self) -> Result<(), Violation> {
        for looks in LOOKS {
            let body = Bytes::from(vec![looks as u8; SLOW_BYTES]);
            let (key, digest) = (self.key(&format!("{looks}")), Digest::of(&body));
            let put = self.store.put_new(&key, body.clone().into(), digest);
            let given_up = GiveUp { future: put, looks }.await.is_none();
            match self.store.get(&key).await {
                Err(GetError::NotFound) if given_up => {}
                found => {
                    let found = found.map(|found| Digest::of(&found));
                    self.expect("a put that was given up is whole or absent", found, Ok(digest))?;
                }
            }
            let mut again = put_or_confirm(self.store, &key, body.clone().into(), digest).await;
            for _ in 1..REPEATS_MAX {
                // The server may still be busy with the first.
                if matches!(&again, Err(PutError::Failed(Failure::Retry(_)))) {
                    again = put_or_confirm(self.store, &key, body.clone().into(), digest).await;
                }
            }
            self.expect("a put that was given up can be repeated", again.map(drop), Ok(()))?;
            let found = self.store.get(&key).await.map(|found| Digest::of(&found));
            self.expect("a repeated put is whole", found, Ok(digest))?;
            self.expect("what was put can be deleted", self.store.delete(&key).await, Ok(()))?;
        }
        Ok(())
    }

    pub(super) async fn delete(&self) -> Result<(), Violation> {
        let key = self.key("one");
        self.given("one", b"to be deleted").await?;
        self.given("other", b"to be kept").await?;
        for _ in 0..2 {
            self.expect(
                "what is there, and what is not, can be deleted",
                self.store.delete(&key).await,
                Ok(()),
            )?;
        }
        self.expect("what is deleted is gone", self.store.head(&key).await, Err(HeadError::NotFound))?;
        let page = self.store.list(&self.folder, None).await;
        let names = page.map(|page| page.objects.into_iter().map(|listed| listed.key).collect::<Vec<_>>());
        self.expect("what is deleted is not listed", names, Ok(vec![self.key("other")]))
    }
}

/// A future that is dropped after so many looks at it: no clock is needed to give a request up.
struct GiveUp<F> {
    future: F,
    looks: u32,
}

impl<F: Future + Unpin> Future for GiveUp<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.future).poll(context).map(Some);
        self.looks -= 1;
        if polled.is_pending() && self.looks == 0 { Poll::Ready(None) } else { polled }
    }
}
