//! What black-box tests stand on: real processes of the release binary, stock clients, raw sockets, power cuts.
//!
//! - [`node`]: one `varve serve` in a folder of its own: started, killed, stopped, restarted on the same data and ports; its log is printed
//!   when the test fails. Processes end by pid, always.
//! - [`cluster`]: several of them that are one; [`links`]: the network between them, with weather.
//! - [`tool`]: what must be on the machine, and running it. In CI a missing tool is a failure, elsewhere the test says `skipped: …`.
//! - [`clients`]: kcat, the scripts of `clients/` (Python, Node) and Kafka's own Java tools, as calls that return what they printed.
//! - [`ledger`]: what writers sent and were acknowledged, held against what readers saw: every acknowledged record once, in order, byte for
//!   byte; nothing that nobody sent.
//! - [`chaos`]: a run of whatever goes wrong, by a seed; [`history`]: what raw clients know of it, and its rules.
//! - [`librdkafka`]: that client's own test suite, by a list of what runs and why the rest does not.
//! - [`wire`]: a Kafka client of our own that retries nothing and hides nothing.
//! - [`raw`]: bytes on a socket, for what no well-behaved client sends; [`batch`]: record batches, right and wrong.
//! - [`s3`]: an S3 server that can be stopped and started in the middle of a test, and a proxy before it that fails as told.
//! - [`faults`]: what a machine does to a process: disks that fill, calls that fail, too few descriptors, too little memory.
//! - [`clocks`]: a clock of its own for a process, which jumps or runs at another pace.
//! - [`power`]: a file system whose power can be cut; [`hold`]: a process held right behind a named system call, for cuts exactly there.
//! - [`shim`]: what clocks and holds have in common: a library that a process loads before all others.
//!
//! It knows Varve only by its command line, its ports and its files' sizes: of the rooms it imports
//! `localstack` alone, whose servers are other people's and whose bucket is Amazon's SDK, so that a mistake in one cannot hide itself.

pub mod batch;
pub mod chance;
pub mod chaos;
pub mod clients;
pub mod clocks;
pub mod cluster;
pub mod dns;
pub mod faults;
pub mod history;
pub mod hold;
pub mod ledger;
pub mod librdkafka;
pub mod links;
pub mod marked;
pub mod node;
pub mod power;
pub mod raw;
pub mod s3;
pub mod shim;
pub mod tool;
pub mod wire;

/// A number from the environment, so that a person can run more than CI does.
#[must_use]
pub fn scale(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Asks `condition` until it holds; panics with `what` after `seconds`.
pub fn wait_for(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed().as_secs() < seconds, "waited {seconds} s for {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
