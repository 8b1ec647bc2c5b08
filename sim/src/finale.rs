//! The end of a run: everything heals, every client is content, and every acknowledged record is read back; then the
//! power is cut once more, and all of it is read again (W1).

use std::path::Path;

use rand::RngExt;
use varve_common::{GroupId, ObjectKey};
use varve_formats::keys::Key;

use crate::{
    bucket::{Depth, MetadataScan, Objects, Scan},
    bugs::Bug,
    jobs::{embedded_path, keys, rates},
    plan::StoreKind,
    violation::{Checked, violation},
    world::World,
};

/// Steps after which a healthy node must have answered everybody.
const PATIENCE: usize = 20_000;

impl World {
    /// Heals, drains, reads everything; cuts the power, reads everything again.
    pub fn finale(&mut self) -> Checked {
        self.clients.quiet = true;
        self.healed = true;
        self.plan.zombies = 0;
        self.remote.1.set_rates(rates(0));
        for round in 0..2 {
            self.disk.forget_faults();
            if self.node.is_none() && !self.start()? {
                return Ok(());
            }
            self.drain()?;
            self.check_logs()?;
            self.read_all()?;
            self.scan(Depth::Replay)?;
            let power = round == 0 || self.random.random_bool(0.5);
            self.crash(power);
        }
        let files = self.disk.files();
        for (path, bytes) in files {
            self.trace.note(format_args!("{} {}", path.display(), varve_common::checksum::crc32c(&bytes)));
        }
        Ok(())
    }

    /// Lets the node work until every client has its answers.
    fn drain(&mut self) -> Checked {
        for step in 0..PATIENCE {
            self.step()?;
            // Evidence of damage keeps its file and all behind it (W6): a log that is full stays full until an
            // operator accepts the loss. Until then it is read, not written.
            if step > PATIENCE / 10 && (self.rotten || !self.rotten_files.is_empty()) {
                return Ok(());
            }
            if self.node.as_ref().is_some_and(|node| node.failed) {
                self.crash(false);
                if !self.start()? {
                    return Ok(());
                }
            }
            if self.is_settled() {
                return self.compare();
            }
        }
        let waiting: Vec<_> =
            self.views.iter().filter(|(_, view)| !view.ready).map(|(group, _)| group).collect();
        let node = self.node.as_ref().expect("it was started");
        let usage = node.reader.usage();
        let detail = format!(
            "not settled after {PATIENCE} steps; parked {}, not ready {waiting:?}, log {} of {} bytes live, pinned by {:?}",
            node.is_parked(),
            usage.live_bytes,
            usage.bytes,
            usage.oldest_pinned_by
        );
        Err(violation("L", detail))
    }

    fn is_settled(&self) -> bool {
        let Some(node) = &self.node else { return false };
        let ready = self.image.as_ref().is_some_and(|image| {
            let serves = |group: &GroupId| self.views.get(group).is_some_and(|view| view.ready);
            image.groups.keys().all(|group| serves(group) || self.offline.contains(group))
        });
        ready && node.log_is_quiet() && self.clients.is_content(&self.offline)
    }

    /// Reads every partition from its log start to its watermark.
    fn read_all(&mut self) -> Checked {
        let views: Vec<_> = self.views.iter().map(|(group, view)| (*group, view.clone())).collect();
        for (group, view) in views {
            let lost = self.offline.contains(&group) || self.clients.deleted.contains(&group);
            if !lost && view.ready {
                self.spawn_reader(group, view.log_start, view);
            }
        }
        for _ in 0..PATIENCE {
            if self.reading == 0 {
                return Ok(());
            }
            self.step()?;
            // There may be much to read: readers get more than their share.
            self.work()?;
            self.absorb()?;
        }
        Err(violation("L", "readers never end"))
    }

    /// The bucket against the committed state: at any moment, for what is named is there before it is named.
    pub fn scan(&mut self, depth: Depth) -> Checked {
        let objects = self.objects();
        self.check_objects_stay(&objects)?;
        self.scan_for_reaped(&objects)?;
        // The scan could not tell what was damaged on purpose from what is wrong.
        if self.is_rotten_below(embedded_path()) {
            return Ok(());
        }
        let groups: Vec<_> =
            self.model.durable.0.iter().filter(|(_, model)| !model.destroyed).map(|(id, _)| *id).collect();
        for group in groups {
            let lost = self.model.damaged.contains(&group) || self.clients.deleted.contains(&group);
            if group == GroupId::METADATA || lost {
                continue;
            }
            let (shadow, durable) = (&mut self.shadow, &self.model.durable);
            let state = Bug::without(self.bug, || shadow.partition(durable, group))?;
            if let (Some(state), Some(model)) = (state, durable.0.get(&group)) {
                Bug::without(self.bug, || Scan { group, state, model, objects: &objects, depth }.check())?;
            }
        }
        self.scan_metadata(&objects, depth)
    }

    /// S1, S2: the metadata group's checkpoints in the bucket.
    fn scan_metadata(&mut self, objects: &Objects, depth: Depth) -> Checked {
        if self.model.damaged.contains(&GroupId::METADATA) {
            return Ok(());
        }
        let (shadow, durable) = (&mut self.shadow, &self.model.durable);
        let state = Bug::without(self.bug, || shadow.metadata(durable))?;
        let Some(model) = durable.0.get(&GroupId::METADATA) else { return Ok(()) };
        Bug::without(self.bug, || MetadataScan { state, model, objects, depth }.check())
    }

    /// B1, S2: an object never changes, and no key is used twice.
    fn check_objects_stay(&mut self, objects: &Objects) -> Checked {
        for (key, bytes) in objects {
            let checksum = varve_common::checksum::crc32c(bytes);
            let first = *self.contents.entry(key.clone()).or_insert(checksum);
            let path = embedded_path().join("data").join(key.as_str());
            if first != checksum && !self.rotten_files.contains(&path) {
                return Err(violation("B1", format!("{key} holds something else than before")));
            }
        }
        Ok(())
    }

    /// A topic whose deletion has ended has left nothing.
    fn scan_for_reaped(&self, objects: &Objects) -> Checked {
        let Some(image) = self.image.as_ref().filter(|_| !self.rotten) else { return Ok(()) };
        for key in objects.keys() {
            let (Ok(Key::Segment(at, _) | Key::MergedSegment(at, _))
            | Ok(Key::Node(at, _))
            | Ok(Key::Checkpoint(at, _))) = keys().parse(key)
            else {
                continue;
            };
            let known = image.topics.contains_key(&at.topic_id) || image.deletions.contains_key(&at.topic_id);
            if !known {
                return Err(violation("B8", format!("{key} is left of a topic whose deletion has ended")));
            }
        }
        Ok(())
    }

    /// The bucket as it is.
    #[must_use]
    pub fn objects(&self) -> Objects {
        match self.plan.store {
            StoreKind::Remote => self.remote.0.objects().into_iter().collect(),
            StoreKind::Embedded => {
                let files = self.disk.files().into_iter();
                files.filter_map(|(path, bytes)| Some((key_of(&path)?, bytes.into()))).collect()
            }
        }
    }
}

/// The key of an object in a file of the embedded store.
fn key_of(path: &Path) -> Option<ObjectKey> {
    let key = path.strip_prefix(embedded_path().join("data")).ok()?;
    Some(ObjectKey::new(key.to_str()?.to_owned()))
}
