//! `storage scrub`: beside a stopped node, or asked of a running one, with how far it is.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;
use varve_broker::{config::Config, scrub::Progress, storage::Storage};

use super::{Running, failed};
use crate::{
    admin,
    failure::Failure,
    output::{self, Format, Table, human_bytes},
};

/// How often it is looked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two signs of life where standard error is no terminal.
const BAR_CELLS: u64 = 30;

/// Reads everything here and now; the report.
pub fn of_stopped(storage: &mut Storage, config: &Config) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let progress = Progress::default();
    let mut bar = Bar::new();
    runtime.block_on(async {
        let looking = async {
            loop {
                bar.show(&progress.to_json());
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            done = storage.scrub(config, &progress) => done.map_err(failed),
            () = looking => Ok(()),
        }
    })?;
    bar.end();
    Ok(progress.to_json())
}

/// Lets the node read everything and waits until it has; its report.
pub(super) fn of_running(node: &Running) -> Result<Value, Failure> {
    let address = node.address;
    let wrong = |error: std::io::Error| node.is_silent(&error);
    admin::start_scrub(address).map_err(wrong)?;
    let mut bar = Bar::new();
    loop {
        sleep(LOOK_INTERVAL);
        let report = admin::storage(address).map_err(wrong)?["scrub"].take();
        if report["state"] == "done" {
            bar.end();
            return Ok(report);
        }
        bar.show(&report);
    }
}

/// A line on a terminal, and nothing elsewhere.
struct Bar {
    is_shown: bool,
}

impl Bar {
    fn new() -> Self {
        Self { is_shown: stderr().is_terminal() }
    }

    fn show(&mut self, report: &Value) {
        if self.is_shown {
            let (read, all) = bytes(report);
            let full = (read * BAR_CELLS / all.max(1)).min(BAR_CELLS) as usize;
            let bar = "#".repeat(full) + &".".repeat(BAR_CELLS as usize - full);
            // A bar that cannot be drawn is no reason to stop.
            let _ = write!(stderr(), "\r[{bar}] {} of {}  ", human_bytes(read), human_bytes(all));
        }
    }

    fn end(&mut self) {
        if self.is_shown {
            let _ = writeln!(stderr());
        }
    }
}

fn bytes(report: &Value) -> (u64, u64) {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    (number("bytes_read"), number("bytes_expected"))
}

fn count(report: &Value, name: &str) -> usize {
    report[name].as_array().map_or(0, Vec::len)
}

/// How the last pass went, in one line.
pub fn line(report: &Value) -> String {
    let (read, all) = bytes(report);
    match report["state"].as_str() {
        Some("done") => format!(
            "read {}, {} damaged, {} of them still, {} unreadable",
            human_bytes(read),
            count(report, "damaged"),
            report["unrepaired"],
            count(report, "unreadable")
        ),
        Some("running" | "asked") => format!("reading, {} of {}", human_bytes(read), human_bytes(all)),
        _ => "not since the start".to_owned(),
    }
}

/// Prints the report; an error where something is left to do.
pub fn show(report: &Value, format: Format) -> Result<(), Failure> {
    output::print(format, || table(report), || report.clone())?;
    let is_clean = report["unrepaired"] == 0 && count(report, "unreadable") == 0;
    if is_clean { Ok(()) } else { Err(Failure::Reported) }
}

fn table(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut table = Table::new(&["PARTITION", "PLACE", "WHAT", "OUTCOME", "DETAIL"]);
    let rows = report["damaged"].as_array().into_iter().flatten();
    for row in rows {
        table.row(["partition", "place", "what", "outcome", "detail"].map(|column| text(&row[column])));
    }
    let damaged = if count(report, "damaged") == 0 { String::new() } else { table.render() };
    let unreadable = report["unreadable"].as_array().into_iter().flatten();
    let unreadable: String = unreadable.map(|what| format!("could not be read: {}\n", text(what))).collect();
    format!("{damaged}{unreadable}{}\n", line(report))
}
