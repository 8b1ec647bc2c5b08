//! What no other tool checks: each check lists its findings, a finding fails the gate.

mod arrows;
mod files;
pub mod generated;
mod named;
mod words;

use std::path::PathBuf;

use crate::shell::{self, Failure, Outcome, command};

/// One thing to mend: where, and what.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding(pub String);

/// A file under version control, or about to be.
pub struct Tracked {
    /// Path below the root, with forward slashes.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Tracked {
    /// The file as text; bytes that are none count as an empty text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// Runs every check and prints what they find.
pub fn run() -> Outcome {
    let files = tracked()?;
    let mut findings = Vec::new();
    findings.extend(files::check(&files));
    findings.extend(arrows::check(&files));
    findings.extend(words::check(&files));
    findings.extend(named::check(&files));
    report(&findings, files.len())
}

/// Prints findings; any is a failure.
pub fn report(findings: &[Finding], looked_at: usize) -> Outcome {
    findings.iter().for_each(|finding| println!("tidy: {}", finding.0));
    if findings.is_empty() {
        println!("tidy: {looked_at} files, nothing to mend");
        return Ok(());
    }
    Err(Failure(format!("{} tidy findings", findings.len())))
}

fn tracked() -> Outcome<Vec<Tracked>> {
    let listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = shell::output(command("git").args(listing))?;
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    let existing = paths.map(|path| (path, shell::root().join(path))).filter(|(_, full)| full.is_file());
    existing.map(|(path, full)| load(path, full)).collect()
}

fn load(path: &str, full: PathBuf) -> Outcome<Tracked> {
    let bytes = std::fs::read(&full).map_err(|error| shell::at(&full, &error))?;
    Ok(Tracked { path: path.to_owned(), bytes })
}
