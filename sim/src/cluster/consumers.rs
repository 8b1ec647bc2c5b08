//! Members of groups of consumers, as clients run them: they join, sync, beat, commit, fetch, fall silent, give up and leave,
//! and go to whoever coordinates now. What they are told is held against the committed records of `__consumer_offsets`
//! ([`super::offsets`]):
//! - G1: an answered commit is committed, and a fetch that begins later gets it or a later one.
//! - G2: what a fetch gets was committed there ([`OffsetLog::advance`] says by whom).
//! - G3: what a member is told to own is what the log says of that generation, and in a generation no partition has two owners.
//! - G5: once everything is well all members are in, and all partitions are owned.

mod checks;

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::RngExt;
use varve_common::{GroupId, LogIndex, NodeId, TopicId};
use varve_replica::{
    Input, PeerInput, Reply, Ticket,
    coordinator::{
        Answer, Commit, CommitPartition, GroupError, Heartbeat, Join, Joined, Leave, MemberRef, Request, Sync,
    },
};

use super::{
    offsets::{Issued, OffsetLog, Place},
    run::{Outcome, Setup, watch},
    world::World,
};
use crate::{
    trace::Trace,
    violation::{Checked, violation},
};

/// Partitions that each group reads.
const PARTITIONS: u8 = 4;
/// Members of each group.
const MEMBERS: usize = 3;
/// Groups with members.
const GROUPS: [&str; 2] = ["g0", "g1"];
/// The group without: somebody commits for it, and deletes it.
const ALONE: &str = "alone";
/// Their tickets are none of the producers'.
const FIRST_TICKET: u64 = 1 << 40;
/// Steps of a run.
const STEPS: usize = 4_000;
/// Rounds in which members that are well come to rest: two sessions and a rebalance.
const PATIENCE: usize = 300;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stands {
    #[default]
    Out,
    Joined,
    In,
}

#[derive(Debug, Default)]
struct Member {
    group: String,
    id: String,
    generation: i32,
    stands: Stands,
    /// What it gives to whom, where it leads.
    gives: Vec<(String, Bytes)>,
    owns: Vec<u8>,
    sleeps: bool,
    busy: Option<Ticket>,
}

/// A request under way.
#[derive(Clone, Debug)]
enum Asked {
    Join,
    Sync,
    Beat,
    Commit(Vec<(Place, i64)>),
    Fetch(BTreeMap<Place, LogIndex>),
    Leave,
    Delete,
}

/// A fetch that waits for a quorum to say that its node leads.
pub struct Confirming {
    who: usize,
    floors: BTreeMap<Place, LogIndex>,
}

/// All members, and what they know.
#[derive(Default)]
pub struct Consumers {
    members: Vec<Member>,
    waiting: BTreeMap<Ticket, (usize, Asked)>,
    confirming: BTreeMap<(NodeId, u64), Confirming>,
    log: OffsetLog,
    /// The last that was acknowledged of each place.
    floors: BTreeMap<Place, LogIndex>,
    owners: BTreeMap<(String, i32, u8), String>,
    tickets: u64,
    offsets: i64,
    /// They do nothing but what brings them to rest.
    calm: bool,
}

impl Consumers {
    /// Members of two groups, and one who commits for a group without.
    fn some() -> Self {
        let named = |group: &str| Member { group: group.into(), ..Member::default() };
        let members = GROUPS.iter().flat_map(|group| (0..MEMBERS).map(|_| named(group)));
        Self { members: members.chain([named(ALONE), named(ALONE)]).collect(), ..Self::default() }
    }

    pub(super) fn waits_for(&self, ticket: Ticket) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// What waited for a node's word gets none.
    pub(super) fn node_ended(&mut self, id: NodeId) {
        self.confirming.retain(|(node, _), _| *node != id);
    }

    pub(super) fn confirmed(&mut self, id: NodeId, ticket: u64) -> Option<Confirming> {
        self.confirming.remove(&(id, ticket))
    }

    fn ticket(&mut self, who: usize, asked: Asked) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(FIRST_TICKET + self.tickets);
        self.members[who].busy = Some(ticket);
        self.waiting.insert(ticket, (who, asked));
        ticket
    }

    /// The floors of a group: what a fetch that begins now must not fall behind.
    fn floors(&self, group: &str) -> BTreeMap<Place, LogIndex> {
        let places = (0..PARTITIONS).map(|partition| (group.to_owned(), i32::from(partition)));
        places
            .map(|place| (self.floors.get(&place).copied().unwrap_or_default(), place))
            .map(|(a, b)| (b, a))
            .collect()
    }

    fn join(&mut self, who: usize, draw: u128) -> (Asked, Request) {
        let member = &self.members[who];
        let join = Join {
            group: member.group.clone(),
            member: MemberRef::dynamic(&member.id),
            draw,
            client_id: format!("c{who}"),
            client_host: "/sim".into(),
            session_ms: 3_000,
            rebalance_ms: 2_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff"))],
            id_required: who.is_multiple_of(2),
            may_skip: true,
        };
        (Asked::Join, Request::Join(join))
    }

    fn sync(&mut self, who: usize) -> (Asked, Request) {
        let member = &self.members[who];
        let sync = Sync {
            group: member.group.clone(),
            member: MemberRef::dynamic(&member.id),
            generation: member.generation,
            protocol_type: None,
            protocol: None,
            assignments: member.gives.clone(),
        };
        (Asked::Sync, Request::Sync(sync))
    }

    fn beat(&self, who: usize) -> (Asked, Request) {
        let Member { group, id, generation, .. } = &self.members[who];
        let (group, member, generation) = (group.clone(), MemberRef::dynamic(id), *generation);
        (Asked::Beat, Request::Heartbeat(Heartbeat { group, member, generation }))
    }

    fn commit(&mut self, who: usize, partition: u8) -> (Asked, Request) {
        self.offsets += 1;
        let (offset, partition) = (self.offsets, i32::from(partition));
        let Member { group, id, generation, .. } = &self.members[who];
        let generation = if group == ALONE { -1 } else { *generation };
        let place = (group.clone(), partition);
        self.log.issued.insert(offset, Issued { place: place.clone(), generation });
        let at = CommitPartition {
            topic: "t".into(),
            topic_id: TopicId::from_random(1),
            partition,
            offset,
            leader_epoch: 1,
            metadata: String::new(),
        };
        let (group, member) = (group.clone(), MemberRef::dynamic(id));
        let commit = Commit { group, member, generation, retention_ms: None, partitions: vec![at] };
        (Asked::Commit(vec![(place, offset)]), Request::Commit(commit))
    }

    fn leave(&self, who: usize) -> (Asked, Request) {
        let Member { group, id, .. } = &self.members[who];
        (Asked::Leave, Request::Leave(Leave { group: group.clone(), members: vec![MemberRef::dynamic(id)] }))
    }
}

/// Who leads shares the partitions out.
fn share(joined: &Joined) -> Vec<(String, Bytes)> {
    let count = joined.members.len().max(1);
    let of = |place: usize| (0..PARTITIONS).filter(|p| usize::from(*p) % count == place).collect::<Vec<u8>>();
    let members = joined.members.iter().enumerate();
    members.map(|(place, member)| (member.member.id.clone(), of(place).into())).collect()
}

/// Runs a seed with three nodes and members of groups.
#[must_use]
pub fn run_consumers(seed: u64, setup: Setup, trace: Trace) -> Outcome {
    super::bugs::Bug::plant(setup.bug);
    let mut world = World::new(seed, 3, trace);
    if seed.is_multiple_of(4) {
        world = world.keeping_logs();
    } else if seed % 4 == 1 {
        world = world.streaming(true);
    }
    world.bug = setup.bug;
    world.consumers = Consumers::some();
    let outcome = watch(seed, world, World::run_consumers);
    super::bugs::Bug::plant(None);
    outcome
}

impl World {
    fn run_consumers(&mut self) -> Checked {
        for id in self.ids() {
            self.start(id)?;
        }
        self.elect()?;
        self.found_groups()?;
        for _ in 0..STEPS {
            self.step()?;
            self.bury()?;
            if self.random.random_range(0..5) < 2 {
                self.consume()?;
            }
        }
        self.make_peace()?;
        self.settle_groups()
    }

    /// Makes the topic that groups are kept in, and members if there are none.
    pub fn found_groups(&mut self) -> Checked {
        if self.consumers.members.is_empty() {
            self.consumers = Consumers::some();
        }
        let topic = self.clients.create_offsets(&mut self.random);
        self.operate(topic)?;
        self.settle()?;
        self.until("groups can be kept", |world| !world.clients.internal.is_empty())?;
        self.elect()
    }

    /// The partition that groups are kept in.
    #[must_use]
    pub fn offsets_partition(&self) -> Option<GroupId> {
        self.clients.internal.first().copied()
    }

    /// Some member does what it does next.
    pub fn consume(&mut self) -> Checked {
        let who = self.random.random_range(0..self.consumers.members.len());
        self.consume_as(who)
    }

    fn consume_as(&mut self, who: usize) -> Checked {
        let (roll, draw) = (self.random.random_range(0..100), self.random.random());
        let consumers = &mut self.consumers;
        let calm = consumers.calm;
        let member = &mut consumers.members[who];
        if calm {
            member.sleeps = false;
        } else if roll < 2 {
            member.sleeps = !member.sleeps;
        }
        if member.sleeps {
            return Ok(());
        }
        if member.busy.is_some() {
            // Sometimes a client gives a request up, and asks anew.
            if !calm && roll < 5 {
                (member.busy, member.stands) = (None, Stands::Out);
            }
            return Ok(());
        }
        if member.group == ALONE {
            return match roll {
                _ if calm => self.fetch_as(who),
                2..50 => {
                    let asked = self.consumers.commit(who, (roll % 4) as u8);
                    self.send(who, asked)
                }
                50..54 => {
                    let delete = Request::Delete { group: ALONE.into() };
                    self.send(who, (Asked::Delete, delete))
                }
                _ => self.fetch_as(who),
            };
        }
        let asked = match member.stands {
            // What it has read it commits, late: whoever joins again was in another generation.
            Stands::Out if !calm && roll < 20 && !member.id.is_empty() && !member.owns.is_empty() => {
                let partition = member.owns[roll % member.owns.len()];
                consumers.commit(who, partition)
            }
            Stands::Out => consumers.join(who, draw),
            Stands::Joined => consumers.sync(who),
            Stands::In if calm || roll < 30 => consumers.beat(who),
            Stands::In if roll < 33 => consumers.leave(who),
            Stands::In if roll < 60 && !member.owns.is_empty() => {
                let partition = member.owns[roll % member.owns.len()];
                consumers.commit(who, partition)
            }
            Stands::In => return self.fetch_as(who),
        };
        self.send(who, asked)
    }

    fn send(&mut self, who: usize, (asked, request): (Asked, Request)) -> Checked {
        let Some(group) = self.offsets_partition() else { return Ok(()) };
        let Some(to) = self.somebody(group) else { return Ok(()) };
        self.send_to(who, to, asked, request)
    }

    fn send_to(&mut self, who: usize, to: NodeId, asked: Asked, request: Request) -> Checked {
        let Some(group) = self.offsets_partition() else { return Ok(()) };
        let ticket = self.consumers.ticket(who, asked);
        self.trace.note(format_args!("{ticket:?} of member {who} to {to}: {request:?}"));
        self.asked.insert(ticket, to);
        self.turn(to, Input::Coordinate { ticket, group, request: Box::new(request) })
    }

    /// As the broker does: a quorum first says that the node leads.
    fn fetch_as(&mut self, who: usize) -> Checked {
        let Some(group) = self.offsets_partition() else { return Ok(()) };
        let Some(to) = self.somebody(group) else { return Ok(()) };
        self.fetch_at(who, to)
    }

    /// A member asks this node what its group has committed.
    pub fn fetch_at(&mut self, who: usize, to: NodeId) -> Checked {
        let Some(group) = self.offsets_partition() else { return Ok(()) };
        let name = self.consumers.members[who].group.clone();
        self.counts.asked += 1;
        let ticket = self.counts.asked;
        let floors = self.consumers.floors(&name);
        self.consumers.confirming.insert((to, ticket), Confirming { who, floors });
        self.turn(to, PeerInput::Read { ticket, group })
    }

    pub(super) fn fetch_offsets(&mut self, id: NodeId, asked: Confirming, confirmed: bool) -> Checked {
        if !confirmed {
            return Ok(());
        }
        self.counts.confirmed += 1;
        let Confirming { who, floors } = asked;
        let group = self.consumers.members[who].group.clone();
        let busy = self.consumers.members[who].busy;
        self.send_to(who, id, Asked::Fetch(floors), Request::Fetch { group })?;
        if busy.is_some() {
            // Something else was begun meanwhile: that goes on.
            self.consumers.members[who].busy = busy;
        }
        Ok(())
    }

    pub(super) fn consumer_answered(&mut self, ticket: Ticket, reply: &Reply) -> Checked {
        let Some((who, asked)) = self.consumers.waiting.remove(&ticket) else { return Ok(()) };
        if let Some(model) = self.offsets_partition().and_then(|group| self.truth.committed.0.get(&group)) {
            self.consumers.log.advance(model)?;
        }
        let consumers = &mut self.consumers;
        let is_heard = consumers.members[who].busy == Some(ticket);
        if is_heard {
            consumers.members[who].busy = None;
        }
        let outcome = match reply {
            Reply::Group(outcome) => Some(outcome.as_ref()),
            _ => None,
        };
        match (asked, outcome) {
            (Asked::Commit(offsets), Some(Ok(Answer::Committed(outcomes)))) => {
                for ((place, offset), outcome) in offsets.into_iter().zip(outcomes) {
                    if outcome.is_ok() {
                        consumers.committed(place, offset)?;
                        self.counts.offsets.0 += 1;
                    }
                }
                Ok(())
            }
            (Asked::Fetch(floors), Some(Ok(Answer::Offsets(stored)))) => {
                self.counts.offsets.1 += 1;
                let of = |place: &Place| Some(stored.as_ref()?.offset("t", place.1)?.value.offset);
                floors.into_iter().try_for_each(|(place, floor)| {
                    let told = of(&place);
                    consumers.fetched(&place, told, floor)
                })
            }
            (Asked::Delete, Some(Ok(_))) => {
                consumers.deleted();
                Ok(())
            }
            _ if !is_heard => Ok(()),
            (Asked::Join, Some(Ok(Answer::Joined(joined)))) => {
                let gives = if joined.leader == joined.member_id { share(joined) } else { Vec::new() };
                let member = &mut consumers.members[who];
                (member.id, member.generation) = (joined.member_id.clone(), joined.generation);
                (member.gives, member.stands) = (gives, Stands::Joined);
                Ok(())
            }
            (Asked::Sync, Some(Ok(Answer::Synced(synced)))) => {
                self.counts.offsets.2 += 1;
                consumers.assigned(who, &synced.assignment)
            }
            (Asked::Leave, _) => {
                let member = &mut consumers.members[who];
                (member.stands, member.id) = (Stands::Out, String::new());
                Ok(())
            }
            (_, Some(Err(error))) => {
                consumers.refused(who, error);
                Ok(())
            }
            // Nobody knows what came of it, or all is well.
            (Asked::Join | Asked::Sync, _) => {
                consumers.members[who].stands = Stands::Out;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// G5, and G1 once more for every place.
    pub fn settle_groups(&mut self) -> Checked {
        self.consumers.calm = true;
        for _ in 0..PATIENCE {
            for who in 0..self.consumers.members.len() {
                self.consume_as(who)?;
            }
            self.round()?;
            if self.consumers.is_settled() {
                break;
            }
        }
        if !self.consumers.is_settled() {
            let members = format!("{:?}", self.consumers.members);
            return Err(violation("G5", format!("the groups do not come to rest: {members}")));
        }
        for who in 0..self.consumers.members.len() {
            self.fetch_as(who)?;
            self.round()?;
        }
        self.consumers.check_ends()
    }
}

impl Consumers {
    fn refused(&mut self, who: usize, error: &GroupError) {
        let member = &mut self.members[who];
        match error {
            GroupError::MemberIdRequired { id } => (member.id, member.stands) = (id.clone(), Stands::Out),
            GroupError::UnknownMember => (member.id, member.stands) = (String::new(), Stands::Out),
            GroupError::NotCoordinator | GroupError::Loading | GroupError::NotAvailable
                if member.stands == Stands::In => {}
            _ => member.stands = Stands::Out,
        }
    }
}
