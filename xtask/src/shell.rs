//! Running other programs, without a terminal and with their failure as a value.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why a task ended: one message for the person who reads the log.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The outcome of a task.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A command without standard input: nothing here may wait for a person.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir(root());
    command
}

/// A shell line, for the installers that are one.
pub fn bash(line: &str) -> Command {
    let mut command = command("bash");
    command.args(["-euo", "pipefail", "-c", line]);
    command
}

/// Runs to the end with output shown; an exit status other than zero is a failure.
pub fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("{}: {status}", shown(command)))) }
}

/// Runs to the end and returns standard output; standard error is shown.
pub fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| cannot_start(command, &error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure(format!("{}: {}", shown(command), output.status)))
    }
}

/// Whether the command runs and exits with zero; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, text: &str) -> Outcome {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .map_err(|e| at(path, &e))
}

/// Reads a file as text.
pub fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| at(path, &error))
}

/// The failure to touch `path`.
pub fn at(path: &Path, error: &io::Error) -> Failure {
    Failure(format!("{}: {error}", path.display()))
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one folder below the root").to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Where installed tools are kept between runs.
pub fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/varve-tools")
}

/// Whether this run is the gate, where nothing may be skipped.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// The binary under test: `VARVE_BIN`, or the release build.
pub fn varve() -> PathBuf {
    std::env::var_os("VARVE_BIN").map_or_else(|| target().join("release/varve"), PathBuf::from)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command, error: &io::Error) -> Failure {
    Failure(format!("{}: cannot start: {error}", shown(command)))
}
