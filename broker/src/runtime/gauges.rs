//! Figures that are read off the node every few seconds: sizes, ages, counts of the store.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use varve_common::{Clock, Disk, GroupId};
use varve_compactor::{Pin, PressureGauge};
use varve_objects::{BudgetReport, Budgets, Count, Counters, Operation};
use varve_replica::PartitionView;
use varve_tiering::{ChunkCache, Slab, SlabCounts};

use super::{mailbox::Mailbox, moving, views::Views};
use crate::{
    metrics::{Handles, Metrics},
    transfer::{TransferCounts, Transfers},
};

/// How often figures are read.
const INTERVAL: Duration = Duration::from_secs(5);

/// Of so many groups at the most that keep the log's oldest file it is told what they wait for.
const PINNED_MAX: usize = 64;

/// Where figures come from.
pub struct Sources {
    /// Where they go.
    pub metrics: Arc<Metrics>,
    /// Partitions and topics.
    pub views: Views,
    /// The shard's thread, which is asked what groups wait for.
    pub mailbox: Mailbox,
    /// The log.
    pub wal: varve_wal::Reader,
    /// Its limit.
    pub wal_bytes_max: u64,
    /// Requests to the store.
    pub store: Arc<Counters>,
    /// Who may ask it how often.
    pub budgets: Budgets,
    /// Cold chunks.
    pub chunks: ChunkCache,
    /// The disk that holds `data`.
    pub disk: Arc<dyn Disk>,
    /// The data directory.
    pub data: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What comes from other nodes.
    pub transfers: Transfers,
}

/// What was read last of things that only grow.
#[derive(Default)]
struct Last {
    store: BTreeMap<Operation, Count>,
    chunks: (u64, u64),
    budget: Option<BudgetReport>,
    slab: SlabCounts,
    moves: TransferCounts,
}

/// Reads figures until it is dropped.
pub async fn watch(sources: Sources) {
    let handles = &sources.metrics.handles;
    handles.start_time.set(sources.clock.wall_ms() as f64 / 1000.0);
    handles.wal_bytes_max.set(sources.wal_bytes_max as i64);
    let mut last = Last::default();
    loop {
        log(&sources, handles).await;
        stalls(&sources, handles);
        partitions(&sources, handles);
        groups(&sources, handles).await;
        store(&sources, handles, &mut last);
        budget(&sources, handles, &mut last);
        moving::count(handles, &sources.transfers, &mut last.moves);
        sources.clock.sleep(INTERVAL).await;
    }
}

async fn log(sources: &Sources, handles: &Handles) {
    let usage = sources.wal.usage();
    let is_pressed = PressureGauge::new(sources.wal_bytes_max).is_short(usage.bytes);
    let pins = pins(&sources.mailbox, &usage.oldest_pinned_by, is_pressed).await;
    for pin in Pin::ALL {
        let count = pins.iter().filter(|found| **found == pin).count();
        handles.wal_pins.get_or_create(&[("by", pin.name())]).set(count as i64);
    }
    handles.wal_bytes.set(usage.bytes as i64);
    handles.wal_live_bytes.set(usage.live_bytes as i64);
    match sources.disk.space(&sources.data) {
        Ok(space) => {
            handles.disk_free.set(space.free_bytes as i64);
            handles.disk_total.set(space.total_bytes as i64);
        }
        Err(error) => tracing::warn!(%error, "the disk's free space could not be read"),
    }
}

/// What each of them waits for, of as many as are asked. A node that is stopping says nothing any more.
async fn pins(mailbox: &Mailbox, groups: &[GroupId], is_pressed: bool) -> Vec<Pin> {
    let groups: Vec<GroupId> = groups.iter().take(PINNED_MAX).copied().collect();
    let look = mailbox.look(move |driver| {
        let statuses = groups.into_iter().map(|group| driver.shard().status(group));
        let pin = |status: Option<_>| status.map_or(Pin::Damage, |status| Pin::of(&status, is_pressed));
        statuses.map(pin).collect()
    });
    look.await.unwrap_or_default()
}

fn stalls(sources: &Sources, handles: &Handles) {
    for (stall, count) in sources.metrics.stalls.counts(sources.clock.monotonic()) {
        handles.upload_stalled.get_or_create(&[("reason", stall.name())]).set(count as i64);
    }
}

fn partitions(sources: &Sources, handles: &Handles) {
    let views = sources.views.all();
    let topics = sources.views.image().topics.len();
    handles.topics.set(topics as i64);
    handles.deletions.set(sources.views.image().deletions.len() as i64);
    handles.partitions.set(views.len() as i64);
    handles.partitions_unavailable.set(sources.views.waiting() as i64);
    let bytes: u64 = views.iter().map(|view| untiered_bytes(view)).sum();
    handles.untiered_bytes.set(bytes as i64);
    let oldest = views.iter().filter_map(|view| untiered_since_ms(view)).min();
    let age_ms = oldest.map_or(0, |since| sources.clock.wall_ms().saturating_sub(since).max(0));
    handles.untiered_age.set(age_ms as f64 / 1000.0);
}

async fn groups(sources: &Sources, handles: &Handles) {
    // A node that stops has nothing to say.
    let Ok(figures) = sources.mailbox.figures().await else { return };
    let gauges = [
        (&handles.groups, figures.groups),
        (&handles.raft_leaders, figures.led),
        (&handles.raft_leaderless, figures.leaderless),
        (&handles.raft_resting, figures.resting),
        (&handles.raft_stopped, figures.stopped),
        (&handles.raft_learners, figures.learners),
        (&handles.raft_term, figures.term_max),
        (&handles.raft_last, figures.last),
        (&handles.raft_committed, figures.committed),
        (&handles.raft_applied, figures.applied),
        (&handles.raft_memory, figures.memory_bytes),
        (&handles.raft_follower_lag, figures.follower_lag),
        (&handles.raft_follower_lag_max, figures.follower_lag_max),
        (&handles.raft_in_sync, figures.in_sync),
        (&handles.raft_in_sync_min, figures.in_sync_min.unwrap_or(0)),
        (&handles.raft_under_replicated, figures.under_replicated),
        (&handles.consumer_groups, figures.coordinated),
        (&handles.archive_lag, figures.unarchived),
        (&handles.consumer_members, figures.members),
    ];
    for (gauge, value) in gauges {
        gauge.set(value as i64);
    }
    let waits = |since: i64| sources.clock.wall_ms().saturating_sub(since).max(0);
    handles.archive_age.set(figures.unarchived_since_ms.map_or(0, waits) as f64 / 1000.0);
}

fn untiered_bytes(view: &PartitionView) -> u64 {
    view.open.bytes + view.rolls.iter().map(|roll| roll.bytes).sum::<u64>()
}

fn untiered_since_ms(view: &PartitionView) -> Option<i64> {
    let rolled = view.rolls.first().map(|roll| roll.rolled_ms);
    rolled.or_else(|| (!view.open.is_empty()).then_some(view.open.first_append_ms))
}

fn store(sources: &Sources, handles: &Handles, last: &mut Last) {
    let counts = sources.store.snapshot();
    for (operation, count) in &counts {
        let before = last.store.get(operation).copied().unwrap_or_default();
        let failed = count.failures - before.failures;
        let answered = (count.requests - before.requests).saturating_sub(failed);
        let name = name_of(*operation);
        for (outcome, number) in [("answered", answered), ("failed", failed)] {
            handles.store_requests.get_or_create(&[("operation", name), ("outcome", outcome)]).inc_by(number);
        }
        handles.store_cost.inc_by(price(*operation) * (count.requests - before.requests) as f64);
        let bytes = count.bytes - before.bytes;
        match operation {
            Operation::Put => handles.store_sent.get_or_create(&[("operation", name)]).inc_by(bytes),
            Operation::Get | Operation::GetRange | Operation::GetSuffix => {
                handles.store_received.get_or_create(&[("operation", name)]).inc_by(bytes)
            }
            Operation::Head | Operation::List | Operation::Delete => 0,
        };
        if *operation == Operation::GetRange {
            handles.cold_bytes.inc_by(count.bytes - before.bytes);
        }
    }
    last.store = counts;
    let chunks = sources.chunks.counts();
    handles.cache_hits.inc_by(chunks.hits - last.chunks.0);
    handles.cache_misses.inc_by(chunks.misses - last.chunks.1);
    last.chunks = (chunks.hits, chunks.misses);
    let slab = sources.chunks.slab().map(Slab::counts).unwrap_or_default();
    handles.cache_disk_hits.inc_by(slab.hits - last.slab.hits);
    handles.cache_disk_writes.inc_by(slab.written - last.slab.written);
    handles.cache_disk_bypassed.inc_by(slab.bypassed - last.slab.bypassed);
    handles.cache_disk_corrupt.inc_by(slab.corrupt - last.slab.corrupt);
    handles.cache_disk_failures.inc_by(slab.failures - last.slab.failures);
    handles.cache_disk_bytes.set(slab.bytes as i64);
    last.slab = slab;
}

fn budget(sources: &Sources, handles: &Handles, last: &mut Last) {
    let report = sources.budgets.report();
    let before = last.budget.take();
    for (class, spent) in &report.spent {
        let label = [("class", class.name())];
        let known = before.as_ref().map(|report| report.spent[class]).unwrap_or_default();
        handles.budget_requests.get_or_create(&label).inc_by(spent.requests - known.requests);
        handles.budget_bytes.get_or_create(&label).inc_by(spent.bytes - known.bytes);
        handles.budget_wait.get_or_create(&label).inc_by((spent.waited - known.waited).as_secs_f64());
    }
    handles.budget_slow_downs.inc_by(report.slow_downs - before.map_or(0, |report| report.slow_downs));
    handles.budget_pace.set(report.requests_per_second as i64);
    last.budget = Some(report);
}

/// The list price of one request in dollars: S3 Standard, us-east-1. Failed ones are charged like others, but for those
/// that the store itself answers with an error of its own.
const fn price(operation: Operation) -> f64 {
    match operation {
        Operation::Put | Operation::List => 5e-6,
        Operation::Get | Operation::GetRange | Operation::GetSuffix | Operation::Head => 0.4e-6,
        Operation::Delete => 0.0,
    }
}

const fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Put => "put",
        Operation::Get => "get",
        Operation::GetRange => "get_range",
        Operation::GetSuffix => "get_suffix",
        Operation::Head => "head",
        Operation::List => "list",
        Operation::Delete => "delete",
    }
}
