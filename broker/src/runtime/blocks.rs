//! Ids that are allocated in blocks: one proposal for a thousand of them.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex as Guard},
};

use tokio::sync::Mutex;
use varve_common::NodeId;

/// What is left of the newest block.
#[derive(Default)]
pub struct Block(Mutex<(u64, u64)>);

impl Block {
    /// Takes `count` ids in a row, the first of which is returned; `allocate` fetches a block of at least so many when
    /// what is left does not suffice.
    pub async fn take<E, F>(&self, count: u32, allocate: impl FnOnce(u32) -> F) -> Result<u64, E>
    where
        F: Future<Output = Result<(u64, u64), E>>,
    {
        let mut left = self.0.lock().await;
        if left.1 < u64::from(count) {
            *left = allocate(count).await?;
        }
        let first = left.0;
        *left = (first + u64::from(count), left.1 - u64::from(count));
        Ok(first)
    }

    /// Gives up what is left of the newest block.
    pub async fn forget(&self) {
        *self.0.lock().await = (0, 0);
    }
}

/// A block for each node.
#[derive(Default)]
pub struct Blocks(Guard<BTreeMap<NodeId, Arc<Block>>>);

impl Blocks {
    /// That of a node.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Arc<Block> {
        Arc::clone(self.0.lock().expect("no holder of this lock panics").entry(node).or_default())
    }
}
