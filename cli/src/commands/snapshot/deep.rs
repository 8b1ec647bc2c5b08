//! `snapshot verify --deep`: snapshots and all that they name.

use std::sync::Arc;

use tokio::runtime::Handle;
use varve_broker::config::Config;
use varve_compactor::verify::{Depth, Report, Verifier, opened};
use varve_snapshot::choose::Candidate;

use super::catalog::{Catalog, open_store};
use crate::{
    commands::{archive::Beside, bucket::tell},
    failure::Failure,
    output::OutputFlags,
    progress::Bytes,
};

pub async fn run(config: &Config, id: Option<&str>, output: OutputFlags) -> Result<(), Failure> {
    let catalog = Catalog::open(config).await?;
    let snapshots = match id {
        Some(id) => vec![catalog.find(id).await?],
        None => catalog.snapshots().await?,
    };
    let (store, prefix) = open_store(config)?;
    let history = match opened(store, &prefix).await {
        Ok(history) => history,
        Err(report) => return tell(&report, output),
    };
    let bar = Arc::new(Bytes::new("verifying"));
    let spawn = Arc::new(Beside(Handle::current()));
    let verifier = Verifier::new(history, Depth::Content, spawn, Arc::clone(&bar) as _);
    let mut report = Report::default();
    for snapshot in snapshots {
        let candidate = Candidate { key: snapshot.key, name: snapshot.name, bytes: snapshot.bytes };
        report.add(verifier.snapshot(&candidate).await);
    }
    bar.clear();
    report.findings.sort_unstable();
    tell(&report, output)
}
