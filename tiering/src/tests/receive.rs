//! Sealed files that come from another node.

use varve_common::{Digest, Disk as _, GroupId, TopicId};
use varve_formats::{
    PartitionIdentity,
    state::{RollEntry, SealEntry},
};

use super::support::{GROUP, Node, identity};
use crate::{ReceiveError, SourceError};

/// A node with a sealed range, and another that has nothing.
fn pair() -> (Node, Node, RollEntry, SealEntry) {
    let mut sender = Node::new();
    sender.elect();
    sender.fill(40, 700);
    let roll = sender.roll();
    let mark = sender.seal(&roll);
    (sender, Node::new(), roll, mark)
}

fn send(
    from: &Node,
    to: &Node,
    mark: &SealEntry,
    roll: &RollEntry,
    spoil: Option<u64>,
) -> Result<SealEntry, ReceiveError> {
    let mut receiving = to.local.receive(GROUP, mark.clone())?;
    while !receiving.is_whole() {
        let at = receiving.position();
        let piece = from.local.read_piece(GROUP, mark, at..at + 1_000).expect("the sender has it");
        let mut piece = piece.to_vec();
        if let Some(place) = spoil.filter(|place| (at..at + 1_000).contains(place)) {
            piece[(place - at) as usize] ^= 1;
        }
        receiving.push(&piece)?;
    }
    receiving.finish(&identity("orders"), roll, to.wal.clone())
}

#[test]
fn a_file_that_came_in_pieces_is_as_if_it_had_been_sealed_here() {
    let (sender, receiver, roll, mark) = pair();
    assert_eq!(send(&sender, &receiver, &mark, &roll, None).unwrap(), mark);
    receiver.local.verify(GROUP, &mark).unwrap();
    assert!(receiver.local.open(GROUP, &identity("orders"), &mark).is_ok());
    assert!(receiver.local.look_for(GROUP, &mark).is_ok());
    assert_eq!(receiver.local.remove_surplus(GROUP, &[(mark.base, mark.end)]).unwrap(), 0, "no part is left");
}

#[test]
fn a_flipped_bit_on_the_way_leaves_nothing() {
    let (sender, receiver, roll, mark) = pair();
    let spoiled = send(&sender, &receiver, &mark, &roll, Some(mark.bytes / 2));
    assert!(matches!(spoiled, Err(ReceiveError::Digest { .. })), "{spoiled:?}");
    assert_eq!(receiver.local.remove_surplus(GROUP, &[]).unwrap(), 0);
    assert!(receiver.local.look_for(GROUP, &mark).is_err());
    send(&sender, &receiver, &mark, &roll, None).unwrap();
}

#[test]
fn records_that_the_roll_does_not_promise_leave_nothing() {
    let (sender, receiver, roll, mark) = pair();
    let other = RollEntry { batch_crcs: roll.batch_crcs ^ 1, ..roll };
    let refused = send(&sender, &receiver, &mark, &other, None);
    assert!(matches!(refused, Err(ReceiveError::Records(SourceError::Promise { .. }))), "{refused:?}");
    assert!(receiver.local.look_for(GROUP, &mark).is_err());
}

#[test]
fn a_file_of_another_partition_is_refused() {
    let (sender, receiver, roll, mark) = pair();
    let mut receiving = receiver.local.receive(GROUP, mark.clone()).unwrap();
    receiving.push(&sender.local.read_piece(GROUP, &mark, 0..mark.bytes).unwrap()).unwrap();
    assert!(receiving.push(b"more").is_err(), "no more than was said");
    let other = PartitionIdentity { topic_id: TopicId::from_random(78), ..identity("orders") };
    let refused = receiving.finish(&other, &roll, receiver.wal.clone());
    assert!(matches!(refused, Err(ReceiveError::Damaged(_))), "{refused:?}");
}

#[test]
fn a_file_that_is_gone_is_found_without_being_read() {
    let (sender, _, _, mark) = pair();
    sender.disk.remove(&sender.local.path(GROUP, mark.base, mark.end)).unwrap();
    assert!(sender.local.look_for(GROUP, &mark).is_err());
    assert_eq!(sender.local.take_damaged(), [(GROUP, mark.base)]);
    assert!(sender.local.read_piece(GROUP, &mark, 0..10).is_err());
    let absent = SealEntry { sha256: Digest::default(), ..mark };
    assert!(sender.local.look_for(GroupId(99), &absent).is_err());
}
