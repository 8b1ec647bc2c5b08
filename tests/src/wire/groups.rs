//! Groups and epochs, as the same client asks for them.

use std::io;

use super::{Client, Fields};
use crate::raw::Request;

/// A member of a group, as the coordinator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// The generation that it is of.
    pub generation: i32,
}

/// What a group has committed of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// -1: nothing.
    pub offset: i64,
    /// In which term the record before it was read; -1: nobody said.
    pub epoch: i32,
    /// What the client said with it.
    pub metadata: String,
}

impl Client {
    /// Kafka's code for whoever asks where a group's coordinator is.
    pub fn find_coordinator(&mut self, group: &str) -> io::Result<i16> {
        let answer = self.call(&Request::new(10, 1).string(group).i8(0))?;
        let mut fields = Fields(&answer);
        let _throttle = fields.i32()?;
        fields.i16()
    }

    /// Joins a group of a kind alone, or again, with metadata that others would be told; Kafka's code where that is refused.
    pub fn join(
        &mut self,
        (group, kind): (&str, &str),
        id: &str,
        metadata: &[u8],
    ) -> io::Result<Result<Member, i16>> {
        let length = i32::try_from(metadata.len()).expect("test metadata is small");
        let request = Request::new(11, 4).string(group).i32(30_000).i32(30_000).string(id).string(kind);
        let answer = self.call(&request.i32(1).string("range").i32(length).raw(metadata))?;
        let mut fields = Fields(&answer);
        let (_throttle, code, generation) = (fields.i32()?, fields.i16()?, fields.i32()?);
        let (_protocol, _leader, id) = (fields.text()?, fields.text()?, fields.text()?);
        const MEMBER_ID_REQUIRED: i16 = 79;
        match code {
            0 => Ok(Ok(Member { id, generation })),
            MEMBER_ID_REQUIRED => self.join((group, kind), &id, metadata),
            code => Ok(Err(code)),
        }
    }

    /// Takes up a generation, which gives itself everything; Kafka's code.
    pub fn sync(&mut self, group: &str, member: &Member) -> io::Result<i16> {
        let request = Request::new(14, 2).string(group).i32(member.generation).string(&member.id);
        let answer = self.call(&request.i32(1).string(&member.id).i32(1).raw(&[7]))?;
        let mut fields = Fields(&answer);
        let (_throttle, code) = (fields.i32()?, fields.i16()?);
        Ok(code)
    }

    /// Commits an offset of partition 0, as a member or as nobody; Kafka's code.
    pub fn commit(
        &mut self,
        (group, member): (&str, Option<&Member>),
        topic: &str,
        committed: &Committed,
    ) -> io::Result<i16> {
        let (generation, id) = member.map_or((-1, ""), |member| (member.generation, member.id.as_str()));
        let request = Request::new(8, 6).string(group).i32(generation).string(id);
        let request = request.i32(1).string(topic).i32(1).i32(0).i64(committed.offset).i32(committed.epoch);
        let answer = self.call(&request.string(&committed.metadata))?;
        let mut fields = Fields(&answer);
        let _ = (fields.i32()?, fields.i32()?, fields.text()?, fields.i32()?, fields.i32()?);
        fields.i16()
    }

    /// What a group has committed of partition 0, or Kafka's code.
    pub fn committed(&mut self, group: &str, topic: &str) -> io::Result<Result<Committed, i16>> {
        let answer = self.call(&Request::new(9, 5).string(group).i32(1).string(topic).i32(1).i32(0))?;
        let mut fields = Fields(&answer);
        let (_throttle, topics) = (fields.i32()?, fields.i32()?);
        if topics == 0 {
            return Ok(Err(fields.i16()?));
        }
        let _ = (fields.text()?, fields.i32()?, fields.i32()?);
        let (offset, epoch, metadata) = (fields.i64()?, fields.i32()?, fields.text()?);
        let (of_partition, of_all) = (fields.i16()?, fields.i16()?);
        let code = if of_all == 0 { of_partition } else { of_all };
        Ok(if code == 0 { Ok(Committed { offset, epoch, metadata }) } else { Err(code) })
    }

    /// Where an epoch of partition 0 ends: the epoch that is told, and the offset behind its last record, or Kafka's code.
    pub fn epoch_end(&mut self, topic: &str, epoch: i32) -> io::Result<Result<(i32, i64), i16>> {
        let request = Request::new(23, 3).i32(-1).i32(1).string(topic).i32(1);
        let answer = self.call(&request.i32(0).i32(-1).i32(epoch))?;
        let mut fields = Fields(&answer);
        let _ = (fields.i32()?, fields.i32()?, fields.text()?, fields.i32()?);
        let (code, _partition, epoch, end) = (fields.i16()?, fields.i32()?, fields.i32()?, fields.i64()?);
        Ok(if code == 0 { Ok((epoch, end)) } else { Err(code) })
    }
}
