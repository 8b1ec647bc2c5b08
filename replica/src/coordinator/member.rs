//! A member of a group.

use std::time::Duration;

use bytes::Bytes;
use varve_common::Monotonic;
use varve_formats::offsets::MemberValue;

use super::{
    options::NEW_MEMBER_PATIENCE,
    request::{DescribedMember, Join, MemberRef},
};
use crate::api::{Now, Ticket};

/// Who is in a group, and what it waits for.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance: Duration,
    pub(super) session: Duration,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// It has not been in a generation yet.
    pub(super) is_new: bool,
    /// When it is given up, unless it waits.
    pub(super) deadline: Monotonic,
    /// Its JoinGroup, while it waits.
    pub(super) joining: Option<Ticket>,
    /// Its SyncGroup, while it waits.
    pub(super) syncing: Option<Ticket>,
}

fn span(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn millis(span: Duration) -> i32 {
    i32::try_from(span.as_millis()).unwrap_or(i32::MAX)
}

/// What a member takes beside its strings, about.
const MEMBER_BYTES: usize = 64;

/// What protocols and what a member says under them take.
pub(super) fn claimed_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}

impl Member {
    pub(super) fn new(now: Now, join: &Join, joining: Ticket) -> Self {
        let mut member = Self {
            instance: join.member.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance: Duration::ZERO,
            session: Duration::ZERO,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            is_new: true,
            deadline: now.monotonic.plus(NEW_MEMBER_PATIENCE),
            joining: Some(joining),
            syncing: None,
        };
        member.update(join);
        member
    }

    /// A member in the log; its session begins now.
    pub(super) fn load(value: &MemberValue, protocol: &str, now: Now) -> Self {
        let session = span(value.session_ms);
        Self {
            instance: value.instance_id.clone(),
            client_id: value.client_id.clone(),
            client_host: value.client_host.clone(),
            rebalance: span(value.rebalance_ms),
            session,
            protocols: vec![(protocol.to_owned(), value.subscription.clone())],
            assignment: value.assignment.clone(),
            is_new: false,
            deadline: now.monotonic.plus(session),
            joining: None,
            syncing: None,
        }
    }

    pub(super) fn store(&self, id: &str, protocol: &str) -> MemberValue {
        MemberValue {
            id: id.to_owned(),
            instance_id: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_ms: millis(self.rebalance),
            session_ms: millis(self.session),
            subscription: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }

    /// Takes in what it says of itself now.
    pub(super) fn update(&mut self, join: &Join) {
        self.rebalance = span(join.rebalance_ms);
        self.session = span(join.session_ms);
        self.protocols.clone_from(&join.protocols);
    }

    /// It was heard of.
    pub(super) fn heard(&mut self, now: Now) {
        self.deadline = now.monotonic.plus(self.session);
    }

    /// Whether its silence counts. Who waits for an answer cannot speak; a new member may wait only so long.
    pub(super) const fn is_watched(&self) -> bool {
        self.is_new || (self.joining.is_none() && self.syncing.is_none())
    }

    /// What it said of itself under a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|(name, _)| name == protocol);
        known.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn reference(&self, id: &str) -> MemberRef {
        MemberRef { id: id.to_owned(), instance: self.instance.clone() }
    }

    /// What it says of itself takes, in memory and in the log, without what it was given.
    pub(super) fn claimed_bytes(&self, id: &str) -> usize {
        let instance = self.instance.as_ref().map_or(0, String::len);
        claimed_bytes(&self.protocols)
            + MEMBER_BYTES
            + (id.len() + instance + self.client_id.len() + self.client_host.len())
    }

    pub(super) fn described(&self, id: &str, protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            member: self.reference(id),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol.map(|protocol| self.metadata(protocol)).unwrap_or_default(),
            assignment: if protocol.is_some() { self.assignment.clone() } else { Bytes::new() },
        }
    }
}
