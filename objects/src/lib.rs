//! The room of the object store: the only code that talks to S3 or keeps objects on a local disk.
//!
//! Everything above sees [`Store`]: whole objects, written once and never changed, read in ranges, listed in the
//! order of their bytes, deleted. There is no overwrite, no conditional replace and no append, so nothing above can
//! come to depend on them.
//!
//! ```text
//!   tiering, snapshot, compactor
//!        |  put_or_confirm, get_verified            helpers: what a caller does with the answers
//!   stores.of(class)                                one Retrying a class, within the budgets of the node
//!   Retrying -> Counting -> ReadBack | Proving      decorators, each a Store
//!        |
//!   S3 | Directory | testing::MemoryStore           stores, each passes `conformance`
//! ```
//!
//! Invariants
//! - A put that answers `Ok` is durable and complete. One that answers anything else may still take effect, now or
//!   later: its key is never used for other bytes.
//! - A put is create-only. `AlreadyExists` says that the key is taken, not by whom: the uid in the key decides, see
//!   [`put_or_confirm`].
//! - A read gives exactly the range asked for or an error, never fewer bytes. Bytes are not checked against anything
//!   but their number: whoever knows their checksum checks it ([`get_verified`]).
//! - "There is nothing" ([`GetError::NotFound`]) is only said when the store said it: never for a failure.
//! - An error names who acts next ([`Failure`]).
//!
//! It may touch the network (S3) and the disk through `varve_common::Disk`. Time and chance are arguments.

pub mod admin;
mod body;
pub mod budget;
pub mod bugs;
pub mod conformance;
mod counting;
mod directory;
mod error;
mod key;
pub mod limits;
pub mod probe;
mod proving;
mod read_back;
mod retrying;
pub mod s3;
mod store;
mod stores;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod verified;

pub use body::Body;
pub use budget::{BudgetOptions, BudgetReport, Budgets, Class};
pub use counting::{Count, Counters, Counting};
pub use directory::{Directory, OpenError};
pub use error::{Failure, GetError, HeadError, Operation, PutError};
pub use proving::Proving;
pub use read_back::ReadBack;
pub use retrying::{RetryOptions, Retrying};
pub use s3::{S3, install_crypto};
pub use store::{Listed, Page, Store, Suffix};
pub use stores::Stores;
pub use verified::{Put, get_verified, put_or_confirm};
