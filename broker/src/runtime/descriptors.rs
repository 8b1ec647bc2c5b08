//! File descriptors: the log, checkpoints and the store must never find none left because clients hold them all.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not for clients: files of the log and of sealed ranges, connections to the store, the admin address.
const KEPT_MAX: u64 = 512;

/// Asks the system for as many as it gives; how many connections of clients these allow.
#[must_use]
pub fn connections_max() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Refused only where the hard limit was lowered meanwhile.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    limit.map_or(usize::MAX, |limit| usize::try_from(for_connections(limit)).unwrap_or(usize::MAX))
}

/// A process with few leaves most of them to itself.
const fn for_connections(limit: u64) -> u64 {
    let kept = limit / 4 * 3;
    limit - if kept < KEPT_MAX { kept } else { KEPT_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_last_descriptors() {
        assert_eq!(for_connections(64), 16);
        assert_eq!(for_connections(1_024), 512);
        assert_eq!(for_connections(1 << 20), (1 << 20) - 512);
    }
}
