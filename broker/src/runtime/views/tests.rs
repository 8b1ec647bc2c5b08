//! Who leads, from what leaders say and what the replica here knows.

use varve_common::{ClusterId, Incarnation, LeaderEpoch, PartitionIndex, ReplicaId, Term};

use super::*;
use crate::handlers::fake::empty_view;

const GROUP: GroupId = GroupId(1);

fn replica(node: u32) -> ReplicaId {
    ReplicaId::new(NodeId::new(node).unwrap(), 1).unwrap()
}

fn report(term: u64, version: u64, leader: u32, in_sync: &[u32]) -> LeaderReport {
    let in_sync = in_sync.iter().map(|node| replica(*node)).collect();
    LeaderReport { group: GROUP, term: Term(term), version, leader: replica(leader), in_sync }
}

/// A node whose metadata holds one topic of one partition.
fn views() -> (Views, TopicId) {
    let id = TopicId::from_random(1);
    let partition = metadata::Partition::new(GROUP, vec![replica(1), replica(2)]);
    let topic = metadata::Topic {
        id,
        name: "a".into(),
        created_ms: 0,
        partitions: vec![partition],
        configs: BTreeMap::new(),
    };
    let mut image = metadata::Image::new(ClusterId::from_random(1), Incarnation(1));
    image.topics = Arc::new(BTreeMap::from([(id, Arc::new(topic))]));
    image.groups = Arc::new(BTreeMap::from([(GROUP, (id, PartitionIndex(0)))]));
    (Views::new(image), id)
}

/// This node's replica, in an epoch, as it sees its leader.
fn here(views: &Views, epoch: i32, leader: Option<u32>, ready: bool) {
    let view = PartitionView {
        leader: leader.map(replica),
        leader_epoch: LeaderEpoch(epoch),
        ready,
        ..empty_view()
    };
    views.publish(GROUP, Arc::new(view));
}

fn told(views: &Views) -> Option<(u32, i32, usize)> {
    let known = views.leadership(GROUP)?;
    Some((known.leader.node().get(), known.epoch.0, known.in_sync.len()))
}

#[test]
fn the_newest_word_counts_and_a_leader_of_this_node_only_once_it_takes_requests() {
    let (views, _) = views();
    assert_eq!((told(&views), views.waiting()), (None, 1));
    assert_eq!(views.learn(&[report(3, 1, 2, &[1, 2])]).len(), 1);
    assert_eq!((told(&views), views.waiting()), (Some((2, 3, 2)), 0), "no replica here knows better");
    assert_eq!(views.learn(&[report(2, 9, 1, &[1])]), []);
    assert_eq!(told(&views), Some((2, 3, 2)), "an older term changes nothing");
    assert_eq!(views.learn(&[report(3, 2, 2, &[2])]), []);
    assert_eq!(told(&views), Some((2, 3, 1)));

    here(&views, 3, None, false);
    assert_eq!(told(&views), Some((2, 3, 1)), "a follower that has not heard of it yet");
    here(&views, 4, None, false);
    assert_eq!(told(&views), None, "an election is under way");
    here(&views, 4, Some(2), false);
    assert_eq!(told(&views), Some((2, 4, 1)));
    here(&views, 5, Some(1), false);
    assert_eq!(told(&views), None, "its own first entry is not applied");
    here(&views, 5, Some(1), true);
    assert_eq!(told(&views), Some((1, 5, 1)));
    let _ = views.learn(&[report(5, 3, 1, &[1, 2])]);
    assert_eq!(told(&views), Some((1, 5, 2)));
    here(&views, 5, None, false);
    assert_eq!(told(&views), None, "it stepped down within its term");
    let _ = views.learn(&[report(6, 1, 2, &[2])]);
    assert_eq!(told(&views), Some((2, 6, 1)));
}

#[test]
fn everybody_lives_who_is_not_said_to_be_silent() {
    let (views, _) = views();
    let node = |id| NodeId::new(id).unwrap();
    assert!(views.is_alive(node(7)));
    views.set_silent(BTreeSet::from([node(7)]));
    assert!(views.is_alive(node(2)) && !views.is_alive(node(7)));
}

#[tokio::test]
async fn a_new_topic_is_waited_for_until_somebody_leads_it_or_it_is_gone() {
    // Led elsewhere.
    let (views, id) = self::views();
    let mut led = Box::pin(views.led(id));
    assert!(futures_util::poll!(&mut led).is_pending());
    let _ = views.learn(&[report(1, 1, 2, &[2])]);
    led.await;
    // Led here.
    let (views, id) = self::views();
    let mut led = Box::pin(views.led(id));
    assert!(futures_util::poll!(&mut led).is_pending());
    here(&views, 1, Some(1), false);
    assert!(futures_util::poll!(&mut led).is_pending());
    here(&views, 1, Some(1), true);
    led.await;
    // Gone.
    let (views, id) = self::views();
    here(&views, 1, None, false);
    let mut led = Box::pin(views.led(id));
    assert!(futures_util::poll!(&mut led).is_pending());
    views.set_image(&metadata::Image::new(ClusterId::from_random(1), Incarnation(1)));
    views.remove(GROUP);
    led.await;
}

#[tokio::test]
async fn metadata_is_waited_for_by_its_version() {
    let (views, _) = views();
    views.reach(LogIndex(0)).await;
    let mut reached = Box::pin(views.reach(LogIndex(5)));
    assert!(futures_util::poll!(&mut reached).is_pending());
    let mut image = metadata::Image::new(ClusterId::from_random(1), Incarnation(1));
    image.index = LogIndex(6);
    views.set_image(&image);
    reached.await;
}
