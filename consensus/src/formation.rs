//! How a cluster comes to be: once, and never twice from the same seeds (RAFT.md 7).
//!
//! ```text
//!  seeds:     empty ───────────> promised{cluster, disk, who decides} ──> formed{cluster, who with which disk}
//!               all seeds answer,          all seeds promised the same; the bucket is claimed;
//!               all are empty,             the coordinator (lowest node) decides alone and once,
//!               all name one set           the others follow its decision if it names their disk
//!  otherwise:   somebody is formed, and not with this disk: formed{cluster, who}, and join as a new node
//! ```
//! Every arrow is durable before anybody hears of it. What keeps a second cluster from being founded:
//! - A promise asks for the answer of every seed, so with one slow seed nobody begins.
//! - Only the coordinator draws a cluster, and only while all are empty. Every promise names it and the seeds: nobody else
//!   decides, also when it is replaced (`Waiting::Decider`, `Waiting::SeedsChanged`): it may have decided already. A coordinator that lost its disk finds another's
//!   promise, knows nothing of it, and waits for ever (`Waiting::Wiped`): the cluster may have been formed.
//! - The decision names each member's disk by a number that was drawn with its promise. A disk that was wiped since, and
//!   promised again, is not in it: it never counts as the voter that it was (S6).
//! - A disk that joins later makes the decision durable first: whoever is asked says that there is a cluster, also when
//!   all disks of the decision are gone.
//! - The claim on the bucket's prefix is taken between the promises and the decision. An unformed cluster that finds one
//!   refuses: `varve restore`.

mod names;
mod record;
mod waiting;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use varve_common::{ClusterId, NodeId, ReplicaId};

pub use record::{FormationRecord, SeedSet};
pub use waiting::Waiting;
pub use wire::{Answer, Probe, SeedState};

use crate::{
    bugs::{Bug, is_planted},
    limits::{ANSWER_TICKS, PROBE_TICKS},
};

/// Who asks to form a cluster.
#[derive(Clone, Debug)]
pub struct Founder {
    /// This node.
    pub node: NodeId,
    /// The seeds as configured: all of them name the same.
    pub seeds: SeedSet,
    /// How many seeds found a cluster, where a directory names them; `None` where they are configured one by one.
    pub count: Option<usize>,
    /// Drawn at random at each start: late answers to an earlier start are nothing to this one.
    pub process: u64,
    /// Drawn at random at each start, for the promise that this start may make.
    pub disk: u64,
    /// Drawn at random at each start, for the cluster that this node may have to name.
    pub cluster: ClusterId,
    /// Whether the tier goes to a bucket, whose prefix is claimed by one cluster.
    pub claims: bool,
    /// Whether it may begin a cluster: else it waits for one that is there. What was begun is ended.
    pub founds: bool,
}

/// What the driver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormationInput {
    /// Time passed.
    Tick,
    /// A seed was asked, and answered.
    Answered {
        /// The name by which it was asked.
        seed: String,
        /// What it said.
        answer: Answer,
    },
    /// The directory names these seeds now.
    Seeds(SeedSet),
    /// The record of the last [`FormationEffect::Write`] is durable.
    Written,
    /// What the bucket's prefix says: whose it is, or nobody's.
    ClaimFound(Option<ClusterId>),
    /// The claim was made, create-only; `Err` names who had it. Our own from an earlier attempt is a success.
    Claimed(Result<(), Option<ClusterId>>),
}

/// What the driver does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormationEffect {
    /// Asks a seed; itself, too, where a name leads here.
    Ask {
        /// Its name.
        seed: String,
        /// The question.
        probe: Probe,
    },
    /// Makes the record durable, then answers [`FormationInput::Written`].
    Write(FormationRecord),
    /// Looks at the claim, then answers [`FormationInput::ClaimFound`].
    LookAtClaim,
    /// Claims the prefix for the cluster, then answers [`FormationInput::Claimed`].
    Claim(ClusterId),
    /// The cluster is formed with this disk: open group 0 with these voters.
    Start {
        /// The cluster.
        cluster: ClusterId,
        /// The voters of group 0.
        voters: Vec<ReplicaId>,
    },
    /// The cluster is there, without this disk: ask to be added as a new node, under new replica ids. Comes again at every
    /// start: whether this node was added already, the driver knows.
    Join {
        /// The cluster.
        cluster: ClusterId,
        /// Its first voters.
        voters: Vec<ReplicaId>,
    },
    /// Nothing will come of it: stop and say so.
    Refuse(Refused),
}

/// Why no cluster can be formed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bucket's prefix belongs to a cluster.
    #[error(
        "the bucket's prefix is claimed by cluster {0}: `varve restore` starts its next life, another prefix another cluster"
    )]
    Claimed(ClusterId),
    /// The bucket's prefix belongs to somebody that does not say who.
    #[error(
        "the bucket's prefix is claimed: `varve restore` starts the cluster's next life, another prefix another cluster"
    )]
    ClaimedByUnknown,
    /// The record is another node's.
    #[error("this disk is of node {0}")]
    OtherNode(u32),
}

/// The formation of a cluster, as one seed goes through it.
#[derive(Debug)]
pub struct Formation {
    founder: Founder,
    record: FormationRecord,
    writing: Option<FormationRecord>,
    answers: BTreeMap<String, (u64, Answer)>,
    ticks: u64,
    probes: u64,
    /// Whether the claim was looked at, and is made.
    claim: Claim,
    waiting: Option<Waiting>,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Unknown,
    Looking,
    Free,
    Making,
    Made,
    /// Somebody's, perhaps ours from an earlier attempt.
    Of(Option<ClusterId>),
}

impl Formation {
    /// Goes on from what the disk holds. A formed disk starts, or joins, at once.
    #[must_use]
    pub fn new(mut founder: Founder, record: FormationRecord) -> (Self, Vec<FormationEffect>) {
        names::keep_promised(&mut founder, &record);
        let claim = if founder.claims { Claim::Unknown } else { Claim::Made };
        let mut formation = Self {
            founder,
            record,
            writing: None,
            answers: BTreeMap::new(),
            ticks: 0,
            probes: 0,
            claim,
            waiting: None,
            over: false,
        };
        let mut effects = Vec::new();
        let of = formation.record.node();
        if let Some(other) = of.filter(|node| *node != formation.founder.node) {
            formation.over = true;
            effects.push(FormationEffect::Refuse(Refused::OtherNode(other.get())));
        } else {
            formation.advance(&mut effects);
            formation.ask(&mut effects);
        }
        (formation, effects)
    }

    /// Answers a seed's question: what is durable here, and nothing that is on its way.
    #[must_use]
    pub fn answer(&self, probe: &Probe) -> Answer {
        Answer {
            process: probe.process,
            number: probe.number,
            node: self.founder.node,
            seeds: self.founder.seeds.clone(),
            state: self.record.state(),
        }
    }

    /// What it waits for, for the log and the health page; `None` once it is over.
    #[must_use]
    pub const fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// The process that this is.
    #[must_use]
    pub const fn process(&self) -> u64 {
        self.founder.process
    }

    /// What is durable.
    #[must_use]
    pub const fn record(&self) -> &FormationRecord {
        &self.record
    }

    /// Takes one input; what is to be done is appended to `effects`.
    pub fn step(&mut self, input: FormationInput, effects: &mut Vec<FormationEffect>) {
        if self.over {
            return;
        }
        match input {
            FormationInput::Tick => self.tick(effects),
            FormationInput::Answered { seed, answer } => self.answered(seed, answer),
            FormationInput::Seeds(seeds) => self.rename(seeds),
            FormationInput::Written => {
                if let Some(record) = self.writing.take() {
                    self.record = record;
                }
            }
            FormationInput::ClaimFound(None) if self.claim == Claim::Looking => self.claim = Claim::Free,
            FormationInput::ClaimFound(None) => {}
            FormationInput::ClaimFound(owner @ Some(_)) | FormationInput::Claimed(Err(owner)) => {
                self.claim = Claim::Of(owner);
            }
            FormationInput::Claimed(Ok(())) => self.claim = Claim::Made,
        }
        self.advance(effects);
    }

    fn tick(&mut self, effects: &mut Vec<FormationEffect>) {
        self.ticks += 1;
        let now = self.ticks;
        self.answers.retain(|_, (at, _)| now - *at < ANSWER_TICKS);
        if now.is_multiple_of(PROBE_TICKS) {
            self.ask(effects);
        }
    }

    fn ask(&mut self, effects: &mut Vec<FormationEffect>) {
        if self.over {
            return;
        }
        self.probes += 1;
        let probe = Probe { process: self.founder.process, number: self.probes };
        let seeds = self.founder.seeds.iter().cloned();
        effects.extend(seeds.map(|seed| FormationEffect::Ask { seed, probe }));
    }

    fn answered(&mut self, seed: String, answer: Answer) {
        let newest = self.answers.get(&seed).is_none_or(|(_, known)| known.number < answer.number);
        let asked = answer.process == self.founder.process && answer.number <= self.probes;
        if asked && newest && self.founder.seeds.contains(&seed) {
            self.answers.insert(seed, (self.ticks, answer));
        }
    }

    /// Does what can be done now.
    fn advance(&mut self, effects: &mut Vec<FormationEffect>) {
        if self.over {
            return;
        }
        if self.writing.is_some() {
            self.waiting = Some(Waiting::Storage);
            return;
        }
        self.waiting = None;
        if let FormationRecord::Formed { cluster, members, .. } = &self.record {
            let first = |node: &NodeId| ReplicaId::new(*node, 1).expect("1 is a counter");
            let (cluster, voters) = (*cluster, members.keys().map(first).collect());
            self.over = true;
            return effects.push(if self.is_member() {
                FormationEffect::Start { cluster, voters }
            } else {
                FormationEffect::Join { cluster, voters }
            });
        }
        if self.follow_the_formed(effects) {
            return;
        }
        match self.next() {
            Ok(Next::Write(record)) => self.write(record, effects),
            Ok(Next::Claim(cluster)) => {
                self.claim = Claim::Making;
                effects.push(FormationEffect::Claim(cluster));
            }
            Ok(Next::Look) => {
                self.claim = Claim::Looking;
                effects.push(FormationEffect::LookAtClaim);
            }
            Ok(Next::Refuse(owner)) => {
                self.over = true;
                let why = owner.map_or(Refused::ClaimedByUnknown, Refused::Claimed);
                effects.push(FormationEffect::Refuse(why));
            }
            Err(waiting) => self.waiting = Some(waiting),
        }
    }

    fn write(&mut self, record: FormationRecord, effects: &mut Vec<FormationEffect>) {
        self.writing = Some(record.clone());
        self.waiting = Some(Waiting::Storage);
        effects.push(FormationEffect::Write(record));
    }

    /// Somebody is formed: with this disk, or without it. Either is written down before anything comes of it.
    fn follow_the_formed(&mut self, effects: &mut Vec<FormationEffect>) -> bool {
        let formed = self.answers.values().find_map(|(_, answer)| match &answer.state {
            SeedState::Formed { cluster, members } => Some((*cluster, members.clone())),
            SeedState::Empty | SeedState::Promised { .. } => None,
        });
        let Some((cluster, members)) = formed else { return false };
        // Who joins writes it, too: what nobody remembers could be founded once more.
        let Founder { node, seeds, .. } = self.founder.clone();
        let disk = self.record.disk().unwrap_or(self.founder.disk);
        self.write(FormationRecord::Formed { node, seeds, cluster, disk, members }, effects);
        true
    }

    /// Whether the decision names this disk: not that of a node that joined later, nor one that was wiped.
    fn is_member(&self) -> bool {
        let FormationRecord::Formed { node, disk, members, .. } = &self.record else { return false };
        members.get(node) == Some(disk) || is_planted(Bug::DecisionNamesNoDisks)
    }

    /// Nobody is formed: the next step, or what it waits for.
    fn next(&self) -> Result<Next, Waiting> {
        self.check_count()?;
        self.check_answers()?;
        self.check_seeds()?;
        let coordinator = self.coordinator()?;
        let promised = self.agreed_promise(coordinator)?;
        match &self.record {
            FormationRecord::Empty if self.claim == Claim::Unknown => Ok(Next::Look),
            FormationRecord::Empty if self.claim == Claim::Looking => Err(Waiting::Storage),
            FormationRecord::Empty => {
                // The coordinator claims before it decides: a disk that was wiped meanwhile may promise again.
                if let Claim::Of(owner) = self.claim
                    && (owner.is_none() || owner != promised)
                {
                    return Ok(Next::Refuse(owner));
                }
                // The coordinator names the cluster; the others take the name that it made durable.
                let cluster = match promised {
                    Some(cluster) => cluster,
                    None if coordinator == self.founder.node => self.founder.cluster,
                    None => return Err(Waiting::Promises),
                };
                let Founder { node, seeds, disk, .. } = self.founder.clone();
                let coordinator = Some(coordinator);
                Ok(Next::Write(FormationRecord::Promised { node, seeds, cluster, disk, coordinator }))
            }
            FormationRecord::Promised { node, seeds, cluster, disk, .. } if coordinator == *node => {
                let members = self.promises(*cluster).ok_or(Waiting::Promises)?;
                match self.claim {
                    Claim::Unknown | Claim::Free => return Ok(Next::Claim(*cluster)),
                    Claim::Looking | Claim::Making => return Err(Waiting::Storage),
                    Claim::Of(owner) if owner != Some(*cluster) => return Ok(Next::Refuse(owner)),
                    Claim::Of(_) | Claim::Made => {}
                }
                let (node, seeds, cluster, disk) = (*node, seeds.clone(), *cluster, *disk);
                Ok(Next::Write(FormationRecord::Formed { node, seeds, cluster, disk, members }))
            }
            _ => Err(Waiting::Promises),
        }
    }

    /// Every seed answers, names the same seeds, and is a node of its own.
    fn check_answers(&self) -> Result<(), Waiting> {
        let silent = self.founder.seeds.iter().filter(|seed| !self.answers.contains_key(*seed));
        let silent: Vec<String> = silent.cloned().collect();
        let forgiven = usize::from(is_planted(Bug::FormsWithoutAllSeeds));
        if silent.len() > forgiven {
            return Err(Waiting::Answers(silent));
        }
        let mut nodes = BTreeSet::new();
        for (seed, (_, answer)) in &self.answers {
            if answer.seeds != self.founder.seeds {
                return Err(Waiting::OtherSeeds(seed.clone()));
            }
            if !nodes.insert(answer.node) {
                return Err(Waiting::SameNode(answer.node.get()));
            }
        }
        Ok(())
    }

    /// A promise holds for the seeds it was given with: with others, others would decide.
    fn check_seeds(&self) -> Result<(), Waiting> {
        match self.record.promise() {
            Some((_, seeds)) if *seeds != self.founder.seeds => Err(Waiting::SeedsChanged(seeds.clone())),
            _ => Ok(()),
        }
    }

    /// Who decides: whom the promises name, and while there are none the lowest node. Another than the promised one would
    /// decide beside it.
    fn coordinator(&self) -> Result<NodeId, Waiting> {
        let nodes = || self.answers.values().map(|(_, answer)| answer.node);
        let lowest = nodes().min().unwrap_or(self.founder.node);
        let mut named = None;
        for (seed, (_, answer)) in &self.answers {
            let promise = match (&answer.state, self.record.promise()) {
                (_, Some((coordinator, _))) if answer.node == self.founder.node => coordinator,
                (_, None) if answer.node == self.founder.node => continue,
                (SeedState::Promised { coordinator, .. }, _) => *coordinator,
                _ => continue,
            };
            let known = promise.is_some_and(|node| nodes().any(|answers| answers == node));
            if !known || named.is_some_and(|named| promise != Some(named)) {
                let coordinator = promise.map_or(0, NodeId::get);
                return Err(Waiting::Decider { seed: seed.clone(), coordinator });
            }
            named = promise;
        }
        Ok(named.unwrap_or(lowest))
    }

    /// The one cluster that seeds have promised, which the coordinator has promised as well.
    fn agreed_promise(&self, coordinator: NodeId) -> Result<Option<ClusterId>, Waiting> {
        let own = |answer: &Answer| answer.node == self.founder.node;
        let promise = |answer: &Answer| match answer.state {
            _ if own(answer) => self.record.promised(),
            SeedState::Promised { cluster, .. } => Some(cluster),
            SeedState::Empty | SeedState::Formed { .. } => None,
        };
        let mut answers = self.answers.values().map(|(_, answer)| answer);
        let drawn = answers.find(|answer| answer.node == coordinator).and_then(promise);
        for (seed, (_, answer)) in &self.answers {
            if promise(answer).is_some_and(|promised| Some(promised) != drawn) {
                return Err(Waiting::Wiped(seed.clone()));
            }
        }
        Ok(drawn)
    }

    /// Each seed's disk, where all have promised the cluster.
    fn promises(&self, cluster: ClusterId) -> Option<BTreeMap<NodeId, u64>> {
        let own = self.record.disk();
        self.answers
            .values()
            .map(|(_, answer)| match answer.state {
                _ if answer.node == self.founder.node => own.map(|disk| (answer.node, disk)),
                SeedState::Promised { cluster: promised, disk, .. } if promised == cluster => {
                    Some((answer.node, disk))
                }
                _ => None,
            })
            .collect()
    }
}

enum Next {
    Write(FormationRecord),
    Look,
    Claim(ClusterId),
    Refuse(Option<ClusterId>),
}
