//! The named anomalies and invariants of the tier and of checkpoints (FAULTS.md 1 and 2), each in an interleaving of its
//! own. docs/anomalies.md says where else each is looked at.

use std::collections::BTreeSet;

use bytes::Bytes;
use varve_common::{GroupId, ObjectKey, Offset, TopicId};
use varve_formats::{
    command::{Command, Fence, TierAppend},
    keys::{Key, SegmentName},
    manifest::Entry,
};
use varve_objects::{
    Operation,
    testing::{Fault, FaultRates},
};
use varve_replica::{Input, PartitionView};
use varve_sim::{
    bucket::Depth,
    bugs::Bug,
    jobs::keys,
    plan::{Length, Plan, StoreKind},
    trace::Trace,
    violation::Checked,
    world::World,
};

/// Steps within which a healthy node does what it has to.
const PATIENCE: usize = 20_000;

/// A store that has no answer but errors.
const STOPPED: FaultRates = FaultRates {
    error_before: 1_000,
    error_after: 0,
    slow: 0,
    slow_by: std::time::Duration::ZERO,
    truncated: 0,
    altered: 0,
    missing: 0,
    stall: 0,
};

/// A world without faults, with a bucket that outlives the node, and one topic that tiers soon.
fn world(seed: u64, bug: Option<Bug>) -> Checked<World> {
    world_with(seed, bug, FaultRates::default())
}

/// The same with a store that fails from the beginning.
fn world_with(seed: u64, bug: Option<Bug>, rates: FaultRates) -> Checked<World> {
    Bug::plant(bug);
    let mut world = World::new(seed, Length::Short, bug, Trace::default());
    world.plan = Plan {
        store: StoreKind::Remote,
        zombies: 0,
        topics: 1,
        deletes: false,
        tiered: Some(true),
        upload_age: std::time::Duration::from_millis(200),
        wal_bytes_max: 12 * world.plan.wal_file_bytes,
        ..world.plan
    };
    world.remote.1.set_rates(rates);
    assert!(world.start()?);
    until(&mut world, "a partition to serve", |world| world.views.values().any(|view| view.ready))?;
    Ok(world)
}

/// Lets the world go on until something holds.
fn until(world: &mut World, what: &str, holds: impl Fn(&World) -> bool) -> Checked {
    for _ in 0..PATIENCE {
        if holds(world) {
            return Ok(());
        }
        world.step()?;
        // There is much to do: the jobs get more than their share.
        world.work()?;
        world.absorb()?;
    }
    let views = world.views.iter().map(|(group, view)| {
        let (start, local, tiered, end) = (view.log_start, view.local_start, view.tiered_end, view.log_end);
        format!(
            "{group}: {start} {local} {tiered} {end}, {} rolls, {} seals",
            view.rolls.len(),
            view.seals.len()
        )
    });
    panic!("never: {what}; {:?}", views.collect::<Vec<_>>());
}

fn steps(world: &mut World, count: usize) -> Checked {
    (0..count).try_for_each(|_| world.step())
}

/// The node dies, with the power or alone, and begins anew.
fn restart(world: &mut World, power: bool) -> Checked {
    world.crash(power);
    assert!(world.start()?);
    Ok(())
}

fn until_it_serves(world: &mut World, group: GroupId) -> Checked {
    until(world, "it to serve", |world| world.views.get(&group).is_some_and(|view| view.ready))
}

/// The longest partition, once something of it is in the bucket.
fn until_tiered(world: &mut World) -> Checked<GroupId> {
    until(world, "something to be tiered", |world| view(world, longest(world)).tiered_end > Offset::ZERO)?;
    Ok(longest(world))
}

/// What a scenario does without a bug, in some seeds: nothing wrong.
fn holds(scenario: impl Fn(u64, Option<Bug>) -> Checked) {
    for seed in 0..4 {
        let done = scenario(seed, None);
        assert_eq!(done, Ok(()), "seed {seed}");
    }
}

/// With a bug the same scenario finds something wrong, in some seed.
fn finds(bug: Bug, scenario: impl Fn(u64, Option<Bug>) -> Checked) {
    let found = (0..4).any(|seed| scenario(seed, Some(bug)).is_err());
    Bug::plant(None);
    assert!(found, "{} is not found", bug.name());
}

/// The partition whose log is the longest.
fn longest(world: &World) -> GroupId {
    let ready = world.views.iter().filter(|(_, view)| view.ready);
    *ready.max_by_key(|(_, view)| view.log_end).expect("some partition serves").0
}

fn view(world: &World, group: GroupId) -> &PartitionView {
    &world.views[&group]
}

fn topic(world: &World) -> TopicId {
    *world.image.as_ref().expect("there is a topic").topics.keys().next().expect("there is a topic")
}

fn tell(world: &mut World, input: Input) -> Checked {
    world.node.as_mut().expect("it runs").turn([input]);
    world.absorb()
}

/// Deletes the records below an offset; somebody is told so. While the manifest changes the answer is to come again.
fn delete_below(world: &mut World, group: GroupId, before: Offset) -> Checked {
    for _ in 0..PATIENCE / 50 {
        if world.clients.deleted_below(group) >= before {
            return Ok(());
        }
        let trim = world.clients.delete_records(group, before);
        tell(world, trim)?;
        steps(world, 50)?;
    }
    panic!("never: records below {before} to be deleted");
}

/// A partition's segments in the bucket, as they were uploaded.
fn segments(world: &World, group: GroupId) -> Vec<(ObjectKey, SegmentName)> {
    let identity = &view(world, group).identity;
    let of_partition = |key: &ObjectKey| match keys().parse(key) {
        Ok(Key::Segment(at, name))
            if (at.topic_id, at.partition) == (identity.topic_id, identity.partition) =>
        {
            Some((key.clone(), name))
        }
        _ => None,
    };
    world.objects().keys().filter_map(of_partition).collect()
}

fn is_named(world: &World, group: GroupId, uid: u64) -> bool {
    let view = world.views.get(&group);
    view.is_some_and(|view| view.root.entries.iter().any(|entry| entry.uid == uid))
}

/// The node dies when an object is in the bucket and the log does not know. The next life puts the range there under
/// another name. Gives the name that nobody knows, and what the manifest says of the range.
fn put_twice(world: &mut World) -> Checked<(GroupId, (ObjectKey, Bytes, SegmentName), Entry)> {
    let unnamed = |world: &World| {
        let group = longest(world);
        let found = segments(world, group).into_iter().find(|(_, name)| !is_named(world, group, name.uid));
        found.filter(|(_, name)| name.base >= view(world, group).tiered_end).map(|found| (group, found))
    };
    until(world, "a PUT without its append", |world| unnamed(world).is_some())?;
    let (group, (key, name)) = unnamed(world).expect("it was just found");
    let bytes = world.objects()[&key].clone();
    restart(world, true)?;
    let named = |world: &World| {
        let entries = &world.views.get(&group)?.root.entries;
        entries.iter().find(|entry| entry.base == name.base).cloned()
    };
    until(world, "the range to be tiered", |world| named(world).is_some())?;
    let entry = named(world).expect("it was just found");
    assert_ne!(entry.uid, name.uid, "the answer was lost, and with it the name");
    Ok((group, (key, bytes, name), entry))
}

fn stays_unnamed(world: &mut World, group: GroupId, uid: u64) -> Checked {
    for _ in 0..500 {
        world.step()?;
        assert!(!is_named(world, group, uid));
    }
    Ok(())
}

/// The command by which a zombie would name its object.
fn append_of(name: &SegmentName, like: &Entry, fence: Fence) -> Command {
    let entry = Entry { uid: name.uid, term: name.term, base: name.base, last: name.last, ..like.clone() };
    Command::TierAppend(TierAppend { fence, entries: vec![entry] })
}

/// Two leaders put the same range, and only one of their objects is ever read.
#[test]
fn t37_a_range_that_is_put_twice_is_named_once() {
    let scenario = |seed, bug| {
        let mut world = world(seed, bug)?;
        let (group, (key, bytes, name), entry) = put_twice(&mut world)?;
        world.crash(false);
        // As where nobody has collected it yet.
        world.remote.0.tamper(&key, bytes);
        world.leave_behind(group, |_, fence| append_of(&name, &entry, fence))?;
        assert!(world.start()?);
        stays_unnamed(&mut world, group, name.uid)?;
        world.finale()
    };
    holds(scenario);
    finds(Bug::FenceIgnored, scenario);
}

/// Uploads are switched off and on while the bucket is away and the log is short: a file of this node that is the only
/// copy stays.
#[test]
fn t38_what_only_this_node_holds_stays_while_the_tier_is_switched() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        let id = topic(&world);
        world.clients.large = true;
        world.remote.1.set_rates(STOPPED);
        let mut sealed = 0;
        for [enable, pause] in [[false, false], [true, true], [true, false]] {
            let switched = world.clients.set_tier(id, [enable, pause, false]);
            tell(&mut world, switched)?;
            world.fill()?;
            steps(&mut world, 300)?;
            sealed = sealed.max(world.views.values().map(|view| view.seals.len()).sum());
        }
        assert!(sealed > 0, "nothing was sealed, so that nothing could go too early");
        world.remote.1.set_rates(FaultRates::default());
        (world.clients.large, world.clients.quiet) = (false, true);
        until(&mut world, "files to go once they are in the bucket", |world| {
            world.views.values().map(|view| view.seals.len()).sum::<usize>() < sealed
        })?;
        world.finale()
    });
}

/// Records are deleted beyond what is in the bucket: the next upload begins behind them.
#[test]
fn t39_a_gap_between_the_tier_and_the_log_does_not_wedge_uploads() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        let group = until_tiered(&mut world)?;
        world.remote.1.set_rates(STOPPED);
        until(&mut world, "ranges to wait", |world| view(world, group).rolls.len() > 3)?;
        let before = view(&world, group).high_watermark;
        assert!(before > view(&world, group).tiered_end);
        delete_below(&mut world, group, before)?;
        world.remote.1.set_rates(FaultRates::default());
        until(&mut world, "uploads behind the gap", |world| {
            let view = view(world, group);
            view.tiered_end > before && !view.root.entries.is_empty()
        })?;
        world.finale()
    });
}

/// A zombie's PUT ends after the object that it stands for was given up and collected, and its append is in the log.
#[test]
fn t40_a_zombie_wakes_after_its_object_was_collected() {
    let scenario = |seed, bug| {
        let mut world = world(seed, bug)?;
        let (group, (key, bytes, name), entry) = put_twice(&mut world)?;
        until(&mut world, "the first object to be collected", |world| !world.objects().contains_key(&key))?;
        world.crash(false);
        world.leave_behind(group, |_, fence| append_of(&name, &entry, fence))?;
        assert!(world.start()?);
        world.crash(true);
        world.remote.0.tamper(&key, bytes);
        assert!(world.start()?);
        stays_unnamed(&mut world, group, name.uid)?;
        world.finale()
    };
    holds(scenario);
    finds(Bug::FenceIgnored, scenario);
}

/// PUTs take effect and their answers are lost: each is our own success, and no range is put twice.
#[test]
fn t41_a_lost_answer_to_a_put_is_our_own_success() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        for wanted in 1..5 {
            world.remote.1.script(Operation::Put, Fault::ErrorAfter);
            until(&mut world, "a segment", |world| segments(world, longest(world)).len() >= wanted)?;
        }
        let group = longest(&world);
        let bases: Vec<Offset> = segments(&world, group).iter().map(|(_, name)| name.base).collect();
        let distinct: BTreeSet<Offset> = bases.iter().copied().collect();
        assert_eq!(bases.len(), distinct.len(), "a range was put twice: {bases:?}");
        world.finale()
    });
}

/// Everything is in the bucket but the commands behind the last record: each offset is read from there, the first one,
/// too, and who waits at the end waits for the next record and not for a command.
#[test]
fn t43_a_log_of_commands_alone_is_read_from_offset_zero() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        until(&mut world, "the first offset to be in the bucket alone", |world| {
            view(world, longest(world)).local_start > Offset::ZERO
        })?;
        let group = longest(&world);
        world.clients.quiet = true;
        until(&mut world, "nothing but commands to be left", |world| {
            let view = view(world, group);
            view.tiered_end == view.log_end
        })?;
        // Nothing fails: a read that does not come is not to be excused by the store.
        world.healed = true;
        for power in [true, false] {
            restart(&mut world, power)?;
            until_it_serves(&mut world, group)?;
            let view = world.views[&group].clone();
            assert_eq!(view.log_start, Offset::ZERO);
            for from in 0..=view.high_watermark.0 {
                world.spawn_reader(group, Offset(from), view.clone());
                until(&mut world, "a reader to end", |world| world.reading == 0)?;
            }
        }
        world.finale()
    });
}

/// Uploads fail in every way there is while the log fills: nothing is cut that is nowhere else, and it is all there after.
#[test]
fn t45_failed_uploads_do_not_cut_the_log_early() {
    let scenario = |seed: u64, bug| {
        let mut world = world(seed, bug)?;
        world.clients.large = true;
        let rates = [
            STOPPED,
            FaultRates { error_before: 0, error_after: 1_000, ..STOPPED },
            FaultRates { error_before: 500, stall: 500, ..STOPPED },
            FaultRates { error_before: 400, error_after: 400, truncated: 200, ..STOPPED },
        ];
        world.remote.1.set_rates(rates[seed as usize % rates.len()]);
        world.fill()?;
        steps(&mut world, 600)?;
        world.crash(true);
        world.clients.large = false;
        world.finale()
    };
    holds(scenario);
    finds(Bug::CutBeforeAppend, scenario);
}

/// A manifest of many ranges has nodes and merged segments; whatever stands in it is one log, byte for byte, before and
/// after each crash.
#[test]
fn b2_b6_a_manifest_of_nodes_and_merged_segments_is_one_log_of_the_same_bytes() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        let is_rich = |world: &World| {
            let root = &view(world, longest(world)).root;
            root.nodes.len() > 1 && world.objects().keys().any(|key| key.as_str().contains("/mseg/"))
        };
        for _ in 0..40 {
            if is_rich(&world) {
                break;
            }
            steps(&mut world, 500)?;
            world.scan(Depth::Replay)?;
        }
        assert!(is_rich(&world), "the manifest has no nodes, or nothing was merged");
        world.crash(true);
        world.finale()
    });
}

/// The log is written and its syncs do not land, while jobs go on: whatever is in the bucket then is in the log after the
/// power is cut. [`World::step`] looks at each upload that begins.
#[test]
fn b5_nothing_is_uploaded_before_it_is_committed() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        let group = until_tiered(&mut world)?;
        for round in 0..400 {
            world.ask();
            world.append()?;
            world.work()?;
            if round % 10 == 0 {
                world.pass_time();
            }
            world.absorb()?;
        }
        restart(&mut world, true)?;
        until_it_serves(&mut world, group)?;
        let end = view(&world, group).log_end;
        let beyond = segments(&world, group).into_iter().find(|(_, name)| name.last >= end);
        assert_eq!(beyond, None, "the log ends at {end}");
        world.finale()
    });
}

/// Readers from the log start on, at every instant of merging, trimming and deleting.
#[test]
fn b7_every_offset_is_read_once_while_objects_are_merged_and_deleted() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        // Nothing fails: a read that does not come is not to be excused by the store.
        world.healed = true;
        let mut deleted = BTreeSet::new();
        let mut before = BTreeSet::new();
        for round in 0..400 {
            let group = longest(&world);
            if world.reading == 0 && view(&world, group).ready {
                let view = world.views[&group].clone();
                world.spawn_reader(group, view.log_start, view);
            }
            if round % 50 == 49 {
                let (start, end) = (view(&world, group).log_start, view(&world, group).tiered_end);
                let trim =
                    world.clients.delete_records(group, Offset(u64::midpoint(start.0, end.0.max(start.0))));
                tell(&mut world, trim)?;
            }
            steps(&mut world, 25)?;
            let now: BTreeSet<ObjectKey> = world.objects().into_keys().collect();
            deleted.extend(before.difference(&now).cloned());
            before = now;
        }
        assert!(deleted.iter().any(|key| key.as_str().contains("seg/")), "no segment was deleted");
        assert!(world.counts.reads > 20, "{} reads", world.counts.reads);
        world.finale()
    });
}

/// Deleted records leave the bucket, and nothing that is named does: [`World::step`] looks at each job that deletes.
#[test]
fn b8_what_is_trimmed_goes_and_what_a_checkpoint_names_stays() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        until(&mut world, "five segments", |world| segments(world, longest(world)).len() >= 5)?;
        let group = longest(&world);
        let before = view(&world, group).tiered_end;
        let dead = segments(&world, group).into_iter().filter(|(_, name)| name.last < before);
        let dead: Vec<ObjectKey> = dead.map(|(key, _)| key).collect();
        delete_below(&mut world, group, before)?;
        until(&mut world, "what is trimmed to go", |world| {
            let objects = world.objects();
            dead.iter().all(|key| !objects.contains_key(key))
        })?;
        world.crash(true);
        world.finale()
    });
}

/// What was deleted stays deleted over a power cut, and retention takes whole ranges that are too many and no more.
#[test]
fn b9_retention_takes_what_it_may_and_deleted_records_stay_deleted() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        let id = topic(&world);
        let configs = vec![("retention.bytes".to_owned(), Some((24 << 10).to_string()))];
        let command =
            varve_formats::command::MetadataCommand::SetTopicConfigs { id, configs, expected: None };
        tell(&mut world, Input::Propose { ticket: None, group: GroupId::METADATA, command })?;
        until(&mut world, "retention to act", |world| view(world, longest(world)).log_start > Offset::ZERO)?;
        let group = longest(&world);
        let (start, end) = (view(&world, group).log_start, view(&world, group).high_watermark);
        let before = Offset(u64::midpoint(start.0, end.0));
        delete_below(&mut world, group, before)?;
        restart(&mut world, true)?;
        until_it_serves(&mut world, group)?;
        assert!(view(&world, group).log_start >= before);
        world.finale()
    });
}

/// Checkpoints are of what is committed, and what their keys and headers say they are of: at every publication, not only
/// at the end.
#[test]
fn s1_every_published_checkpoint_is_the_log_up_to_its_index() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            steps(&mut world, 50)?;
            let checkpoints: BTreeSet<ObjectKey> =
                world.objects().into_keys().filter(|key| key.as_str().contains("/ckpt/")).collect();
            if !checkpoints.is_subset(&seen) {
                seen.extend(checkpoints);
                world.scan(Depth::Replay)?;
            }
        }
        assert!(seen.len() > 4, "{} checkpoints", seen.len());
        world.finale()
    });
}

/// What is read back after a publication is not what was put: that checkpoint is none, however often it is read.
#[test]
fn s2_a_checkpoint_that_does_not_read_back_whole_is_not_published() {
    holds(|seed, bug| {
        let spoiled = FaultRates { error_before: 0, altered: 500, truncated: 500, ..STOPPED };
        let mut world = world_with(seed, bug, spoiled)?;
        let puts =
            |world: &World| world.objects().keys().filter(|key| key.as_str().contains(".ckpt")).count();
        until(&mut world, "checkpoints to be put", |world| puts(world) > 2)?;
        steps(&mut world, 1_000)?;
        let published = world.model.durable.0.values().flat_map(|group| group.entries.values());
        let kind = varve_formats::command::Kind::CkptPublished as u8;
        let published = published.filter(|entry| entry.data.first() == Some(&kind)).count();
        assert_eq!(published, 0, "a checkpoint counts that nobody has read back");
        world.remote.1.set_rates(FaultRates::default());
        world.finale()
    });
}

/// The newest local checkpoints of two groups change places, each whole: neither is used, and the ones before them are.
#[test]
fn s5_the_checkpoint_of_another_group_is_not_used() {
    holds(|seed, bug| {
        let mut world = world(seed, bug)?;
        let two_each = |world: &World| {
            let groups = world.model.durable.0.iter().filter(|(_, group)| group.snapshots.len() == 2);
            groups.map(|(id, group)| (*id, group.snapshots[1].file.clone())).collect::<Vec<_>>()
        };
        // Two topics at the least: the metadata is written seldom.
        world.plan.topics = 2;
        until(&mut world, "two groups with two checkpoints each", |world| two_each(world).len() >= 2)?;
        world.crash(false);
        let directory = |group| varve_snapshot::local::directory(std::path::Path::new("/data"), group);
        let paths: Vec<_> =
            two_each(&world).into_iter().take(2).map(|(group, file)| directory(group).join(file)).collect();
        let files: std::collections::BTreeMap<_, _> = world.disk.files().into_iter().collect();
        for (path, from) in [(&paths[0], &paths[1]), (&paths[1], &paths[0])] {
            world.overwrite(path, &files[from]);
        }
        assert!(world.start()?, "the older checkpoints serve");
        world.finale()
    });
}
