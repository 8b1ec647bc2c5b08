//! What outlives a coordinator: groups and their offsets, as the records of a `__consumer_offsets` partition say.
//!
//! Every replica of such a partition keeps this as it applies its log, and every checkpoint of it holds this as of A
//! (class of the bucket: what was replayed before the checkpoint was taken is not applied twice). What is no record of
//! ours, by whoever wrote it, changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use varve_common::{
    TopicId,
    codec::{DecodeError, Decoder, Encoder},
};
use varve_formats::offsets::{GroupValue, Key, OffsetValue, TOPIC_ID_HEADER};
use varve_protocol::batch::{BatchHeader, Caps, Codec, Record, Records};

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What was committed, and when.
    pub value: OffsetValue,
    /// The topic that then had this name; zero where that is not known.
    pub topic: TopicId,
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
}

/// All groups of one partition, shared copy on write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(Arc<BTreeMap<Arc<str>, Arc<StoredGroup>>>);

impl Groups {
    /// A group.
    #[must_use]
    pub fn get(&self, group: &str) -> Option<&Arc<StoredGroup>> {
        self.0.get(group)
    }

    /// All groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<StoredGroup>)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
                    let group = self.entry(&group);
                    let offsets = group.offsets.entry(topic.as_str().into()).or_default();
                    offsets.insert(partition, committed);
                }
                Some(None) => {}
                None => self.drop_offset(&group, &topic, partition),
            },
            Key::Group(group) => match record.value.map(GroupValue::decode) {
                Some(Some(value)) => self.entry(&group).metadata = Some(Arc::new(value)),
                Some(None) => {}
                None if self.0.contains_key(group.as_str()) => {
                    self.entry(&group).metadata = None;
                    self.forget_empty(&group);
                }
                None => {}
            },
        }
    }

    fn entry(&mut self, group: &str) -> &mut StoredGroup {
        let groups = Arc::make_mut(&mut self.0);
        if !groups.contains_key(group) {
            groups.insert(group.into(), Arc::default());
        }
        Arc::make_mut(groups.get_mut(group).expect("it is there, or was just put there"))
    }

    fn drop_offset(&mut self, group: &str, topic: &str, partition: i32) {
        if self.get(group).is_none_or(|known| known.offset(topic, partition).is_none()) {
            return;
        }
        let known = self.entry(group);
        if let Some(partitions) = known.offsets.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                known.offsets.remove(topic);
            }
        }
        self.forget_empty(group);
    }

    fn forget_empty(&mut self, group: &str) {
        if self.get(group).is_some_and(|known| known.is_empty()) {
            Arc::make_mut(&mut self.0).remove(group);
        }
    }

    /// The section of a checkpoint, and what replicas compare.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new();
        encoder.frame(|frame| {
            frame.list(self.0.iter(), |frame, (name, group)| {
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
        Ok(Self(Arc::new(groups.into_iter().collect())))
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
