//! Finds out at the start whether a store keeps the promises that data rests on: those of [`Check::AT_START`].
//!
//! A store that breaks one of them is refused with the reason: a create that overwrites loses acknowledged segments,
//! a listing that forgets hides them. One that takes a body with a wrong checksum is only warned about, and every
//! put to it is read back ([`crate::ReadBack`]).

use thiserror::Error;
use varve_common::ObjectKey;

pub use crate::conformance::Check;
use crate::{
    Failure, Store,
    conformance::{self, Violation},
};

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

/// What one check says about a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promise is kept.
    Kept,
    /// It is not, and the broker can make up for it.
    Tolerated(Warning),
    /// It is not: such a store is refused.
    Broken(String),
    /// The store did not let itself be asked.
    Failed(Failure),
}

impl Verdict {
    /// Judges what a check found.
    #[must_use]
    pub fn of(found: Result<(), Violation>) -> Self {
        let Err(violation) = found else { return Self::Kept };
        match violation.failure {
            // Not to serve a range, a suffix or a listing is as bad as to serve it wrongly; that puts are not taken at
            // all is the first thing that every check meets, and speaks of the bucket rather than of the promise.
            Some(Failure::Invalid(reason)) if violation.check != Check::CreateOnly => Self::Broken(reason),
            Some(failure) => Self::Failed(failure),
            None if violation.check == Check::Checksum => Self::Tolerated(Warning::ReadBackEveryPut),
            None => Self::Broken(format!("{}: {}", violation.case, violation.detail)),
        }
    }
}

/// The folder of a probe with a number that no other probe draws.
#[must_use]
pub fn folder(prefix: &str, unique: u128) -> String {
    if prefix.is_empty() { format!("probe/{unique:032x}") } else { format!("{prefix}/probe/{unique:032x}") }
}

/// Probes a store under `{prefix}/probe/{unique}/` and removes what it made. Nothing is put by who may take nothing away: a
/// broker whose rights are still to come asks again and again.
pub async fn probe(store: &dyn Store, prefix: &str, unique: u128) -> Result<Report, ProbeError> {
    let folder = folder(prefix, unique);
    let absent = ObjectKey::new(format!("{folder}/absent"));
    if let Err(failure @ Failure::Denied(_)) = store.delete(&absent).await {
        return Err(ProbeError::Failed { check: Check::Delete, failure });
    }
    let mut report = Report::default();
    for check in Check::AT_START {
        match Verdict::of(conformance::check(store, &folder, check).await) {
            Verdict::Kept => {}
            Verdict::Tolerated(warning) => report.warnings.push(warning),
            Verdict::Broken(reason) => return Err(ProbeError::Unsafe { check, reason }),
            Verdict::Failed(failure) => return Err(ProbeError::Failed { check, failure }),
        }
    }
    Ok(report)
}
