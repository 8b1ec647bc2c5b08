//! Who may do what: asked by every handler, answered in one place.

use varve_protocol::ErrorCode;

use crate::net::Context;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
}

/// To what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The cluster as a whole.
    Cluster,
    /// A topic, by name.
    Topic(&'a str),
    /// A group of consumers, by name.
    Group(&'a str),
    /// A producer that writes in transactions, by its id.
    TransactionalId(&'a str),
}

impl Resource<'_> {
    const fn refused(self) -> ErrorCode {
        match self {
            Self::Cluster => ErrorCode::ClusterAuthorizationFailed,
            Self::Topic(_) => ErrorCode::TopicAuthorizationFailed,
            Self::Group(_) => ErrorCode::GroupAuthorizationFailed,
            Self::TransactionalId(_) => ErrorCode::TransactionalIdAuthorizationFailed,
        }
    }
}

/// The answer of the authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "no authorizer denies yet; handlers are written for one that does")
    )]
    Deny,
}

/// What the principal may do to the cluster, as KIP-430 numbers operations: bit by bit, every one that Kafka knows for it.
/// As [`verdict`], everything.
pub const fn cluster_operations(_: &Context) -> i32 {
    // create, alter, describe, cluster action, describe configs, alter configs, idempotent write
    1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12
}

/// What the principal may do to a topic.
pub const fn topic_operations(_: &Context, _: &str) -> i32 {
    // read, write, create, delete, alter, describe, describe configs, alter configs
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11
}

/// What the principal may do to a group.
pub const fn group_operations(_: &Context, _: &str) -> i32 {
    // read, delete, describe
    1 << 3 | 1 << 6 | 1 << 8
}

/// Whether the principal of `context` may; the error is what the handler answers. There are no ACLs yet, so everybody
/// may: that is why `serve` does not listen beyond loopback by itself.
pub fn authorize(context: &Context, operation: Operation, resource: Resource<'_>) -> Result<(), ErrorCode> {
    match verdict(context, operation, resource) {
        Verdict::Allow => Ok(()),
        Verdict::Deny => Err(resource.refused()),
    }
}

#[cfg(not(test))]
const fn verdict(_: &Context, _: Operation, _: Resource<'_>) -> Verdict {
    Verdict::Allow
}

#[cfg(test)]
use self::asked::verdict;

/// An authorizer that knows how often it was asked, and one user who may do nothing.
#[cfg(test)]
pub mod asked {
    use std::cell::Cell;

    use super::{Context, Operation, Resource, Verdict};
    use crate::net::Principal;

    /// Who may do nothing.
    pub const NOBODY: &str = "nobody";

    thread_local! {
        static TIMES: Cell<u64> = const { Cell::new(0) };
    }

    /// How often handlers asked on this thread.
    pub fn times() -> u64 {
        TIMES.get()
    }

    pub(super) fn verdict(context: &Context, _: Operation, _: Resource<'_>) -> Verdict {
        TIMES.set(TIMES.get() + 1);
        match &context.principal {
            Principal::User(name) if &**name == NOBODY => Verdict::Deny,
            _ => Verdict::Allow,
        }
    }
}
