//! What lies around the partitions: claims, the metadata's snapshots, other clusters, topics that nobody knows.

use std::sync::Arc;

use varve_common::{ClusterId, Incarnation, ObjectKey};
use varve_formats::keys::{Key, PartitionKeys, Prefix};
use varve_objects::{Failure, Store};
use varve_snapshot::{ClaimError, Which, choose, claim};

use super::{Finding, Findings, Kind, Looked, Report, Verifier};
use crate::history::{History, HistoryError};

/// How many names on the prefix are looked at: a bucket that is shared with much else is not searched through.
const NEIGHBOURS_MAX: usize = 1_000;
/// What sorts behind all names of ours below a folder, and is a name that stores take.
const BEHIND: &str = "zzzzzzzz";

/// Opens a history to look at; where that cannot be, what is wrong.
///
/// # Errors
/// What was found instead.
pub async fn opened(store: Arc<dyn Store>, prefix: &Prefix) -> Result<Arc<History>, Report> {
    let error = match History::open(store, prefix).await {
        Ok(history) => return Ok(Arc::new(history)),
        Err(error) => error,
    };
    let mut findings = Findings::of(String::new());
    match &error {
        HistoryError::Claim(ClaimError::Contradiction(key)) => {
            findings.add(Kind::TwoWriters, key, &error);
        }
        HistoryError::Choose { error: choose::ChooseError::AllDamaged(all), .. } => {
            for damaged in all {
                findings.add(Kind::Content, &damaged.candidate.key, damaged.damage);
            }
        }
        HistoryError::Choose { error: choose::ChooseError::NoneListed(folder), .. } => {
            findings.add(Kind::Missing, folder, "there is no snapshot of the metadata");
        }
        error if error.is_damage() => findings.add(Kind::Content, prefix.claims(), error),
        error => findings.add(Kind::Unread, "", error),
    }
    Err(Report { findings: findings.all, looked: Looked::default() })
}

impl Verifier {
    /// Looks at all but the partitions.
    pub async fn around(&self) -> Report {
        let mut around =
            Around { verifier: self, findings: Findings::of(String::new()), looked: Looked::default() };
        let all = async {
            around.claims().await?;
            around.metadata().await?;
            around.neighbours().await?;
            around.strangers().await
        };
        if let Err(failure) = all.await {
            around.findings.add(Kind::Unread, self.history.keys().root(), failure);
        }
        Report { findings: around.findings.all, looked: around.looked }
    }
}

struct Around<'a> {
    verifier: &'a Verifier,
    findings: Findings,
    looked: Looked,
}

impl Around<'_> {
    fn history(&self) -> &History {
        &self.verifier.history
    }

    /// Every claim is of one cluster.
    async fn claims(&mut self) -> Result<(), Failure> {
        let (cluster, newest) = (self.history().keys().cluster(), self.history().lives().newest.incarnation);
        let prefix = self.history().keys().prefix().clone();
        for life in 1..=newest.0 {
            let key = prefix.claim(Incarnation(life));
            match claim::read(&**self.verifier.history.store(), &prefix, Incarnation(life)).await {
                Ok(claim) if claim.cluster == cluster => {}
                Ok(claim) => {
                    self.findings.add(
                        Kind::TwoWriters,
                        &key,
                        format!("a claim of cluster {}", claim.cluster),
                    );
                }
                Err(ClaimError::Store(failure)) => return Err(failure),
                Err(ClaimError::Vanished(_)) => self.findings.add(Kind::Missing, &key, "a claim is gone"),
                Err(ClaimError::Contradiction(_)) => {
                    self.findings.add(Kind::TwoWriters, &key, "it contradicts its key");
                }
                Err(error) => self.findings.add(Kind::Content, &key, error),
            }
        }
        Ok(())
    }

    /// Every snapshot of the metadata in the life that is read.
    async fn metadata(&mut self) -> Result<(), Failure> {
        let verifier = self.verifier;
        let (store, keys) = (&**verifier.history.store(), verifier.history.keys());
        let folder = choose::folder(keys, Which::Metadata, verifier.history.incarnation());
        for candidate in choose::candidates(keys, &choose::list_all(store, &folder).await?) {
            self.looked.snapshots += 1;
            match choose::read(store, keys, &candidate.key).await {
                Ok(Ok(_)) | Err(choose::ChooseError::Vanished(_)) => {}
                Ok(Err(damage)) => self.findings.add(Kind::Content, &candidate.key, damage),
                Err(error) => self.findings.add(Kind::Unread, &candidate.key, error),
            }
        }
        Ok(())
    }

    /// What else lies on the prefix: from name to name, over all that lies below each.
    async fn neighbours(&mut self) -> Result<(), Failure> {
        let verifier = self.verifier;
        let keys = verifier.history.keys();
        let prefix = keys.prefix().to_string();
        let (cluster, claims) = (keys.cluster(), keys.prefix().claims());
        let mut last: Option<ObjectKey> = None;
        for _ in 0..NEIGHBOURS_MAX {
            let page = verifier.history.store().list(&prefix, last.as_ref()).await?;
            let Some(first) = page.objects.first() else { return Ok(()) };
            let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            let below = first.key.as_str().strip_prefix(&folder).unwrap_or_default();
            let name = below.split('/').next().unwrap_or_default();
            let path = format!("{folder}{name}");
            match name.parse::<ClusterId>() {
                Ok(other) if other == cluster => self.areas().await?,
                Ok(other) => {
                    let what = format!("cluster {other} writes to the prefix of cluster {cluster}");
                    self.findings.add(Kind::TwoWriters, &first.key, what);
                }
                Err(_) if path == claims => {}
                Err(_) => self.findings.add(Kind::Unknown, &first.key, "nothing of this cluster's"),
            }
            // An object of just this name sorts before all below it.
            let behind = if below.contains('/') { format!("{path}/{BEHIND}") } else { path };
            last = Some(ObjectKey::new(behind));
        }
        Ok(())
    }

    /// The cluster's own folders.
    async fn areas(&mut self) -> Result<(), Failure> {
        let verifier = self.verifier;
        let root = verifier.history.keys().root();
        let mut last: Option<ObjectKey> = None;
        for _ in 0..NEIGHBOURS_MAX {
            let page = verifier.history.store().list(&root, last.as_ref()).await?;
            let Some(first) = page.objects.first() else { return Ok(()) };
            let below = first.key.as_str().strip_prefix(&format!("{root}/")).unwrap_or_default();
            let name = below.split('/').next().unwrap_or_default();
            if !matches!(name, "p" | "meta") && !name.starts_with("archive") {
                self.findings.add(Kind::Unknown, &first.key, "nothing of Varve's has such a name");
            }
            let behind = if below.contains('/') {
                format!("{root}/{name}/{BEHIND}")
            } else {
                first.key.as_str().to_owned()
            };
            last = Some(ObjectKey::new(behind));
        }
        Ok(())
    }

    /// Partitions that the metadata does not know, from one to the next.
    async fn strangers(&mut self) -> Result<(), Failure> {
        let verifier = self.verifier;
        let keys = verifier.history.keys();
        let mut last: Option<ObjectKey> = None;
        loop {
            let page = verifier.history.store().list(&keys.partitions(), last.as_ref()).await?;
            let Some(newest) = page.objects.last().map(|listed| listed.key.clone()) else { return Ok(()) };
            let mut behind = newest.clone();
            let mut seen = None;
            for listed in &page.objects {
                let Some(at) = partition_of(keys.parse(&listed.key).ok()) else {
                    if !is_in_known_folder(verifier, &listed.key) {
                        self.findings.add(Kind::Unknown, &listed.key, "nothing of Varve's has such a name");
                    }
                    continue;
                };
                let here = (at.topic_id, at.partition);
                if seen == Some(here) {
                    continue;
                }
                seen = Some(here);
                behind = ObjectKey::new(format!("{}/{BEHIND}", keys.partition(at.topic_id, at.partition)));
                self.stranger(at, &listed.key);
            }
            if !page.more {
                return Ok(());
            }
            last = Some(behind.max(newest));
        }
    }

    fn stranger(&mut self, at: PartitionKeys, key: &ObjectKey) {
        let image = self.verifier.history.image();
        let number = usize::try_from(at.partition.0).ok();
        let known = image.topic(at.topic_id);
        let what = match (known, image.deletions.get(&at.topic_id)) {
            (Some(topic), _) if number.is_some_and(|number| number < topic.partitions.len()) => return,
            (Some(topic), _) => format!("topic {} has no such partition in the newest metadata", topic.name),
            (None, Some(deletion)) => format!("topic {} is being deleted", deletion.topic.name),
            (None, None) => "no such topic in the newest metadata: newer than that, or left over".to_owned(),
        };
        let of = at.topic_id.to_string();
        self.findings.all.push(Finding { kind: Kind::Stranger, of, key: key.to_string(), what });
    }
}

/// What is in the folder of a partition is told where that is looked at.
fn is_in_known_folder(verifier: &Verifier, key: &ObjectKey) -> bool {
    let history = &verifier.history;
    history.partitions().any(|(topic, partition, _)| {
        let folder = history.keys().partition(topic.id, partition);
        key.as_str().strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
    })
}

fn partition_of(key: Option<Key>) -> Option<PartitionKeys> {
    match key? {
        Key::Segment(at, _) | Key::MergedSegment(at, _) | Key::Node(at, _) | Key::Checkpoint(at, _) => {
            Some(at)
        }
        _ => None,
    }
}
