//! Bugs that the simulator found, as scenarios of their own.

use varve_common::GroupId;
use varve_compactor::PressureGauge;
use varve_objects::testing::FaultRates;
use varve_sim::{
    crashes::{Crashes, Step},
    plan::{Length, Plan, StoreKind},
    trace::Trace,
    world::World,
};
use varve_wal::{
    GroupRecord, Record,
    testing::{Injected, Operation, Target},
};

/// A world without faults that has run until `until`: of the first seed from `first` on that gets there.
fn world(first: u64, until: impl Fn(&World) -> bool) -> World {
    let reach = |seed| {
        let mut world = World::new(seed, Length::Short, None, Trace::default());
        (world.plan.zombies, world.plan.topics) = (0, 2);
        assert!(world.start().unwrap());
        for _ in 0..20_000 {
            world.step().unwrap();
            if until(&world) {
                return Some(world);
            }
        }
        None
    };
    (first..first + 12).find_map(reach).expect("it never happens")
}

/// What keeps records out of the bucket.
#[derive(Clone, Copy)]
enum Untiered {
    ByChoice,
    StoreStopped,
}

/// A world without faults, with a small log and one topic that is there, and tiers or not.
fn small_world(seed: u64, store: StoreKind, tiered: bool) -> World {
    let mut world = World::new(seed, Length::Short, None, Trace::default());
    world.plan = Plan {
        store,
        zombies: 0,
        topics: 1,
        deletes: false,
        tiered: Some(tiered),
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
    world
}

/// Producers fill a small log until they must wait; then they are idle. The log must come down below the mark at which it
/// counts as short of room, or nobody ever writes again.
fn an_idle_log_comes_down(seed: u64, untiered: Untiered) {
    let tiered = matches!(untiered, Untiered::StoreStopped);
    let mut world = small_world(seed, StoreKind::Remote, tiered);
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
    (0..8).for_each(|seed| an_idle_log_comes_down(seed, Untiered::ByChoice));
}

#[test]
fn a_log_comes_down_with_its_store_stopped_for_good_once_producers_are_idle() {
    (0..8).for_each(|seed| an_idle_log_comes_down(seed, Untiered::StoreStopped));
}

/// Where a machine dies that seals.
#[derive(Clone, Copy)]
enum Sealing {
    In(Operation),
    MarkWaits,
    MarkWritten,
}

impl Sealing {
    const ALL: [Self; 6] = [
        Self::In(Operation::Write),
        Self::In(Operation::Sync),
        Self::In(Operation::Rename),
        Self::In(Operation::SyncDirectory),
        Self::MarkWaits,
        Self::MarkWritten,
    ];

    fn is_reached(self, world: &World) -> bool {
        let is_seal = |record: &GroupRecord| matches!(record.record, Record::Sealed(_));
        let node = world.node.as_ref().unwrap();
        match self {
            Self::In(_) => world.disk.is_dead(),
            Self::MarkWaits => node.ports.writes.iter().any(|writes| writes.records.iter().any(is_seal)),
            Self::MarkWritten => world.model.pending().any(is_seal),
        }
    }
}

/// A log short of room, of a topic that does not tier: what is rolled goes into files, and in the middle of that the
/// machine dies. Nothing acknowledged is lost, and what is left behind is in nobody's way.
fn a_seal_is_cut_short(seed: u64, at: Sealing) -> Crashes {
    let mut world = small_world(seed, StoreKind::Remote, false);
    if let Sealing::In(operation) = at {
        let target = Target { operation, below: "/data/segments".into(), spared: (seed % 2) as u32 };
        world.disk.inject_at(target, Injected::Dies);
    }
    world.fill().unwrap();
    for _ in 0..10_000 {
        if at.is_reached(&world) {
            world.crash(true);
            world.finale().unwrap();
            return world.crashes;
        }
        world.step().unwrap();
    }
    panic!("seed {seed}: nothing is sealed");
}

#[test]
fn a_seal_is_crashed_at_each_of_its_steps() {
    let mut all = Crashes::default();
    for at in Sealing::ALL {
        (0..2).for_each(|seed| all.add(&a_seal_is_cut_short(seed, at)));
    }
    assert_eq!(missed(&all, "seal: "), []);
}

/// Those that a scenario must hit.
fn missed(crashes: &Crashes, begin: &str) -> Vec<Step> {
    let wanted = |step: &Step| step.has_scenario() && step.name().starts_with(begin);
    crashes.missed().into_iter().filter(wanted).collect()
}

/// Objects are files of this node, and in the middle of one the machine dies.
fn a_put_is_cut_short(seed: u64, operation: Operation) -> Crashes {
    let mut world = small_world(seed, StoreKind::Embedded, true);
    let target = Target { operation, below: "/data/objects".into(), spared: (seed % 2) as u32 };
    world.disk.inject_at(target, Injected::Dies);
    for _ in 0..10_000 {
        if world.disk.is_dead() {
            world.crash(true);
            world.finale().unwrap();
            return world.crashes;
        }
        world.step().unwrap();
    }
    panic!("seed {seed}: nothing is put");
}

#[test]
fn a_put_is_crashed_at_each_of_its_steps() {
    let mut all = Crashes::default();
    for operation in [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDirectory] {
        (0..2).for_each(|seed| all.add(&a_put_is_cut_short(seed, operation)));
    }
    assert_eq!(missed(&all, "put: "), []);
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
    let mut world = world(2, checkpoint_holds_everything);
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
