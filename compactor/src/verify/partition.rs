//! One partition: its snapshot, its manifest, its tail, and what else lies in its folder.

use varve_common::{ObjectKey, Offset, PartitionIndex};
use varve_formats::{keys::Key, manifest::Entry};
use varve_objects::HeadError;
use varve_replica::metadata::Topic;
use varve_snapshot::choose;

use super::{
    Depth, Findings, Kind, Looked, Report, Severity, Verifier,
    algebra::Algebra,
    content::Contents,
    existence::{Names, Seen},
    extra::Extras,
};
use crate::history::{Found, History, HistoryError, PartitionHistory, Stop, Trouble, View};

/// How often a partition is looked at where a broker changes it meanwhile.
const LOOKS_MAX: usize = 4;

impl Verifier {
    /// Looks at a partition; again where something is wrong and its snapshot is not the newest any more.
    pub async fn partition(&self, topic: &Topic, partition: PartitionIndex) -> Report {
        let mut looks = 1;
        loop {
            let of = format!("{}-{}", topic.name, partition.0);
            let found = match self.history.partition(topic, partition).await {
                Ok(found) => found,
                Err(error) => return unusable(of, &error),
            };
            let mut look = Look::new(self, found, of);
            look.run().await;
            let wrong = look.findings.all.iter().any(|finding| finding.kind.severity() == Severity::Damage);
            if !wrong || looks >= LOOKS_MAX || !self.has_moved(topic, partition, &look.partition).await {
                return look.into_report();
            }
            looks += 1;
        }
    }

    /// Whether a newer snapshot is there than the one that was looked at, or the topic is gone.
    async fn has_moved(&self, topic: &Topic, partition: PartitionIndex, found: &PartitionHistory) -> bool {
        let (store, prefix) = (self.history.store().clone(), self.history.keys().prefix().clone());
        let Ok(newest) = History::open(store, &prefix).await else { return false };
        if newest.image().topic(topic.id).is_none() {
            return true;
        }
        let candidate =
            |found: &PartitionHistory| found.checkpoint.as_ref().map(|(candidate, _)| candidate.key.clone());
        match newest.partition(topic, partition).await {
            Ok(now) => candidate(&now) != candidate(found),
            Err(_) => false,
        }
    }
}

/// A partition whose snapshots cannot be used.
fn unusable(of: String, error: &HistoryError) -> Report {
    let mut findings = Findings::of(of);
    match error {
        HistoryError::Choose { error: choose::ChooseError::AllDamaged(all), .. } => {
            for damaged in all {
                findings.add(Kind::Content, &damaged.candidate.key, damaged.damage);
            }
        }
        HistoryError::Choose { error: choose::ChooseError::NoneListed(folder), .. } => {
            findings.add(Kind::Missing, folder, "there is no snapshot");
        }
        HistoryError::Removed { folder, .. } => {
            findings.add(
                Kind::Missing,
                folder,
                "there is no snapshot, and objects that follow one are there",
            );
        }
        error if error.is_damage() => findings.add(Kind::Content, "", error),
        error => findings.add(Kind::Unread, "", error),
    }
    Report { findings: findings.all, looked: Looked::default() }
}

/// One look at a partition.
pub(super) struct Look<'a> {
    pub(super) verifier: &'a Verifier,
    pub(super) partition: PartitionHistory,
    pub(super) view: View,
    pub(super) findings: Findings,
    pub(super) looked: Looked,
    names: Names,
}

impl<'a> Look<'a> {
    pub(super) fn new(verifier: &'a Verifier, partition: PartitionHistory, of: String) -> Self {
        let (view, findings) = (partition.view(), Findings::of(of));
        Self { verifier, partition, view, findings, looked: Looked::default(), names: Names::default() }
    }

    pub(super) fn into_report(self) -> Report {
        Report { findings: self.findings.all, looked: self.looked }
    }

    async fn run(&mut self) {
        self.snapshots().await;
        self.tail();
        self.manifest().await;
        self.listing().await;
        self.missing().await;
        self.archive().await;
    }

    /// The snapshot that is used was read; those that were passed over are damaged; of the others, those that the newest says
    /// were published.
    async fn snapshots(&mut self) {
        self.looked.snapshots += u64::from(self.partition.checkpoint.is_some());
        for damaged in &self.partition.damaged {
            self.findings.add(Kind::Content, &damaged.candidate.key, damaged.damage);
        }
        let used = self.partition.checkpoint.as_ref().map(|(candidate, _)| candidate.key.clone());
        let (store, keys) = (&**self.verifier.history.store(), self.verifier.history.keys());
        for published in &self.partition.state.published {
            let key = keys.checkpoint(self.partition.at(), published);
            if Some(&key) == used.as_ref() {
                continue;
            }
            match store.head(&key).await {
                Ok(bytes) if bytes == published.bytes => {}
                Ok(bytes) => self.findings.add(Kind::Length, &key, lengths(bytes, published.bytes)),
                Err(HeadError::NotFound) => {
                    self.findings.add(Kind::Missing, &key, "a snapshot that was published is gone")
                }
                Err(HeadError::Failed(failure)) => self.findings.add(Kind::Unread, &key, failure),
            }
        }
    }

    /// The tail was read whole when it was discovered.
    fn tail(&mut self) {
        let tail = &self.partition.tail;
        for (key, trouble) in &tail.passed {
            self.findings.add(trouble.kind(), key, trouble);
        }
        match &tail.stop {
            Stop::End => {}
            Stop::Gap { end, next } => {
                let what = format!(
                    "behind the manifest nothing holds {end} to {next}, and something lies behind that"
                );
                self.findings.add(Kind::Gap, "", what);
            }
            Stop::Fork { base, keys } => {
                for key in keys {
                    self.findings.add(
                        Kind::Fork,
                        key,
                        format!("what begins at {base} is there in {} versions", keys.len()),
                    );
                }
            }
            Stop::Broken { key, trouble } => self.findings.add(trouble.kind(), key, trouble),
            Stop::Stray(key) => {
                let what = "its place in the log is not behind that of what comes before it: another lineage";
                self.findings.add(Kind::Fork, key, what);
            }
        }
    }

    /// Walks over manifest and tail: algebra, names, and content where that is asked for.
    async fn manifest(&mut self) {
        let history = &*self.verifier.history;
        let (view, identity) = (self.view.clone(), self.partition.identity.clone());
        let mut algebra = Algebra::new(self.partition.log_start());
        let mut contents = Contents::new(self.verifier, &identity);
        let mut walk = view.walk(history, Offset::ZERO);
        while let Some(found) = walk.next().await {
            match found {
                Found::Node(node, sums) => {
                    self.looked.nodes += 1;
                    let key = history.keys().node(identity.topic_id, identity.partition, &node);
                    self.names.add(&key, node.length);
                    if let Some(what) = algebra.node(&node, &sums) {
                        self.findings.add(Kind::Algebra, &key, what);
                    }
                }
                Found::Unreadable(node, trouble) => {
                    let key = history.keys().node(identity.topic_id, identity.partition, &node);
                    self.findings.add(
                        trouble.kind(),
                        &key,
                        format!("{trouble} (a node of the manifest, {} to {})", node.base, node.last),
                    );
                    algebra.skip(&node);
                }
                Found::Entry(entry) => {
                    let Some(key) = self.entry(&mut algebra, &entry) else { continue };
                    if self.verifier.depth == Depth::Content
                        && let Some((key, trouble)) = contents.begin(&key, &entry).await
                    {
                        self.content(&key, &trouble);
                    }
                }
            }
        }
        for (key, trouble) in contents.finish().await {
            self.content(&key, &trouble);
        }
        self.looked.segments_read += contents.read;
    }

    /// What is missing is told by the listing.
    fn content(&mut self, key: &ObjectKey, trouble: &Trouble) {
        if *trouble != Trouble::Missing {
            self.findings.add(trouble.kind(), key, trouble);
        }
    }

    fn entry(&mut self, algebra: &mut Algebra, entry: &Entry) -> Option<ObjectKey> {
        let identity = &self.partition.identity;
        let key = self.verifier.history.keys().entry(identity.topic_id, identity.partition, entry);
        for what in algebra.entry(entry) {
            self.findings.add(Kind::Algebra, key.as_ref().map(ObjectKey::as_str).unwrap_or_default(), what);
        }
        let key = key?;
        self.looked.segments += 1;
        self.looked.segment_bytes += entry.length;
        self.names.add(&key, entry.length);
        Some(key)
    }

    async fn listing(&mut self) {
        self.names.sort();
        let identity = self.partition.identity.clone();
        let history = &*self.verifier.history;
        let folder = history.keys().partition(identity.topic_id, identity.partition);
        let mut extras = Extras::default();
        let mut last = None;
        loop {
            let page = match history.store().list(&folder, last.as_ref()).await {
                Ok(page) => page,
                Err(failure) => return self.findings.add(Kind::Unread, &folder, failure),
            };
            let Some(newest) = page.objects.last() else { break };
            last = Some(newest.key.clone());
            for listed in page.objects {
                self.looked.listed += 1;
                match self.names.see(&listed.key, listed.bytes) {
                    Seen::Named => {}
                    Seen::Length(length) => {
                        self.findings.add(Kind::Length, &listed.key, lengths(listed.bytes, length))
                    }
                    Seen::Extra => match history.keys().parse(&listed.key) {
                        Ok(Key::Checkpoint(..)) => {}
                        Ok(key) => self.extra(&mut extras, &listed.key, &key, listed.bytes).await,
                        Err(_) => self.findings.add(
                            Kind::Unknown,
                            &listed.key,
                            "nothing of Varve's has such a name",
                        ),
                    },
                }
            }
            if !page.more {
                break;
            }
        }
    }

    /// What the listing did not show, and HEAD does not know either.
    async fn missing(&mut self) {
        if !self.names.has_missing() {
            return;
        }
        let history = &*self.verifier.history;
        let (view, identity) = (self.view.clone(), self.partition.identity.clone());
        let mut walk = view.walk(history, Offset::ZERO);
        while let Some(found) = walk.next().await {
            let (key, what) = match &found {
                Found::Node(node, _) => (
                    Some(history.keys().node(identity.topic_id, identity.partition, node)),
                    "a node of the manifest".to_owned(),
                ),
                Found::Entry(entry) => {
                    let what = format!("the segment of {} to {}", entry.base, entry.last);
                    (history.keys().entry(identity.topic_id, identity.partition, entry), what)
                }
                Found::Unreadable(..) => continue,
            };
            let Some(key) = key.filter(|key| self.names.is_missing(key)) else { continue };
            match history.store().head(&key).await {
                Ok(_) => {}
                Err(HeadError::NotFound) => {
                    self.findings.add(Kind::Missing, &key, format!("{what} is not in the store"))
                }
                Err(HeadError::Failed(failure)) => self.findings.add(Kind::Unread, &key, failure),
            }
        }
    }
}

pub(super) fn lengths(is: u64, says: u64) -> String {
    format!("it has {is} bytes, and should have {says}")
}
