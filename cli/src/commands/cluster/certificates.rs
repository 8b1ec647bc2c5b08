//! `cluster certificates`: what nodes prove themselves to each other by.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use varve_broker::peers::authority::{Authority, AuthorityError, Issued, Validity};
use varve_common::NodeId;

use crate::{args::ClusterCertificates, failure::Failure, output};

const DAY: Duration = Duration::from_hours(24);
/// Nodes come and go; who signs for them stays.
const AUTHORITY_SPAN: Duration = Duration::from_hours(24 * 3650);

pub fn run(flags: &ClusterCertificates) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = Validity { now, span: DAY * flags.days };
    let at = |name: &str| flags.directory.join(name);
    fs::create_dir_all(&flags.directory).map_err(|error| failed(&flags.directory, &error))?;
    let (authority, is_new) = authority(&at("authority.key"))?;
    let mut written = Vec::new();
    // Its certificate may have been lost, or never written: the key says the same again.
    if is_new || !at("authority.pem").exists() {
        let own = authority.issued(Validity { now, span: AUTHORITY_SPAN }).map_err(|error| unmade(&error))?;
        written.extend(store(&own, at("authority.pem"), at("authority.key"))?);
    }
    for number in &flags.nodes {
        let node =
            NodeId::new(*number).ok_or_else(|| Failure::usage(format!("{number} is no node's number")))?;
        let issued = authority.node(node, days).map_err(|error| unmade(&error))?;
        written.extend(store(&issued, at(&format!("node-{node}.pem")), at(&format!("node-{node}.key")))?);
    }
    let names: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    let text = || {
        format!(
            "{}\n\nEach node gets authority.pem and its own two files, as peer.tls.ca, peer.tls.certificate and peer.tls.key.\n\
             authority.key signs for the cluster: keep it away from the nodes, and name the same directory for nodes to come.\n",
            names.join("\n")
        )
    };
    Ok(output::print(flags.output.format(), text, || json!({"written": names, "new_authority": is_new}))?)
}

/// The authority of a directory, and whether it is new.
fn authority(key: &Path) -> Result<(Authority, bool), Failure> {
    match fs::read_to_string(key) {
        Ok(kept) => Ok((Authority::of_key(&kept).map_err(|error| unmade(&error))?, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok((Authority::new().map_err(|error| unmade(&error))?, true))
        }
        Err(error) => Err(failed(key, &error)),
    }
}

/// Writes both; nobody else may read the key, whoever might read what had its name before.
fn store(issued: &Issued, certificate: PathBuf, key: PathBuf) -> Result<[PathBuf; 2], Failure> {
    for (path, text, mode) in [(&key, &issued.key, 0o600), (&certificate, &issued.certificate, 0o644)] {
        replace(path, text, mode).map_err(|error| failed(path, &error))?;
    }
    Ok([certificate, key])
}

fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()), "name a directory that can be written")
}

fn unmade(error: &AuthorityError) -> Failure {
    Failure::failed(error.to_string(), "is authority.key what this command has written?")
}
