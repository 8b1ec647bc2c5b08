//! Objects of a partition that its manifest does not name: most have their reason, and a fork of history shows here.

use varve_common::{Incarnation, ObjectKey, Offset};
use varve_formats::{
    keys::{Key, PartitionKeys, SegmentName},
    segment::{Footer, Suffix, footer_from_suffix},
    state::Tombstone,
};

use super::{Kind, content::batch_crcs, partition::Look};

/// Of so many objects of a partition the records are held against history; the rest is told as it is.
const COMPARED_MAX: usize = 100;
/// How much of a segment's end is read for its footer.
const SUFFIX_BYTES: u64 = varve_formats::limits::SUFFIX_BYTES;

/// What is kept from one extra object to the next.
#[derive(Default)]
pub(super) struct Extras {
    compared: usize,
}

/// What an object's key says, of those that a manifest could name.
struct Name {
    at: PartitionKeys,
    base: Offset,
    last: Offset,
    uid: u64,
    segment: Option<SegmentName>,
}

fn name(key: &Key) -> Option<Name> {
    match key {
        Key::Segment(at, name) | Key::MergedSegment(at, name) => {
            Some(Name { at: *at, base: name.base, last: name.last, uid: name.uid, segment: Some(*name) })
        }
        Key::Node(at, name) => {
            Some(Name { at: *at, base: name.base, last: name.last, uid: name.uid, segment: None })
        }
        _ => None,
    }
}

impl Look<'_> {
    /// Says what an object is that nothing names.
    pub(super) async fn extra(&mut self, extras: &mut Extras, key: &ObjectKey, parsed: &Key, bytes: u64) {
        let Some(name) = name(parsed) else {
            return self.findings.add(Kind::Unknown, key, "it has no place here");
        };
        if let Some((kind, what)) = self.reason(&name, key) {
            return self.findings.add(kind, key, what);
        }
        let old = name.at.incarnation < self.life();
        let within = name.base >= self.view.start() && name.last < self.view.end();
        if let (Some(segment), true) = (name.segment, within) {
            if extras.compared >= COMPARED_MAX {
                let what =
                    format!("nothing names it; after {COMPARED_MAX} of them its records are not compared");
                return self.findings.add(Kind::Orphan, key, what);
            }
            extras.compared += 1;
            return self.compare(key, segment, bytes, old).await;
        }
        if old {
            return self.findings.add(Kind::OtherLife, key, "of an earlier life, and nothing names it");
        }
        self.findings.add(Kind::Orphan, key, "nothing names it: newer than the snapshot, or left over");
    }

    fn life(&self) -> Incarnation {
        self.partition.identity.incarnation
    }

    /// Why it may be there.
    fn reason(&self, name: &Name, key: &ObjectKey) -> Option<(Kind, &'static str)> {
        let state = &self.partition.state;
        let covers = |tombstone: &&Tombstone| {
            tombstone.node_level.is_some()
                && !tombstone.alone
                && tombstone.base <= name.base
                && name.last <= tombstone.last
        };
        if state.tombstones.iter().any(|tombstone| tombstone.uid == name.uid)
            || state.tombstones.iter().any(|tombstone| covers(&tombstone))
        {
            return Some((Kind::Tombstone, "it waits to be deleted"));
        }
        if state.intents.iter().any(|intent| intent.uid == name.uid) {
            return Some((Kind::Intent, "an upload that was announced"));
        }
        if self.partition.tail.twins.contains(key) {
            return Some((Kind::Orphan, "it holds the same records as the one that is used"));
        }
        if name.at.incarnation > self.life() {
            return Some((Kind::OtherLife, "of a life that is not complete"));
        }
        // What broke the tail was told there.
        let behind = name.last >= self.partition.state.root.end() && name.at.incarnation == self.life();
        if behind {
            return Some((Kind::Newer, "behind what the manifest names"));
        }
        if name.last < self.partition.log_start() {
            return Some((Kind::Orphan, "below the start of the log, and nothing names it"));
        }
        None
    }

    /// The same records under another name are an orphan; others are another history.
    async fn compare(&mut self, key: &ObjectKey, name: SegmentName, bytes: u64, old: bool) {
        let footer = match self.footer(key, bytes).await {
            Ok(footer) => footer,
            Err(what) => {
                return self.findings.add(Kind::Orphan, key, format!("nothing names it, and {what}"));
            }
        };
        let known = batch_crcs(self.verifier, &self.view, name.base, name.last).await;
        if known == Some(footer.batch_crcs) {
            return self.findings.add(
                Kind::Orphan,
                key,
                "nothing names it; its records are those of the manifest",
            );
        }
        let (base, last) = (name.base, name.last);
        if old {
            let what = format!(
                "incarnation {} wrote other records of {base} to {last} than incarnation {} has",
                footer.identity.incarnation.0,
                self.life().0
            );
            return self.findings.add(Kind::TwoWriters, key, what);
        }
        self.findings.add(
            Kind::Fork,
            key,
            format!("it holds other records of {base} to {last} than the manifest names"),
        );
    }

    async fn footer(&self, key: &ObjectKey, bytes: u64) -> Result<Footer, String> {
        let mut wanted = SUFFIX_BYTES;
        for _ in 0..2 {
            let suffix =
                self.verifier.history.store().get_suffix(key, wanted).await.map_err(|why| why.to_string())?;
            match footer_from_suffix(&suffix.bytes, bytes).map_err(|why| why.to_string())? {
                Suffix::Footer(footer) => return Ok(*footer),
                Suffix::More(more) => wanted = more,
            }
        }
        Err("its footer does not end".to_owned())
    }
}
