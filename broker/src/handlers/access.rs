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
    Describe,
    DescribeConfigs,
    IdempotentWrite,
}

/// To what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The cluster as a whole.
    Cluster,
    /// A topic, by name.
    Topic(&'a str),
}

impl Resource<'_> {
    const fn refused(self) -> ErrorCode {
        match self {
            Self::Cluster => ErrorCode::ClusterAuthorizationFailed,
            Self::Topic(_) => ErrorCode::TopicAuthorizationFailed,
        }
    }
}

/// The answer of the authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    #[allow(dead_code, reason = "no authorizer denies yet; handlers are written for one that does")]
    Deny,
}

/// Whether the principal of `context` may; the error is what the handler answers. There are no ACLs yet, so everybody
/// may: that is why `serve` does not listen beyond loopback by itself.
pub fn authorize(context: &Context, operation: Operation, resource: Resource<'_>) -> Result<(), ErrorCode> {
    match verdict(context, operation, resource) {
        Verdict::Allow => Ok(()),
        Verdict::Deny => Err(resource.refused()),
    }
}

const fn verdict(_: &Context, _: Operation, _: Resource<'_>) -> Verdict {
    Verdict::Allow
}
