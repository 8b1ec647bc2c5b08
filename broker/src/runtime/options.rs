//! Configuration turned into what the rooms below want.

use varve_compactor::PlanOptions;
use varve_formats::manifest::FanOut;
use varve_replica::{
    GroupOptions, LocalRetention, coordinator,
    limits::QUEUED_BYTES_MAX,
    metadata::{Image, Topic},
};

use crate::{
    config::{Config, dynamic::PRODUCER_EXPIRATION, topic::Effective},
    driver::OptionsOf,
};

/// How long commits of groups of consumers wait for their upload, at the most.
const COMMITS_AGE_MS: u64 = 60_000;

/// One part of so many of the log, at most, waits for its turn at one partition: it was let in before the log was short of room, and is
/// written after that. Producers are kept out from 70 % on.
const QUEUED_PART: u64 = 16;

/// How a topic's partitions are run, over a log of at most so many bytes.
#[must_use]
pub fn options_of(config: &Config, wal_bytes_max: u64) -> OptionsOf {
    let queued_bytes_max = QUEUED_BYTES_MAX.min(wal_bytes_max / QUEUED_PART);
    let defaults = config.topic_defaults.clone();
    let upload_age_ms = config.tier_age_max.as_millis() as u64;
    let fan_out = FanOut(config.manifest_fan_out);
    let has_store = config.has_common_store();
    let groups = config.groups.coordinator.clone();
    let node = config.node;
    std::sync::Arc::new(move |image: &Image, topic: &Topic| {
        let defaults = defaults.with(node, &image.broker_configs);
        let own = topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let options = group_options(&Effective::new(&defaults, own), upload_age_ms, fan_out);
        let coordinator = (&*topic.name == coordinator::TOPIC).then(|| Box::new(groups.clone()));
        let mut options = options;
        if coordinator.is_some() {
            // What a restore from the bucket alone may lose of commits, whatever records wait for.
            options.upload_age_ms = options.upload_age_ms.min(COMMITS_AGE_MS);
        }
        options.queued_bytes_max = queued_bytes_max;
        options.producer_expiration_ms = defaults.number(PRODUCER_EXPIRATION);
        GroupOptions { tiered: options.tiered && has_store, coordinator, ..options }
    })
}

fn group_options(effective: &Effective, upload_age_ms: u64, fan_out: FanOut) -> GroupOptions {
    // -1 is "without limit" in all of Kafka's retention keys.
    let limit = |name| u64::try_from(effective.number(name)).ok();
    // What is compacted is never deleted by age or size; compaction itself is not there yet.
    let deletes = effective.holds("cleanup.policy", "delete");
    let local = match (effective.number("local.retention.ms"), effective.number("local.retention.bytes")) {
        (-2, -2) => LocalRetention::Window,
        // Beside an explicit one, -2 is Kafka's: as long as the records exist.
        (ms, bytes) => LocalRetention::Explicit {
            ms: if ms == -2 { limit("retention.ms") } else { u64::try_from(ms).ok() },
            bytes: if bytes == -2 { limit("retention.bytes") } else { u64::try_from(bytes).ok() },
        },
    };
    let enabled = effective.switch("remote.storage.enable");
    GroupOptions {
        tiered: enabled && !effective.switch("remote.log.copy.disable"),
        forgets_tiered: !enabled && effective.switch("remote.log.delete.on.disable"),
        segment_bytes_max: limit("segment.bytes").unwrap_or(u64::MAX),
        segment_ms: limit("segment.ms").unwrap_or(u64::MAX),
        segment_jitter_ms: limit("segment.jitter.ms").unwrap_or(0),
        upload_age_ms,
        retention_ms: limit("retention.ms").filter(|_| deletes),
        retention_bytes: limit("retention.bytes").filter(|_| deletes),
        local_retention: local,
        archive_age_ms: limit("varve.archive.max.age.ms")
            .filter(|_| effective.switch("varve.archive.parquet")),
        fan_out,
        ..GroupOptions::default()
    }
}

/// How the node plans.
#[must_use]
pub fn plan_options(config: &Config) -> PlanOptions {
    let defaults = PlanOptions::default();
    PlanOptions {
        archive_bytes_max: config.memory.archive,
        has_store: config.has_common_store(),
        publish_segments: config.snapshot.segments,
        publish_age: config.snapshot.age_max,
        publish_interval: defaults.publish_interval.min(config.snapshot.age_max),
        publish_metadata_age: defaults.publish_metadata_age.min(config.snapshot.age_max),
        delete_grace: config.delete_grace,
        retention_interval: config.retention_interval,
        ..defaults
    }
}
