//! The metadata group.

use super::*;

#[test]
fn the_metadata_group_answers_what_it_did() {
    let mut node = Node::empty();
    let mut open = open_group(GroupState::New);
    open.group = GroupId::METADATA;
    open.kind = GroupKind::Metadata { cluster: ClusterId::from_random(1), incarnation: Incarnation(1) };
    node.step(Input::Open(Box::new(open)));
    node.settle();
    let command = MetadataCommand::AllocateProducerIds { count: 1000 };
    node.step(Input::Propose { ticket: Some(Ticket(1)), group: GroupId::METADATA, command });
    node.settle();
    let done = crate::metadata::MetadataDone::ProducerIds { first: 1, count: 1000 };
    assert_eq!(node.reply(Ticket(1)), Some(Reply::Metadata(Ok(done))));
}
