//! A model of the tier's commit, the two clocks of a checkpoint, and a replica that is seeded from one (TIERING.md 3, 5, 6, 11): every
//! order of steps within small bounds, and the interleavings that each weaker rule lets through.
//!
//! What consensus gives is taken as given: there is one committed log, and who leads has applied all of it. A replica that was
//! there from the beginning applies everything; its state is that of the log. Beside it stands one that was seeded.
//!
//! ```text
//!             S: end of the last tiered range          A: applied when it was captured
//!  log   … ───┼──────────────────────────────────────────┼───────────> committed
//!  seeded     └ begins here: record class from S+1, bucket class from A+1; leads and serves from A on
//! ```

mod state;
mod steps;

use stateright::{Checker, HasDiscoveries, Model};

use state::{Offset, Uid};
use steps::Tier;

/// The rules that may be weakened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A seeded replica ignores every command of the bucket's class up to A, and not appends alone.
    pub ignores_all: bool,
    /// Its own checkpoints keep A until it is applied.
    pub keeps_a: bool,
    /// It serves nothing and does not lead until then.
    pub waits_for_a: bool,
    /// What an intent left is not deleted where the manifest or a checkpoint names it.
    pub spares_named: bool,
    /// The log is cut only where a checkpoint has what was above its S.
    pub cuts_below_s: bool,
}

/// As they stand.
const SOUND: Rules =
    Rules { ignores_all: true, keeps_a: true, waits_for_a: true, spares_named: true, cuts_below_s: true };

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries of the log.
    pub log: usize,
    /// Of them, records.
    pub records: Offset,
    /// Uploads that are begun.
    pub uids: Uid,
    /// Checkpoints that are there at once.
    pub checkpoints: usize,
    /// Of the seeded replica.
    pub restarts: u8,
}

/// Enough for each of the interleavings, and for what comes after them.
const BOUNDS: Bounds = Bounds { log: 8, records: 2, uids: 2, checkpoints: 2, restarts: 1 };

/// That some order of steps breaks the promise where a rule is weaker, and none where it stands.
fn is_needed(rules: Rules, promise: &'static str) {
    let tier = Tier { rules, bounds: BOUNDS };
    let wanted = HasDiscoveries::AllOf([promise].into());
    let checker = tier.checker().threads(2).finish_when(wanted).spawn_bfs().join();
    let found = checker.assert_any_discovery(promise);
    println!("{promise}, not with {rules:?}: {:#?}", found.into_actions());
}

#[test]
fn no_order_of_steps_breaks_a_promise_of_the_tier() {
    let checker = Tier { rules: SOUND, bounds: BOUNDS }.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} deep", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Skipping appends alone brings an intent back to life whose object the manifest names.
#[test]
fn seeded_intent_resurrection() {
    let rules = Rules { ignores_all: false, ..SOUND };
    is_needed(rules, "replicas at one index are the same");
    is_needed(Rules { spares_named: false, ..rules }, "what the manifest names is in the bucket");
}

/// A restart that has forgotten A applies what the checkpoint knew already.
#[test]
fn reseeded_local_checkpoint() {
    is_needed(Rules { keeps_a: false, ..SOUND }, "replicas at one index are the same");
}

/// Between S and A the log's start may lie above its end.
#[test]
fn trim_between_clocks() {
    is_needed(Rules { waits_for_a: false, ..SOUND }, "who serves is in order");
}

/// What lies between S and A is in no object yet.
#[test]
fn a_log_cut_at_a_loses_records() {
    is_needed(Rules { cuts_below_s: false, ..SOUND }, "no record above the log's start is lost");
}
