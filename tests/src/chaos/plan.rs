//! What goes wrong next, by the seed: one window after another, each quiet or with up to three faults at once, which end with it.

use std::fmt;

use crate::{
    chance::Chance,
    links::{Way, Weather},
};

/// Something that goes wrong, to nodes by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and a start again after so long (rows 1, 2, 4).
    Kill { node: usize, down_ms: u64 },
    /// kill -9 of all at once (row 3).
    KillAll,
    /// SIGTERM and a start again (row 71).
    Restart { node: usize },
    /// kill -9, an empty disk, and a start again (rows 29, 65). Only where all is well: it is skipped else.
    Wipe { node: usize },
    /// SIGSTOP, and SIGCONT after so long (rows 41, 42).
    Stop { nodes: Vec<usize>, still_ms: u64 },
    /// Weather between two, in one direction (rows 33 to 40).
    Weather { ways: Vec<Way>, weather: Weather },
    /// A link that comes and goes every half second (row 35).
    Flap { one: usize, other: usize },
    /// Connections that break (row 39 when the peer is cut off, too).
    Reset { one: usize, other: usize },
    /// Leaders are sent from node to node (row 48).
    Transfers,
    /// What the object store does to requests (rows 51 to 59).
    Store { rules: Vec<&'static str> },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &usize| (node + 1).to_string();
        match self {
            Self::Kill { node, down_ms } => write!(f, "kill {} for {down_ms} ms", name(node)),
            Self::KillAll => f.write_str("kill all"),
            Self::Restart { node } => write!(f, "restart {}", name(node)),
            Self::Wipe { node } => write!(f, "wipe {}", name(node)),
            Self::Stop { nodes, still_ms } => {
                let nodes: Vec<String> = nodes.iter().map(name).collect();
                write!(f, "stop {} for {still_ms} ms", nodes.join(" "))
            }
            Self::Weather { ways, weather } => {
                let ways: Vec<String> =
                    ways.iter().map(|(from, to)| format!("{}>{}", from + 1, to + 1)).collect();
                write!(f, "{}: {weather}", ways.join(" "))
            }
            Self::Flap { one, other } => write!(f, "{}-{} flaps", name(one), name(other)),
            Self::Reset { one, other } => write!(f, "reset {}-{}", name(one), name(other)),
            Self::Transfers => f.write_str("leaders are sent around"),
            Self::Store { rules } => write!(f, "store: {}", rules.join("; ")),
        }
    }
}

/// Draws windows.
#[derive(Debug)]
pub struct Plan {
    chance: Chance,
    nodes: usize,
    has_store: bool,
}

/// Of a hundred windows, those without a fault.
const QUIET_PERCENT: u64 = 25;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub const fn of(seed: u64, nodes: usize, has_store: bool) -> Self {
        Self { chance: Chance::of(seed), nodes, has_store }
    }

    /// The next window: how long it is, in milliseconds, and what goes wrong in it. At most one fault takes a process away, so that what
    /// the others show is theirs.
    pub fn window(&mut self) -> (u64, Vec<Fault>) {
        let window_ms = 4_000 + self.chance.below(6_000);
        if self.chance.hits(QUIET_PERCENT) {
            return (window_ms, Vec::new());
        }
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..=self.chance.below(3) {
            let fault = self.fault(window_ms);
            let is_new = !faults.iter().any(|other| kind(other) == kind(&fault));
            if is_new {
                faults.push(fault);
            }
        }
        // What takes time comes last, so that all of it happens at once; what asks whether all is well comes first.
        faults.sort_by_key(|fault| (!matches!(fault, Fault::Wipe { .. }), kind(fault)));
        (window_ms, faults)
    }

    fn node(&mut self) -> usize {
        self.chance.below(self.nodes as u64) as usize
    }

    fn two(&mut self) -> (usize, usize) {
        let one = self.node();
        let other = (one + 1 + self.chance.below(self.nodes as u64 - 1) as usize) % self.nodes;
        (one, other)
    }

    fn fault(&mut self, window_ms: u64) -> Fault {
        let within = |chance: &mut Chance| 200 + chance.below(window_ms - 200);
        match self.chance.below(if self.has_store { 17 } else { 15 }) {
            0 | 1 => Fault::Kill { node: self.node(), down_ms: within(&mut self.chance) },
            2 => Fault::KillAll,
            3 => Fault::Restart { node: self.node() },
            4 => Fault::Wipe { node: self.node() },
            5 | 6 => {
                let (one, other) = self.two();
                let nodes = if self.chance.hits(30) { vec![one, other] } else { vec![one] };
                Fault::Stop { nodes, still_ms: within(&mut self.chance) }
            }
            7..=11 => self.weather(),
            12 => {
                let (one, other) = self.two();
                Fault::Flap { one, other }
            }
            13 => {
                let (one, other) = self.two();
                Fault::Reset { one, other }
            }
            14 => Fault::Transfers,
            _ => Fault::Store { rules: self.rules() },
        }
    }

    fn weather(&mut self) -> Fault {
        let (one, other) = self.two();
        let all: Vec<Way> = (0..self.nodes)
            .flat_map(|from| (0..self.nodes).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        let of_one: Vec<Way> = all.iter().copied().filter(|(from, to)| *from == one || *to == one).collect();
        let cut = |ways| Fault::Weather { ways, weather: Weather::CUT };
        let change = Weather {
            corrupt_permille: self.chance.below(10),
            swap_permille: self.chance.below(30),
            repeat_permille: self.chance.below(30),
            ..Weather::late(10)
        };
        match self.chance.below(9) {
            0 => cut(of_one),
            1 => cut(vec![(one, other)]),
            2 => cut(vec![(one, other), (other, one)]),
            3 => cut(of_one.into_iter().filter(|(from, _)| *from == one).collect()),
            4 => cut(of_one.into_iter().filter(|(_, to)| *to == one).collect()),
            5 => Fault::Weather { ways: all, weather: Weather::lossy(5 + self.chance.below(16)) },
            6 => Fault::Weather { ways: all, weather: Weather::late(20 + self.chance.below(130)) },
            7 => Fault::Weather { ways: vec![(one, other)], weather: Weather::THIN },
            _ => Fault::Weather { ways: all, weather: change },
        }
    }

    fn rules(&mut self) -> Vec<&'static str> {
        let sets: [&[&str]; 7] = [
            &["status:503:SlowDown chance=30", "status:500:InternalError chance=10"],
            &["reset"],
            &["hang-after method=PUT chance=30"],
            &["reset-after method=PUT chance=50"],
            &["truncate method=GET chance=50", "alter method=GET chance=50"],
            &["slow-first:3000 chance=50"],
            &["status:403:AccessDenied"],
        ];
        self.chance.pick(&sets).to_vec()
    }
}

/// Faults of one kind are not drawn together; those that are made at once stand first.
const fn kind(fault: &Fault) -> u8 {
    match fault {
        Fault::Weather { .. } => 0,
        Fault::Reset { .. } => 1,
        Fault::Store { .. } => 2,
        Fault::Kill { .. }
        | Fault::KillAll
        | Fault::Restart { .. }
        | Fault::Wipe { .. }
        | Fault::Stop { .. } => 3,
        Fault::Flap { .. } => 4,
        Fault::Transfers => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_every_fault_is_drawn() {
        let draw = |seed| {
            let mut plan = Plan::of(seed, 3, true);
            (0..400).map(|_| plan.window()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let said: String =
            draw(3).iter().flat_map(|(_, faults)| faults).map(|fault| format!("{fault}\n")).collect();
        for word in [
            "kill 1",
            "kill all",
            "restart",
            "wipe",
            "stop",
            "cut",
            "lost",
            "late",
            "B/s",
            "corrupted",
            "flaps",
            "reset",
            "sent around",
            "store",
        ] {
            assert!(said.contains(word), "{word} in\n{said}");
        }
        assert!(draw(3).iter().filter(|(_, faults)| faults.is_empty()).count() > 50);
    }
}
