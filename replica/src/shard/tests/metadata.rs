//! The metadata group.

use super::*;

fn metadata() -> Node {
    let mut node = Node::empty();
    let mut open = open_group(GroupState::New);
    open.group = GroupId::METADATA;
    open.kind = GroupKind::Metadata { cluster: ClusterId::from_random(1), incarnation: Incarnation(1) };
    node.step(Input::Open(Box::new(open)));
    node.settle();
    node
}

fn change(node: &mut Node, command: MetadataCommand) {
    node.step(Input::Propose { ticket: None, group: GroupId::METADATA, command });
    node.settle();
}

/// The jobs that a pass over the deleted topic starts now.
fn reap(node: &mut Node, pass: ReapPass) -> usize {
    node.take_effects();
    let action = Action::Reap { topic: identity().topic_id, pass };
    node.step(Input::Act { group: GroupId::METADATA, action });
    node.settle();
    node.effects.iter().filter(|effect| matches!(effect, Effect::Start(Job::Reap { .. }))).count()
}

fn reaped(node: &mut Node, pass: ReapPass) {
    let outcome = JobOutcome::Reaped { topic: identity().topic_id, pass, objects: 1 };
    node.step(Input::JobDone { group: GroupId::METADATA, outcome });
    node.settle();
}

/// A metadata group whose topic has one partition, the group 1, open here with an upload on its way; then it is deleted.
fn deleted_with_an_upload() -> Node {
    let mut node = metadata();
    let topic = varve_formats::command::CreateTopic {
        id: identity().topic_id,
        name: identity().topic,
        partitions: vec![varve_formats::command::PartitionAssignment { group: 0, replicas: vec![replica()] }],
        configs: Vec::new(),
    };
    change(&mut node, MetadataCommand::CreateTopic(topic));
    let group = GroupId(1);
    node.step(Input::Open(Box::new(OpenGroup { group, ..open_group(GroupState::New) })));
    node.settle();
    let (batch, ticket) = (sample((-1, -1, -1), 1, b"some records"), Ticket(9));
    let meta = BatchHeader::parse(&batch).unwrap().meta;
    node.step(Input::Produce { ticket, group, batch, meta, timestamps: Timestamps::Create, replicas_min: 0 });
    node.settle();
    let actions = [
        Action::Roll { cause: RollCause::Bytes },
        Action::Announce { uid: 5, base: Offset(0), end: Offset(1) },
        Action::Upload { uid: 5 },
    ];
    for action in actions {
        node.step(Input::Act { group, action });
        node.settle();
    }
    assert_eq!(node.job().kind(), JobKind::Upload);
    change(&mut node, MetadataCommand::DeleteTopic { id: identity().topic_id });
    node
}

#[test]
fn a_deleted_topic_is_not_reaped_while_one_of_its_jobs_may_still_write() {
    let mut node = deleted_with_an_upload();
    assert_eq!(reap(&mut node, ReapPass::Early), 0, "its group is open");
    node.step(Input::Close { group: GroupId(1) });
    node.settle();
    assert_eq!(reap(&mut node, ReapPass::Early), 0, "its upload runs");
    let _ = node.shard.take_changed();
    let outcome = JobOutcome::UploadFailed { uid: 5, stall: Stall::NoAnswer, why: "reset".into() };
    node.step(Input::JobDone { group: GroupId(1), outcome });
    assert_eq!(node.shard.take_changed(), [GroupId::METADATA], "the planner looks again");
    assert_eq!(reap(&mut node, ReapPass::Early), 1);
    assert_eq!(reap(&mut node, ReapPass::Early), 0, "one at a time");
}

#[test]
fn a_deletion_ends_with_the_final_pass_and_not_before() {
    let mut node = deleted_with_an_upload();
    node.step(Input::Close { group: GroupId(1) });
    node.step(Input::JobDone {
        group: GroupId(1),
        outcome: JobOutcome::UploadFailed { uid: 5, stall: Stall::NoAnswer, why: "reset".into() },
    });
    let status = |node: &Node| node.shard.status(GroupId::METADATA).unwrap();
    assert_eq!(reap(&mut node, ReapPass::Early), 1);
    reaped(&mut node, ReapPass::Early);
    assert_eq!((status(&node).deletions.len(), status(&node).reaped_early.len()), (1, 1));
    assert_eq!(reap(&mut node, ReapPass::Final), 1);
    node.done_failing(JobKind::Reap);
    assert_eq!(status(&node).deletions.len(), 1, "what failed is tried again");
    assert_eq!(reap(&mut node, ReapPass::Final), 1);
    reaped(&mut node, ReapPass::Final);
    assert_eq!((status(&node).deletions.len(), status(&node).reaped_early.len()), (0, 0));
    assert_eq!(reap(&mut node, ReapPass::Final), 0);
}

impl Node {
    fn done_failing(&mut self, kind: JobKind) {
        let outcome = JobOutcome::Failed { kind, why: "the store is away".into() };
        self.step(Input::JobDone { group: GroupId::METADATA, outcome });
        self.settle();
    }
}

#[test]
fn the_metadata_group_answers_what_it_did() {
    let mut node = metadata();
    let command = MetadataCommand::AllocateProducerIds { count: 1000 };
    node.step(Input::Propose { ticket: Some(Ticket(1)), group: GroupId::METADATA, command });
    node.settle();
    let done = crate::metadata::MetadataDone::ProducerIds { first: 1, count: 1000 };
    assert_eq!(node.reply(Ticket(1)), Some(Reply::Metadata(Ok(done))));
}

/// RAFT.md 4: what an older release stops at is not written before all know it, and afterwards nobody is let in that does not.
#[test]
fn what_a_registered_broker_does_not_know_is_not_written_and_the_first_of_a_level_raises_it() {
    use varve_formats::command::BrokerRegistration;

    use crate::metadata::{MetadataDone, MetadataRejected};
    let mut node = metadata();
    let mut tickets = 0;
    let mut ask = |node: &mut Node, command: MetadataCommand| {
        tickets += 1;
        let ticket = Some(Ticket(tickets));
        node.step(Input::Propose { ticket, group: GroupId::METADATA, command });
        node.settle();
        let Some(Reply::Metadata(outcome)) = node.reply(Ticket(tickets)) else {
            panic!("it is not answered")
        };
        outcome
    };
    let register = |id: u32, level: u16| {
        let (advertised, rack, peer) = (Vec::new(), None, None);
        MetadataCommand::RegisterBroker(BrokerRegistration {
            node: id,
            advertised,
            rack,
            peer,
            disk: 0,
            level,
        })
    };
    let host = |id: u32| MetadataCommand::HostMetadata { node: id, disk: u64::from(id) };
    let node_id = |id: u32| NodeId::new(id).unwrap();
    // Nobody hears of the second: it may be back in a moment, and with it the release that it runs.
    for (id, level) in [(1, 1), (2, 0), (4, 1)] {
        assert!(ask(&mut node, register(id, level)).is_ok());
    }
    assert!(!node.shard.is_alive(node_id(2)));
    let too_old = |id| Err(MetadataRejected::TooOld { node: node_id(id), level: 1 });
    assert_eq!(ask(&mut node, host(3)), too_old(2));
    assert_eq!(ask(&mut node, host(1)), too_old(2));
    // But the old one itself may come anew.
    assert!(matches!(ask(&mut node, host(2)), Ok(MetadataDone::ReplicaIds { .. })));
    assert_eq!(ask(&mut node, register(1, 0)), too_old(1));
    assert_eq!(ask(&mut node, register(2, 0)), too_old(2));
    assert!(ask(&mut node, register(2, 1)).is_ok());
    assert!(matches!(ask(&mut node, host(3)), Ok(MetadataDone::ReplicaIds { .. })));
}

#[test]
fn a_broker_that_goes_back_to_an_earlier_release_while_the_level_is_to_be_raised_holds_it_down() {
    use varve_formats::command::BrokerRegistration;

    let mut node = metadata();
    let register = |level: u16| {
        let (advertised, rack, peer) = (Vec::new(), None, None);
        let registration = BrokerRegistration { node: 2, advertised, rack, peer, disk: 0, level };
        MetadataCommand::RegisterBroker(registration)
    };
    change(&mut node, register(1));
    // Both before either is applied.
    let host = || MetadataCommand::HostMetadata { node: 3, disk: 3 };
    for (ticket, command) in [(1, register(0)), (2, host())] {
        node.step(Input::Propose { ticket: Some(Ticket(ticket)), group: GroupId::METADATA, command });
    }
    node.settle();
    assert!(matches!(node.reply(Ticket(1)), Some(Reply::Metadata(Ok(_)))));
    assert_eq!(node.reply(Ticket(2)), Some(Reply::Refused(Refusal::Throttled)));
    node.step(Input::Propose { ticket: Some(Ticket(3)), group: GroupId::METADATA, command: host() });
    node.settle();
    let too_old = crate::metadata::MetadataRejected::TooOld { node: NodeId::new(2).unwrap(), level: 1 };
    assert_eq!(node.reply(Ticket(3)), Some(Reply::Metadata(Err(too_old))));
}
