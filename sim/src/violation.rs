//! What a checker found.

/// An invariant that does not hold, by its name in FAULTS.md 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant: `H3`, `W1`, `B4`; `panic` where a room's own assertion failed first.
    pub checker: &'static str,
    /// What was seen, with the values that show it.
    pub detail: String,
}

/// The result of a check.
pub type Checked<T = ()> = Result<T, Violation>;

/// A violation of `checker`.
#[must_use]
pub fn violation(checker: &'static str, detail: impl Into<String>) -> Violation {
    Violation { checker, detail: detail.into() }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.checker, self.detail)
    }
}
