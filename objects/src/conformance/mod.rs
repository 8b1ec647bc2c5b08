//! What every [`Store`] does alike: one suite for S3 servers, directories and the simulator's store.
//!
//! A [`Check`] is one promise with all its cases. [`run`] keeps to the first that is broken; the probe at the start
//! takes those of [`Check::AT_START`], `varve doctor s3` and docs/s3-servers.md take all, one by one. Each check works
//! in a folder of its own, which has to be empty, and leaves it empty, whether the promise is kept or not.

mod listing;
mod reads;
mod writes;

use std::fmt;

use bytes::Bytes;
use thiserror::Error;
use varve_common::{Digest, ObjectKey};

use crate::{Failure, PutError, Store, retrying::Fails};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// A put to a taken key fails and changes nothing; a key that was asked for in vain is found once it is put.
    CreateOnly,
    /// Of puts at the same time to one key, one succeeds, and its bytes are there.
    RacingCreates,
    /// The same where both bodies are long under way at once.
    OverlappingCreates,
    /// A range is answered with exactly its bytes, one past the end with an error.
    Range,
    /// The end of an object can be asked for, and a shorter object is its own end.
    Suffix,
    /// What was put is listed, in the order of the keys' bytes, and a listing goes on after any key.
    List,
    /// A listing of more than a thousand goes on, page by page, to its end.
    ListPages,
    /// A put with a wrong checksum is refused and leaves nothing.
    Checksum,
    /// A put that its client gave up is there whole or not at all, and can be repeated.
    GivenUp,
    /// An object may have no bytes.
    EmptyObject,
    /// What is not there is said to be not there.
    MissingObject,
    /// Several megabytes come back unchanged, whole and in part.
    BigBody,
    /// Keys may hold any printable character (FAULTS T42).
    Keys,
    /// What was deleted is neither found nor listed.
    Delete,
}

impl Check {
    /// Each of them, in a fixed order.
    pub const ALL: [Self; 14] = [
        Self::CreateOnly,
        Self::RacingCreates,
        Self::OverlappingCreates,
        Self::Range,
        Self::Suffix,
        Self::List,
        Self::ListPages,
        Self::Checksum,
        Self::GivenUp,
        Self::EmptyObject,
        Self::MissingObject,
        Self::BigBody,
        Self::Keys,
        Self::Delete,
    ];

    /// What the probe asks at the start: what data is lost by, in a second and with few requests.
    pub const AT_START: [Self; 7] = [
        Self::CreateOnly,
        Self::RacingCreates,
        Self::Range,
        Self::Suffix,
        Self::List,
        Self::Checksum,
        Self::Delete,
    ];

    /// The promise in a few words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::CreateOnly => "create-only put",
            Self::RacingCreates => "8 racing creates, one wins",
            Self::OverlappingCreates => "2 overlapping creates, one wins",
            Self::Range => "ranged GET",
            Self::Suffix => "suffix GET",
            Self::List => "LIST in order, after a key",
            Self::ListPages => "LIST over pages",
            Self::Checksum => "wrong checksum refused",
            Self::GivenUp => "put given up: whole or absent",
            Self::EmptyObject => "empty object",
            Self::MissingObject => "missing object",
            Self::BigBody => "8 MiB unchanged",
            Self::Keys => "keys with special characters",
            Self::Delete => "delete",
        }
    }

    /// Whether it asks for a listing, or makes what only a listing finds again.
    #[must_use]
    pub const fn lists(self) -> bool {
        matches!(self, Self::List | Self::ListPages | Self::GivenUp | Self::Keys | Self::Delete)
    }

    /// The folder of this check below that of the suite.
    const fn folder(self) -> &'static str {
        match self {
            Self::CreateOnly => "create-only",
            Self::RacingCreates => "racing-creates",
            Self::OverlappingCreates => "overlapping-creates",
            Self::Range => "range",
            Self::Suffix => "suffix",
            Self::List => "list",
            Self::ListPages => "list-pages",
            Self::Checksum => "checksum",
            Self::GivenUp => "given-up",
            Self::EmptyObject => "empty-object",
            Self::MissingObject => "missing-object",
            Self::BigBody => "big-body",
            Self::Keys => "keys",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// A store that is not like the others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{check}: {case}: {detail}")]
pub struct Violation {
    /// The promise.
    pub check: Check,
    /// The behaviour in question.
    pub case: &'static str,
    /// What was found instead.
    pub detail: String,
    /// The failure that was met, where it was none of the answers that belong to the case: the store may be busy or
    /// out of reach rather than wrong.
    pub failure: Option<Failure>,
}

/// Makes every check under `folder`, in their order, up to the first that finds something.
pub async fn run(store: &dyn Store, folder: &str) -> Result<(), Violation> {
    for one in Check::ALL {
        check(store, folder, one).await?;
    }
    Ok(())
}

/// Makes one check under `folder`.
pub async fn check(store: &dyn Store, folder: &str, check: Check) -> Result<(), Violation> {
    let case = Case { store, folder: join(folder, check.folder()), check };
    let found = case.run().await;
    let cleaned = case.clean_up().await;
    found.and(cleaned)
}

/// The same for who may not list: what is known to be made is deleted. `None`, and nothing asked, where the check needs a listing.
pub async fn check_unlisted(store: &dyn Store, folder: &str, check: Check) -> Option<Result<(), Violation>> {
    let case = Case { store, folder: join(folder, check.folder()), check };
    if check.lists() {
        return None;
    }
    let found = case.run().await;
    let cleaned = case.delete_all(&case.known()).await;
    Some(found.and(cleaned))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// One check at work.
struct Case<'a> {
    store: &'a dyn Store,
    folder: String,
    check: Check,
}

impl Case<'_> {
    async fn run(&self) -> Result<(), Violation> {
        match self.check {
            Check::CreateOnly => self.create_only().await,
            Check::RacingCreates => self.racing_creates().await,
            Check::OverlappingCreates => self.overlapping_creates().await,
            Check::Range => self.range().await,
            Check::Suffix => self.suffix().await,
            Check::List => self.list().await,
            Check::ListPages => self.list_pages().await,
            Check::Checksum => self.checksum().await,
            Check::GivenUp => self.given_up().await,
            Check::EmptyObject => self.empty_object().await,
            Check::MissingObject => self.missing_object().await,
            Check::BigBody => self.big_body().await,
            Check::Keys => self.keys().await,
            Check::Delete => self.delete().await,
        }
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(format!("{}/{name}", self.folder))
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> Result<(), PutError> {
        let body = Bytes::copy_from_slice(bytes);
        self.store.put_new(&self.key(name), body.into(), Digest::of(bytes)).await
    }

    /// What a case begins with. The folder is ours alone: a taken key is an earlier try of this very put.
    async fn given(&self, name: &str, bytes: &[u8]) -> Result<(), Violation> {
        match self.put(name, bytes).await {
            Err(PutError::AlreadyExists) => Ok(()),
            put => self.expect("a new key is created", put, Ok(())),
        }
    }

    /// Compares what was found with what every store gives.
    fn expect<T, E>(
        &self,
        case: &'static str,
        found: Result<T, E>,
        wanted: Result<T, E>,
    ) -> Result<(), Violation>
    where
        T: PartialEq + fmt::Debug,
        E: PartialEq + fmt::Debug + Fails,
    {
        if found == wanted {
            return Ok(());
        }
        let failure = found.as_ref().err().and_then(E::failure).cloned();
        let mut detail = match &failure {
            Some(failure) => failure.to_string(),
            None => format!("found {found:?}, wanted {wanted:?}"),
        };
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Err(Violation { check: self.check, case, detail, failure })
    }

    fn broken(&self, case: &'static str, detail: impl Into<String>) -> Violation {
        Violation { check: self.check, case, detail: detail.into(), failure: None }
    }

    /// What a check makes of which [`Check::lists`] is false, and the most that the others share.
    fn known(&self) -> Vec<ObjectKey> {
        ["one", "other", "body"].map(|name| self.key(name)).to_vec()
    }

    async fn delete_all(&self, keys: &[ObjectKey]) -> Result<(), Violation> {
        for key in keys {
            self.expect(CLEANED_UP, self.store.delete(key).await, Ok(()))?;
        }
        Ok(())
    }

    /// Deletes what the check made: what a listing shows, and, for stores whose listings lie, what it is known to make.
    async fn clean_up(&self) -> Result<(), Violation> {
        let mut keys = self.known();
        loop {
            self.delete_all(&keys).await?;
            let page = self.store.list(&self.folder, None).await;
            let Ok(page) = &page else { return self.expect(CLEANED_UP, page.map(drop), Ok(())) };
            let left: Vec<ObjectKey> = page.objects.iter().map(|listed| listed.key.clone()).collect();
            // A store that lists what was just deleted breaks `Delete`; it would keep this loop going.
            if left.is_empty() || left == keys {
                return Ok(());
            }
            keys = left;
        }
    }
}

const CLEANED_UP: &str = "what a check made can be deleted";

/// The longest text of a detail.
const DETAIL_BYTES_MAX: usize = 2000;
