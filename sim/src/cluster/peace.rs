//! How everything comes together: rounds of ticks in which all happens that can, and the peace at the end of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::RngExt;
use varve_broker::driver::Event;
use varve_common::{Clock, Digest, GroupId, LogIndex, NodeId, Offset, ReplicaId};
use varve_objects::limits::ATTEMPT_TIMEOUT;
use varve_replica::ReplicaStatus;

use super::{truth::Truth, world::World};
use crate::{
    bucket::{Depth, Objects, Scan},
    violation::{Checked, violation},
};

/// A tick of production's.
pub const TICK: Duration = Duration::from_millis(100);
/// In how many rounds a healthy cluster must have come to what is asked of it.
const PATIENCE: usize = 600;
/// The same of what asks the store: a request of the bad times that is never answered is given up after so long, and asked again.
const PATIENCE_WITH_STORE: usize = PATIENCE + (ATTEMPT_TIMEOUT.as_millis() / TICK.as_millis()) as usize;
/// Rounds in which who was just started opens what it has.
const WAKING: usize = 20;

impl World {
    /// Time goes on by one tick, for all that run.
    pub fn tick(&mut self) -> Checked {
        let until = self.clock.monotonic().plus(TICK);
        while let Some(timer) = self.clock.next_timer().filter(|timer| *timer < until) {
            self.clock.advance(timer);
        }
        self.clock.advance(until);
        for id in self.ids() {
            let machine = self.machine(id);
            if machine.stalled > 0 {
                machine.stalled -= 1;
                machine.missed += 1;
                continue;
            }
            let late_by = std::mem::take(&mut machine.missed);
            self.turn(id, Event::Tick { late_by })?;
        }
        Ok(())
    }

    /// Everything that can happen without time passing happens.
    pub fn settle(&mut self) -> Checked {
        for _ in 0..20_000 {
            let mut happened = false;
            while let Some(arrival) = self.network.oldest() {
                self.arrive(arrival)?;
                happened = true;
            }
            for id in self.ids() {
                let Some(node) = &self.machines[&id].node else { continue };
                let stands = self.machines[&id].stands;
                if stands {
                    self.append(id, usize::MAX)?;
                } else if !node.log_is_quiet() && !node.failed {
                    self.append(id, usize::MAX)?;
                    self.sync(id)?;
                    let node = self.machines[&id].node.as_ref();
                    happened |= !node.is_some_and(crate::node::Node::is_parked);
                }
                happened |= self.work(id)?;
            }
            if !happened {
                return Ok(());
            }
        }
        Err(violation("L", format!("the cluster never comes to rest: {}", self.describe())))
    }

    /// A tick, and all that follows from it.
    pub fn round(&mut self) -> Checked {
        self.tick()?;
        self.settle()?;
        for id in self.ids() {
            let machine = self.machine(id);
            if let Some(node) = &mut machine.node {
                node.maintain();
                node.press();
            }
            self.absorb(id)?;
        }
        self.compare()
    }

    /// R9 on every node.
    pub fn compare(&mut self) -> Checked {
        let Self { machines, truth, .. } = self;
        machines.values().try_for_each(|machine| truth.compare(machine))
    }

    /// Rounds until something holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Checked {
        self.within(PATIENCE, what, holds)
    }

    fn within(&mut self, rounds: usize, what: &str, holds: impl Fn(&Self) -> bool) -> Checked {
        for _ in 0..rounds {
            if holds(self) {
                return Ok(());
            }
            self.round()?;
        }
        Err(violation("L", format!("not in {rounds} ticks: {what}; {}", self.describe())))
    }

    /// Rounds until every partition has a leader.
    pub fn elect(&mut self) -> Checked {
        self.until("every group has a leader", |world| {
            world.leader(GroupId::METADATA).is_some_and(|leader| {
                let image = world.machines[&leader].image.clone();
                image.is_some_and(|image| image.groups.keys().all(|group| world.leader(*group).is_some()))
            })
        })
    }

    /// Whether all running nodes have applied the same, and nobody waits.
    #[must_use]
    pub fn is_together(&self) -> bool {
        let mut states: BTreeMap<GroupId, Vec<Option<(LogIndex, Digest)>>> = BTreeMap::new();
        let running: Vec<_> = self.machines.values().filter_map(|machine| machine.node.as_ref()).collect();
        for node in &running {
            for group in node.driver.shard().groups() {
                states.entry(group).or_default().push(node.driver.shard().state_hash(group));
            }
        }
        states.iter().all(|(group, states)| {
            states.len() == self.hosts(*group) && states.windows(2).all(|pair| pair[0] == pair[1])
        }) && self.is_settled()
            && self.clients.is_content(&Default::default())
    }

    /// How the replicas stand, for a run that goes nowhere.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut lines = Vec::new();
        for machine in self.machines.values() {
            let Some(node) = &machine.node else {
                lines.push(format!("{} is down", machine.id));
                continue;
            };
            lines.push(format!(
                "{}: dead {}, quiet {}, {} tasks, {} readers, log {} of {} bytes, parked {}, pressed {:?}",
                machine.id,
                machine.disk.is_dead(),
                node.log_is_quiet(),
                node.executor.len(),
                node.reading,
                node.reader.bytes(),
                self.plan.wal_bytes_max,
                node.is_parked(),
                node.driver.pressure(),
            ));
            let shard = node.driver.shard();
            for group in shard.groups() {
                let Some(replica) = shard.replica(group) else { continue };
                lines.push(format!("{} {group}: {}", machine.id, stands(&replica)));
            }
        }
        lines.join("\n")
    }

    /// Everything heals: all come together, nothing is lost, and every replica serves all that it shows.
    pub fn make_peace(&mut self) -> Checked {
        self.network.cut.clear();
        self.clients.quiet = true;
        self.remote.1.set_rates(crate::jobs::rates(0));
        for id in self.ids() {
            self.machine(id).stalled = 0;
            self.machine(id).stands = false;
            self.machine(id).disk.resize(crate::faults::DISK_BYTES);
            let failed = self.machines[&id].node.as_ref().is_some_and(|node| node.failed);
            if failed || self.machines[&id].disk.is_dead() {
                self.crash(id, false)?;
            }
            self.machine(id).disk.forget_faults();
        }
        self.go_on_with_two()?;
        self.start_all_but(None)?;
        self.elect()?;
        for _ in 0..PATIENCE_WITH_STORE {
            (0..20).try_for_each(|_| self.ask().map(|_| ()))?;
            self.round()?;
            if self.is_together() {
                break;
            }
        }
        if !self.is_together() {
            return Err(violation("L", format!("never together: {}", self.describe())));
        }
        let unchecked = self.clients.deleted.union(&self.clients.internal).copied().collect();
        self.truth.check_logs(&self.clients.history, &unchecked)?;
        self.scan()?;
        for id in self.ids() {
            let groups: Vec<_> = self.machines[&id].views.keys().copied().collect();
            groups.into_iter().for_each(|group| self.read(id, group, Offset::ZERO));
        }
        self.within(PATIENCE_WITH_STORE, "every reader ends", |world| world.reading == 0)?;
        self.counts.leaders = self.truth.leaders();
        Ok(())
    }

    fn start_all_but(&mut self, absent: Option<NodeId>) -> Checked {
        for id in self.ids() {
            if self.machines[&id].node.is_none() && Some(id) != absent {
                self.start(id)?;
            }
        }
        Ok(())
    }

    /// L: any two of three lead what both have of it, however far one of them lags.
    fn go_on_with_two(&mut self) -> Checked {
        let ids = self.ids();
        if ids.len() != 3 {
            return Ok(());
        }
        let absent = ids[self.random.random_range(0..ids.len())];
        if self.machines[&absent].node.is_some() {
            self.crash(absent, false)?;
        }
        self.start_all_but(Some(absent))?;
        (0..WAKING).try_for_each(|_| self.round())?;
        let what = format!("two lead all that both vote in, without {absent}");
        self.within(PATIENCE_WITH_STORE, &what, |world| {
            world.groups().into_iter().all(|group| !world.is_of_two(group) || world.leader(group).is_some())
        })
    }

    /// All that anybody has who runs.
    fn groups(&self) -> BTreeSet<GroupId> {
        let running = self.machines.values().filter_map(|machine| machine.node.as_ref());
        running.flat_map(|node| node.driver.shard().groups()).collect()
    }

    /// Whether two who run vote in a group of three.
    fn is_of_two(&self, group: GroupId) -> bool {
        let running = self.machines.values().filter_map(|machine| machine.node.as_ref());
        let replicas = running.filter_map(|node| node.driver.shard().replica(group));
        let voting: Vec<_> = replicas
            .filter(|replica| !replica.stopped && replica.membership.votes(replica.replica))
            .collect();
        let of_three = |replica: &ReplicaStatus| {
            replica.membership.voters.len() == 3
                && !replica.membership.is_joint()
                && voting.iter().all(|other| replica.membership.votes(other.replica))
        };
        voting.len() == 2 && voting.iter().all(of_three)
    }

    /// B1, B2, B5, B6, S1-S3: what is named is in the bucket, and a replica that begins with a checkpoint becomes like the others.
    fn scan(&mut self) -> Checked {
        let objects: Objects = self.remote.0.objects().into_iter().collect();
        let Truth { committed, shadow, .. } = &mut self.truth;
        let lives = |group: &&GroupId| **group != GroupId::METADATA && !self.clients.deleted.contains(group);
        for group in committed.0.keys().filter(lives) {
            let Some(state) = shadow.partition(committed, *group)? else { continue };
            let model = &committed.0[group];
            Scan { group: *group, state, model, objects: &objects, depth: Depth::Replay }.check()?;
        }
        Ok(())
    }
}

/// How one replica stands, in a line.
fn stands(replica: &ReplicaStatus) -> String {
    let ReplicaStatus { role, term, leader, commit, applied, last, truncated, .. } = replica;
    let leader = leader.map(ReplicaId::node);
    let in_sync: Vec<_> = replica.in_sync.iter().map(|member| member.node().get()).collect();
    format!(
        "{role:?} of {leader:?} in {term}, log {}..={last}, commit {commit}, applied {applied}, in sync {in_sync:?}, resting {}, \
         stopped {}",
        truncated.0, replica.resting, replica.stopped
    )
}
