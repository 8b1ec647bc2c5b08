//! The rights that a broker needs, asked for one by one: what is refused is named, and only what can still be asked, and taken away
//! again, is asked after that.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use varve_common::{Digest, ObjectKey};
use varve_objects::{
    Failure, GetError, PutError, Store,
    conformance::{self, Check, Violation},
};

use crate::output::Table;

/// A right of S3's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    List,
    Put,
    Get,
    Delete,
}

impl Right {
    /// In the order in which they are asked for.
    const ALL: [Self; 4] = [Self::List, Self::Put, Self::Get, Self::Delete];

    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "s3:ListBucket",
            Self::Put => "s3:PutObject",
            Self::Get => "s3:GetObject",
            Self::Delete => "s3:DeleteObject",
        }
    }

    /// What a broker needs it for.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::List => "restore finds snapshots by it, and orphans are found by it",
            Self::Put => "nothing is tiered without it",
            Self::Get => {
                "nothing that is tiered is read without it, and no snapshot counts that was not read back"
            }
            Self::Delete => {
                "retention, deleted topics and snapshots that are not needed any more free nothing without it"
            }
        }
    }
}

/// What asking for one of them came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    Granted,
    Refused(Failure),
    /// The answer says nothing about the right.
    Unknown(String),
}

/// All of them.
pub struct Rights {
    grants: Vec<(Right, Grant)>,
    /// The object that was put to ask for them, where it may still be there.
    pub left: Option<ObjectKey>,
    /// How long its PUT took.
    pub put_took: Option<Duration>,
}

impl Rights {
    /// Asks for each of them with one object below `folder`. Where the first request finds nobody, or no bucket, the others would, too.
    pub async fn ask(store: &dyn Store, folder: &str, body: Bytes) -> Self {
        let key = ObjectKey::new(format!("{folder}/rights/one"));
        let mut rights = Self { grants: Vec::new(), left: None, put_took: None };
        for right in Right::ALL {
            let begin = Instant::now();
            let grant = match right {
                Right::List => of(store.list(folder, None).await.map(drop)),
                Right::Put => of_put(store.put_new(&key, body.clone().into(), Digest::of(&body)).await),
                Right::Get => rights.of_get(store.get(&key).await),
                Right::Delete => of(store.delete(&key).await),
            };
            match (right, &grant) {
                (Right::Put, Grant::Granted) => {
                    rights.put_took = Some(begin.elapsed());
                    rights.left = Some(key.clone());
                }
                // Nobody knows whether it had effect.
                (Right::Put, Grant::Refused(failure)) if failure.is_retriable() => {
                    rights.left = Some(key.clone());
                }
                (Right::Delete, Grant::Granted) => rights.left = None,
                _ => {}
            }
            let stops = matches!(&grant, Grant::Refused(failure) if !matches!(failure, Failure::Denied(_)));
            let is_first = rights.grants.is_empty();
            rights.grants.push((right, grant));
            if stops && is_first {
                break;
            }
        }
        rights
    }

    /// A server says "access denied" of what is not there to those who may not list.
    fn of_get(&self, got: Result<Bytes, GetError>) -> Grant {
        match got {
            Ok(_) | Err(GetError::NotFound | GetError::OutOfRange(_)) => Grant::Granted,
            Err(GetError::Failed(Failure::Denied(_))) if self.left.is_none() && !self.has(Right::List) => {
                Grant::Unknown("there is no object to read, and who may not list is not told so".into())
            }
            Err(GetError::Failed(failure)) => Grant::Refused(failure),
        }
    }

    pub fn has(&self, right: Right) -> bool {
        self.grants.contains(&(right, Grant::Granted))
    }

    /// Whether any of them is there.
    pub fn any(&self) -> bool {
        self.grants.iter().any(|(_, grant)| *grant == Grant::Granted)
    }

    /// Whether all of them are.
    pub fn all(&self) -> bool {
        Right::ALL.into_iter().all(|right| self.has(right))
    }

    /// Those that are refused, and how.
    pub fn refused(&self) -> impl Iterator<Item = (Right, &Failure)> {
        self.grants.iter().filter_map(|(right, grant)| match grant {
            Grant::Refused(failure) => Some((*right, failure)),
            _ => None,
        })
    }

    /// Makes a check, where what it asks is granted and nothing of it would be left; `None` where not.
    pub async fn check(
        &self,
        store: &dyn Store,
        folder: &str,
        check: Check,
    ) -> Option<Result<(), Violation>> {
        if self.all() {
            return Some(conformance::check(store, folder, check).await);
        }
        let may = [Right::Put, Right::Get, Right::Delete].into_iter().all(|right| self.has(right));
        if may { conformance::check_unlisted(store, folder, check).await } else { None }
    }

    pub fn table(&self) -> String {
        let mut table = Table::new(&["RIGHT", "RESULT", "DETAIL"]);
        for (right, grant) in &self.grants {
            let detail: String = grant.detail().split_whitespace().collect::<Vec<_>>().join(" ");
            table.row([right.name().to_owned(), grant.result().to_owned(), detail]);
        }
        table.render()
    }

    pub fn to_json(&self) -> Value {
        let one = |(right, grant): &(Right, Grant)| json!({"right": right.name(), "result": grant.result().to_lowercase(), "detail": grant.detail()});
        self.grants.iter().map(one).collect()
    }
}

impl Grant {
    const fn result(&self) -> &'static str {
        match self {
            Self::Granted => "ok",
            Self::Refused(Failure::Denied(_)) => "REFUSED",
            Self::Refused(_) => "FAILED",
            Self::Unknown(_) => "unknown",
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Granted => String::new(),
            Self::Refused(failure) => failure.to_string(),
            Self::Unknown(why) => why.clone(),
        }
    }
}

fn of(answer: Result<(), Failure>) -> Grant {
    answer.map_or_else(Grant::Refused, |()| Grant::Granted)
}

fn of_put(put: Result<(), PutError>) -> Grant {
    match put {
        // A folder of our own: it is an earlier try of this very put.
        Ok(()) | Err(PutError::AlreadyExists) => Grant::Granted,
        Err(PutError::Failed(failure)) => Grant::Refused(failure),
    }
}

#[cfg(test)]
impl Rights {
    /// For tests of what is made of them.
    pub const fn of(grants: Vec<(Right, Grant)>) -> Self {
        Self { grants, left: None, put_took: None }
    }

    /// All granted.
    pub fn full() -> Self {
        Self::of(Right::ALL.map(|right| (right, Grant::Granted)).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_list_is_not_told_what_is_not_there() {
        let denied = || Err(GetError::Failed(Failure::Denied("403 AccessDenied".into())));
        let refused = |right| (right, Grant::Refused(Failure::Denied("403 AccessDenied".into())));
        let nothing = Rights::of(vec![refused(Right::List), refused(Right::Put)]);
        assert!(matches!(nothing.of_get(denied()), Grant::Unknown(_)));
        let lists = Rights::of(vec![(Right::List, Grant::Granted), refused(Right::Put)]);
        assert!(matches!(lists.of_get(denied()), Grant::Refused(_)));
        assert_eq!(lists.of_get(Err(GetError::NotFound)), Grant::Granted);
    }
}
