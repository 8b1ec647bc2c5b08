//! A peer that sends on and on to a node whose log is full.

use std::{
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use varve_common::{ClusterId, GroupId, LogIndex, Offset, ReplicaId, Term};
use varve_wal::{Entry, GroupRecord, NativeDisk, Record};

use super::*;
use crate::runtime::mailbox::{Inbox, mailbox};

const MIB: usize = 1 << 20;
const LOG_BYTES: u64 = 16 << 20;
/// Long enough for a loaded machine, short enough to end a test that would wait for ever.
const PATIENCE: Duration = Duration::from_secs(60);

fn node() -> NodeId {
    NodeId::new(2).unwrap()
}

fn length(bytes: usize) -> impl Iterator<Item = u8> {
    let groups = (0..).map(move |group| bytes >> (7 * group));
    groups.take_while(|rest| *rest > 0).map(|rest| (rest & 0x7f) as u8 | if rest > 0x7f { 0x80 } else { 0 })
}

fn field(number: u8, body: &[u8]) -> Vec<u8> {
    [number << 3 | 2].into_iter().chain(length(body.len())).chain(body.iter().copied()).collect()
}

/// What a leader sends: entries with so many bytes in all, or nothing but a heartbeat. Only consensus makes messages; a frame
/// of one is an entry's data (4) in an entry (7).
fn envelope(bytes: usize) -> Envelope {
    let message = if bytes == 0 { Vec::new() } else { field(7, &field(4, &vec![7; bytes])) };
    let mut frame = BytesMut::new();
    frame.put_slice(&ClusterId::from_random(1).0);
    frame.put_u64_le(5);
    frame.put_u32_le(message.len() as u32);
    frame.put_slice(&message);
    Envelope::decode(frame.freeze()).unwrap()
}

/// A log that is soon full: nobody cuts it.
fn full_log(directory: &std::path::Path) -> (varve_wal::Handle, varve_wal::Reader) {
    let mut options = varve_wal::Options::new(directory.into(), LOG_BYTES, 1);
    options.file_bytes = 2 << 20;
    let (writer, reader, _) = varve_wal::open(Arc::new(NativeDisk), options).unwrap();
    (varve_wal::spawn(writer).unwrap(), reader)
}

fn entries(index: u64, bytes: usize) -> Vec<GroupRecord> {
    let entry = Entry {
        index: LogIndex(index),
        term: Term(1),
        kind: 0,
        offset: Offset(0),
        data: Bytes::from(vec![7; bytes]),
    };
    let replica = ReplicaId::new(node(), 1).unwrap();
    vec![GroupRecord { group: GroupId(5), replica, record: Record::Entries(vec![entry]) }]
}

/// The shard's thread as far as this goes: submits what comes with entries, and tells of all that came without.
fn shard(inbox: Inbox, log: varve_wal::Handle) -> (JoinHandle<u64>, Receiver<()>) {
    let (heard, heartbeats) = channel();
    let run = move || {
        let mut index = 0;
        while let Some(letters) = inbox.take(PATIENCE) {
            let mut held = Vec::new();
            for letter in letters {
                let Mail::Peer(PeerInput::Message { envelope, .. }, memory) = letter else { return index };
                held.extend(memory);
                match envelope.message.payload_bytes() {
                    0 => drop(heard.send(())),
                    bytes => {
                        index += 1;
                        log.submit(entries(index, bytes), Box::new(drop));
                    }
                }
            }
        }
        index
    };
    (std::thread::spawn(run), heartbeats)
}

#[test]
fn where_the_log_is_full_entries_of_peers_are_dropped_and_the_shards_thread_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (log, reader) = full_log(directory.path());
    let room = Room::new(log.clone(), reader, LOG_BYTES);
    let (mailbox, inbox) = mailbox();
    let inbound = Inbound::new(mailbox.clone(), room.clone());
    let (shard, heartbeats) = shard(inbox, log.clone());
    let (append, heartbeat) = (envelope(MIB), envelope(0));
    let bound = ENTRIES_BYTES_MAX as usize + 2 * MIB;
    for _ in 0..3 * bound / MIB {
        inbound.message(node(), append.clone());
        // Heard whatever waits, or its leader is given up.
        inbound.message(node(), heartbeat.clone());
        heartbeats.recv_timeout(PATIENCE).expect("the shard's thread goes on");
        assert!(room.queued_bytes() <= bound as u64, "{} wait", room.queued_bytes());
    }
    mailbox.send(Mail::Stop);
    let taken = shard.join().unwrap() * MIB as u64;
    assert!((ENTRIES_BYTES_MAX..=bound as u64 + LOG_BYTES).contains(&taken), "{taken} bytes were let in");
    let _ = log.shutdown();
}

/// What waits for the thread waits for the log soon after: together they are bounded, or the thread meets a full queue.
#[test]
fn entries_that_wait_for_the_thread_count_like_those_that_wait_for_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (log, reader) = full_log(directory.path());
    let (mailbox, inbox) = mailbox();
    let inbound = Inbound::new(mailbox, Room::new(log.clone(), reader, LOG_BYTES));
    let (append, most) = (envelope(MIB), ENTRIES_BYTES_MAX as usize / MIB);
    for _ in 0..2 {
        (0..most + 8).for_each(|_| inbound.message(node(), append.clone()));
        // Dropped at the end: what was let go of makes room.
        assert_eq!(inbox.take(PATIENCE).unwrap().len(), most);
    }
    let _ = log.shutdown();
}
