//! Documents that the binary prints: a stale one is a finding, `cargo xtask docs` writes them afresh.

use super::{Finding, report};
use crate::shell::{self, Outcome, command};

/// One generated document and the arguments that print it.
struct Document {
    path: &'static str,
    arguments: &'static [&'static str],
}

const DOCUMENTS: &[Document] = &[
    Document { path: "docs/cli.md", arguments: &["docs", "cli"] },
    Document { path: "docs/config.md", arguments: &["docs", "config"] },
    Document { path: "docs/metrics.md", arguments: &["docs", "metrics"] },
    Document { path: "docs/api-versions.md", arguments: &["docs", "api-versions"] },
];

/// Compares every document with what the binary prints.
pub fn check() -> Outcome {
    let mut findings = Vec::new();
    for document in DOCUMENTS {
        let printed = print(document)?;
        let kept = shell::read(&shell::root().join(document.path)).unwrap_or_default();
        if printed != kept {
            findings.push(Finding(format!("{}: stale; `cargo xtask docs` writes it afresh", document.path)));
        }
    }
    report(&findings, DOCUMENTS.len())
}

/// Writes every document.
pub fn write_all() -> Outcome {
    DOCUMENTS.iter().try_for_each(|document| {
        shell::write(&shell::root().join(document.path), &print(document)?)?;
        println!("wrote {}", document.path);
        Ok(())
    })
}

fn print(document: &Document) -> Outcome<String> {
    shell::output(command(shell::varve()).args(document.arguments))
}
