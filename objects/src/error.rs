//! What may go wrong at a store, by operation, and who acts next.

use std::{fmt, ops::Range};

use thiserror::Error;

/// A request that was not answered with what was asked for. The variant says who acts next; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// Nobody knows: ask again later. The request may have taken effect.
    #[error("the store did not answer: {0}")]
    Retry(String),
    /// The same, and the store says so itself (SlowDown): everybody asks less often.
    #[error("the store asks to slow down: {0}")]
    Busy(String),
    /// The operator: credentials, permissions or this machine's clock are wrong. Asking again soon does not help.
    #[error("the store denied access: {0}")]
    Denied(String),
    /// The caller or the operator: the store cannot take this request, now or ever (a key it cannot hold, a bucket
    /// that does not exist, a malformed request).
    #[error("the store refused the request: {0}")]
    Invalid(String),
    /// Whoever made the bytes: they are not those that their checksum speaks of.
    #[error("the bytes do not match their checksum: {0}")]
    Corrupt(String),
    /// The process: a failed fsync left local storage in a state that only a restart can find out.
    #[error("local storage failed: {0}")]
    Fatal(String),
}

impl Failure {
    /// Whether the same request may do better later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(self, Self::Retry(_) | Self::Busy(_))
    }
}

/// Why a put is not known to have succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PutError {
    /// The key is taken: by another writer, or by an earlier try of our own whose answer was lost.
    #[error("the object exists")]
    AlreadyExists,
    /// See the failure.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why a read gave no bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GetError {
    /// The store says that there is no such object.
    #[error("no such object")]
    NotFound,
    /// The object does not hold all of the range, or the range is empty.
    #[error("bytes {}..{} are not all in the object", .0.start, .0.end)]
    OutOfRange(Range<u64>),
    /// See the failure.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why the length of an object is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The store says that there is no such object.
    #[error("no such object")]
    NotFound,
    /// See the failure.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What a store can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`crate::Store::put_new`].
    Put,
    /// [`crate::Store::get`].
    Get,
    /// [`crate::Store::get_range`].
    GetRange,
    /// [`crate::Store::get_suffix`].
    GetSuffix,
    /// [`crate::Store::head`].
    Head,
    /// [`crate::Store::list`].
    List,
    /// [`crate::Store::delete`].
    Delete,
}

impl Operation {
    /// Each of them, in a fixed order.
    pub const ALL: [Self; 7] =
        [Self::Put, Self::Get, Self::GetRange, Self::GetSuffix, Self::Head, Self::List, Self::Delete];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::GetSuffix => "get_suffix",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}
