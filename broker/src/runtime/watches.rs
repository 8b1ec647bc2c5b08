//! What each watcher of the process is given, and what the admin address asks.

use std::sync::Arc;

use varve_objects::Class;

use super::{
    catching_up::CatchingUp,
    gauges, orphans, pressure,
    process::{Base, Core, RunError, wal_bytes_max},
    rot, scrub,
};
use crate::{
    http::{Check, Storage},
    scrub::Places,
};

pub(super) fn pressure_sources(base: &Base, core: &Core) -> Result<pressure::Sources, RunError> {
    Ok(pressure::Sources {
        room: core.backend.room.clone(),
        quota: wal_bytes_max(base)?,
        disk: Arc::clone(&base.disk),
        data: base.layout.root.clone(),
        mailbox: core.backend.mailbox.clone(),
        clock: Arc::clone(&base.clock),
        metrics: Arc::clone(&base.metrics),
        budgets: base.tier.stores.budgets().clone(),
    })
}

pub(super) fn gauge_sources(base: &Base, core: &Core) -> Result<gauges::Sources, RunError> {
    Ok(gauges::Sources {
        metrics: Arc::clone(&base.metrics),
        views: core.backend.views.clone(),
        mailbox: core.backend.mailbox.clone(),
        wal: core.reader.clone(),
        wal_bytes_max: wal_bytes_max(base)?,
        store: Arc::clone(&base.tier.counters),
        budgets: base.tier.stores.budgets().clone(),
        chunks: core.cold.chunks().clone(),
        disk: Arc::clone(&base.disk),
        data: base.layout.root.clone(),
        clock: Arc::clone(&base.clock),
        transfers: core.transfers.clone(),
    })
}

pub(super) fn scrub_sources(base: &Base, core: &Core, control: Arc<scrub::Control>) -> scrub::Sources {
    let places = Places {
        disk: Arc::clone(&base.disk),
        data: base.layout.root.clone(),
        wal: core.reader.clone(),
        local: core.local.clone(),
        store: base.tier.stores.of(Class::Scrub),
        keys: base.tier.prefix.cluster(base.identity.cluster),
    };
    scrub::Sources {
        places,
        mailbox: core.backend.mailbox.clone(),
        views: core.backend.views.clone(),
        entropy: Arc::clone(&base.entropy),
        clock: Arc::clone(&base.clock),
        metrics: Arc::clone(&base.metrics),
        incarnation: base.identity.incarnation,
        interval: base.config.scrub_interval,
        rate_max: base.config.scrub_rate,
        control,
    }
}

/// What the admin address says of the storage.
pub(super) fn storage_surface(core: &Core, control: &Arc<scrub::Control>) -> Storage {
    let (views, shown, asked) = (core.backend.views.clone(), Arc::clone(control), Arc::clone(control));
    let describe = move || {
        let damaged = views.damaged();
        let damaged: Vec<_> = damaged
            .iter()
            .map(|(name, why)| serde_json::json!({"partition": name, "cause": &**why}))
            .collect();
        serde_json::json!({"damaged": damaged, "scrub": shown.progress().to_json()})
    };
    Storage { describe: Arc::new(describe), scrub: Arc::new(move || asked.start()) }
}

pub(super) fn orphan_sources(base: &Base, core: &Core) -> orphans::Sources {
    orphans::Sources {
        store: base.tier.store(),
        keys: base.tier.prefix.cluster(base.identity.cluster),
        incarnation: base.identity.incarnation,
        views: core.backend.views.clone(),
        mailbox: core.backend.mailbox.clone(),
        clock: Arc::clone(&base.clock),
        metrics: Arc::clone(&base.metrics),
        options: base.config.orphans,
        grace: base.config.delete_grace,
    }
}

pub(super) fn rot_sources(base: &Base, core: &Core) -> rot::Sources {
    rot::Sources {
        wal: core.wal.clone(),
        local: core.local.clone(),
        views: core.backend.views.clone(),
        mailbox: core.backend.mailbox.clone(),
        clock: Arc::clone(&base.clock),
        metrics: Arc::clone(&base.metrics),
    }
}

pub(super) fn checks(core: &Core, catching_up: &CatchingUp) -> Vec<Check> {
    let wal = core.wal.clone();
    let views = core.backend.views.clone();
    let damaged_views = views.clone();
    vec![
        Check::new("log", move || match wal.pressure() {
            varve_wal::Pressure::None => Ok(()),
            varve_wal::Pressure::Full(full) => Err(format!("no room for records: {full}")),
            varve_wal::Pressure::Failed => Err("the log has failed".to_owned()),
        }),
        Check::new("partitions", move || {
            let waiting = views.waiting();
            if waiting == 0 { Ok(()) } else { Err(format!("{waiting} partitions have no leader yet")) }
        }),
        // The others are served: a node that is taken away for the sake of one partition helps nobody.
        Check::noted("damage", move || Ok(rot::note(&damaged_views))),
        catching_up.check(),
    ]
}
