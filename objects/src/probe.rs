//! Finds out at the start whether a store keeps the promises that data rests on.
//!
//! A store that breaks one of them is refused with the reason: a create that overwrites loses acknowledged segments,
//! a listing that forgets hides them. One that takes a body with a wrong checksum is only warned about, and every
//! put to it is read back ([`crate::ReadBack`]).

use bytes::Bytes;
use futures_util::future::join_all;
use thiserror::Error;
use varve_common::{Digest, ObjectKey};

use crate::{Failure, GetError, HeadError, PutError, Store, limits::RACING_WRITERS};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// A put to a taken key fails and changes nothing.
    CreateOnly,
    /// Of puts at the same time to one key, one succeeds, and its bytes are there.
    RacingCreates,
    /// A range is answered with exactly its bytes, one past the end with an error.
    Range,
    /// The end of an object can be asked for.
    Suffix,
    /// What was put is listed, in the order of the keys' bytes.
    List,
    /// What was deleted is neither found nor listed.
    Delete,
    /// A put with a wrong checksum is refused.
    Checksum,
}

/// What to mind about a store that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Warning {
    /// The store takes a body that its checksum does not match.
    #[error("the store does not check checksums: read back every PUT")]
    ReadBackEveryPut,
}

/// A store that serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What to mind.
    pub warnings: Vec<Warning>,
}

/// Why a store does not serve, or is not known to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// The store breaks a promise. Asking again does not help.
    #[error("the store is unsafe to use ({check:?}): {reason}")]
    Unsafe {
        /// Which.
        check: Check,
        /// How.
        reason: String,
    },
    /// The store did not let itself be asked.
    #[error("the store could not be probed ({check:?}): {failure}")]
    Failed {
        /// At what.
        check: Check,
        /// Why.
        failure: Failure,
    },
}

/// Probes a store under `{prefix}/probe/{unique}/`, with a number that no other probe draws, and removes what it made.
pub async fn probe(store: &dyn Store, prefix: &str, unique: u128) -> Result<Report, ProbeError> {
    let folder = if prefix.is_empty() {
        format!("probe/{unique:032x}")
    } else {
        format!("{prefix}/probe/{unique:032x}")
    };
    let probe = Probe { store, folder };
    let result = probe.run().await;
    let cleaned = probe.clean_up().await;
    let report = result?;
    cleaned.map(|()| report).map_err(|failure| ProbeError::Failed { check: Check::Delete, failure })
}

const BODY: &[u8] = b"varve asks whether this store keeps its promises";
const NAMES: [&str; 4] = ["create", "race", "checksum", "z"];

struct Probe<'a> {
    store: &'a dyn Store,
    folder: String,
}

impl Probe<'_> {
    async fn run(&self) -> Result<Report, ProbeError> {
        self.create_only().await?;
        self.racing_creates().await?;
        self.range().await?;
        self.suffix().await?;
        self.list().await?;
        let mut report = Report::default();
        if !self.refuses_wrong_checksum().await? {
            report.warnings.push(Warning::ReadBackEveryPut);
        }
        self.delete().await?;
        Ok(report)
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(format!("{}/{name}", self.folder))
    }

    async fn put(&self, name: &str, bytes: &'static [u8]) -> Result<(), PutError> {
        let body = Bytes::from_static(bytes);
        self.store.put_new(&self.key(name), body.into(), Digest::of(bytes)).await
    }

    async fn create_only(&self) -> Result<(), ProbeError> {
        let check = Check::CreateOnly;
        match self.put("create", BODY).await {
            Ok(()) => {}
            // A retried first try that took effect: the key is ours alone.
            Err(PutError::AlreadyExists) => {}
            Err(PutError::Failed(failure)) => return Err(ProbeError::Failed { check, failure }),
        }
        match self.put("create", b"another body").await {
            Ok(()) => return Err(broken(check, "a put to a key that is taken succeeded")),
            Err(PutError::AlreadyExists) => {}
            Err(PutError::Failed(failure)) => return Err(ProbeError::Failed { check, failure }),
        }
        match self.store.get(&self.key("create")).await {
            Ok(found) if found == BODY => Ok(()),
            Ok(_) => Err(broken(check, "a refused put changed the object")),
            Err(error) => Err(read_failed(check, error)),
        }
    }

    async fn racing_creates(&self) -> Result<(), ProbeError> {
        let check = Check::RacingCreates;
        let key = self.key("race");
        let bodies: Vec<Bytes> =
            (0..RACING_WRITERS).map(|writer| format!("writer {writer}").into()).collect();
        let puts = bodies.iter().map(|body| self.store.put_new(&key, body.clone().into(), Digest::of(body)));
        let results = join_all(puts).await;
        let winners: Vec<usize> = (0..RACING_WRITERS).filter(|&writer| results[writer].is_ok()).collect();
        if winners.len() > 1 {
            return Err(broken(check, &format!("{} of {RACING_WRITERS} racing creates won", winners.len())));
        }
        // Losers may be told to come again rather than that the key is taken; anything else is a failure.
        for result in &results {
            if let Err(PutError::Failed(failure)) = result
                && (winners.is_empty() || !failure.is_retriable())
            {
                return Err(ProbeError::Failed { check, failure: failure.clone() });
            }
        }
        let found = self.store.get(&key).await.map_err(|error| read_failed(check, error))?;
        match winners.first() {
            Some(&winner) if found != bodies[winner] => {
                Err(broken(check, "the bytes are not those of the create that won"))
            }
            _ => Ok(()),
        }
    }

    async fn range(&self) -> Result<(), ProbeError> {
        let check = Check::Range;
        let key = self.key("create");
        let length = BODY.len() as u64;
        match self.store.get_range(&key, 6..10).await {
            Ok(found) if found == BODY[6..10] => {}
            Ok(_) => return Err(broken(check, "a range brought other bytes")),
            Err(error) => return Err(read_failed(check, error)),
        }
        match self.store.get_range(&key, length..length + 1).await {
            Err(GetError::OutOfRange(_)) => Ok(()),
            Ok(_) => Err(broken(check, "a range past the end brought bytes")),
            Err(error) => Err(read_failed(check, error)),
        }
    }

    async fn suffix(&self) -> Result<(), ProbeError> {
        let check = Check::Suffix;
        for asked in [8, BODY.len() as u64 + 100] {
            let suffix = self.store.get_suffix(&self.key("create"), asked).await;
            let suffix = suffix.map_err(|error| read_failed(check, error))?;
            let from = BODY.len().saturating_sub(asked as usize);
            if suffix.bytes != BODY[from..] || suffix.object_bytes != BODY.len() as u64 {
                return Err(broken(check, &format!("the last {asked} bytes are others")));
            }
        }
        Ok(())
    }

    async fn listed(&self, check: Check) -> Result<Vec<String>, ProbeError> {
        let page = self.store.list(&self.folder, None).await;
        let page = page.map_err(|failure| ProbeError::Failed { check, failure })?;
        Ok(page.objects.iter().map(|listed| listed.key.as_str().to_owned()).collect())
    }

    fn expect_listed(&self, check: Check, found: &[String], names: &[&str]) -> Result<(), ProbeError> {
        let wanted: Vec<String> = names.iter().map(|name| self.key(name).as_str().to_owned()).collect();
        if found == wanted {
            return Ok(());
        }
        Err(broken(check, &format!("the listing is {found:?} where it should be {wanted:?}")))
    }

    async fn list(&self) -> Result<(), ProbeError> {
        let check = Check::List;
        match self.put("z", BODY).await {
            Ok(()) | Err(PutError::AlreadyExists) => {}
            Err(PutError::Failed(failure)) => return Err(ProbeError::Failed { check, failure }),
        }
        self.expect_listed(check, &self.listed(check).await?, &["create", "race", "z"])?;
        let after = self.store.list(&self.folder, Some(&self.key("create"))).await;
        let after = after.map_err(|failure| ProbeError::Failed { check, failure })?;
        let after: Vec<String> = after.objects.iter().map(|listed| listed.key.as_str().to_owned()).collect();
        self.expect_listed(check, &after, &["race", "z"])
    }

    async fn refuses_wrong_checksum(&self) -> Result<bool, ProbeError> {
        let key = self.key("checksum");
        let put = self.store.put_new(&key, Bytes::from_static(BODY).into(), Digest::of(b"other bytes")).await;
        match put {
            Err(PutError::Failed(Failure::Corrupt(_) | Failure::Invalid(_))) => Ok(true),
            Ok(()) | Err(PutError::AlreadyExists) => Ok(false),
            Err(PutError::Failed(failure)) => Err(ProbeError::Failed { check: Check::Checksum, failure }),
        }
    }

    async fn delete(&self) -> Result<(), ProbeError> {
        let check = Check::Delete;
        let key = self.key("create");
        for _ in 0..2 {
            self.store.delete(&key).await.map_err(|failure| ProbeError::Failed { check, failure })?;
        }
        match self.store.head(&key).await {
            Err(HeadError::NotFound) => {}
            Ok(_) => return Err(broken(check, "a deleted object is still there")),
            Err(HeadError::Failed(failure)) => return Err(ProbeError::Failed { check, failure }),
        }
        if self.listed(check).await?.iter().any(|found| found == key.as_str()) {
            return Err(broken(check, "a deleted object is still listed"));
        }
        Ok(())
    }

    async fn clean_up(&self) -> Result<(), Failure> {
        for name in NAMES {
            self.store.delete(&self.key(name)).await?;
        }
        Ok(())
    }
}

fn broken(check: Check, reason: &str) -> ProbeError {
    ProbeError::Unsafe { check, reason: reason.to_owned() }
}

/// What was put is there: a store that says otherwise breaks the promise that is being checked.
fn read_failed(check: Check, error: GetError) -> ProbeError {
    match error {
        // Not to serve a range or a suffix is as bad as to serve it wrongly.
        GetError::Failed(Failure::Invalid(reason)) => ProbeError::Unsafe { check, reason },
        GetError::Failed(failure) => ProbeError::Failed { check, failure },
        other => ProbeError::Unsafe { check, reason: format!("an object that was put: {other}") },
    }
}
