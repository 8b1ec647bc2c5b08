//! Memory for the records of answers. They lie in caches and buffers, and stay there until the client has taken them; what
//! all clients together may keep so is bounded.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::{Budget, Share};

/// The least that a fetch begins to read with. A batch that is larger comes all the same: so many answers at most are
/// larger than their share as this goes into the whole, a thousand where all may keep 256 MiB.
const BYTES_MIN: usize = 256 << 10;

/// How long a fetch waits for room, at least, before it is answered without records. Its client comes again.
const WAIT_MIN: Duration = Duration::from_millis(500);

/// The room of one pass, taken when there is something to read.
pub struct Room<'a> {
    budget: &'a Budget,
    most: usize,
    deadline: Instant,
    share: Option<Share>,
}

impl<'a> Room<'a> {
    /// Room for `most` bytes, of which nothing is taken yet.
    pub fn new(budget: &'a Budget, most: usize, deadline: Instant) -> Self {
        Self { budget, most, deadline: deadline.max(Instant::now() + WAIT_MIN), share: None }
    }

    /// Takes it, once; says how much it is.
    pub async fn take(&mut self) -> Option<usize> {
        if self.share.is_none() {
            self.share = self.budget.take_some(self.most.max(1), BYTES_MIN, self.deadline).await;
        }
        self.share.as_ref().map(Share::bytes)
    }

    /// What so many bytes need until they have left.
    pub fn keep(&mut self, bytes: usize) -> Option<Share> {
        let mut share = self.share.take()?;
        self.budget.fit(&mut share, bytes);
        Some(share)
    }
}
