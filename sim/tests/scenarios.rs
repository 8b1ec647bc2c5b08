//! Bugs that the simulator found, as scenarios of their own.

use varve_common::GroupId;
use varve_sim::{plan::Length, trace::Trace, world::World};

/// A world without faults that has run until `until`.
fn world(seed: u64, until: impl Fn(&World) -> bool) -> World {
    let mut world = World::new(seed, Length::Short, None, Trace::default());
    (world.plan.zombies, world.plan.topics) = (0, 2);
    assert!(world.start().unwrap());
    for _ in 0..20_000 {
        world.step().unwrap();
        if until(&world) {
            return world;
        }
    }
    panic!("it never happens");
}

fn checkpoint_holds_everything(world: &World) -> bool {
    let Some(metadata) = world.model.durable.0.get(&GroupId::METADATA) else { return false };
    let newest = metadata.snapshots.last().map(|mark| mark.index);
    let topics = world.image.as_ref().map_or(0, |image| image.topics.len());
    topics == 2 && newest == Some(metadata.last().0)
}

/// A metadata checkpoint that covered the whole log showed no image at the next start, so that every partition counted
/// as an orphan of a deleted topic and was destroyed.
#[test]
fn a_metadata_checkpoint_that_holds_everything_keeps_every_topic() {
    let mut world = world(1, checkpoint_holds_everything);
    let groups: Vec<GroupId> = world.image.as_ref().unwrap().groups.keys().copied().collect();
    world.crash(true);
    world.finale().unwrap();
    for group in groups {
        let gone = world.clients.deleted.contains(&group);
        assert!(gone || !world.model.durable.0[&group].destroyed, "{group} was destroyed");
    }
}

/// A replay of the metadata shows topics that were deleted since: founding their groups anew wrote records of destroyed
/// replicas, which the log refuses, and which stops the node.
#[test]
fn a_replay_does_not_found_the_groups_of_deleted_topics() {
    let mut world = world(3, |world| !world.clients.deleted.is_empty());
    for _ in 0..3 {
        world.crash(false);
        assert!(world.start().unwrap());
        for _ in 0..300 {
            world.step().unwrap();
        }
    }
    world.finale().unwrap();
}
