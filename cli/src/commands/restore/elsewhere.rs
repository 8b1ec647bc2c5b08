//! `restore --to`: into another place, as a new cluster, while the old one may run on.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use varve_broker::{
    config::{Config, ObjectStore, Sources},
    restore::{self, Bucket, Copied, Copying, Ground, Options, Outcome, RestoreError, Survey},
};
use varve_common::PartitionIndex;

use super::{Bar, Place, confirm, failed, plan, stated};
use crate::{
    args::Restore,
    commands::snapshot::open_store,
    failure::Failure,
    output::{self, Format},
};

pub async fn run(flags: &Restore, to: &str, sources: Sources) -> Result<(), Failure> {
    let source = stated(flags, flags.store.load(sources.clone())?)?;
    let target = stated(flags, config(flags, to, sources)?)?;
    check_apart(&source, &target)?;
    let progress = Bar::default();
    let (store, prefix) = open_store(&source)?;
    let bucket = Bucket { store, prefix };
    let planned = restore::survey(&bucket, &Options::of(&source), crate::commands::now_ms(), &progress).await;
    progress.end();
    let planned = planned.map_err(failed)?;
    if flags.plan || flags.output.format() == Format::Table {
        let text = || plan::text(&planned, Some(to));
        output::print(flags.output.format(), text, || told(plan::json(&planned, None), to, &planned, None))?;
    }
    let lost = planned.unaccepted();
    if !lost.is_empty() {
        return Err(failed(RestoreError::Lost(lost)));
    }
    if flags.plan {
        return Ok(());
    }
    if !flags.yes {
        confirm(&format!("Make a new cluster of it at {to}?"))?;
    }
    let filled = Place::open(&target)
        .await?
        .fill(&target, (bucket, planned.offsets_partitions()), &progress, &|_, _| true)
        .await;
    progress.end();
    let (copied, survey, outcome) = filled.map_err(failed)?;
    output::print(
        flags.output.format(),
        || done((&copied, &outcome), to, &target.data_directory),
        || {
            let mut value = told(plan::json(&survey, Some(&outcome)), to, &planned, Some(&copied));
            value["data_directory"] = json!(target.data_directory.display().to_string());
            value
        },
    )?;
    Ok(())
}

impl Place {
    /// Copies what is chosen, and restores here.
    pub async fn fill(
        self,
        config: &Config,
        (source, offsets_partitions): (Bucket, i32),
        progress: &Bar,
        chosen: &(dyn Fn(&str, PartitionIndex) -> bool + Sync),
    ) -> Result<(Copied, Survey, Outcome), RestoreError> {
        let Self { bucket, disk, clock, entropy } = self;
        let copying = Copying {
            source,
            target: bucket.clone(),
            node: config.node,
            data: &config.data_directory,
            disk: Arc::clone(&disk),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            progress,
            offsets_partitions,
            chosen,
        };
        let copied = restore::copy(&copying).await?;
        // Nobody has lived there, else it is refused: there is nobody to wait for.
        let (wait, options, planned) = (Duration::ZERO, Options::of(config), None);
        let ground = Ground {
            config,
            bucket,
            disk,
            clock,
            entropy,
            wait,
            copied: Some(&copied),
            options,
            planned,
            progress,
        };
        let (survey, outcome) = restore::run(ground).await?;
        Ok((copied, survey, outcome))
    }
}

/// The configuration of the node that begins there: as the source's, in another store.
fn config(flags: &Restore, to: &str, sources: Sources) -> Result<Config, Failure> {
    let mut own = flags.store.clone();
    if let Some(file) = &flags.to_config {
        own.0.file = Some(file.clone());
        // What was said of the source's store is not meant for this one.
        own.0.values.retain(|(key, _)| key == "data.dir");
    }
    own.0.values.retain(|(key, _)| key != "object.store");
    own.0.values.push(("object.store".to_owned(), to.to_owned()));
    Ok(own.load(sources)?)
}

/// Where a store is: in which bucket of whom, and the folder there.
fn place(config: &Config) -> (String, PathBuf) {
    let on_disk =
        |path: &Path| (String::new(), std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    match &config.object_store {
        ObjectStore::Embedded => on_disk(&config.data_directory.join("objects")),
        ObjectStore::Directory(path) => on_disk(path),
        ObjectStore::S3 { bucket, prefix } => {
            let endpoint = config.s3.endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
            (format!("{endpoint}/{bucket}"), Path::new("/").join(prefix))
        }
    }
}

/// Refuses a place within the source, or around it: who lists the one would find the other.
fn check_apart(source: &Config, target: &Config) -> Result<(), Failure> {
    let (source, target) = (place(source), place(target));
    if source.0 == target.0 && (source.1.starts_with(&target.1) || target.1.starts_with(&source.1)) {
        return Err(Failure::usage("--to lies within the store that is copied, or around it"));
    }
    Ok(())
}

/// What is told of it in the end: what of the source is not there, and where it is.
fn done((copied, outcome): (&Copied, &Outcome), to: &str, data: &Path) -> String {
    let left = copied.partitions.iter().filter_map(|at| {
        let name = format!("{}-{}", at.topic, at.partition);
        Some(plan::left(&name, at.left.as_ref()?))
    });
    let deleted = copied.deleted.iter();
    let deleted = deleted
        .map(|topic| format!("DELETED  {topic}: it was deleted in the source meanwhile, and is not copied"));
    let notes: String = left.chain(deleted).map(|note| note + "\n").collect();
    let (cluster, seconds, data) = (copied.cluster, outcome.duration_ms as f64 / 1000.0, data.display());
    format!(
        "{notes}Restored as cluster {cluster} in {seconds:.1} s (RTO). Start it with --object-store {to} --data-dir {data}\n"
    )
}

/// What is told of the copy, beside what is told of a restore.
fn told(mut value: Value, to: &str, planned: &Survey, copied: Option<&Copied>) -> Value {
    value["to"] = json!(to);
    value["copied_from"] =
        json!({"cluster_id": planned.cluster.to_string(), "incarnation": planned.plan.source.0});
    match copied {
        None => value["incarnation"] = json!(2),
        Some(copied) => {
            plan::add_source(&mut value, planned, copied);
            value["copy_duration_ms"] = json!(copied.duration.as_millis() as u64);
            value["partitions_copied"] = json!(copied.partitions.len());
            value["topics_deleted"] = json!(copied.deleted);
        }
    }
    value
}
