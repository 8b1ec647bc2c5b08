//! The room of checkpoints: published to the bucket, kept on the node, chosen, loaded, verified, thrown away.
//!
//! ```text
//!   publish   bytes -> PUT create-only -> GET -> verified whole -> `CkptPublished` may be proposed
//!   local     bytes -> tmp, fsync, rename, directory fsync      -> a snapshot mark may be written
//!   choose    claims -> newest complete incarnation -> listing -> newest checkpoint that is whole
//!   claim     who owns the prefix; nobody writes where another cluster does
//!   retention newest three, and a grid of hours and days for restores
//! ```
//! What a checkpoint holds is `formats::checkpoint`; when one is due is `compactor`'s; what it means is `replica`'s.
//!
//! Invariants
//! - Nothing of a checkpoint is used before all of it was verified, and it says itself that it is of the cluster,
//!   incarnation and partition that was asked for (S2, S5).
//! - *Damaged*, *unreadable* and *absent* are three answers. A damaged one is reported and the one before it is used;
//!   what cannot be read is an error for now; "there is nothing" is said only when a store or a log said so, and none
//!   of them is ever turned into an empty state (S4, T14).
//! - The file or object is durable before anything names it (T6).
//!
//! It may touch the object store through `objects::Store` and the disk through `common::Disk`. Times are arguments.

pub mod choose;
pub mod claim;
pub mod limits;
pub mod local;
pub mod publish;
pub mod retention;
#[cfg(test)]
mod testing;
pub mod verify;

pub use choose::{ChooseError, Chosen, Which, choose, list_all};
pub use claim::{ClaimError, DataDirectory, Established};
pub use publish::{PublishError, Published, publish};
pub use retention::{Grid, surplus};
pub use verify::{Damage, Expected, Mismatch, Report, verify};
