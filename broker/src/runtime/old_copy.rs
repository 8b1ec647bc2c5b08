//! Whether this disk is an older copy of the one with which the node ran last (fault row 30): a snapshot of a machine that was put back, or
//! a backup. What was acknowledged and voted for since is not on it, and it must not speak for the voter that it was.
//!
//! ```text
//!  {data}/life     1 ──start──> 2 ──start──> 3      durable before anybody hears of it
//!                       copied ─┘        peers heard 3
//!  the copy is started as 4, knows of 2 before it, and is told of 3 by the next pulse of whoever heard it
//! ```
//! Nothing that a peer sends reaches the replicas here before its first pulse, which says what it has heard. Who has only now started has
//! heard of nobody: an old copy among nodes that all started anew is not found.
//!
//! What is found so is no log to go on with. It counts as lost from then on (`runtime::birth`), and the process ends: at its next start
//! the node joins its cluster anew.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use varve_common::{Disk, NodeId};
use varve_consensus::Pulse;

use super::{
    birth,
    data::Layout,
    mailbox::{Mail, Mailbox},
    peering::LIFE_BITS,
};

/// Looks at what peers have heard of this node.
pub(super) struct OldCopy {
    lives: (u64, u64),
    log: (Arc<dyn Disk>, Layout),
    mailbox: Mailbox,
    /// Whose pulse was heard.
    heard: RwLock<BTreeSet<NodeId>>,
    is_found: AtomicBool,
}

impl OldCopy {
    /// This start, and the one before it as far as the disk knows; where the log is, and who stops.
    pub(super) fn new(lives: (u64, u64), log: (Arc<dyn Disk>, Layout), mailbox: Mailbox) -> Self {
        Self { lives, log, mailbox, heard: RwLock::default(), is_found: AtomicBool::new(false) }
    }

    /// Whether a message of this peer may reach the replicas: what is dropped is sent again.
    pub(super) fn lets_in(&self, from: NodeId) -> bool {
        !self.is_found() && self.heard.read().unwrap_or_else(PoisonError::into_inner).contains(&from)
    }

    /// Looks at a pulse; whether this disk may hear it.
    pub(super) fn hear(&self, from: NodeId, pulse: &Pulse) -> bool {
        if self.is_found() {
            return false;
        }
        if let Some(later) = later(self.lives, pulse) {
            if !self.is_found.swap(true, Ordering::SeqCst) {
                self.end(from, later);
            }
            return false;
        }
        if !self.lets_in(from) {
            self.heard.write().unwrap_or_else(PoisonError::into_inner).insert(from);
        }
        true
    }

    fn is_found(&self) -> bool {
        self.is_found.load(Ordering::SeqCst)
    }

    fn end(&self, from: NodeId, later: u64) {
        tracing::error!(node = %from, later, "a peer has heard of a later start of this node: the data directory is an older copy");
        let ((disk, layout), mailbox) = (self.log.clone(), self.mailbox.clone());
        tokio::task::spawn_blocking(move || {
            let why = match birth::disown(&*disk, &layout) {
                Ok(()) => "it is an older copy of the one with which this node ran last; the next start gives it up, and joins the cluster anew"
                    .to_owned(),
                Err(error) => format!("it is an older copy of the one with which this node ran last, and {error}"),
            };
            mailbox.send(Mail::WriteFailed(why));
        });
    }
}

/// A start of this very disk that a peer has heard of, and the disk has not. Those of disks that its node had before, or has by now, are
/// others'.
fn later((own, before): (u64, u64), pulse: &Pulse) -> Option<u64> {
    let is_of_this_disk = |life: &u64| *life >> LIFE_BITS == own >> LIFE_BITS;
    let heard = [pulse.heard.0, pulse.before].into_iter().filter(is_of_this_disk);
    heard.filter(|life| *life != own).find(|life| *life > before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::tests::pulse;

    #[test]
    fn only_a_later_start_of_the_same_disk_tells_of_an_older_copy() {
        let life = |counter: u64, number: u64| counter << LIFE_BITS | number;
        let lives = (life(2, 50), life(2, 20));
        let told =
            |heard: u64, before: u64| later(lives, &Pulse { heard: (heard, 0), before, ..pulse(1, 1) });
        // Nothing, this start, the one before, and earlier ones.
        for (heard, before) in
            [(0, 0), (life(2, 50), 0), (life(2, 50), life(2, 20)), (life(2, 10), life(2, 5))]
        {
            assert_eq!(told(heard, before), None);
        }
        // A disk that this one took the place of, or that has taken its place.
        assert_eq!(told(life(1, 90), life(3, 1)), None);
        // A start that this disk knows nothing of, before it was heard and after.
        assert_eq!(told(life(2, 30), life(2, 20)), Some(life(2, 30)));
        assert_eq!(told(life(2, 50), life(2, 30)), Some(life(2, 30)));
        // Its clock was set back since.
        assert_eq!(told(life(2, 70), 0), Some(life(2, 70)));
    }
}
