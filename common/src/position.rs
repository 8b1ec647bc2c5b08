//! Where: four kinds of position that must never be mixed.

use std::fmt;

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The first position.
            pub const ZERO: Self = Self(0);

            /// The position `count` further on; panics on overflow, which no log reaches.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                match self.0.checked_add(count) {
                    Some(sum) => Self(sum),
                    None => panic!("position overflow"),
                }
            }

            /// The next position.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// How far this lies behind `start`, 0 where it lies before.
            #[must_use]
            pub const fn since(self, start: Self) -> u64 {
                self.0.saturating_sub(start.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

position! {
    /// A record's place in its partition, as clients see it.
    Offset
}
position! {
    /// An entry's place in its Raft group's log; the first entry is 1.
    LogIndex
}
position! {
    /// A Raft term; clients see it as the leader epoch.
    Term
}
position! {
    /// A byte's place in the node's write-ahead log, counted over all files that ever were.
    WalPosition
}

impl Offset {
    /// The offset as the wire carries it; log ends are far below 2^63.
    #[must_use]
    pub const fn to_wire(self) -> i64 {
        self.0 as i64
    }

    /// The offset that the wire carried, `None` for the negative numbers that stand for something else.
    #[must_use]
    pub const fn from_wire(wire: i64) -> Option<Self> {
        if wire < 0 { None } else { Some(Self(wire as u64)) }
    }
}

/// A Raft term as Kafka clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

impl Term {
    /// The one place where a term becomes a leader epoch; terms beyond `i32::MAX` stay at it.
    #[must_use]
    pub const fn leader_epoch(self) -> LeaderEpoch {
        LeaderEpoch(if self.0 > i32::MAX as u64 { i32::MAX } else { self.0 as i32 })
    }
}
