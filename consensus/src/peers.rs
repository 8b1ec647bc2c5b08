//! The other nodes of the cluster: who lives, what waits to be said to each, and what each was told.
//!
//! Once every few ticks one [`Pulse`] goes to every peer, whatever the number of groups: it carries their heartbeats,
//! shows that this node lives, and tells who leads. Only a read's beat does not wait for its turn.

use std::collections::{BTreeMap, BTreeSet};

use varve_common::{ClusterId, GroupId, NodeId};

use crate::{
    LeaderBoard, Pulse,
    gossip::Publisher,
    late_ticks::LateTicks,
    limits::{PRESSED_MAX, PULSE_BEATS_MAX, RESTING_MAX, WAKES_PER_TICK_MAX},
    pulse::{Beat, Resting},
};

/// Who this node is among its peers.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Which of its starts this is: larger than at every start before.
    pub life: u64,
    /// A pulse goes to every peer each so many ticks.
    pub pulse_ticks: u64,
    /// A peer that is silent for so many ticks counts as dead.
    pub death_ticks: u64,
    /// An election time-out, in ticks: half of it is how late a tick may come.
    pub election_ticks: usize,
}

impl NodeConfig {
    /// The timing that suits [`crate::GroupConfig::default`].
    #[must_use]
    pub const fn new(cluster: ClusterId, node: NodeId, life: u64) -> Self {
        Self { cluster, node, life, pulse_ticks: 2, death_ticks: 10, election_ticks: 10 }
    }
}

/// One peer.
#[derive(Debug, Default)]
struct Peer {
    /// Its newest start, and the newest pulse of that.
    life: u64,
    number: u64,
    /// Its start before that one, where it was heard of: it does not know of that where its disk is put back to before it.
    before: u64,
    heard_at: u64,
    dead: bool,
    /// Nobody listens where it was: its process has ended.
    gone: bool,
    /// What waits to be said.
    beats: Vec<Beat>,
    answers: Vec<Beat>,
    disowned: BTreeSet<GroupId>,
    /// Groups that it leads and of which this node's log is pressed.
    pressed: BTreeSet<GroupId>,
    urgent: bool,
    /// Up to where it has heard our reports, and we its.
    acked: u64,
    through: u64,
    /// Groups that rest here and that it leads.
    resting: BTreeSet<GroupId>,
    cursor: u64,
}

/// Why a pulse was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PulseError {
    /// Two clusters share an address.
    #[error("a pulse of cluster {0}")]
    WrongCluster(ClusterId),
    /// It came over another node's connection.
    #[error("a pulse of node {0:?} over another's connection")]
    WrongConnection(NodeId),
    /// Of a life of that node that has ended, or sent before peers were known.
    #[error("a pulse of an ended life")]
    Stale,
}

/// What a pulse means for the groups.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Groups to wake: their leader's node does not lead them.
    pub(crate) wake: Vec<GroupId>,
    /// Whether the peer was dead until now.
    pub(crate) revived: bool,
}

/// All peers, and what this node tells them.
#[derive(Debug)]
pub struct Peers {
    pub(crate) config: NodeConfig,
    ticks: u64,
    pulsed_at: u64,
    /// The newest pulse's number, over all peers: one that is forgotten and comes back must not find it lower.
    sent: u64,
    peers: BTreeMap<NodeId, Peer>,
    /// Whose death would wake a group.
    rests_with: BTreeMap<GroupId, NodeId>,
    to_wake: BTreeSet<GroupId>,
    pub(crate) late: LateTicks,
    pub(crate) board: LeaderBoard,
    pub(crate) publisher: Publisher,
}

impl Peers {
    pub(crate) fn new(config: NodeConfig) -> Self {
        Self {
            config,
            ticks: 0,
            pulsed_at: 0,
            sent: 0,
            peers: BTreeMap::new(),
            rests_with: BTreeMap::new(),
            to_wake: BTreeSet::new(),
            late: LateTicks::default(),
            board: LeaderBoard::default(),
            publisher: Publisher::default(),
        }
    }

    /// The other nodes, from the metadata; whoever is not among them is forgotten, and
    /// nobody rests on its word.
    pub(crate) fn set(&mut self, nodes: &BTreeSet<NodeId>) {
        let to_wake = &mut self.to_wake;
        self.peers.retain(|node, peer| {
            let stays = nodes.contains(node);
            if !stays {
                to_wake.append(&mut peer.resting);
            }
            stays
        });
        let own = self.config.node;
        for node in nodes.iter().filter(|node| **node != own) {
            self.peer(*node);
        }
    }

    fn peer(&mut self, node: NodeId) -> &mut Peer {
        let heard_at = self.ticks;
        self.peers.entry(node).or_insert_with(|| Peer { heard_at, ..Peer::default() })
    }

    /// Whether a node lives, as far as this one knows.
    #[must_use]
    pub fn is_alive(&self, node: NodeId) -> bool {
        node == self.config.node || self.peers.get(&node).is_some_and(|peer| !peer.dead)
    }

    /// What is known of leaders.
    #[must_use]
    pub const fn leaders(&self) -> &LeaderBoard {
        &self.board
    }

    pub(crate) fn say_beat(&mut self, beat: Beat) {
        let peer = self.peer(beat.to.node());
        peer.urgent |= !beat.context.is_empty();
        replace_or_push(&mut peer.beats, beat);
    }

    pub(crate) fn say_answer(&mut self, answer: Beat) {
        let peer = self.peer(answer.to.node());
        peer.urgent |= !answer.context.is_empty();
        replace_or_push(&mut peer.answers, answer);
    }

    /// Tells a node that this one does not lead a group that may rest there.
    pub(crate) fn disown(&mut self, node: NodeId, group: GroupId) {
        if node != self.config.node {
            self.peer(node).disowned.insert(group);
        }
    }

    /// Asks a group's leader to write something, whatever it is; where much is asked for already it is left to the next time.
    pub(crate) fn ask_to_advance(&mut self, leader: NodeId, group: GroupId) {
        if leader == self.config.node {
            return;
        }
        let pressed = &mut self.peer(leader).pressed;
        if pressed.len() < PRESSED_MAX {
            pressed.insert(group);
        }
    }

    /// A group rests with a leader on `node`, or (`None`) does not rest here as a follower.
    pub(crate) fn rests(&mut self, group: GroupId, node: Option<NodeId>) {
        if self.rests_with.get(&group).copied() == node {
            return;
        }
        if let Some(before) = self.rests_with.remove(&group).and_then(|before| self.peers.get_mut(&before)) {
            before.resting.remove(&group);
        }
        let Some(node) = node else { return };
        self.rests_with.insert(group, node);
        match self.peers.get_mut(&node).filter(|peer| !peer.dead) {
            Some(peer) => {
                peer.resting.insert(group);
            }
            // It has died already, or is no peer: no death will tell.
            None => {
                self.to_wake.insert(group);
            }
        }
    }

    /// Time passes; the nodes that died with it.
    pub(crate) fn tick(&mut self) -> Vec<NodeId> {
        self.ticks += 1;
        let mut died = Vec::new();
        for (&node, peer) in &mut self.peers {
            if !peer.dead && self.ticks - peer.heard_at >= self.config.death_ticks {
                peer.dead = true;
                self.to_wake.extend(peer.resting.iter().copied());
                died.push(node);
            }
        }
        died
    }

    /// A node's process has ended: what rests on its word wakes.
    pub(crate) fn gone(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.dead, peer.gone) = (true, true);
            self.to_wake.extend(peer.resting.iter().copied());
        }
    }

    /// Whether a node's process has ended, and no other has spoken for it since.
    pub(crate) fn is_gone(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.gone)
    }

    /// A late tick was forgiven: nobody had a chance to be heard.
    pub(crate) fn forgive(&mut self) {
        let ticks = self.ticks;
        self.peers.values_mut().for_each(|peer| peer.heard_at = ticks);
    }

    /// Groups that wake now: a bounded number at a time.
    pub(crate) fn take_wakes(&mut self) -> Vec<GroupId> {
        let wakes: Vec<GroupId> = self.to_wake.iter().copied().take(WAKES_PER_TICK_MAX).collect();
        wakes.iter().for_each(|group| {
            self.to_wake.remove(group);
        });
        wakes
    }

    /// Takes what a pulse says of its sender; its beats and answers are for the groups.
    pub(crate) fn hear(&mut self, connection: NodeId, pulse: &Pulse) -> Result<Heard, PulseError> {
        if pulse.cluster != self.config.cluster {
            return Err(PulseError::WrongCluster(pulse.cluster));
        }
        if pulse.from != connection || connection == self.config.node {
            return Err(PulseError::WrongConnection(pulse.from));
        }
        let (ticks, own_life) = (self.ticks, self.config.life);
        let peer = self.peer(connection);
        if pulse.life < peer.life {
            return Err(PulseError::Stale);
        }
        let (mut heard, mut woken) = (Heard::default(), BTreeSet::new());
        if pulse.life > peer.life {
            // What it led it leads no more, and a bounded number wakes at a time; what it had heard it has forgotten.
            woken.extend(peer.resting.iter().copied());
            peer.before = peer.life;
            (peer.life, peer.number, peer.acked, peer.through) = (pulse.life, 0, 0, 0);
        }
        if pulse.number > peer.number {
            (peer.number, peer.heard_at) = (pulse.number, ticks);
            heard.revived = std::mem::take(&mut peer.dead);
            peer.gone = false;
            if pulse.heard.0 == own_life {
                // It may be less than before: whoever forgot us meanwhile hears all of it again.
                peer.acked = pulse.heard.1;
            }
            heard.wake.extend(pulse.disowned.iter().filter(|group| peer.resting.contains(group)));
        }
        if pulse.after <= peer.through {
            peer.through = peer.through.max(pulse.through);
        }
        self.to_wake.append(&mut woken);
        for report in &pulse.reports {
            self.board.learn(report);
        }
        Ok(heard)
    }

    /// What is due: to every peer once in a few ticks, at once where a read waits.
    pub(crate) fn take_pulses(&mut self) -> Vec<(NodeId, Pulse)> {
        let due = self.ticks >= self.pulsed_at + self.config.pulse_ticks;
        if due {
            self.pulsed_at = self.ticks;
        }
        let (config, publisher, sent) = (&self.config, &self.publisher, &mut self.sent);
        let mut pulses = Vec::new();
        for (&node, peer) in &mut self.peers {
            let mut more = due || std::mem::take(&mut peer.urgent);
            while more {
                *sent += 1;
                pulses.push((node, peer.pulse(*sent, config, publisher)));
                more = !peer.beats.is_empty() || !peer.answers.is_empty();
            }
        }
        pulses
    }
}

impl Peer {
    fn pulse(&mut self, number: u64, config: &NodeConfig, publisher: &Publisher) -> Pulse {
        let (through, reports) = publisher.since(self.acked);
        let (beats, answers) = (&mut self.beats, &mut self.answers);
        Pulse {
            cluster: config.cluster,
            from: config.node,
            life: config.life,
            number,
            heard: (self.life, self.through),
            beats: beats.drain(..beats.len().min(PULSE_BEATS_MAX)).collect(),
            answers: answers.drain(..answers.len().min(PULSE_BEATS_MAX)).collect(),
            resting: Vec::new(),
            disowned: std::mem::take(&mut self.disowned).into_iter().collect(),
            after: self.acked,
            through,
            reports,
            pressed: std::mem::take(&mut self.pressed).into_iter().collect(),
            before: self.before,
        }
    }

    /// The next few groups that rest here and that the peer leads, round and round.
    fn next_resting(&mut self) -> Vec<GroupId> {
        let cursor = GroupId(self.cursor);
        let next = self.resting.range(cursor..).chain(self.resting.range(..cursor));
        let groups: Vec<GroupId> = next.copied().take(RESTING_MAX.min(self.resting.len())).collect();
        self.cursor = groups.last().map_or(0, |last| last.0 + 1);
        groups
    }
}

impl Peers {
    /// Groups at rest that this pulse asks the peer about; the caller knows their terms.
    pub(crate) fn ask_resting(&mut self, node: NodeId) -> Vec<GroupId> {
        self.peers.get_mut(&node).map(Peer::next_resting).unwrap_or_default()
    }
}

/// A newer beat of a replica to the same receiver says all that the older one said, unless that confirms another read.
fn replace_or_push(beats: &mut Vec<Beat>, beat: Beat) {
    let same = |known: &&mut Beat| {
        (known.group, known.from, known.to, &known.context) == (beat.group, beat.from, beat.to, &beat.context)
    };
    match beats.iter_mut().rev().take(1).find(same) {
        Some(known) => *known = beat,
        None => beats.push(beat),
    }
}

/// Marks a group in a pulse's list.
pub(crate) const fn resting(group: GroupId, term: varve_common::Term) -> Resting {
    Resting { group, term }
}
