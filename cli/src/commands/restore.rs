//! `restore`: what the bucket holds, and the next life of the cluster from it.

mod elsewhere;
mod plan;

use std::{
    io::{IsTerminal as _, Write as _, stderr, stdin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use varve_broker::{
    config::{Config, Sources},
    restore::{self, Bucket, Ground, Options, Outcome, Progress, RestoreError, Survey},
    runtime::{
        clock::{SystemClock, SystemEntropy},
        data::Layout,
        store,
    },
};
use varve_common::{Clock, Disk, Entropy, NodeId};
use varve_compactor::copy::CopyError;

use crate::{
    args::Restore,
    commands::snapshot::open_store,
    failure::Failure,
    output::{self, Format, human_age},
};

pub fn run(flags: &Restore, sources: Sources) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(to) = &flags.to {
        return runtime.block_on(elsewhere::run(flags, to, sources));
    }
    let config = stated(flags, flags.store.load(sources)?)?;
    runtime.block_on(async {
        let progress = Bar::default();
        let (store, prefix) = open_store(&config)?;
        let options = Options { accepted: flags.accept_loss.clone(), ..Options::of(&config) };
        let bucket = Bucket { store, prefix };
        let survey = restore::survey(&bucket, &options, super::now_ms(), &progress).await;
        progress.end();
        let survey = survey.map_err(failed)?;
        if flags.plan || flags.output.format() == Format::Table {
            output::print(flags.output.format(), || plan::text(&survey, None), || plan::json(&survey, None))?;
        }
        let unaccepted = survey.unaccepted();
        if !unaccepted.is_empty() {
            return Err(failed(RestoreError::Lost(unaccepted)));
        }
        if flags.plan {
            return Ok(());
        }
        if !flags.yes {
            let life = survey.plan.target.0;
            confirm(&format!(
                "Begin incarnation {life} of this cluster? A cluster that still runs on this prefix ends."
            ))?;
        }
        let wait = Duration::from_secs(flags.wait);
        let (survey, outcome) = write(&config, (options, survey), wait, &progress).await?;
        output::print(
            flags.output.format(),
            || done(&config, &outcome),
            || {
                let mut value = plan::json(&survey, Some(&outcome));
                value["data_directory"] = json!(config.data_directory.display().to_string());
                value
            },
        )?;
        Ok(())
    })
}

/// With the number of the node that is made.
fn stated(flags: &Restore, mut config: Config) -> Result<Config, Failure> {
    config.node = NodeId::new(flags.node).ok_or_else(|| Failure::usage("--node is out of range"))?;
    Ok(config)
}

/// Where a node begins: its store, to be written to, and what it stands on.
pub struct Place {
    bucket: Bucket,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Place {
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        let disk: Arc<dyn Disk> = Arc::new(varve_broker::runtime::disk());
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
            (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::default()));
        let embedded = Layout::below(&config.data_directory).objects;
        let tier = store::open(config, &embedded, &disk, Arc::clone(&clock), Arc::clone(&entropy)).await;
        let tier = tier.map_err(|why| Failure::failed(why, "check the object store and its credentials"))?;
        let bucket = Bucket { store: tier.store(), prefix: tier.prefix.clone() };
        Ok(Self { bucket, disk, clock, entropy })
    }
}

async fn write(
    config: &Config,
    (options, planned): (Options, Survey),
    wait: Duration,
    progress: &Bar,
) -> Result<(Survey, Outcome), Failure> {
    let Place { bucket, disk, clock, entropy } = Place::open(config).await?;
    let planned = Some(planned);
    let ground =
        Ground { config, bucket, disk, clock, entropy, wait, copied: None, options, planned, progress };
    let done = restore::run(ground).await;
    progress.end();
    done.map_err(failed)
}

pub fn failed(why: RestoreError) -> Failure {
    let advice = match &why {
        RestoreError::NotEmpty(_) => "name an empty one with --data-dir, or move this one away",
        RestoreError::Copy(CopyError::Hole { .. }) => {
            "nothing was changed for it; run it again: the broker that writes there may still bring that"
        }
        RestoreError::Copy(why) if why.is_damage() => {
            "nothing was changed for it; `varve bucket verify --deep` says what is damaged"
        }
        RestoreError::Inhabited(_) => "name an empty place with --to",
        RestoreError::Overtaken(_) => {
            "to begin another life, which ends that one, name an empty directory with --data-dir"
        }
        RestoreError::Unclaimed => "name the store of a cluster with --object-store",
        RestoreError::Lost(_) => {
            "nothing is restored without a word for each: name it with --accept-loss, and see what --plan then says of it"
        }
        RestoreError::NotThere(_) => "the plan names them: --accept-loss TOPIC, or TOPIC-N",
        RestoreError::Lock(_) => "stop the broker that runs there",
        RestoreError::History(_) | RestoreError::Choose { .. } | RestoreError::Segment { .. } => {
            "nothing was changed for it; `varve snapshot verify` says what is damaged"
        }
        _ => "run the same command again: it goes on where it was",
    };
    Failure::failed(why, advice)
}

fn confirm(question: &str) -> Result<(), Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::failed("nobody has agreed to this plan", "say --yes"));
    }
    eprint!("{question} [y/N] ");
    stderr().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::failed("not restored", "nothing was changed"))
    }
}

fn done(config: &Config, outcome: &Outcome) -> String {
    format!(
        "Restored as incarnation {} in {:.1} s (RTO). Start it with --data-dir {}\n",
        outcome.incarnation.0,
        outcome.duration_ms as f64 / 1000.0,
        config.data_directory.display(),
    )
}

/// A bar on a terminal's standard error; nothing elsewhere.
#[derive(Default)]
pub struct Bar {
    stage: Mutex<Option<(&'static str, u64, Instant)>>,
    done: AtomicU64,
}

impl Bar {
    const WIDTH: u64 = 30;

    fn draw(&self) {
        if !stderr().is_terminal() {
            return;
        }
        let Some((what, steps, since)) = *self.stage.lock().expect("no holder panics") else { return };
        let done = self.done.load(Ordering::Relaxed).min(steps);
        let filled = (done * Self::WIDTH).checked_div(steps).unwrap_or(0);
        let bar: String = (0..Self::WIDTH).map(|at| if at < filled { '#' } else { '.' }).collect();
        let age = human_age(since.elapsed().as_millis() as i64);
        let _ = write!(stderr(), "\r{what} [{bar}] {done}/{steps} {age}\x1b[K");
    }

    pub fn end(&self) {
        if self.stage.lock().expect("no holder panics").take().is_some() && stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Progress for Bar {
    fn begin(&self, what: &'static str, steps: u64) {
        self.done.store(0, Ordering::Relaxed);
        *self.stage.lock().expect("no holder panics") = Some((what, steps, Instant::now()));
        self.draw();
    }

    fn step(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::Relaxed);
        self.draw();
    }
}
