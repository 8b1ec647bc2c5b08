//! What happens next, by the dice: delivery, loss, repetition, cuts of links, power cuts, starts.

use varve_common::NodeId;

use super::{super::node::GROUP, World};

/// SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }
}

impl World {
    pub(super) fn happen(&mut self) {
        let ids = self.ids();
        let id = ids[self.dice.roll(ids.len())];
        let up = self.nodes[&id].shard.is_some();
        match self.dice.roll(200) {
            0..96 => (0..=self.dice.roll(8)).for_each(|_| self.network_happens()),
            96..124 => drop(self.sync(id)),
            124..140 => self.tick(id),
            140..152 => self.ids().into_iter().for_each(|id| self.tick(id)),
            152..166 => {
                let at = self.leader().filter(|_| self.dice.roll(4) > 0).unwrap_or(id);
                self.produce(at);
            }
            166..174 => while self.run_job(id) {},
            174..185 => {
                let at = self.leader().filter(|_| self.dice.roll(3) > 0).unwrap_or(id);
                for _ in 0..4 {
                    let which = [0, 1, 2, 2, 3, 4, 5, 6, 7, 1, 2][self.dice.roll(11)];
                    self.plan(at, which);
                }
            }
            // Whoever believes that it leads is asked.
            185..187 => self.ids().into_iter().for_each(|id| self.read(id)),
            187 if up => {
                let survives = self.dice.roll(self.nodes[&id].writing.len() + 1);
                self.crash(id, survives);
            }
            188..193 => {
                let down = self.nodes.iter().find(|(_, node)| node.shard.is_none()).map(|(id, _)| *id);
                self.start_again(down.unwrap_or(id));
            }
            193 => self.cut_links(),
            194 | 195 => self.cut.clear(),
            196..199 => self.join_step(id),
            _ => {
                let to = self.nodes[&id].replica;
                let (now, mut effects) = (self.now(), Vec::new());
                if let Some(leader) = self.leader()
                    && let Some(shard) = self.nodes.get_mut(&leader).unwrap().shard.as_mut()
                {
                    shard.transfer(now, GROUP, to, &mut effects);
                    self.after(leader, effects);
                }
            }
        }
    }

    fn network_happens(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let place = self.dice.roll(self.network.len());
        let (from, to, frame) = self.network.swap_remove(place);
        match self.dice.roll(25) {
            0 => {}
            1 => {
                self.network.push((from, to, frame.clone()));
                self.deliver(from, to, frame);
            }
            _ => self.deliver(from, to, frame),
        }
        if self.network.len() > 400 {
            self.network.drain(..200);
        }
    }

    fn start_again(&mut self, id: NodeId) {
        let joins = self.join.as_ref().is_some_and(|join| join.new.node() == id && !join.started);
        if self.nodes[&id].shard.is_some() || joins {
            return;
        }
        if self.dice.roll(4) > 0 || !self.start_from_bucket(id) {
            self.start(id);
        }
    }

    /// One way, a whole node, or a ring: neighbours hear each other only.
    fn cut_links(&mut self) {
        let ids = self.ids();
        let at = self.dice.roll(ids.len());
        let one = ids[at];
        match self.dice.roll(3) {
            0 => {
                let other = ids[(at + 1 + self.dice.roll(ids.len() - 1)) % ids.len()];
                self.cut.insert((one, other));
            }
            1 => {
                for other in ids.into_iter().filter(|other| *other != one) {
                    self.cut.insert((one, other));
                    self.cut.insert((other, one));
                }
            }
            _ => {
                let count = ids.len();
                for step in 0..count {
                    let far = ids[(step + 2) % count];
                    if count > 3 || step == at {
                        self.cut.insert((ids[step], far));
                        self.cut.insert((far, ids[step]));
                    }
                }
            }
        }
    }
}
