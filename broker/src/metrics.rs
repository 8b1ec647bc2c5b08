//! What is counted: one table gives the handles, the registry and `docs/metrics.md`.
//!
//! Names end in their base unit; counters are written with `_total` behind it (OpenMetrics). Handles are atomics
//! behind an `Arc`: any thread updates them, nobody waits. Series per topic or partition would grow with what clients
//! do, so they come from collectors that the node adds and bounds ([`Metrics::with_collector`]), read when scraped.

mod stalls;

use std::{fmt::Write as _, sync::Arc, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use self::stalls::Stalls;
use crate::net::Observer;

/// One label with a value that the code names.
pub type Label = [(&'static str, &'static str); 1];

/// Two labels with values that the code names.
pub type Labels = [(&'static str, &'static str); 2];

/// A label with a node's number: as many series as the cluster has nodes.
pub type NodeLabel = [(&'static str, u32); 1];

/// A gauge of seconds or another fraction.
pub type Fraction = Gauge<f64, AtomicU64>;

/// A counter of money or another fraction.
pub type Amount = Counter<f64, AtomicU64>;

/// From 50 us to about 13 s, doubling.
fn latency() -> Histogram {
    Histogram::new((0..18).map(|power| 50e-6 * f64::from(1 << power)))
}

/// From 256 bytes to 64 MiB, by four.
fn sizes() -> Histogram {
    Histogram::new((0..10).map(|power| 256.0 * 4_f64.powi(power)))
}

/// A row of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name as it is scraped, without the `_total` of counters.
    pub name: &'static str,
    /// counter, gauge or histogram.
    pub kind: &'static str,
    /// Base unit, empty for plain numbers.
    pub unit: &'static str,
    /// Its labels, separated by commas.
    pub labels: &'static str,
    /// What it tells.
    pub help: &'static str,
}

macro_rules! metrics {
    (@type counter) => { Counter };
    (@type counter $a:literal) => { Family<Label, Counter> };
    (@type counter $a:literal, $b:literal) => { Family<Labels, Counter> };
    (@type node_counter $a:literal) => { Family<NodeLabel, Counter> };
    (@type node_gauge $a:literal) => { Family<NodeLabel, Gauge> };
    (@type seconds $a:literal) => { Family<Label, Counter<f64, AtomicU64>> };
    (@type amount) => { Amount };
    (@type gauge) => { Gauge };
    (@type gauge $a:literal) => { Family<Label, Gauge> };
    (@type fraction) => { Fraction };
    (@type latency) => { Histogram };
    (@type latency $a:literal) => { Family<Label, Histogram> };
    (@type sizes) => { Histogram };
    (@new latency) => { latency() };
    (@new latency $a:literal) => { Family::new_with_constructor(latency as fn() -> Histogram) };
    (@new sizes) => { sizes() };
    (@new $($other:tt)*) => { Default::default() };
    (@kind counter) => { "counter" };
    (@kind gauge) => { "gauge" };
    (@kind node_counter) => { "counter" };
    (@kind node_gauge) => { "gauge" };
    (@kind seconds) => { "counter" };
    (@kind amount) => { "counter" };
    (@kind fraction) => { "gauge" };
    (@kind $histogram:ident) => { "histogram" };
    ($($field:ident: $kind:ident($($label:literal),*) $name:literal $unit:literal $help:literal;)*) => {
        /// The handles.
        #[derive(Clone, Debug)]
        pub struct Handles {
            $(#[doc = $help] pub $field: metrics!(@type $kind $($label),*),)*
        }

        impl Handles {
            fn new() -> Self {
                Self { $($field: metrics!(@new $kind $($label),*),)* }
            }

            fn register(&self, registry: &mut Registry) {
                $(add(registry, $name, $unit, $help, self.$field.clone());)*
            }
        }

        /// The reference, in its order.
        pub const TABLE: &[Row] = &[$(Row {
            name: $name, kind: metrics!(@kind $kind), unit: $unit, labels: concat!("", $($label, " "),*), help: $help,
        }),*];
    };
}

metrics! {
    requests: counter("api") "kafka_requests" "" "Requests that were answered";
    request_latency: latency("api") "kafka_request_latency" "seconds" "From a request's last byte to its answer; a fetch includes its wait for data";
    request_errors: counter("api", "error") "kafka_request_errors" "" "Error codes in answers, by Kafka's name";
    malformed: counter("reason") "kafka_requests_malformed" "" "Requests that could not be understood; their connections were closed";
    received: counter() "kafka_received" "bytes" "Bytes read from Kafka sockets";
    sent: counter() "kafka_sent" "bytes" "Bytes written to Kafka sockets";
    connections: gauge() "kafka_connections" "" "Open Kafka connections";
    connections_opened: counter() "kafka_connections_opened" "" "Kafka connections that were accepted";
    connections_closed: counter("reason") "kafka_connections_closed" "" "Kafka connections that ended";
    connections_refused: counter("reason") "kafka_connections_refused" "" "Connections that were turned away";
    produce_bytes: counter() "kafka_produce" "bytes" "Bytes of record batches that were accepted";
    produce_records: counter() "kafka_produce_records" "" "Records that were accepted";
    produce_batches: counter() "kafka_produce_batches" "" "Record batches that were accepted";
    produce_duplicates: counter() "kafka_produce_duplicates" "" "Retried batches that were answered with their first offset";
    fetch_bytes: counter() "kafka_fetch" "bytes" "Bytes of record batches that were returned";
    fetch_batches: counter() "kafka_fetch_batches" "" "Record batches that were returned";
    fetch_records: counter() "kafka_fetch_records" "" "Records that were returned";
    fetch_followed: counter() "kafka_fetch_follower" "bytes" "Those of them that came from partitions that another node leads";
    fetch_redirects: counter() "kafka_fetch_redirects" "" "Partitions of fetches whose consumers were sent to a replica in their rack";
    fetch_sessions: gauge() "kafka_fetch_sessions" "" "Incremental fetch sessions";
    wal_commit_latency: latency() "wal_commit_latency" "seconds" "From handing a batch to the write-ahead log until it is fsynced";
    wal_batch_bytes: sizes() "wal_batch" "bytes" "Size of what one turn of the core hands to the log";
    wal_appended: counter() "wal_appended" "bytes" "Bytes handed to the write-ahead log";
    wal_bytes: gauge() "wal_disk" "bytes" "Bytes of write-ahead log files";
    wal_live_bytes: gauge() "wal_live" "bytes" "Bytes in them that are still needed";
    wal_pins: gauge("by") "wal_pinned_groups" "" "Groups that keep the oldest file of the log, by what their part of it waits for";
    wal_bytes_max: gauge() "wal_limit" "bytes" "The limit that they stay below";
    groups: gauge() "raft_groups" "" "Raft groups on this node";
    raft_leaders: gauge() "raft_leaders" "" "Groups that this node leads";
    raft_leaderless: gauge() "raft_groups_leaderless" "" "Groups of this node that know no leader";
    raft_resting: gauge() "raft_groups_resting" "" "Groups at rest: nothing is said about them";
    raft_stopped: gauge() "raft_groups_stopped" "" "Groups whose replica here has stopped";
    raft_learners: gauge() "raft_learners" "" "Replicas on this node that do not vote: what a node that joins still has to catch up with";
    raft_learner_lag: gauge() "raft_learner_lag_entries" "" "Entries that they lack, as their leaders say";
    raft_term: gauge() "raft_term" "" "The highest term of a group of this node";
    raft_last: gauge() "raft_log_end_entries" "" "Sum of the indexes at which the logs of this node's groups end";
    raft_committed: gauge() "raft_committed_entries" "" "Sum of their commit indexes";
    raft_applied: gauge() "raft_applied_entries" "" "Sum of their applied indexes";
    raft_memory: gauge() "raft_log_memory" "bytes" "Entries of groups that are held in memory";
    raft_entries: counter() "raft_appended_entries" "" "Entries that were appended to the logs of groups here";
    raft_campaigns: counter() "raft_elections" "" "Elections in which a replica of this node asked for votes";
    raft_elected: counter() "raft_elections_won" "" "Times that a replica of this node came to lead";
    raft_returned: counter() "raft_leaders_returned" "" "Leaderships that this node gave back to their preferred replicas by itself";
    raft_leader_changes: counter() "raft_leader_changes" "" "Times that a group came to be led anew, by whatever node, as this one heard";
    raft_messages: counter("kind") "raft_messages_sent" "" "Messages of replicas here to others; heartbeats of all groups travel together";
    raft_sent_entries: counter() "raft_sent_entries" "" "Entries in them";
    raft_commit_latency: latency() "raft_commit_latency" "seconds" "From handing a batch or a change of the metadata to its group until it is committed and applied";
    raft_follower_lag: gauge() "raft_follower_lag_entries" "" "Entries that followers lack of the groups that this node leads, in all";
    raft_follower_lag_max: gauge() "raft_follower_lag_entries_max" "" "The same of the follower that lacks the most";
    raft_in_sync: gauge() "raft_in_sync_replicas" "" "Replicas in sync of the groups that this node leads, in all";
    raft_in_sync_min: gauge() "raft_in_sync_replicas_min" "" "The smallest in-sync set of them; 0 where it leads nothing";
    raft_under_replicated: gauge() "raft_groups_under_replicated" "" "Groups that this node leads, with a voter that does not keep up";
    raft_snapshots: counter() "raft_snapshots" "" "Checkpoints of groups that were written on this node";
    raft_snapshot_last: fraction() "raft_snapshot_last_timestamp" "seconds" "When the last of them was written";
    raft_snapshot_bytes: counter() "raft_snapshots_published" "bytes" "Bytes of those that were published in the object store";
    raft_seeds: counter() "raft_seeds" "" "Checkpoints from which a replica here began, or jumped forward";
    raft_seed_bytes: counter() "raft_seed" "bytes" "Their bytes: what a node that joins has taken in beside logs";
    bootstrap_bytes: counter("source") "bootstrap" "bytes" "Bytes of checkpoints and sealed files that replicas here began with, or lost files were repaired with, by where they came from: peer or bucket";
    bootstrap_files: counter() "bootstrap_files" "" "Sealed files that came whole from other nodes";
    bootstrap_moves: gauge() "bootstrap_moves" "" "Replicas here that wait for sealed files of other nodes";
    bootstrap_lacking: gauge() "bootstrap_lacking" "bytes" "About what they lack of those";
    consumer_groups: gauge() "consumer_groups" "" "Groups of consumers that this node coordinates";
    consumer_members: gauge() "consumer_group_members" "" "Their members";
    topics: gauge() "cluster_topics" "" "Topics";
    partitions: gauge() "cluster_partitions" "" "Partitions";
    partitions_unavailable: gauge() "cluster_partitions_unavailable" "" "Partitions that cannot be written";
    partitions_damaged: gauge() "cluster_partitions_damaged" "" "Partitions that have stopped because acknowledged records are damaged";
    rot_found: counter() "storage_rot" "" "Places in the log and in sealed files that did not read back as they were written";
    scrub_running: gauge() "scrub_running" "" "1 while everything on this node and in its bucket is read again";
    scrub_read: counter("place") "scrub_read" "bytes" "Bytes that scrub has read, by where they were";
    scrub_damage: counter("place", "outcome") "scrub_damage" "" "What scrub found damaged, and what became of it";
    scrub_errors: counter() "scrub_errors" "" "Places that scrub could not read; they are read in the next pass";
    scrub_unrepaired: gauge() "scrub_unrepaired" "" "Damage that the last pass has left: see varve storage status";
    scrub_last: fraction() "scrub_last_timestamp" "seconds" "When the last pass had read everything";
    uploads: counter() "tier_uploads" "" "Segments that are in the object store and committed";
    upload_errors: counter() "tier_upload_errors" "" "Uploads that failed; they are tried again";
    upload_stalled: gauge("reason") "tier_upload_stalled" "" "Partitions whose uploads fail now, by what keeps them up; nothing is dropped, producers wait once the disk is full";
    uploaded: counter() "tier_uploaded" "bytes" "Bytes of segments uploaded";
    upload_latency: latency() "tier_upload_latency" "seconds" "Duration of one upload";
    archive_files: counter() "archive_files" "" "Files for other systems (varve.archive.parquet) that were put, or found to be there";
    archive_bytes: counter() "archive" "bytes" "Their bytes";
    archive_errors: counter() "archive_errors" "" "Steps towards such a file that failed and are tried again; the log says why";
    archive_skipped: counter() "archive_skipped_records" "" "Offsets that are in no such file, because they were trimmed first, or that files of others hold";
    archive_lag: gauge() "archive_lag_records" "" "Offsets that are in the object store and wait for their file, of partitions that this node leads";
    archive_age: fraction() "archive_lag" "seconds" "How long the first of them has waited";
    merges: counter() "tier_merges" "" "Objects that were put in the place of several small segments";
    merged_segments: counter() "tier_merged_segments" "" "Small segments that they replace";
    merged: counter() "tier_merged" "bytes" "Bytes of such objects: within a tenth of what is uploaded";
    merge_errors: counter() "tier_merge_errors" "" "Merges that failed; they are tried again";
    untiered_bytes: gauge() "tier_untiered" "bytes" "Bytes that exist on this node only as far as the object store knows";
    untiered_age: fraction() "tier_untiered_age" "seconds" "Age of the oldest of them: what a restore from the bucket alone would lose";
    deleted_objects: counter() "tier_deleted_objects" "" "Segments, manifest nodes and objects of deleted topics that were deleted from the object store";
    orphans: gauge() "tier_orphans" "" "Objects that nothing named when it was last looked for such";
    orphan_bytes: gauge() "tier_orphans" "bytes" "Their bytes";
    orphans_deleted: counter() "tier_orphans_deleted" "" "Objects that were deleted because nothing named them";
    topics_reaped: counter() "cluster_topics_reaped" "" "Deleted topics of which nothing is left, neither in the object store nor on this node";
    deletions: gauge() "cluster_topic_deletions" "" "Deleted topics of which something may be left";
    snapshots: counter() "snapshots_published" "" "Snapshots that were published and read back whole";
    snapshot_errors: counter() "snapshot_errors" "" "Snapshots that failed; they are tried again";
    snapshot_last: fraction() "snapshot_last_success_timestamp" "seconds" "When the last snapshot was published";
    store_requests: counter("operation", "outcome") "s3_requests" "" "Requests to the object store, which S3 charges";
    budget_requests: counter("class") "store_budget_requests" "" "Tries of requests to the object store that the node's budget let through";
    budget_bytes: counter("class") "store_budget" "bytes" "Bytes that they carried";
    budget_wait: seconds("class") "store_budget_wait" "seconds" "Time that requests waited for the budget";
    budget_slow_downs: counter() "store_slow_downs" "" "How often the object store asked to slow down, and was heard";
    budget_pace: gauge() "store_requests_per_second_max" "" "The pace of requests that the budget allows now";
    store_sent: counter("operation") "s3_sent" "bytes" "Bytes of objects sent to the object store";
    store_received: counter("operation") "s3_received" "bytes" "Bytes of objects received from the object store";
    store_cost: amount() "s3_cost_estimate_dollars" "" "What these requests cost at the list price of S3 Standard (us-east-1): 5 dollars a million for put and list, 0.4 for gets and heads, nothing for deletes; storage and traffic are not in it";
    cold_bytes: counter() "tier_read" "bytes" "Bytes read from the object store for fetches";
    cold_reads: gauge() "tier_reads" "" "Reads from the object store for fetches that are under way; they go on where a fetch stopped waiting";
    cold_errors: counter() "tier_read_errors" "" "Reads for fetches that the object store did not serve; clients come again";
    cold_damage: counter() "tier_read_damage" "" "Those of them that found an object missing or damaged: records are lost unless it comes back";
    cold_reads_paced: counter() "tier_reads_paced" "" "Reads for fetches that waited because hot requests were waiting for processors";
    cold_pace: gauge() "tier_read_pace" "bytes" "Bytes a second that reads for fetches may bring while hot requests wait for processors; 0 for no bound";
    cache_hits: counter() "tier_cache_hits" "" "Chunks of cold segments found in memory";
    cache_misses: counter() "tier_cache_misses" "" "Chunks of cold segments that had to be read";
    cache_disk_hits: counter() "tier_cache_disk_hits" "" "Chunks of cold segments found on disk";
    cache_disk_writes: counter() "tier_cache_disk_writes" "" "Chunks written there";
    cache_disk_bypassed: counter() "tier_cache_disk_bypassed" "" "Times the disk cache was passed by because it was busy or slow";
    cache_disk_corrupt: counter() "tier_cache_disk_corrupt" "" "Chunks that did not read back from disk as they were written; the object store gave them again";
    cache_disk_failures: counter() "tier_cache_disk_failures" "" "Reads and writes of the disk cache that failed";
    cache_disk_bytes: gauge() "tier_cache_disk" "bytes" "Bytes of the disk cache in use";
    peer_connected: node_gauge("peer") "peer_connected" "" "1 while there is a connection to the other node for this node's messages";
    peer_connects: node_counter("peer") "peer_connects" "" "Connections that were made to the other node";
    peer_sent_frames: node_counter("peer") "peer_sent_frames" "" "Messages and pulses handed to the connection to the other node";
    peer_sent: node_counter("peer") "peer_sent" "bytes" "Bytes handed to it";
    peer_received_frames: node_counter("peer") "peer_received_frames" "" "Messages and pulses that came from the other node";
    peer_received: node_counter("peer") "peer_received" "bytes" "Their bytes";
    peer_queued: node_gauge("peer") "peer_queued" "bytes" "Memory of what waits to be sent to the other node";
    peer_dropped_frames: node_counter("peer") "peer_dropped_frames" "" "Messages and pulses to the other node that were dropped: its queue was full, or there was no connection";
    peer_certificate_end: fraction() "peer_certificate_expiry_timestamp" "seconds" "When this node's certificate ends, or the last authority that it trusts, whichever is first; 0 without TLS between nodes";
    peer_refused: counter("reason") "peer_refused" "" "Connections of other nodes that were refused, or closed for what they carried";
    disk_free: gauge() "storage_disk_free" "bytes" "Room on the data directory's file system";
    disk_short: gauge() "storage_disk_short" "" "1 while the file system, not the log's limit, makes data leave this node, and producers wait";
    disk_total: gauge() "storage_disk_total" "bytes" "Size of the data directory's file system";
    start_stage: gauge("stage") "start_stage" "" "1 for the stage that the start of this node is in: opening, forming, joining, recovering, registering, serving";
    restore_duration: fraction() "restore_duration" "seconds" "What the restore took that made this data directory, to a broker that could be started; 0 where none did";
    restore_record_age: fraction() "restore_record_age" "seconds" "How old the newest record was that it restored";
    restore_checkpoint_age: fraction() "restore_checkpoint_age" "seconds" "How old the checkpoint of the metadata was that it started from";
    start_time: fraction() "process_start_time" "seconds" "When the process began";
}

fn add(
    registry: &mut Registry,
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    metric: impl prometheus_client::registry::Metric,
) {
    match unit {
        "seconds" => registry.register_with_unit(name, help, Unit::Seconds, metric),
        "bytes" => registry.register_with_unit(name, help, Unit::Bytes, metric),
        _ => registry.register(name, help, metric),
    }
}

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The handles with the registry that writes them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The handles.
    pub handles: Handles,
    /// Whose uploads fail now.
    pub stalls: Stalls,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("varve");
        let handles = Handles::new();
        handles.register(&mut registry);
        Self { registry, handles, stalls: Stalls::default() }
    }

    /// Adds series that are computed when scraped.
    #[must_use]
    pub fn with_collector(mut self, collector: Box<dyn Collector>) -> Self {
        self.registry.register_collector(collector);
        self
    }

    /// All in OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Handles {
    /// Counts an answered request.
    pub fn on_request(&self, api: &'static str, took: Duration) {
        self.requests.get_or_create(&[("api", api)]).inc();
        self.request_latency.get_or_create(&[("api", api)]).observe(took.as_secs_f64());
    }

    /// Counts an error code in an answer.
    pub fn on_error(&self, api: &'static str, error: &'static str) {
        self.request_errors.get_or_create(&[("api", api), ("error", error)]).inc();
    }
}

/// Counts what the network layer sees.
#[derive(Clone, Debug)]
pub struct NetObserver(pub Arc<Metrics>);

impl Observer for NetObserver {
    fn opened(&self) {
        self.0.handles.connections.inc();
        self.0.handles.connections_opened.inc();
    }

    fn closed(&self, why: &'static str) {
        self.0.handles.connections.dec();
        self.0.handles.connections_closed.get_or_create(&[("reason", why)]).inc();
    }

    fn refused(&self, why: &'static str) {
        self.0.handles.connections_refused.get_or_create(&[("reason", why)]).inc();
    }

    fn received(&self, bytes: usize) {
        self.0.handles.received.inc_by(bytes as u64);
    }

    fn sent(&self, bytes: usize) {
        self.0.handles.sent.inc_by(bytes as u64);
    }
}

impl Row {
    /// The name that alerts and dashboards use.
    #[must_use]
    pub fn scraped_name(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!("_{}", self.unit) };
        let total = if self.kind == "counter" { "_total" } else { "" };
        format!("varve_{}{unit}{total}", self.name)
    }
}

/// `docs/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from the table in `broker/src/metrics.rs`; do not edit. Served at `/metrics` of the admin \
         address (9094) as OpenMetrics text.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for row in TABLE {
        let labels =
            row.labels.split_whitespace().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `{}` | {} | {labels} | {}. |", row.scraped_name(), row.kind, row.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Families without a series are left out by the encoder until their first one.
    #[test]
    fn every_metric_of_the_table_is_scraped_with_help_type_and_unit() {
        let text = Metrics::new().encode();
        for row in TABLE.iter().filter(|row| row.labels.is_empty()) {
            let unit = if row.unit.is_empty() { String::new() } else { format!("_{}", row.unit) };
            let name = format!("varve_{}{unit}", row.name);
            assert!(text.contains(&format!("# HELP {name} {}.", row.help)), "{name}\n{text}");
            assert!(text.contains(&format!("# TYPE {name} {}", row.kind)), "{name}");
            assert!(row.unit.is_empty() || text.contains(&format!("# UNIT {name} {}", row.unit)), "{name}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn handles_count_from_anywhere() {
        let metrics = Metrics::new();
        metrics.handles.clone().on_request("Fetch", Duration::from_millis(3));
        metrics.handles.on_error("Produce", "NOT_LEADER_OR_FOLLOWER");
        let text = metrics.encode();
        assert!(text.contains("varve_kafka_requests_total{api=\"Fetch\"} 1"), "{text}");
        assert!(text.contains("varve_kafka_request_latency_seconds_count{api=\"Fetch\"} 1"), "{text}");
        assert!(
            text.contains(
                "varve_kafka_request_errors_total{api=\"Produce\",error=\"NOT_LEADER_OR_FOLLOWER\"} 1"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_reference_names_metrics_as_they_are_scraped() {
        let page = reference();
        assert!(page.contains("| `varve_kafka_request_latency_seconds` | histogram | `api` |"), "{page}");
        assert!(page.contains("| `varve_tier_uploaded_bytes_total` | counter |  |"), "{page}");
        assert_eq!(page.lines().filter(|line| line.starts_with("| `varve_")).count(), TABLE.len());
    }
}
