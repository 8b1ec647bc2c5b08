//! Runs the commands that the README shows, word for word, so that it cannot lie.
//!
//! A fenced block takes part when its info string begins `sh ci`. What follows says how:
//!
//! - `sh ci`: runs to the end and must exit with zero.
//! - `sh ci server=PORT,…`: one command, started in the background; what follows waits until each PORT of 127.0.0.1 answers. Servers end with
//!   SIGTERM, the last one first, at the next `## ` heading or at the end of the page, and must then exit with zero.
//! - `sh ci gate`: the test command itself; `.ci/run` calls it, this runner does not (it would call itself).

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::shell::{self, Failure, Outcome, bash, run as run_command};

const READY_SECONDS_MAX: u64 = 900; // `cargo run --release` may have to build first
const STOP_SECONDS_MAX: u64 = 30;
/// What the commands leave in the checkout; git ignores it.
const FOLDERS: &[&str] = &["varve-data", "varve-data-s3", "minio-data"];

/// One fenced block that takes part.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    kind: Kind,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Server {
        ports: Vec<u16>,
    },
    Gate,
    /// A heading: the servers of the section before it end.
    Section,
}

/// Runs the blocks in the order of the page.
pub fn run() -> Outcome {
    if let Some(data) = folders().find(|data| data.exists()) {
        return Err(Failure(format!(
            "{} exists: the README's commands would use it; move it away",
            data.display()
        )));
    }
    let blocks = parse(&shell::read(&shell::root().join("README.md"))?)?;
    let mut servers = Vec::new();
    let outcome = blocks.iter().try_for_each(|block| run_block(block, &mut servers));
    let stopped = stop_all(&mut servers);
    for data in folders().filter(|data| data.exists()) {
        std::fs::remove_dir_all(&data).map_err(|error| shell::at(&data, &error))?;
    }
    outcome.and(stopped)
}

fn folders() -> impl Iterator<Item = PathBuf> {
    FOLDERS.iter().map(|folder| shell::root().join(folder))
}

fn run_block(block: &Block, servers: &mut Vec<Child>) -> Outcome {
    if matches!(block.kind, Kind::Run | Kind::Server { .. }) {
        println!("--- README.md line {}\n{}", block.line, block.text.trim_end());
    }
    match &block.kind {
        Kind::Gate => Ok(()),
        Kind::Section => stop_all(servers),
        Kind::Server { ports } => start(block, ports).map(|server| servers.push(server)),
        Kind::Run => run_command(&mut with_tools(bash(&block.text)))
            .map_err(|failure| Failure(format!("README.md line {}: {failure}", block.line))),
    }
}

/// Ends servers, the last one first; each gets its chance, the first failure is told.
fn stop_all(servers: &mut Vec<Child>) -> Outcome {
    servers.drain(..).rev().map(stop).fold(Ok(()), Outcome::and)
}

fn start(block: &Block, ports: &[u16]) -> Outcome<Child> {
    // `exec` makes the server the child itself, so that its pid is ours to stop; `cargo run` becomes the program that it ran.
    let line = format!("exec env {}", block.text.trim());
    let mut child = with_tools(bash(&line))
        .spawn()
        .map_err(|error| Failure(format!("cannot start a server: {error}")))?;
    let is_silent = |port: &u16| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], *port))).is_err();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(READY_SECONDS_MAX) {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure(format!("README.md line {}: the server ended with {status}", block.line)));
        }
        if !ports.iter().any(is_silent) {
            return Ok(child);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    stop(child)?;
    Err(Failure(format!("README.md line {}: nothing answered on one of {ports:?}", block.line)))
}

fn stop(mut child: Child) -> Outcome {
    run_command(bash(&format!("kill -TERM {0} 2>/dev/null || kill -0 {0}", child.id())).env("LC_ALL", "C"))?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(STOP_SECONDS_MAX) {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                return Err(Failure(format!("a server of the README ended with {status} on SIGTERM")));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    child
        .kill()
        .and_then(|()| child.wait())
        .map_err(|error| Failure(format!("cannot kill a server: {error}")))?;
    Err(Failure(format!("a server of the README was still running {STOP_SECONDS_MAX} s after SIGTERM")))
}

fn with_tools(mut command: Command) -> Command {
    let cache = shell::cache();
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = [cache.join("bin"), cache.join("venv/bin"), shell::target().join("release")];
    let front: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    command.env("PATH", format!("{}:{path}", front.join(":")));
    command
}

fn parse(page: &str) -> Outcome<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.starts_with("## ") {
            blocks.push(Block { line: index + 1, kind: Kind::Section, text: String::new() });
        }
        let Some(info) = line.strip_prefix("```") else { continue };
        let text: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if let Some(kind) = kind_of(info, index + 1)? {
            blocks.push(Block { line: index + 1, kind, text: text.join("\n") });
        }
    }
    Ok(blocks)
}

fn kind_of(info: &str, line: usize) -> Outcome<Option<Kind>> {
    let words: Vec<&str> = info.split_whitespace().collect();
    let unknown = || Failure(format!("README.md line {line}: unknown block {info:?}"));
    match words.as_slice() {
        ["sh", "ci"] => Ok(Some(Kind::Run)),
        ["sh", "ci", "gate"] => Ok(Some(Kind::Gate)),
        ["sh", "ci", flag] => {
            let ports = flag.strip_prefix("server=").ok_or_else(unknown)?;
            let ports: Result<Vec<u16>, _> = ports.split(',').map(str::parse).collect();
            Ok(Some(Kind::Server { ports: ports.map_err(|_| unknown())? }))
        }
        ["sh", ..] => {
            Err(Failure(format!("README.md line {line}: every sh block runs in CI: mark it `sh ci`")))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_taken_word_for_word_in_order() {
        let page = "## a\n```sh ci server=9092,9192\nserve\n```\n```json\n{}\n```\n```sh ci\none\ntwo\n```\n";
        let blocks = parse(page).unwrap();
        assert_eq!(
            blocks,
            [
                Block { line: 1, kind: Kind::Section, text: String::new() },
                Block { line: 2, kind: Kind::Server { ports: vec![9092, 9192] }, text: "serve".into() },
                Block { line: 8, kind: Kind::Run, text: "one\ntwo".into() },
            ]
        );
    }

    #[test]
    fn a_shell_block_that_would_not_run_is_refused() {
        assert!(parse("```sh\nls\n```\n").is_err());
    }
}
