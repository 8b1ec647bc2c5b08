//! Bugs that the simulator found, as scenarios of their own.

use varve_common::GroupId;
use varve_compactor::PressureGauge;
use varve_objects::testing::FaultRates;
use varve_sim::{
    plan::{Length, Plan, StoreKind},
    trace::Trace,
    world::World,
};

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

/// What keeps records out of the bucket.
#[derive(Clone, Copy)]
enum Untiered {
    ByChoice,
    StoreStopped,
}

/// Producers fill a small log until they must wait; then they are idle. The log must come down below the mark at which it
/// counts as short of room, or nobody ever writes again.
fn an_idle_log_comes_down(seed: u64, untiered: Untiered) {
    let mut world = World::new(seed, Length::Short, None, Trace::default());
    world.plan = Plan {
        store: StoreKind::Remote,
        zombies: 0,
        topics: 1,
        deletes: false,
        tiered: Some(matches!(untiered, Untiered::StoreStopped)),
        // As in production where the log is small: much more than a log of this size holds.
        checkpoint_after: (64 << 20, 20_000),
        ..world.plan
    };
    world.plan.wal_bytes_max = 32 * world.plan.wal_file_bytes;
    world.clients.large = true;
    assert!(world.start().unwrap());
    while !world.views.values().any(|view| view.ready) {
        world.step().unwrap();
    }
    if matches!(untiered, Untiered::StoreStopped) {
        world.remote.1.set_rates(FaultRates { error_before: 1_000, ..FaultRates::default() });
    }
    world.fill().unwrap();
    world.clients.quiet = true;
    let gauge = PressureGauge::new(world.plan.wal_bytes_max);
    let usage = |world: &World| world.node.as_ref().unwrap().reader.usage();
    assert!(gauge.is_short(usage(&world).bytes), "{:?}", usage(&world));
    for _ in 0..10_000 {
        world.step().unwrap();
        if !gauge.is_short(usage(&world).bytes) {
            return world.finale().unwrap();
        }
    }
    panic!("seed {seed}: still short of room: {:?}", usage(&world));
}

#[test]
fn a_log_of_a_topic_that_does_not_tier_comes_down_once_producers_are_idle() {
    (0..3).for_each(|seed| an_idle_log_comes_down(seed, Untiered::ByChoice));
}

#[test]
fn a_log_comes_down_with_its_store_stopped_for_good_once_producers_are_idle() {
    (0..3).for_each(|seed| an_idle_log_comes_down(seed, Untiered::StoreStopped));
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
