//! What members of groups ask, in the versions that every broker of today still speaks, and producers with an identity.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use varve_common::crc32c;

use crate::wire::{Client, Fields, framed, string};

/// Long enough for the rebalances that are measured: nobody is given up meanwhile.
const SESSION: Duration = Duration::from_secs(60);
const PROTOCOL: &str = "range";

/// Where a batch's fields stand.
const CRC_AT: usize = 17;
const CHECKED_FROM: usize = 21;
const PRODUCER_AT: usize = 43;

/// A producer that the broker knows.
#[derive(Clone, Copy)]
pub struct Identity {
    id: i64,
    epoch: i16,
    sequence: i32,
}

impl Identity {
    /// Asks for one.
    pub fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let mut body = (-1_i16).to_be_bytes().to_vec();
        body.extend(60_000_i32.to_be_bytes());
        let mut client = Client::connect(address)?;
        let mut rest = Fields(client.call(&mut framed(22, 0, &body))?);
        let (_throttle, error) = (rest.i32()?, rest.i16()?);
        ensure!(error == 0, "init producer id answered error {error}");
        let id = i64::from_be_bytes(rest.take(8)?.try_into()?);
        Ok(Self { id, epoch: rest.i16()?, sequence: 0 })
    }

    /// Signs the batch at the end of a frame as its next one, of so many records.
    pub fn sign(&mut self, batch: &mut [u8], records: i32) {
        batch[PRODUCER_AT..PRODUCER_AT + 8].copy_from_slice(&self.id.to_be_bytes());
        batch[PRODUCER_AT + 8..PRODUCER_AT + 10].copy_from_slice(&self.epoch.to_be_bytes());
        batch[PRODUCER_AT + 10..PRODUCER_AT + 14].copy_from_slice(&self.sequence.to_be_bytes());
        seal(batch);
        self.sequence += records;
    }
}

/// Gives a batch the checksum that it must have.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c(&batch[CHECKED_FROM..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Who coordinates a group: the broker's id and its address.
pub fn coordinator(client: &mut Client, group: &str) -> anyhow::Result<(i32, SocketAddr)> {
    let mut body = Vec::new();
    string(&mut body, group);
    body.push(0);
    let mut rest = Fields(client.call(&mut framed(10, 1, &body))?);
    let (_throttle, error, _message) = (rest.i32()?, rest.i16()?, rest.string()?);
    ensure!(error == 0, "find coordinator answered error {error}");
    let (node, host, port) = (rest.i32()?, rest.string()?, rest.i32()?);
    Ok((node, format!("{host}:{port}").parse().context("the coordinator's address")?))
}

/// A commit of partition 0 of a topic by nobody's member.
pub fn commit(group: &str, topic: &str, offset: i64) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, group);
    body.extend((-1_i32).to_be_bytes());
    string(&mut body, "");
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(offset.to_be_bytes());
    string(&mut body, "");
    framed(8, 5, &body)
}

/// Refuses an answer to [`commit`] that carries an error.
pub fn check_committed(body: &[u8]) -> anyhow::Result<()> {
    let mut rest = Fields(body);
    let (_throttle, _topics, _name, _partitions, _index) =
        (rest.i32()?, rest.i32()?, rest.string()?, rest.i32()?, rest.i32()?);
    let error = rest.i16()?;
    ensure!(error == 0, "offset commit answered error {error}");
    Ok(())
}

/// A member and its connection.
pub struct Member {
    client: Client,
    group: String,
    id: String,
    generation: i32,
    /// Ids of all members, where it leads.
    others: Vec<String>,
}

impl Member {
    /// One that has not joined yet.
    pub fn new(address: SocketAddr, group: &str) -> anyhow::Result<Self> {
        let (client, group) = (Client::connect(address)?, group.to_owned());
        Ok(Self { client, group, id: String::new(), generation: -1, others: Vec::new() })
    }

    /// Goes on at another coordinator, which is given so long for each answer.
    pub fn move_to(&mut self, address: SocketAddr, patience: Duration) -> anyhow::Result<()> {
        self.client = Client::connect_within(address, patience)?;
        Ok(())
    }

    /// Asks to be in the next generation, with something new to say, so that there is one.
    pub fn send_join(&mut self, news: i32) -> anyhow::Result<()> {
        let millis = SESSION.as_millis() as i32;
        let mut body = Vec::new();
        string(&mut body, &self.group);
        body.extend(millis.to_be_bytes());
        body.extend(millis.to_be_bytes());
        string(&mut body, &self.id);
        string(&mut body, "consumer");
        body.extend(1_i32.to_be_bytes());
        string(&mut body, PROTOCOL);
        // version | topics | user data
        let mut metadata = vec![0, 0];
        metadata.extend(1_i32.to_be_bytes());
        string(&mut metadata, "bench");
        metadata.extend(4_i32.to_be_bytes());
        metadata.extend(news.to_be_bytes());
        body.extend((metadata.len() as i32).to_be_bytes());
        body.extend(metadata);
        self.client.send(&mut framed(11, 3, &body))
    }

    /// Waits until the generation begins.
    pub fn receive_join(&mut self) -> anyhow::Result<()> {
        let mut rest = Fields(self.client.receive()?.1);
        let (_throttle, error) = (rest.i32()?, rest.i16()?);
        ensure!(error == 0, "join group answered error {error}");
        self.generation = rest.i32()?;
        let (_protocol, _leader) = (rest.string()?, rest.string()?);
        self.id = rest.string()?;
        self.others.clear();
        for _ in 0..rest.i32()? {
            self.others.push(rest.string()?);
            let length = rest.i32()?.max(0) as usize;
            rest.take(length)?;
        }
        Ok(())
    }

    /// Asks for its assignment; gives all of them, where it leads.
    pub fn send_sync(&mut self) -> anyhow::Result<()> {
        let mut body = Vec::new();
        string(&mut body, &self.group);
        body.extend(self.generation.to_be_bytes());
        string(&mut body, &self.id);
        body.extend((self.others.len() as i32).to_be_bytes());
        for id in &self.others {
            string(&mut body, id);
            body.extend((id.len() as i32).to_be_bytes());
            body.extend(id.as_bytes());
        }
        self.client.send(&mut framed(14, 1, &body))
    }

    /// Waits for its assignment, which must be its own.
    pub fn receive_sync(&mut self) -> anyhow::Result<()> {
        let mut rest = Fields(self.client.receive()?.1);
        let (_throttle, error) = (rest.i32()?, rest.i16()?);
        ensure!(error == 0, "sync group answered error {error}");
        let length = rest.i32()?.max(0) as usize;
        ensure!(rest.take(length)? == self.id.as_bytes(), "a member was given another's assignment");
        Ok(())
    }

    /// Says that it lives, in its generation.
    pub fn beat(&mut self) -> anyhow::Result<()> {
        let mut body = Vec::new();
        string(&mut body, &self.group);
        body.extend(self.generation.to_be_bytes());
        string(&mut body, &self.id);
        let mut rest = Fields(self.client.call(&mut framed(12, 1, &body))?);
        let (_throttle, error) = (rest.i32()?, rest.i16()?);
        ensure!(error == 0, "heartbeat answered error {error}");
        Ok(())
    }
}

/// One generation of all groups at once, from the first join to the last assignment.
pub fn rebalance(members: &mut [Member], news: i32) -> anyhow::Result<()> {
    members.iter_mut().try_for_each(|member| member.send_join(news))?;
    members.iter_mut().try_for_each(Member::receive_join)?;
    members.iter_mut().try_for_each(Member::send_sync)?;
    members.iter_mut().try_for_each(Member::receive_sync)
}
