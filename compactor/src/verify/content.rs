//! L2: what a segment holds against all that is said of it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::Shared};
use varve_common::{ObjectKey, Offset, clock::BoxFuture, codec::DecodeError};
use varve_formats::{
    PartitionIdentity,
    batch::BatchHeader,
    keys::SegmentName,
    manifest::{Entry, EntryKind},
    segment::verify_batches,
};
use varve_objects::get_verified;

use super::{Kind, Verifier, existence::fingerprint};
use crate::history::Trouble;

/// Segments of one partition that are on their way or are looked at.
const AT_ONCE: usize = 4;

/// A segment that is being read: what is wrong with it.
type Look = (ObjectKey, Shared<BoxFuture<'static, Option<Trouble>>>);

/// Reads segments beside whoever names them.
pub(super) struct Contents<'a> {
    verifier: &'a Verifier,
    identity: Arc<PartitionIdentity>,
    looks: VecDeque<Look>,
    /// How many were read.
    pub(super) read: u64,
}

impl<'a> Contents<'a> {
    pub(super) fn new(verifier: &'a Verifier, identity: &PartitionIdentity) -> Self {
        Self { verifier, identity: Arc::new(identity.clone()), looks: VecDeque::new(), read: 0 }
    }

    /// Begins to read a segment; gives what is wrong with one that was begun before, where that is known by now.
    pub(super) async fn begin(&mut self, key: &ObjectKey, entry: &Entry) -> Option<(ObjectKey, Trouble)> {
        let print = fingerprint(key);
        if !self.verifier.read.lock().expect("no holder of this lock panics").insert(print) {
            return None;
        }
        let before = if self.looks.len() >= AT_ONCE { self.next().await } else { None };
        self.verifier.progress.expect(entry.length);
        let (verifier, identity) = (self.verifier.clone(), Arc::clone(&self.identity));
        let (at, entry) = (key.clone(), entry.clone());
        let look: BoxFuture<'static, Option<Trouble>> = Box::pin(async move {
            let _room = verifier.budget.reserve(entry.length).await;
            let store = &**verifier.history.store();
            let trouble = match get_verified(store, &at, entry.length, entry.sha256).await {
                Ok(bytes) => check(&bytes, &entry, &identity).err().map(Trouble::from),
                Err(error) => Some(error.into()),
            };
            verifier.progress.read(entry.length);
            trouble
        });
        let look = look.shared();
        self.verifier.spawn.spawn(Box::pin(look.clone().map(drop)));
        self.looks.push_back((key.clone(), look));
        self.read += 1;
        before
    }

    /// Waits for the oldest; what is wrong with it.
    async fn next(&mut self) -> Option<(ObjectKey, Trouble)> {
        let (key, look) = self.looks.pop_front()?;
        look.await.map(|trouble| (key, trouble))
    }

    /// Waits for all.
    pub(super) async fn finish(&mut self) -> Vec<(ObjectKey, Trouble)> {
        let mut troubles = Vec::new();
        while !self.looks.is_empty() {
            troubles.extend(self.next().await);
        }
        troubles
    }
}

impl Trouble {
    /// What it is called.
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Missing => Kind::Missing,
            Self::Damaged(_) => Kind::Content,
            Self::Unread(_) => Kind::Unread,
        }
    }
}

/// Every checksum in a segment but the digest of the whole, which was held against it when it was read, and the segment against
/// the entry that names it.
fn check(segment: &Bytes, entry: &Entry, identity: &PartitionIdentity) -> Result<(), DecodeError> {
    let error = |what| DecodeError { what, position: 0 };
    let mut next = entry.base;
    let verified = verify_batches(segment, |header, batch| {
        if !BatchHeader::is_intact(batch) {
            return Err(error("a batch's checksum does not match"));
        }
        if header.base < next || (header.base > next && entry.kind != EntryKind::Compacted) {
            return Err(error("offsets do not follow each other"));
        }
        next = header.last.next();
        Ok(())
    })?;
    if next > entry.end() || (next < entry.end() && entry.kind != EntryKind::Compacted) {
        return Err(error("the records end elsewhere than what names the segment says"));
    }
    let footer = verified.footer;
    if !footer.identity.same_partition(identity) {
        return Err(error("a segment of another cluster or partition"));
    }
    let name = SegmentName { base: entry.base, last: entry.last, term: entry.term, uid: entry.uid };
    let says = footer.entry(name, entry.store_id, segment.len() as u64, entry.sha256);
    if says != *entry {
        return Err(error("its footer does not say what names the segment says"));
    }
    Ok(())
}

/// Rolling CRC over the CRCs of the batches from `base` to `last` that the history holds: what a segment's footer says of
/// its own. `None` where it does not hold all of them.
pub(super) async fn batch_crcs(
    verifier: &Verifier,
    view: &crate::history::View,
    base: Offset,
    last: Offset,
) -> Option<u32> {
    let (mut crcs, mut next) = (0, base);
    while next <= last {
        let read = verifier.reader.read(view, next, 1 << 20).await.ok()??;
        for header in read.chunks.iter().filter_map(|batch| BatchHeader::read(batch).ok()) {
            if header.base > last {
                break;
            }
            if header.base < next || header.last > last {
                return None;
            }
            crcs = varve_common::checksum::crc32c_append(crcs, &header.crc.to_le_bytes());
            next = header.last.next();
        }
        if read.next > last {
            break;
        }
        next = next.max(read.next);
    }
    Some(crcs)
}
