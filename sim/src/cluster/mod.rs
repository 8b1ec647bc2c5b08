//! Several nodes over one network and one bucket, each with the driver, the log and the jobs of production.
//!
//! ```text
//!  clients ──> World ── machine: Node (driver, log, jobs), disk, model of that ──┐
//!                │      machine ...                                              ├── Network (late, lost, twice, cut)
//!                └──── Truth: what was applied anywhere, and the state that it makes
//! ```
//! Where each invariant of FAULTS.md 2 is looked at:
//! - R1, R3, R4, R9, H1-H4, H6, H7, H13 [`truth`]: one leader a term; the same entry everywhere, durable where it is
//!   applied; equal states at equal indexes; what was acknowledged is there, once and in order.
//! - R5, R6, W1, W2 `model` of each disk. B4, R8 [`world`] at every cut and checkpoint mark. H10 [`world`] at every view: nor
//!   does a new leader show less than was acknowledged before it. H3, B7 `checkers::check_read` on every replica.
//! - G1-G3, G5 [`consumers`]: what members are told, held against the records of `__consumer_offsets` that are committed.
//! - L [`world`]: when everything heals all come together.

pub mod bugs;
mod checks;
pub mod consumers;
pub mod machine;
mod members;
pub mod moving;
pub mod network;
mod offsets;
mod peace;
pub mod run;
pub mod truth;
pub mod world;

pub use world::World;
