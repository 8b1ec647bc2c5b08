//! Why uploads do not come about.

/// What keeps uploads up, and so who acts next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stall {
    /// The store does not answer, or says that it cannot now.
    NoAnswer,
    /// The store asks for fewer requests.
    SlowDown,
    /// Credentials, permissions or this machine's clock: the operator.
    Denied,
    /// The store cannot take the request: the operator.
    Refused,
    /// What was read, or sent, is not what it was.
    Damaged,
    /// The records are not to be had on this node now.
    Local,
}

impl Stall {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NoAnswer, Self::SlowDown, Self::Denied, Self::Refused, Self::Damaged, Self::Local];

    /// As a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::SlowDown => "slow_down",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
            Self::Local => "local",
        }
    }
}
