//! The steps that a leader, the store and a seeded replica take, and what holds after each.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::{
    Bounds, Rules,
    state::{Cause, Command, Index, Offset, Segment, State, Uid},
};

/// State in the bucket, or on a replica's disk: applied up to `s`, in what concerns the bucket up to `a`.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Checkpoint {
    s: Index,
    a: Index,
    state: State,
}

/// A replica that began with a checkpoint.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Seeded {
    now: Checkpoint,
    /// What a restart begins with.
    local: Checkpoint,
}

#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub struct World {
    log: Vec<Command>,
    /// Entries that are on no node any more.
    cut: Index,
    /// Uploads that may still take effect.
    puts: BTreeSet<Segment>,
    bucket: BTreeSet<Segment>,
    uids: Uid,
    checkpoints: Vec<Checkpoint>,
    seeded: Option<Seeded>,
    seeded_leads: bool,
    restarts: u8,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub enum Action {
    /// The leader has this committed.
    Commit(Command),
    PutHappens(Uid),
    PutFails(Uid),
    Delete(Uid),
    Capture,
    Forget,
    Cut,
    Seed(usize),
    Apply,
    Save,
    Restart,
    Lead(bool),
}

/// The model: which steps there are, and what they promise.
pub struct Tier {
    pub rules: Rules,
    pub bounds: Bounds,
}

impl World {
    fn whole(&self) -> State {
        State::of(&self.log)
    }

    fn leader(&self) -> State {
        match &self.seeded {
            Some(seeded) if self.seeded_leads => seeded.now.state.clone(),
            _ => self.whole(),
        }
    }

    fn in_bucket(&self, uid: Uid) -> bool {
        self.bucket.iter().any(|segment| segment.uid == uid)
    }

    fn is_named(&self, uid: Uid, leader: &State) -> bool {
        let names = |state: &State| state.manifest.iter().any(|segment| segment.uid == uid);
        names(leader) || self.checkpoints.iter().any(|checkpoint| names(&checkpoint.state))
    }
}

impl Tier {
    /// What the leader may propose.
    fn proposals(&self, world: &World, leader: &State) -> Vec<Command> {
        let mut commands = Vec::new();
        let rolled = leader.rolls.last().map_or(0, |(end, _)| *end);
        if leader.end < self.bounds.records {
            commands.push(Command::Record);
        }
        if leader.end > rolled {
            commands.push(Command::Roll);
        }
        if let Some((base, end)) = leader.open_range()
            && leader.intents.is_empty()
            && world.uids < self.bounds.uids
        {
            commands.push(Command::Intent { uid: world.uids, base, end });
        }
        for uid in leader.intents.keys().copied() {
            if world.in_bucket(uid) {
                commands.push(Command::Append { uid, seq: leader.manifest_seq });
            }
            commands.push(Command::Expired { uid });
        }
        // DeleteRecords, as far as there are any, tiered or not.
        if leader.end > leader.log_start {
            commands.push(Command::Trim { log_start: leader.end, seq: leader.manifest_seq });
        }
        let gone = leader
            .tombstones
            .keys()
            .filter(|uid| !world.in_bucket(**uid) && !self.is_on_its_way(world, **uid));
        commands.extend(gone.map(|uid| Command::Reaped { uid: *uid }));
        commands
    }

    fn is_on_its_way(&self, world: &World, uid: Uid) -> bool {
        world.puts.iter().any(|segment| segment.uid == uid)
    }

    /// Deletes wait longer than any upload takes.
    fn may_delete(&self, world: &World, leader: &State, uid: Uid, cause: Cause) -> bool {
        let spared = self.rules.spares_named && cause == Cause::Expired && world.is_named(uid, leader);
        world.in_bucket(uid) && !self.is_on_its_way(world, uid) && !spared
    }

    /// Where the bucket's data ends, and what the log was up to there.
    fn capture(&self, world: &World) -> Option<Checkpoint> {
        let (a, bucket) = (world.log.len(), world.whole());
        let tiered_end = bucket.tiered_end();
        let (_, s) = bucket.rolls.iter().find(|(end, _)| *end == tiered_end && tiered_end > 0)?;
        let record = State::of(&world.log[..*s]);
        Some(Checkpoint { s: *s, a, state: State { end: record.end, rolls: record.rolls, ..bucket } })
    }

    fn may_lead(&self, world: &World, seeded: &Seeded) -> bool {
        seeded.now.s == world.log.len() && (!self.rules.waits_for_a || seeded.now.s >= seeded.now.a)
    }

    fn step(&self, world: &World, checkpoint: &mut Checkpoint) {
        let (index, command) = (checkpoint.s, world.log[checkpoint.s]);
        let ignored = if self.rules.ignores_all {
            !command.is_record_class()
        } else {
            matches!(command, Command::Append { .. })
        };
        if index >= checkpoint.a || !ignored {
            checkpoint.state.apply(index, command);
        }
        checkpoint.s += 1;
    }

    fn commit(&self, world: &mut World, command: Command) {
        world.log.push(command);
        if let Command::Intent { uid, base, end } = command {
            world.puts.insert(Segment { uid, base, end });
            world.uids += 1;
        }
        // Who leads has applied what it committed.
        if let Some(mut seeded) = world.seeded.take() {
            if world.seeded_leads {
                self.step(world, &mut seeded.now);
            }
            world.seeded = Some(seeded);
        }
    }
}

impl Model for Tier {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let leader = world.leader();
        if world.log.len() < self.bounds.log {
            actions.extend(self.proposals(world, &leader).into_iter().map(Action::Commit));
        }
        for put in &world.puts {
            actions.extend([Action::PutHappens(put.uid), Action::PutFails(put.uid)]);
        }
        let deletes =
            leader.tombstones.iter().filter(|(uid, cause)| self.may_delete(world, &leader, **uid, **cause));
        actions.extend(deletes.map(|(uid, _)| Action::Delete(*uid)));
        if world.checkpoints.len() < self.bounds.checkpoints
            && let Some(checkpoint) = self.capture(world)
            && world.checkpoints.last().is_none_or(|last| last.state != checkpoint.state)
        {
            actions.push(Action::Capture);
        }
        if world.checkpoints.len() > 1 {
            actions.push(Action::Forget);
        }
        if let Some(last) = world.checkpoints.last()
            && world.cut < self.cut_point(last)
        {
            actions.push(Action::Cut);
        }
        self.seeded_actions(world, actions);
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Commit(command) => self.commit(&mut world, command),
            Action::PutHappens(uid) => {
                let put = *world.puts.iter().find(|put| put.uid == uid)?;
                world.puts.remove(&put);
                world.bucket.insert(put);
            }
            Action::PutFails(uid) => world.puts.retain(|put| put.uid != uid),
            Action::Delete(uid) => world.bucket.retain(|segment| segment.uid != uid),
            Action::Capture => world.checkpoints.push(self.capture(before)?),
            Action::Forget => drop(world.checkpoints.remove(0)),
            Action::Cut => world.cut = self.cut_point(before.checkpoints.last()?),
            Action::Seed(place) => {
                let checkpoint = before.checkpoints[place].clone();
                world.seeded = Some(Seeded { local: checkpoint.clone(), now: checkpoint });
            }
            Action::Apply => self.step(before, &mut world.seeded.as_mut()?.now),
            Action::Save => {
                let seeded = world.seeded.as_mut()?;
                seeded.local = seeded.now.clone();
                if !self.rules.keeps_a {
                    seeded.local.a = seeded.local.s;
                }
            }
            Action::Restart => {
                let seeded = world.seeded.as_mut()?;
                seeded.now = seeded.local.clone();
                world.seeded_leads = false;
                world.restarts += 1;
            }
            Action::Lead(seeded) => world.seeded_leads = seeded,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("replicas at one index are the same", |tier: &Self, world: &World| {
                world.seeded.as_ref().is_none_or(|seeded| {
                    let Checkpoint { s, a, state } = &seeded.now;
                    (tier.rules.waits_for_a && s < a) || *state == State::of(&world.log[..*s])
                })
            }),
            Property::always("what the manifest names is in the bucket", |_, world: &World| {
                world.whole().manifest.iter().all(|segment| world.bucket.contains(segment))
            }),
            Property::always("no record above the log's start is lost", |_, world: &World| {
                let state = world.whole();
                let logged =
                    world.log[..world.cut].iter().filter(|command| **command == Command::Record).count();
                let mut missing = state.log_start..logged as Offset;
                missing.all(|offset| {
                    state.manifest.iter().any(|segment| (segment.base..segment.end).contains(&offset))
                })
            }),
            Property::always("a checkpoint leads to the log that is there", |_, world: &World| {
                world.checkpoints.last().is_none_or(|last| world.cut <= last.s)
            }),
            Property::always("who serves is in order", |tier: &Self, world: &World| {
                world.seeded.as_ref().is_none_or(|seeded| {
                    let Checkpoint { s, a, state } = &seeded.now;
                    let serves = !tier.rules.waits_for_a || s >= a;
                    !serves || (state.log_start <= state.end && state.tiered_end() <= state.end)
                })
            }),
            Property::sometimes("a seeded replica leads and tiers", |_, world: &World| {
                world.seeded_leads && matches!(world.log.last(), Some(Command::Append { .. }))
            }),
            Property::sometimes("a given-up upload is collected", |_, world: &World| {
                matches!(world.log.last(), Some(Command::Reaped { .. }))
            }),
        ]
    }
}

impl Tier {
    fn cut_point(&self, checkpoint: &Checkpoint) -> Index {
        if self.rules.cuts_below_s { checkpoint.s } else { checkpoint.a }
    }

    fn seeded_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let Some(seeded) = &world.seeded else {
            let usable = |place: &usize| world.checkpoints[*place].s >= world.cut;
            actions.extend((0..world.checkpoints.len()).filter(usable).map(Action::Seed));
            return;
        };
        if !world.seeded_leads && seeded.now.s < world.log.len() && seeded.now.s >= world.cut {
            actions.push(Action::Apply);
        }
        if seeded.now != seeded.local {
            actions.push(Action::Save);
        }
        if world.restarts < self.bounds.restarts && seeded.now != seeded.local {
            actions.push(Action::Restart);
        }
        if world.seeded_leads {
            actions.push(Action::Lead(false));
        } else if self.may_lead(world, seeded) {
            actions.push(Action::Lead(true));
        }
    }
}
