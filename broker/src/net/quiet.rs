//! Log lines about strangers: one per kind and interval, with how many there were.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use super::limits::COMPLAINT_INTERVAL;

/// Complaints, each kind at most once per interval.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<BTreeMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    logged: Instant,
    suppressed: u64,
}

impl Quiet {
    /// Logs that `client` did `what`, or counts it.
    pub fn complain(&self, what: &'static str, client: Option<SocketAddr>) {
        if let Some(suppressed) = self.turn(what, Instant::now()) {
            let client = client.map(|client| client.to_string()).unwrap_or_default();
            tracing::warn!(what, client, suppressed, "connection refused or closed");
        }
    }

    /// Whether it is `what`'s turn, and how often it was passed over since.
    fn turn(&self, what: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.get_mut(what) {
            Some(kind) if now.duration_since(kind.logged) < COMPLAINT_INTERVAL => {
                kind.suppressed += 1;
                None
            }
            Some(kind) => {
                kind.logged = now;
                Some(std::mem::take(&mut kind.suppressed))
            }
            None => {
                kinds.insert(what, Kind { logged: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_one_line_with_a_count() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        assert_eq!(quiet.turn("http", start), Some(0));
        assert_eq!(quiet.turn("http", start), None);
        assert_eq!(quiet.turn("tls", start), Some(0));
        assert_eq!(quiet.turn("http", start + COMPLAINT_INTERVAL), Some(1));
    }
}
