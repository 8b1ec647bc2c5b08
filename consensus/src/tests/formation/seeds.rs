//! Three seeds that look for each other, with the disks and the network that a test gives them.

use std::collections::BTreeSet;

use varve_common::{ClusterId, NodeId};

use crate::formation::{
    Answer, Formation, FormationEffect, FormationInput, FormationRecord, Founder, Probe, Refused, SeedSet,
};

pub(super) const SEEDS: [&str; 3] = ["a:9093", "b:9093", "c:9093"];

pub(super) fn node(seed: usize) -> NodeId {
    NodeId::new(seed as u32 + 1).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Started(ClusterId),
    Joined(ClusterId),
    Refused(Refused),
}

#[derive(Default)]
pub(super) struct Seed {
    pub(super) process: Option<Formation>,
    pub(super) record: FormationRecord,
    pub(super) writing: Option<FormationRecord>,
    pub(super) outcome: Option<Outcome>,
}

pub(super) enum Frame {
    Ask { from: usize, process: u64, to: usize, probe: Probe },
    Answer { to: usize, process: u64, seed: usize, answer: Answer },
    Written(usize, u64),
    Bucket(usize, u64, FormationInput),
}

pub(super) struct Cluster {
    /// Where seeds are asked, and who they are.
    pub(super) names: [&'static str; 3],
    pub(super) nodes: [NodeId; 3],
    pub(super) seeds: Vec<Seed>,
    pub(super) sets: Vec<SeedSet>,
    pub(super) frames: Vec<Frame>,
    pub(super) claim: Option<ClusterId>,
    pub(super) with_bucket: bool,
    /// Seeds are named by a directory, which has none at a start.
    pub(super) with_directory: bool,
    /// Whether those that start now may begin a cluster.
    pub(super) founds: bool,
    pub(super) drawn: u64,
    /// Every start of group 0: cluster, node, the disk's number.
    pub(super) starts: BTreeSet<(ClusterId, NodeId, u64)>,
    /// How many steps of each kind were taken, for those that kill at each.
    pub(super) steps: usize,
    pub(super) kill_at: Option<usize>,
}

impl Cluster {
    pub(super) fn new(with_bucket: bool) -> Self {
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

    pub(super) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    pub(super) fn start(&mut self, seed: usize) {
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
    pub(super) fn name(&mut self, seed: usize, seeds: SeedSet) {
        if let Some(process) = self.process(seed).filter(|_| self.with_directory) {
            self.step(seed, process, FormationInput::Seeds(seeds));
        }
    }

    pub(super) fn kill(&mut self, seed: usize) {
        self.seeds[seed].process = None;
        self.seeds[seed].writing = None;
    }

    pub(super) fn wipe(&mut self, seed: usize) {
        self.kill(seed);
        self.seeds[seed].record = FormationRecord::Empty;
    }

    pub(super) fn process(&self, seed: usize) -> Option<u64> {
        // A process is named by its questions.
        self.seeds[seed].process.as_ref().map(Formation::process)
    }

    pub(super) fn act(&mut self, seed: usize, process: u64, effects: Vec<FormationEffect>) {
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

    pub(super) fn step(&mut self, seed: usize, process: u64, input: FormationInput) {
        if self.process(seed) != Some(process) {
            return;
        }
        let mut effects = Vec::new();
        if let Some(formation) = &mut self.seeds[seed].process {
            formation.step(input, &mut effects);
        }
        self.act(seed, process, effects);
    }

    pub(super) fn deliver(&mut self, frame: Frame) {
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

    pub(super) fn tick(&mut self) {
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

    pub(super) fn ticks(&mut self, count: usize) {
        (0..count).for_each(|_| self.tick());
    }

    /// Whether nothing is lost when this disk is wiped: nobody started, or another disk knows of the cluster.
    pub(super) fn others_remember(&self, at: usize) -> bool {
        let knows = |seed: usize| self.seeds[seed].record != FormationRecord::Empty;
        self.starts.is_empty() || (0..3).any(|seed| seed != at && knows(seed))
    }

    pub(super) fn outcomes(&self) -> Vec<Option<Outcome>> {
        self.seeds.iter().map(|seed| seed.outcome.clone()).collect()
    }

    pub(super) fn clusters(&self) -> BTreeSet<ClusterId> {
        self.starts.iter().map(|(cluster, ..)| *cluster).collect()
    }

    /// One cluster at most, and in it one disk a node: no second cluster, no voter twice.
    pub(super) fn check(&self) {
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
    pub(super) fn decided_alone() -> Self {
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
    pub(super) fn promised() -> Self {
        let mut cluster = Self::new(false);
        (0..3).for_each(|seed| cluster.start(seed));
        while !matches!(cluster.seeds[1].record, FormationRecord::Promised { .. }) {
            cluster.deliver_or_tick();
        }
        cluster
    }

    pub(super) fn deliver_or_tick(&mut self) {
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
    pub(super) fn replace_coordinator(&mut self, name: &'static str) -> Seed {
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

    pub(super) fn formed() -> Self {
        let mut cluster = Self::new(false);
        (0..3).for_each(|seed| cluster.start(seed));
        cluster.ticks(30);
        assert_eq!(cluster.starts.len(), 3);
        cluster
    }
}
