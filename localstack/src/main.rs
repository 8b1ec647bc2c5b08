//! `varve-localstack`: a real S3 server with a bucket, by one command. The library says how.
#![allow(clippy::disallowed_methods, reason = "a program of its own, which talks to the terminal")]

use std::{collections::VecDeque, fs, path::PathBuf, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};
use varve_localstack::{
    Bucket, Kind, Lifecycle, Server, Setup, Versioning,
    proxy::{Proxy, Rule},
    table,
};

const USAGE: &str = "\
usage: varve-localstack SERVER [OPTION]...   starts minio, localstack, moto, versitygw or s3mock; SIGTERM or Ctrl-C stops it
         --bucket NAME    a bucket that is made [default: varve]
         --port NUMBER    [default: any free one]
         --data FOLDER    kept at the end [default: a temporary folder]
         --domain NAME    minio: a name in front of which buckets can stand, as s3.localhost
         --env-file FILE  is written with the settings of clients once the server answers
         --versioning enabled|suspended           of the bucket
         --encryption sse-s3                      what is put is encrypted with the server's own keys
         --expire-days, --expire-old-versions-days, --abort-uploads-days DAYS
                          a lifecycle rule of the bucket: objects, old versions, uploads that were never finished go by themselves
         --fault RULE     puts a proxy in front that fails as told, as: 'status:503:SlowDown method=PUT chance=30'; may be repeated
         --seed NUMBER    of the proxy's chance [default: 1]
       varve-localstack list                 which servers are installed (`cargo xtask setup` does that)
       varve-localstack table                prints docs/s3-servers.md from a run over all of them";

struct Wishes {
    kind: Kind,
    bucket: String,
    setup: Setup,
    env_file: Option<PathBuf>,
    faults: Vec<Rule>,
    seed: u64,
    versioning: Option<Versioning>,
    is_encrypted: bool,
    lifecycle: Lifecycle,
}

impl Wishes {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            bucket: "varve".into(),
            setup: Setup::default(),
            env_file: None,
            faults: Vec::new(),
            seed: 1,
            versioning: None,
            is_encrypted: false,
            lifecycle: Lifecycle::default(),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments: VecDeque<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.pop_front().as_deref() {
        Some("list") => list(),
        Some("table") => print_table().await,
        Some(name) => match Kind::named(name) {
            Some(kind) => match parse(kind, arguments) {
                Ok(wishes) => serve(wishes).await,
                Err(why) => Err(format!("{why}\n{USAGE}")),
            },
            None => Err(USAGE.to_owned()),
        },
        None => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(kind: Kind, mut arguments: VecDeque<String>) -> Result<Wishes, String> {
    let mut wishes = Wishes::of(kind);
    while let Some(flag) = arguments.pop_front() {
        let value = arguments.pop_front().ok_or_else(|| format!("{flag} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag}: {value:?} is no number"));
        let days = || match value.parse::<i32>() {
            Ok(days) if days > 0 => Ok(Some(days)),
            _ => Err(format!("{flag}: {value:?} is no number of days")),
        };
        match flag.as_str() {
            "--bucket" => wishes.bucket = value,
            "--port" => {
                wishes.setup.port =
                    Some(u16::try_from(number()?).map_err(|_| format!("{value} is no port"))?);
            }
            "--data" => wishes.setup.data = Some(value.into()),
            "--domain" => wishes.setup.domain = Some(value),
            "--env-file" => wishes.env_file = Some(value.into()),
            "--fault" => wishes.faults.push(value.parse::<Rule>().map_err(|error| error.to_string())?),
            "--seed" => wishes.seed = number()?,
            "--versioning" => wishes.versioning = Some(versioning(&value)?),
            "--encryption" if value == "sse-s3" => wishes.is_encrypted = true,
            "--encryption" => return Err(format!("--encryption: there is sse-s3, not {value:?}")),
            "--expire-days" => wishes.lifecycle.expire_days = days()?,
            "--expire-old-versions-days" => wishes.lifecycle.expire_old_versions_days = days()?,
            "--abort-uploads-days" => wishes.lifecycle.abort_uploads_days = days()?,
            _ => return Err(format!("unknown option {flag}")),
        }
    }
    Ok(wishes)
}

fn versioning(name: &str) -> Result<Versioning, String> {
    match name {
        "enabled" => Ok(Versioning::Enabled),
        "suspended" => Ok(Versioning::Suspended),
        _ => Err(format!("--versioning: there are enabled and suspended, not {name:?}")),
    }
}

/// Gives the bucket its settings; a server that does not have one of them says so.
async fn set_up(bucket: &Bucket, wishes: &Wishes) -> Result<(), String> {
    bucket.create().await.map_err(|error| error.to_string())?;
    if let Some(versioning) = &wishes.versioning {
        let set = bucket.set_versioning(versioning.clone()).await;
        set.map_err(|error| format!("--versioning: {error}"))?;
    }
    if wishes.is_encrypted {
        bucket.set_encryption().await.map_err(|error| format!("--encryption: {error}"))?;
    }
    if wishes.lifecycle != Lifecycle::default() {
        let set = bucket.set_lifecycle("", wishes.lifecycle).await;
        set.map_err(|error| format!("the lifecycle rule: {error}"))?;
    }
    Ok(())
}

async fn serve(mut wishes: Wishes) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    // Before the server starts: a signal in between must not leave it behind.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| text(&error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| text(&error))?;
    let setup = std::mem::take(&mut wishes.setup);
    let mut server = Server::start_with(wishes.kind, setup).await.map_err(|error| text(&error))?;
    set_up(&server.bucket(&wishes.bucket), &wishes).await?;
    let mut proxy = None;
    if !wishes.faults.is_empty() {
        let started = Proxy::start(server.address(), wishes.seed).await.map_err(|error| text(&error))?;
        started.set_rules(wishes.faults);
        proxy = Some(started);
    }
    let endpoint = proxy.as_ref().map_or_else(|| server.endpoint.clone(), Proxy::endpoint);
    let settings = format!(
        "export AWS_ACCESS_KEY_ID={}\nexport AWS_SECRET_ACCESS_KEY={}\nexport AWS_REGION={}\n\
         export AWS_ENDPOINT_URL_S3={endpoint}\n",
        server.access_key, server.secret_key, server.region
    );
    let pid = server.pid().unwrap_or_default();
    println!("{settings}# {} with pid {pid}; with the exports above:", wishes.kind);
    println!("#   varve serve --object-store s3://{}/demo --s3-endpoint {endpoint}", wishes.bucket);
    if let Some(file) = wishes.env_file {
        fs::write(&file, settings).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.stop_keeping_data();
    Ok(())
}

fn list() -> Result<(), String> {
    for kind in Kind::ALL {
        let state = if kind.is_installed() { "installed" } else { "missing: cargo xtask setup" };
        println!("{:10} {:10} {state}", kind.name(), kind.version());
    }
    Ok(())
}

async fn print_table() -> Result<(), String> {
    let mut columns = Vec::new();
    for kind in Kind::ALL {
        let server = Server::start(kind).await.map_err(|error| error.to_string())?;
        columns.push((
            kind.name().to_owned(),
            kind.version().to_owned(),
            table::examine_server(kind, &server).await?,
        ));
        server.stop();
    }
    columns.push((table::DIRECTORY.to_owned(), String::new(), table::examine_directory().await?));
    print!("{}", table::page(&columns));
    Ok(())
}
