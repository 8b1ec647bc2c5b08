//! What happens to objects that nothing names.

use std::time::Duration;

/// How they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// What follows.
    pub mode: OrphansMode,
    /// How often.
    pub interval: Duration,
}

/// What follows when one is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphansMode {
    /// Nobody looks.
    Off,
    /// It is reported.
    DryRun,
    /// It is reported and deleted.
    Delete,
}

impl OrphansMode {
    /// The mode of a name that the table of keys has checked.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "off" => Self::Off,
            "delete" => Self::Delete,
            _ => Self::DryRun,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DryRun => "dry-run",
            Self::Delete => "delete",
        }
    }
}
