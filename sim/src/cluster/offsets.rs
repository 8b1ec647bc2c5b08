//! What groups of consumers have committed, read from the committed records of their topic: the truth about them.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_common::LogIndex;
use varve_formats::offsets::{GroupValue, Key, OffsetValue};
use varve_protocol::batch::{BatchHeader, Caps, Records};

use crate::{
    model::{GroupModel, batch_of},
    violation::{Checked, violation},
};

/// A group, and a partition that it reads.
pub type Place = (String, i32);

/// What somebody asked to be committed: no two ask for the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Where.
    pub place: Place,
    /// In which generation; -1: in none.
    pub generation: i32,
}

/// The committed records.
#[derive(Default)]
pub struct OffsetLog {
    next: LogIndex,
    /// What was asked for, by the number that was to be committed.
    pub issued: BTreeMap<i64, Issued>,
    /// All that was ever committed in a place, `None` where it was deleted.
    pub history: BTreeMap<Place, BTreeMap<LogIndex, Option<i64>>>,
    generations: BTreeMap<String, i32>,
    /// Who was given what, by group and generation.
    pub assignments: BTreeMap<(String, i32), BTreeMap<String, Bytes>>,
}

impl OffsetLog {
    /// Reads on. G2: what is there was asked for, by a member of no older generation than the group's; generations only rise.
    pub fn advance(&mut self, model: &GroupModel) -> Checked {
        while let Some(entry) = model.entries.get(&self.next.next()) {
            self.next = self.next.next();
            let Some(batch) = (entry.kind == 0).then(|| batch_of(&entry.data)).flatten() else { continue };
            let broken = |what| violation("G2", format!("a batch of offsets {what}"));
            let header = BatchHeader::read(&batch).map_err(|_| broken("without a header"))?;
            let records =
                Records::read(&header, Caps::default()).map_err(|_| broken("that does not read"))?;
            for record in records.iter() {
                let record = record.map_err(|_| broken("with a broken record"))?;
                let key = record.key.and_then(Key::decode).ok_or_else(|| broken("with a strange key"))?;
                self.take(key, record.value)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, key: Key, value: Option<&[u8]>) -> Checked {
        match key {
            Key::Offset { group, partition, .. } => {
                let place = (group, partition);
                let offset = value.and_then(OffsetValue::decode).map(|value| value.offset);
                if let Some(offset) = offset {
                    self.check_issued(&place, offset)?;
                }
                self.history.entry(place).or_default().insert(self.next, offset);
            }
            Key::Group(group) => {
                let Some(value) = value.and_then(GroupValue::decode) else {
                    self.generations.remove(&group);
                    return Ok(());
                };
                let before = self.generations.insert(group.clone(), value.generation).unwrap_or(-1);
                if value.generation <= before {
                    let detail = format!("{group}: generation {} behind {before}", value.generation);
                    return Err(violation("G2", detail));
                }
                let given = value.members.into_iter().map(|member| (member.id, member.assignment));
                self.assignments.insert((group, value.generation), given.collect());
            }
        }
        Ok(())
    }

    fn check_issued(&self, place: &Place, offset: i64) -> Checked {
        let Some(issued) = self.issued.get(&offset).filter(|issued| issued.place == *place) else {
            return Err(violation("G2", format!("{place:?}: nobody committed {offset} there")));
        };
        let generation = self.generations.get(&place.0).copied().unwrap_or(-1);
        if issued.generation >= 0 && issued.generation < generation {
            let detail = format!("{place:?}: {offset} of generation {}, in {generation}", issued.generation);
            return Err(violation("G2", detail));
        }
        Ok(())
    }

    /// Where a number was committed first at or behind an index.
    pub fn find(&self, place: &Place, offset: Option<i64>, from: LogIndex) -> Option<LogIndex> {
        let known = self.history.get(place)?;
        known.range(from..).find(|(_, known)| **known == offset).map(|(index, _)| *index)
    }

    /// The newest of a place.
    pub fn newest(&self, place: &Place) -> Option<(LogIndex, Option<i64>)> {
        self.history.get(place)?.last_key_value().map(|(index, offset)| (*index, *offset))
    }
}
