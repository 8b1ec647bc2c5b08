//! Three seeds, their disks and a bucket: killed at each step, wiped, slow. Never a second cluster.

use std::collections::BTreeSet;

use varve_common::{ClusterId, NodeId};

use super::simulation::Dice;
use crate::formation::{
    Answer, Formation, FormationEffect, FormationInput, FormationRecord, Founder, Probe, Refused, SeedSet,
    Waiting,
};

const SEEDS: [&str; 3] = ["a:9093", "b:9093", "c:9093"];

fn node(seed: usize) -> NodeId {
    NodeId::new(seed as u32 + 1).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Started(ClusterId),
    Joined(ClusterId),
    Refused(Refused),
}

#[derive(Default)]
struct Seed {
    process: Option<Formation>,
    record: FormationRecord,
    writing: Option<FormationRecord>,
    outcome: Option<Outcome>,
}

enum Frame {
    Ask { from: usize, process: u64, to: usize, probe: Probe },
    Answer { to: usize, process: u64, seed: usize, answer: Answer },
    Written(usize, u64),
    Bucket(usize, u64, FormationInput),
}

struct Cluster {
    /// Where seeds are asked, and who they are.
    names: [&'static str; 3],
    nodes: [NodeId; 3],
    seeds: Vec<Seed>,
    sets: Vec<SeedSet>,
    frames: Vec<Frame>,
    claim: Option<ClusterId>,
    with_bucket: bool,
    /// Seeds are named by a directory, which has none at a start.
    with_directory: bool,
    /// Whether those that start now may begin a cluster.
    founds: bool,
    drawn: u64,
    /// Every start of group 0: cluster, node, the disk's number.
    starts: BTreeSet<(ClusterId, NodeId, u64)>,
    /// How many steps of each kind were taken, for those that kill at each.
    steps: usize,
    kill_at: Option<usize>,
}

impl Cluster {
    fn new(with_bucket: bool) -> Self {
        let set: SeedSet = SEEDS.map(str::to_owned).into();
        Self {
            names: SEEDS,
            nodes: [0, 1, 2].map(node),
            seeds: (0..3).map(|_| Seed::default()).collect(),
            sets: vec![set; 3],
            frames: Vec::new(),
            claim: None,
            with_bucket,
            with_directory: false,
            founds: true,
            drawn: 0,
            starts: BTreeSet::new(),
            steps: 0,
            kill_at: None,
        }
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn start(&mut self, seed: usize) {
        let (process, disk) = (self.draw(), self.draw());
        let cluster = ClusterId::from_random(u128::from(self.draw()));
        let count = self.with_directory.then_some(3);
        let seeds = if self.with_directory { SeedSet::new() } else { self.sets[seed].clone() };
        let (node, claims) = (self.nodes[seed], self.with_bucket);
        let founder = Founder { node, seeds, count, process, disk, cluster, claims, founds: self.founds };
        // What is durable is what a start finds, as bytes.
        let record = FormationRecord::decode(self.seeds[seed].record.encode()).unwrap();
        let (formation, effects) = Formation::new(founder, record);
        self.seeds[seed].process = Some(formation);
        self.seeds[seed].outcome = None;
        self.act(seed, process, effects);
    }

    /// The directory, where there is one, names these seeds.
    fn name(&mut self, seed: usize, seeds: SeedSet) {
        if let Some(process) = self.process(seed).filter(|_| self.with_directory) {
            self.step(seed, process, FormationInput::Seeds(seeds));
        }
    }

    fn kill(&mut self, seed: usize) {
        self.seeds[seed].process = None;
        self.seeds[seed].writing = None;
    }

    fn wipe(&mut self, seed: usize) {
        self.kill(seed);
        self.seeds[seed].record = FormationRecord::Empty;
    }

    fn process(&self, seed: usize) -> Option<u64> {
        // A process is named by its questions.
        self.seeds[seed].process.as_ref().map(Formation::process)
    }

    fn act(&mut self, seed: usize, process: u64, effects: Vec<FormationEffect>) {
        for effect in effects {
            self.steps += 1;
            if self.kill_at == Some(self.steps) {
                self.kill_at = None;
                return self.kill(seed);
            }
            match effect {
                FormationEffect::Ask { seed: name, probe } => {
                    let to = self.names.iter().position(|known| *known == name).unwrap_or(seed);
                    self.frames.push(Frame::Ask { from: seed, process, to, probe });
                }
                FormationEffect::Write(record) => {
                    self.seeds[seed].writing = Some(record);
                    self.frames.push(Frame::Written(seed, process));
                }
                FormationEffect::LookAtClaim => {
                    let found = FormationInput::ClaimFound(self.claim);
                    self.frames.push(Frame::Bucket(seed, process, found));
                }
                FormationEffect::Claim(cluster) => {
                    let owner = *self.claim.get_or_insert(cluster);
                    let claimed = if owner == cluster { Ok(()) } else { Err(Some(owner)) };
                    self.frames.push(Frame::Bucket(seed, process, FormationInput::Claimed(claimed)));
                }
                FormationEffect::Start { cluster, voters } => {
                    let FormationRecord::Formed { disk, members, .. } = &self.seeds[seed].record else {
                        panic!("started before the decision is durable")
                    };
                    let named = members.get(&self.nodes[seed]) == Some(disk);
                    assert!(named, "a wiped disk came back as the old voter: {disk} of {members:?}");
                    assert_eq!(voters.len(), 3);
                    self.starts.insert((cluster, self.nodes[seed], *disk));
                    self.seeds[seed].outcome = Some(Outcome::Started(cluster));
                }
                FormationEffect::Join { cluster, .. } => {
                    let durable = matches!(self.seeds[seed].record, FormationRecord::Formed { .. });
                    assert!(durable, "joined before that is durable");
                    self.seeds[seed].outcome = Some(Outcome::Joined(cluster));
                }
                FormationEffect::Refuse(why) => self.seeds[seed].outcome = Some(Outcome::Refused(why)),
            }
        }
    }

    fn step(&mut self, seed: usize, process: u64, input: FormationInput) {
        if self.process(seed) != Some(process) {
            return;
        }
        let mut effects = Vec::new();
        if let Some(formation) = &mut self.seeds[seed].process {
            formation.step(input, &mut effects);
        }
        self.act(seed, process, effects);
    }

    fn deliver(&mut self, frame: Frame) {
        match frame {
            Frame::Ask { from, process, to, probe } => {
                let probe = Probe::decode(probe.encode()).unwrap();
                if let Some(formation) = &self.seeds[to].process {
                    let answer = Answer::decode(formation.answer(&probe).encode()).unwrap();
                    self.frames.push(Frame::Answer { to: from, process, seed: to, answer });
                }
            }
            Frame::Answer { to, process, seed, answer } => {
                let seed = self.names[seed].to_owned();
                self.step(to, process, FormationInput::Answered { seed, answer });
            }
            Frame::Written(seed, process) => {
                if self.process(seed) == Some(process)
                    && let Some(record) = self.seeds[seed].writing.take()
                {
                    self.seeds[seed].record = record;
                    self.steps += 1;
                    if self.kill_at == Some(self.steps) {
                        self.kill_at = None;
                        return self.kill(seed);
                    }
                    self.step(seed, process, FormationInput::Written);
                }
            }
            Frame::Bucket(seed, process, input) => self.step(seed, process, input),
        }
    }

    fn tick(&mut self) {
        for seed in 0..3 {
            if let Some(process) = self.process(seed) {
                self.step(seed, process, FormationInput::Tick);
            }
        }
        for _ in 0..100 {
            let frames = std::mem::take(&mut self.frames);
            if frames.is_empty() {
                return;
            }
            frames.into_iter().for_each(|frame| self.deliver(frame));
        }
    }

    fn ticks(&mut self, count: usize) {
        (0..count).for_each(|_| self.tick());
    }

    /// Whether nothing is lost when this disk is wiped: nobody started, or another disk knows of the cluster.
    fn others_remember(&self, at: usize) -> bool {
        let knows = |seed: usize| self.seeds[seed].record != FormationRecord::Empty;
        self.starts.is_empty() || (0..3).any(|seed| seed != at && knows(seed))
    }

    fn outcomes(&self) -> Vec<Option<Outcome>> {
        self.seeds.iter().map(|seed| seed.outcome.clone()).collect()
    }

    fn clusters(&self) -> BTreeSet<ClusterId> {
        self.starts.iter().map(|(cluster, ..)| *cluster).collect()
    }

    /// One cluster at most, and in it one disk a node: no second cluster, no voter twice.
    fn check(&self) {
        assert!(self.clusters().len() <= 1, "a second cluster: {:?}", self.starts);
        let nodes: BTreeSet<NodeId> = self.starts.iter().map(|(_, node, _)| *node).collect();
        assert_eq!(
            nodes.len(),
            self.starts.len(),
            "a wiped disk came back as the old voter: {:?}",
            self.starts
        );
    }

    /// The lowest node decided and started, the others have promised, and have not heard of it.
    fn decided_alone() -> Self {
        let mut cluster = Self::new(false);
        (0..3).for_each(|seed| cluster.start(seed));
        while cluster.starts.is_empty() {
            cluster.deliver_or_tick();
        }
        let promised = |seed: &Seed| matches!(seed.record, FormationRecord::Promised { .. });
        assert!(cluster.seeds[1..].iter().all(promised));
        cluster.kill(0);
        cluster.frames.clear();
        cluster
    }

    /// The second has promised, and nobody has decided.
    fn promised() -> Self {
        let mut cluster = Self::new(false);
        (0..3).for_each(|seed| cluster.start(seed));
        while !matches!(cluster.seeds[1].record, FormationRecord::Promised { .. }) {
            cluster.deliver_or_tick();
        }
        cluster
    }

    fn deliver_or_tick(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        if frames.is_empty() {
            (0..3).for_each(|seed| {
                let process = self.process(seed).unwrap();
                self.step(seed, process, FormationInput::Tick);
            });
        }
        for frame in frames {
            self.deliver(frame);
        }
    }

    /// Another machine takes the place of the coordinator, which is away.
    fn replace_coordinator(&mut self, name: &'static str) -> Seed {
        self.names[0] = name;
        self.nodes[0] = node(8);
        self.sets = vec![self.names.map(str::to_owned).into(); 3];
        let away = std::mem::take(&mut self.seeds[0]);
        for seed in 0..3 {
            self.kill(seed);
            self.start(seed);
        }
        self.ticks(100);
        away
    }

    fn formed() -> Self {
        let mut cluster = Self::new(false);
        (0..3).for_each(|seed| cluster.start(seed));
        cluster.ticks(30);
        assert_eq!(cluster.starts.len(), 3);
        cluster
    }
}

#[test]
fn empty_seeds_form_one_cluster_in_whatever_order_they_start() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        for with_bucket in [false, true] {
            let mut cluster = Cluster::new(with_bucket);
            for seed in order {
                cluster.start(seed);
                cluster.ticks(40);
            }
            let id = *cluster.clusters().first().unwrap();
            assert_eq!(cluster.outcomes(), vec![Some(Outcome::Started(id)); 3]);
            assert_eq!(cluster.claim.is_some(), with_bucket);
            cluster.check();
        }
    }
}

#[test]
fn formation_killed_at_each_step_goes_on_to_one_cluster() {
    let steps = {
        let mut cluster = Cluster::new(true);
        (0..3).for_each(|seed| cluster.start(seed));
        cluster.ticks(30);
        cluster.steps
    };
    assert!(steps > 20, "{steps}");
    for kill_at in 1..=steps {
        for wiped in [false, true] {
            let mut cluster = Cluster::new(true);
            cluster.kill_at = Some(kill_at);
            (0..3).for_each(|seed| cluster.start(seed));
            let mut killed = None;
            for _ in 0..40 {
                cluster.tick();
                killed = (0..3).find(|seed| cluster.seeds[*seed].process.is_none());
                if killed.is_some() {
                    break;
                }
            }
            let Some(killed) = killed else { continue };
            if wiped {
                cluster.wipe(killed);
            }
            cluster.start(killed);
            cluster.ticks(80);
            cluster.check();
            if !wiped {
                assert_eq!(cluster.starts.len(), 3, "killed at {kill_at}");
            }
        }
    }
}

#[test]
fn two_of_three_wiped_and_the_third_slow_never_found_a_second_cluster() {
    for (slow, name) in SEEDS.into_iter().enumerate() {
        let mut cluster = Cluster::formed();
        let id = *cluster.clusters().first().unwrap();
        cluster.kill(slow);
        let wiped: Vec<usize> = (0..3).filter(|seed| *seed != slow).collect();
        wiped.iter().for_each(|seed| {
            cluster.wipe(*seed);
            cluster.start(*seed);
        });
        cluster.ticks(500);
        for seed in &wiped {
            let waiting = cluster.seeds[*seed].process.as_ref().unwrap().waiting();
            assert_eq!(waiting, Some(&Waiting::Answers(vec![name.to_owned()])));
        }
        cluster.start(slow);
        cluster.ticks(40);
        for seed in 0..3 {
            let expected = if seed == slow { Outcome::Started(id) } else { Outcome::Joined(id) };
            assert_eq!(cluster.seeds[seed].outcome, Some(expected));
        }
        cluster.check();
    }
}

#[test]
fn disks_wiped_one_after_the_other_join_and_remember() {
    let mut cluster = Cluster::formed();
    let id = *cluster.clusters().first().unwrap();
    for seed in [1, 2] {
        cluster.wipe(seed);
        cluster.start(seed);
        cluster.ticks(40);
        assert_eq!(cluster.seeds[seed].outcome, Some(Outcome::Joined(id)));
    }
    cluster.wipe(0);
    (0..3).for_each(|seed| cluster.kill(seed));
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(100);
    cluster.check();
    assert_eq!(cluster.outcomes(), vec![Some(Outcome::Joined(id)); 3]);
}

#[test]
fn all_wiped_find_the_claim_and_refuse() {
    let mut cluster = Cluster::new(true);
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(30);
    let id = *cluster.clusters().first().unwrap();
    (0..3).for_each(|seed| cluster.wipe(seed));
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(100);
    assert_eq!(cluster.outcomes(), vec![Some(Outcome::Refused(Refused::Claimed(id))); 3]);
    assert!(Refused::Claimed(id).to_string().contains("varve restore"));
    cluster.check();
}

#[test]
fn a_coordinator_that_was_wiped_after_a_promise_waits_for_ever() {
    let mut cluster = Cluster::promised();
    assert!(cluster.starts.is_empty());
    cluster.frames.clear();
    cluster.wipe(0);
    cluster.start(0);
    cluster.ticks(300);
    assert!(cluster.starts.is_empty());
    let waiting = cluster.seeds[0].process.as_ref().unwrap().waiting();
    assert!(matches!(waiting, Some(Waiting::Wiped(_))), "{waiting:?}");
}

#[test]
fn nobody_decides_in_the_place_of_a_coordinator_that_is_away() {
    for name in [SEEDS[0], "d:9093"] {
        let mut cluster = Cluster::decided_alone();
        let away = cluster.replace_coordinator(name);
        assert_eq!(cluster.starts.len(), 1, "two decided on one cluster: {:?}", cluster.starts);
        let waiting = |seed: usize| cluster.seeds[seed].process.as_ref().unwrap().waiting();
        let decider = Waiting::Decider { seed: SEEDS[1].to_owned(), coordinator: 1 };
        assert_eq!(waiting(0), Some(&decider));
        let expected =
            if name == SEEDS[0] { decider } else { Waiting::SeedsChanged(SEEDS.map(str::to_owned).into()) };
        assert_eq!(waiting(1), Some(&expected));
        // The old one returns, and all is as it decided.
        (cluster.names, cluster.nodes[0]) = (SEEDS, node(0));
        cluster.sets = vec![SEEDS.map(str::to_owned).into(); 3];
        cluster.seeds[0] = away;
        for seed in 0..3 {
            cluster.kill(seed);
            cluster.start(seed);
        }
        cluster.ticks(100);
        cluster.check();
        assert_eq!(cluster.starts.len(), 3);
    }
}

#[test]
fn seeds_that_name_different_sets_form_nothing() {
    let mut cluster = Cluster::new(false);
    cluster.sets[2] = ["a:9093", "b:9093", "c:9093", "d:9093"].map(str::to_owned).into();
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(100);
    assert!(cluster.starts.is_empty());
    let waiting = cluster.seeds[0].process.as_ref().unwrap().waiting();
    assert_eq!(waiting, Some(&Waiting::OtherSeeds(SEEDS[2].to_owned())));
}

#[test]
fn row_31_another_nodes_disk_is_refused() {
    let mut cluster = Cluster::formed();
    cluster.kill(0);
    cluster.seeds[0].record = cluster.seeds[1].record.clone();
    cluster.start(0);
    assert_eq!(cluster.seeds[0].outcome, Some(Outcome::Refused(Refused::OtherNode(2))));
}

/// Kills, wipes, loss, delay and repetition while a cluster is formed, and after. Once a node started, some disk remembers.
fn run(seed: u64, with_bucket: bool) -> bool {
    run_with(seed, Cluster::new(with_bucket))
}

fn run_with(seed: u64, mut cluster: Cluster) -> bool {
    let mut dice = Dice(seed);
    let mut wiped = false;
    for _ in 0..600 {
        let at = dice.roll(3);
        match dice.roll(40) {
            0..3 if cluster.seeds[at].process.is_none() => cluster.start(at),
            3 => cluster.kill(at),
            4 if cluster.others_remember(at) && dice.roll(4) == 0 => {
                cluster.wipe(at);
                wiped = true;
            }
            5..8 if cluster.with_directory => {
                // Some of the names, or one too many.
                let named = SEEDS.iter().chain(&["d:1"]).filter(|_| dice.roll(4) > 0);
                cluster.name(at, named.map(|name| (*name).to_owned()).collect());
            }
            5..12 => {
                if let Some(process) = cluster.process(at) {
                    cluster.step(at, process, FormationInput::Tick);
                }
            }
            _ if !cluster.frames.is_empty() => {
                let place = dice.roll(cluster.frames.len());
                let frame = cluster.frames.swap_remove(place);
                // The network loses things; a disk or a bucket that never answers would be a dead process.
                let crosses = matches!(frame, Frame::Ask { .. } | Frame::Answer { .. });
                if !crosses || dice.roll(10) > 0 {
                    cluster.deliver(frame);
                }
            }
            _ => {}
        }
        cluster.check();
    }
    for seed in 0..3 {
        if cluster.seeds[seed].process.is_none() {
            cluster.start(seed);
        }
        cluster.name(seed, SEEDS.map(str::to_owned).into());
    }
    cluster.ticks(100);
    cluster.check();
    if !wiped {
        assert_eq!(cluster.starts.len(), 3, "seed {seed}: {:?}", cluster.outcomes());
    }
    !cluster.starts.is_empty()
}

#[test]
fn no_seed_of_chance_founds_two_clusters_or_lets_a_disk_vote_twice() {
    let formed = (0..3000).filter(|seed| run(*seed, seed % 2 == 0)).count();
    assert!(formed > 1500, "{formed}");
}

#[test]
fn a_directory_that_fills_founds_one_cluster_and_never_one_of_those_that_came_first() {
    let directory = |with_bucket| Cluster { with_directory: true, ..Cluster::new(with_bucket) };
    let formed = (0..3000).filter(|seed| run_with(*seed, directory(seed % 2 == 0))).count();
    assert!(formed > 1500, "{formed}");
    let mut cluster = directory(false);
    (0..3).for_each(|seed| cluster.start(seed));
    for named in [&SEEDS[..2], &[SEEDS[0], SEEDS[1], SEEDS[2], "d:1"]] {
        let named: SeedSet = named.iter().map(|name| (*name).to_owned()).collect();
        (0..3).for_each(|seed| cluster.name(seed, named.clone()));
        cluster.ticks(50);
        for seed in &cluster.seeds {
            let waiting = seed.process.as_ref().and_then(Formation::waiting);
            assert_eq!(waiting, Some(&Waiting::Count { found: named.len(), count: 3, seeds: named.clone() }));
            assert_eq!(seed.record, FormationRecord::Empty);
        }
    }
    (0..3).for_each(|seed| cluster.name(seed, SEEDS.map(str::to_owned).into()));
    cluster.ticks(50);
    assert_eq!(cluster.starts.len(), 3, "{:?}", cluster.outcomes());
}

#[test]
fn a_directory_without_a_bucket_that_all_share_founds_nothing_unless_told_and_leads_to_what_is_there() {
    let directory = |founds| Cluster { with_directory: true, founds, ..Cluster::new(false) };
    let mut cluster = directory(false);
    // A living cluster that is not ready is not named; three new disks are.
    (0..3).for_each(|seed| cluster.start(seed));
    (0..3).for_each(|seed| cluster.name(seed, SEEDS.map(str::to_owned).into()));
    cluster.ticks(50);
    assert!(cluster.starts.is_empty());
    for seed in &cluster.seeds {
        assert_eq!(seed.process.as_ref().and_then(Formation::waiting), Some(&Waiting::NobodyFormed));
        assert_eq!(seed.record, FormationRecord::Empty);
    }
    // What was begun when it was allowed is ended when it is not any more.
    let mut cluster = directory(true);
    (0..3).for_each(|seed| cluster.start(seed));
    (0..3).for_each(|seed| cluster.name(seed, SEEDS.map(str::to_owned).into()));
    cluster.ticks(50);
    assert_eq!(cluster.starts.len(), 3, "{:?}", cluster.outcomes());
    cluster.founds = false;
    (0..3).for_each(|seed| cluster.start(seed));
    cluster.ticks(50);
    assert_eq!(cluster.starts.len(), 3, "all of them come back: {:?}", cluster.outcomes());
}

/// The switch of [`crate::bugs`] weakens one rule; the seeds above find it.
#[cfg(feature = "seeded-bugs")]
#[test]
fn weakened_rules_of_formation_are_found() {
    use crate::bugs::{Bug, plant};
    let bugs = [
        (Bug::FormsWithoutAllSeeds, "a second cluster"),
        (Bug::DecisionNamesNoDisks, "a wiped disk came back as the old voter"),
    ];
    let says = |seed: u64| {
        let why = std::panic::catch_unwind(|| run(seed, false)).err()?;
        why.downcast_ref::<String>().cloned()
    };
    for (bug, expected) in bugs {
        plant(Some(bug));
        let found = (0..3000).filter_map(says).any(|why| why.contains(expected));
        plant(None);
        assert!(found, "{bug:?}");
    }
}
