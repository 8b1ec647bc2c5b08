//! A coordinator over a log that applies what it is told to, when it is told to.

mod bounds;
mod classic;
mod ends;
mod offsets;
mod repeats;
mod storm;

use std::time::Duration;

use bytes::Bytes;
use varve_common::{Monotonic, TopicId};

use super::*;

/// A coordinator, its log, and the time.
struct World {
    coordinator: Coordinator,
    groups: Groups,
    now: Now,
    tickets: u64,
    answers: BTreeMap<Ticket, Outcome>,
    /// Batches that are written and not applied.
    unapplied: Vec<Append>,
    /// Whether what is written is applied at once.
    applies: bool,
    log: Vec<Bytes>,
}

fn options() -> Options {
    Options { initial_delay: Duration::from_secs(3), ..Options::default() }
}

impl World {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: Options) -> Self {
        let now = Now { monotonic: Monotonic(Duration::ZERO), wall_ms: 1_000_000 };
        let groups = Groups::default();
        Self {
            coordinator: Coordinator::load(options, now, &groups),
            groups,
            now,
            tickets: 0,
            answers: BTreeMap::new(),
            unapplied: Vec::new(),
            applies: true,
            log: Vec::new(),
        }
    }

    fn ask(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.coordinator.request(self.now, ticket, request, &self.groups);
        self.settle();
        ticket
    }

    /// What is written is applied, and answered.
    fn settle(&mut self) {
        loop {
            let appends = self.coordinator.take_appends();
            let done = appends.is_empty();
            self.unapplied.extend(appends);
            if self.applies {
                self.apply();
            }
            for (ticket, outcome) in self.coordinator.take_replies() {
                assert!(self.answers.insert(ticket, outcome).is_none(), "{ticket:?} was answered twice");
            }
            if done {
                return;
            }
        }
    }

    fn apply(&mut self) {
        for append in std::mem::take(&mut self.unapplied) {
            self.groups.apply(&append.batch);
            self.log.push(append.batch);
            self.coordinator.written(self.now, append.write, Ok(()), &self.groups);
        }
    }

    /// The log takes none of what is written: it is full, or its leadership goes to another.
    fn refuse(&mut self, error: &GroupError) {
        for append in std::mem::take(&mut self.unapplied) {
            self.coordinator.written(self.now, append.write, Err(error.clone()), &self.groups);
        }
        self.settle();
    }

    /// Commits of nobody's: one request, offset 1 in each partition.
    fn commit_many(&mut self, group: &str, partitions: std::ops::Range<i32>) -> Outcome {
        let ticket = self.ask(Request::Commit(Commit {
            group: group.into(),
            member: MemberRef::default(),
            generation: -1,
            retention_ms: None,
            partitions: partitions.map(|partition| place("t", partition, 1)).collect(),
        }));
        self.answer(ticket)
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now.monotonic.plus(span);
        while self.now.monotonic < end {
            let next = self.coordinator.next_due().max(self.now.monotonic).min(end);
            let step = next.since(self.now.monotonic).max(Duration::from_millis(1));
            self.now.monotonic = self.now.monotonic.plus(step).min(end);
            self.now.wall_ms += step.as_millis() as i64;
            self.coordinator.tick(self.now, &self.groups);
            self.settle();
        }
    }

    fn answer(&mut self, ticket: Ticket) -> Outcome {
        self.answers.remove(&ticket).unwrap_or_else(|| panic!("{ticket:?} waits"))
    }

    fn waits(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    /// The leader goes and another takes over what is applied.
    fn fail_over(&mut self) {
        let fresh = Coordinator::load(self.coordinator.options.clone(), self.now, &self.groups);
        let ended = std::mem::replace(&mut self.coordinator, fresh);
        for ticket in ended.end() {
            assert!(self.answers.insert(ticket, Err(GroupError::NotCoordinator)).is_none());
        }
        self.unapplied.clear();
    }

    fn join(&mut self, id: &str) -> Ticket {
        self.ask(Request::Join(join(id)))
    }

    /// A member with an id, in a group of its own making: the generation that follows.
    fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.answer(ticket) {
            Ok(Answer::Joined(joined)) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, id: &str, generation: i32, given: &[(&str, &'static [u8])]) -> Ticket {
        let given = given.iter().map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes)));
        self.ask(Request::Sync(Sync {
            group: "g".into(),
            member: MemberRef::dynamic(id),
            generation,
            protocol_type: None,
            protocol: None,
            assignments: given.collect(),
        }))
    }

    fn assignment(&mut self, ticket: Ticket) -> Bytes {
        match self.answer(ticket) {
            Ok(Answer::Synced(synced)) => synced.assignment,
            other => panic!("{other:?}"),
        }
    }

    fn beat(&mut self, id: &str, generation: i32) -> Outcome {
        let member = MemberRef::dynamic(id);
        let ticket = self.ask(Request::Heartbeat(Heartbeat { group: "g".into(), member, generation }));
        self.answer(ticket)
    }

    fn leave(&mut self, id: &str) -> Result<(), GroupError> {
        let members = vec![MemberRef::dynamic(id)];
        let ticket = self.ask(Request::Leave(Leave { group: "g".into(), members }));
        match self.answer(ticket) {
            Ok(Answer::Left(mut left)) => left.remove(0).outcome,
            other => panic!("{other:?}"),
        }
    }

    fn commit_as(&mut self, id: &str, generation: i32, offset: i64) -> Ticket {
        self.ask(Request::Commit(Commit {
            group: "g".into(),
            member: MemberRef::dynamic(id),
            generation,
            retention_ms: None,
            partitions: vec![place("t", 0, offset)],
        }))
    }

    fn committed(&self) -> Option<i64> {
        Some(self.groups.get("g")?.offset("t", 0)?.value.offset)
    }

    /// Ids of as many members, who are stable in one generation.
    fn stable(&mut self, count: usize) -> (Vec<String>, i32) {
        let tickets: Vec<Ticket> = (0..count).map(|_| self.join("")).collect();
        self.pass(Duration::from_secs(7));
        let joined: Vec<Joined> = tickets.into_iter().map(|ticket| self.joined(ticket)).collect();
        let generation = joined[0].generation;
        let leader = joined[0].leader.clone();
        let ids: Vec<String> = joined.into_iter().map(|joined| joined.member_id).collect();
        let syncs: Vec<Ticket> = ids.iter().map(|id| self.sync(id, generation, &[])).collect();
        assert!(ids.contains(&leader));
        syncs.into_iter().for_each(|sync| drop(self.assignment(sync)));
        (ids, generation)
    }

    fn state(&mut self) -> State {
        match self.describe() {
            Ok(Answer::Described(described)) => described.state,
            other => panic!("{other:?}"),
        }
    }

    fn describe(&mut self) -> Outcome {
        let ticket = self.ask(Request::Describe { group: "g".into() });
        self.answer(ticket)
    }
}

fn place(topic: &str, partition: i32, offset: i64) -> CommitPartition {
    CommitPartition {
        topic: topic.into(),
        topic_id: TopicId::from_random(1),
        partition,
        offset,
        leader_epoch: 2,
        metadata: "note".into(),
    }
}

/// A consumer's subscription, as Java writes it.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    bytes.into()
}

fn join(id: &str) -> Join {
    static DRAWS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    Join {
        group: "g".into(),
        member: MemberRef::dynamic(id),
        draw: DRAWS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_ms: 10_000,
        rebalance_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        id_required: false,
        may_skip: true,
    }
}
