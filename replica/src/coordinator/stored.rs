//! What outlives a coordinator: groups and their offsets, as the records of a `__consumer_offsets` partition say.
//!
//! Every replica of such a partition keeps this as it applies its log, and every checkpoint of it holds this as of A
//! (class of the bucket: what was replayed before the checkpoint was taken is not applied twice). What is no record of
//! ours, by whoever wrote it, changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::{
    Offset, TopicId,
    codec::{DecodeError, Decoder, Encoder},
};
use varve_formats::offsets::{GroupValue, Key, MemberValue, OffsetValue, TOPIC_ID_HEADER};
use varve_protocol::batch::{BatchHeader, Caps, Codec, Record, Records};

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What was committed, and when.
    pub value: OffsetValue,
    /// The topic that then had this name; zero where that is not known.
    pub topic: TopicId,
}

/// An offset that was beyond its partition's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clamped {
    /// The group.
    pub group: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// What it had committed.
    pub from: i64,
    /// What it has now.
    pub to: Offset,
}

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<Arc<str>, BTreeMap<i32, Committed>>;

/// A group in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredGroup {
    /// Its members as of its last rebalance; `None`: it never had any.
    pub metadata: Option<Arc<GroupValue>>,
    /// What it has committed.
    pub offsets: Offsets,
}

impl StoredGroup {
    /// What it has committed in a partition.
    #[must_use]
    pub fn offset(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.offsets.get(topic)?.get(&partition)
    }

    fn is_empty(&self) -> bool {
        self.metadata.is_none() && self.offsets.is_empty()
    }

    fn bytes(&self) -> usize {
        let offsets = self.offsets.iter().map(|(topic, partitions)| {
            let committed = partitions.values().map(|committed| offset_bytes(&committed.value.metadata));
            name_bytes(topic) + committed.sum::<usize>()
        });
        self.metadata.as_deref().map_or(0, members_bytes) + offsets.sum::<usize>()
    }

    /// The generation that the log says it came to.
    pub(super) fn generation(&self) -> i32 {
        self.metadata.as_ref().map_or(0, |members| members.generation)
    }

    /// How many offsets it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.offsets.values().map(BTreeMap::len).sum()
    }
}

/// All groups of one partition, shared copy on write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    groups: Arc<BTreeMap<Arc<str>, Arc<StoredGroup>>>,
    /// What they take at most in the section of a checkpoint.
    bytes: usize,
}

/// What a string of a group, or a number of them, takes beside its characters, at most.
const ITEM_BYTES: usize = 64;

/// What an offset takes in the section, at most.
pub(super) const fn offset_bytes(metadata: &str) -> usize {
    ITEM_BYTES + metadata.len()
}

/// What a name takes: that of a group, or of a topic within one.
pub(super) const fn name_bytes(name: &str) -> usize {
    ITEM_BYTES + name.len()
}

/// What a group's members take in the section, at most.
pub(super) fn members_bytes(value: &GroupValue) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let member = |member: &MemberValue| {
        ITEM_BYTES
            + member.id.len()
            + text(&member.instance_id)
            + member.client_id.len()
            + member.client_host.len()
            + member.subscription.len()
            + member.assignment.len()
    };
    ITEM_BYTES
        + value.protocol_type.len()
        + text(&value.protocol)
        + text(&value.leader)
        + value.members.iter().map(member).sum::<usize>()
}

impl Groups {
    /// A group.
    #[must_use]
    pub fn get(&self, group: &str) -> Option<&Arc<StoredGroup>> {
        self.groups.get(group)
    }

    /// All groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<StoredGroup>)> {
        self.groups.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// What they take in the section of a checkpoint, at most: the coordinator bounds it.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a committed batch.
    pub fn apply(&mut self, batch: &Bytes) {
        let Ok(header) = BatchHeader::read(batch) else { return };
        // The coordinator compresses nothing, and marks no transaction's end yet.
        if header.meta().codec != Codec::None || header.meta().is_control {
            return;
        }
        let Ok(records) = Records::read(&header, Caps::default()) else { return };
        for record in records.iter().map_while(Result::ok) {
            if let Some(key) = record.key.and_then(Key::decode) {
                self.take(key, &record);
            }
        }
    }

    fn take(&mut self, key: Key, record: &Record<'_>) {
        match key {
            Key::Offset { group, topic, partition } => match record.value.map(OffsetValue::decode) {
                Some(Some(value)) => {
                    let committed = Committed { value, topic: topic_of(record) };
                    self.put_offset(&group, &topic, partition, committed);
                }
                Some(None) => {}
                None => self.drop_offset(&group, &topic, partition),
            },
            Key::Group(group) => match record.value.map(GroupValue::decode) {
                Some(Some(value)) => self.put_members(&group, Some(value)),
                Some(None) => {}
                None if self.groups.contains_key(group.as_str()) => {
                    self.put_members(&group, None);
                    self.forget_empty(&group);
                }
                None => {}
            },
        }
    }

    fn entry(&mut self, group: &str) -> &mut StoredGroup {
        let groups = Arc::make_mut(&mut self.groups);
        if !groups.contains_key(group) {
            groups.insert(group.into(), Arc::default());
            self.bytes += name_bytes(group);
        }
        Arc::make_mut(groups.get_mut(group).expect("it is there, or was just put there"))
    }

    fn put_members(&mut self, group: &str, value: Option<GroupValue>) {
        let after = value.as_ref().map_or(0, members_bytes);
        let before = std::mem::replace(&mut self.entry(group).metadata, value.map(Arc::new));
        self.bytes += after;
        self.bytes -= before.as_deref().map_or(0, members_bytes);
    }

    fn put_offset(&mut self, group: &str, topic: &str, partition: i32, committed: Committed) {
        let mut more = offset_bytes(&committed.value.metadata);
        let offsets = &mut self.entry(group).offsets;
        if !offsets.contains_key(topic) {
            offsets.insert(topic.into(), BTreeMap::new());
            more += name_bytes(topic);
        }
        let partitions = offsets.get_mut(topic).expect("it is there, or was just put there");
        let before = partitions.insert(partition, committed);
        self.bytes += more;
        self.bytes -= before.map_or(0, |before| offset_bytes(&before.value.metadata));
    }

    fn drop_offset(&mut self, group: &str, topic: &str, partition: i32) {
        if self.get(group).is_none_or(|known| known.offset(topic, partition).is_none()) {
            return;
        }
        let offsets = &mut self.entry(group).offsets;
        let mut less = 0;
        if let Some(partitions) = offsets.get_mut(topic) {
            less += partitions.remove(&partition).map_or(0, |gone| offset_bytes(&gone.value.metadata));
            if partitions.is_empty() {
                offsets.remove(topic);
                less += name_bytes(topic);
            }
        }
        self.bytes -= less;
        self.forget_empty(group);
    }

    fn forget_empty(&mut self, group: &str) {
        if self.get(group).is_some_and(|known| known.is_empty()) {
            Arc::make_mut(&mut self.groups).remove(group);
            self.bytes -= name_bytes(group);
        }
    }

    /// Moves offsets that lie beyond a partition's end back to it; says which.
    pub fn clamp(&mut self, end_of: impl Fn(&str, i32, &Committed) -> Option<Offset>) -> Vec<Clamped> {
        let mut clamped = Vec::new();
        for (group, stored) in self.iter() {
            for (topic, partitions) in &stored.offsets {
                for (partition, committed) in partitions {
                    let from = committed.value.offset;
                    let end = end_of(topic, *partition, committed);
                    let to = end.filter(|end| u64::try_from(from).is_ok_and(|from| from > end.0));
                    let of = |to| Clamped {
                        group: Arc::clone(group),
                        topic: Arc::clone(topic),
                        partition: *partition,
                        from,
                        to,
                    };
                    clamped.extend(to.map(of));
                }
            }
        }
        for Clamped { group, topic, partition, to, .. } in &clamped {
            let committed = self.entry(group).offsets.get_mut(topic).and_then(|of| of.get_mut(partition));
            let value = &mut committed.expect("it was just found there").value;
            // Its epoch may be of a record that is gone: a client that checks it would look for a truncation.
            (value.offset, value.leader_epoch) = (i64::try_from(to.0).unwrap_or(i64::MAX), -1);
        }
        clamped
    }

    /// The section of a checkpoint, and what replicas compare.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| {
            frame.list(self.groups.iter(), |frame, (name, group)| {
                frame.frame(|frame| encode_group(frame, name, group));
            });
        });
        encoder.finish()
    }

    /// Reads it back.
    pub fn decode(section: Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(section);
        let groups = decoder.frame(|frame| frame.list(4, |frame| frame.frame(decode_group)))?;
        decoder.finish()?;
        let groups: BTreeMap<Arc<str>, Arc<StoredGroup>> = groups.into_iter().collect();
        let bytes = groups.iter().map(|(name, group)| name_bytes(name) + group.bytes()).sum();
        Ok(Self { groups: Arc::new(groups), bytes })
    }
}

fn topic_of(record: &Record<'_>) -> TopicId {
    let header = record.headers.iter().find(|(name, _)| *name == TOPIC_ID_HEADER);
    let bytes = header.and_then(|(_, value)| <[u8; 16]>::try_from((*value)?).ok());
    bytes.map_or(TopicId::ZERO, TopicId)
}

fn encode_group(frame: &mut Encoder, name: &str, group: &StoredGroup) {
    frame.string(name);
    frame.bool(group.metadata.is_some());
    if let Some(metadata) = &group.metadata {
        frame.bytes(&metadata.encode());
    }
    frame.list(group.offsets.iter(), |frame, (topic, partitions)| {
        frame.string(topic);
        frame.list(partitions.iter(), |frame, (partition, committed)| {
            frame.i32(*partition);
            frame.topic_id(committed.topic);
            frame.bytes(&committed.value.encode());
        });
    });
}

fn decode_group(frame: &mut Decoder) -> Result<(Arc<str>, Arc<StoredGroup>), DecodeError> {
    let unreadable = |frame: &Decoder| frame.error("a group or offset that does not read back");
    let name = frame.string()?;
    let mut group = StoredGroup::default();
    if frame.bool()? {
        let bytes = frame.bytes()?;
        let metadata = GroupValue::decode(&bytes).ok_or_else(|| unreadable(frame))?;
        group.metadata = Some(Arc::new(metadata));
    }
    let topics = frame.list(8, |frame| {
        let topic: Arc<str> = frame.string()?.into();
        let partitions = frame.list(24, |frame| {
            let (partition, topic) = (frame.i32()?, frame.topic_id()?);
            let bytes = frame.bytes()?;
            let value = OffsetValue::decode(&bytes).ok_or_else(|| unreadable(frame))?;
            Ok((partition, Committed { value, topic }))
        })?;
        Ok((topic, partitions.into_iter().collect()))
    })?;
    group.offsets = topics.into_iter().collect();
    Ok((name.as_str().into(), Arc::new(group)))
}
