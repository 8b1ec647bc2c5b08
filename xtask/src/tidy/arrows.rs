//! The arrows between rooms: imports point down, and pure rooms stay pure.
//!
//! ```text
//! 4  cli  tests  sim  bench  localstack  xtask
//! 3  broker  compactor
//! 2  replica  tiering  snapshot
//! 1  consensus  protocol  formats  wal  objects
//! 0  common
//! ```
//!
//! A room may import any room of a lower layer; the few arrows inside a layer are listed. Development dependencies are bound alike, except
//! that any room's tests may start servers with `localstack` and ask for more features of the room itself.

use super::{Finding, Tracked};

const LAYERS: &[&[&str]] = &[
    &["common"],
    &["consensus", "protocol", "formats", "wal", "objects"],
    &["replica", "tiering", "snapshot"],
    &["broker", "compactor"],
    &["cli", "tests", "sim", "bench", "localstack", "xtask"],
];

/// Arrows inside one layer. Each one is a decision: docs/adr says why.
const SIDEWAYS: &[(&str, &str)] = &[
    ("objects", "formats"),
    ("broker", "compactor"),
    ("tests", "localstack"),
    ("bench", "localstack"),
    ("bench", "sim"),
];

/// Rooms whose code is memory only, and what would let them reach further.
const PURE: &[&str] = &["common", "consensus", "protocol", "formats", "replica"];
const IMPURE: &[&str] =
    &["tokio", "tokio-util", "rand", "rustix", "reqwest", "object_store", "socket2", "axum", "tempfile"];

/// Who may open the log (deny.toml says the same to cargo-deny).
const WAL_USERS: &[&str] = &["broker", "tiering", "sim", "bench"];

pub fn check(files: &[Tracked]) -> Vec<Finding> {
    let manifests = files.iter().filter_map(|file| Some((room_of(&file.path)?, file)));
    manifests.flat_map(|(room, file)| check_room(room, file)).collect()
}

fn room_of(path: &str) -> Option<&str> {
    path.strip_suffix("/Cargo.toml").filter(|room| layer(room).is_some())
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn check_room(room: &str, file: &Tracked) -> Vec<Finding> {
    let finding = |name: &str, why: &str| Finding(format!("{}: {room} imports {name}: {why}", file.path));
    let mut findings = Vec::new();
    for Dependency { name, is_development } in dependencies(file.text()) {
        if let Some(imported) = name.strip_prefix("varve-") {
            let for_tests = is_development && (imported == "localstack" || imported == room);
            if !for_tests && !points_down(room, imported) {
                findings.push(finding(name, "imports point down (DESIGN 1, xtask/src/tidy/arrows.rs)"));
            }
            if imported == "wal" && room != imported && !WAL_USERS.contains(&room) {
                findings.push(finding(name, "the log is opened by the broker and read by tiering"));
            }
        } else if !is_development && PURE.contains(&room) && IMPURE.contains(&name) {
            findings.push(finding(name, "this room touches memory only"));
        }
    }
    findings
}

fn points_down(room: &str, imported: &str) -> bool {
    layer(imported) < layer(room) && layer(imported).is_some() || SIDEWAYS.contains(&(room, imported))
}

struct Dependency<'a> {
    name: &'a str,
    is_development: bool,
}

/// The names in the dependency tables of a manifest as this workspace writes them: one `name = …` or `name.workspace = true` a line.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut table = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']);
        } else if table.ends_with("dependencies")
            && let Some(name) =
                line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty() && !name.starts_with('#'))
        {
            found.push(Dependency { name, is_development: table.ends_with("dev-dependencies") });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(room: &str, manifest: &str) -> usize {
        let file = Tracked { path: format!("{room}/Cargo.toml"), bytes: manifest.into() };
        check(&[file]).len()
    }

    #[test]
    fn an_import_that_points_up_or_sideways_is_found() {
        assert_eq!(
            findings("wal", "[dependencies]\nvarve-common.workspace = true\nbytes.workspace = true\n"),
            0
        );
        assert_eq!(findings("wal", "[dependencies]\nvarve-objects.workspace = true\n"), 1);
        assert_eq!(findings("replica", "[dependencies]\nvarve-broker = { path = \"../broker\" }\n"), 1);
    }

    #[test]
    fn only_the_listed_rooms_open_the_log_and_pure_rooms_stay_pure() {
        assert_eq!(findings("cli", "[dependencies]\nvarve-wal.workspace = true\n"), 1);
        assert_eq!(findings("replica", "[dependencies]\ntokio.workspace = true\n"), 1);
        assert_eq!(findings("replica", "[dev-dependencies]\ntempfile.workspace = true\n"), 0);
    }

    #[test]
    fn any_room_may_test_against_localstack() {
        assert_eq!(findings("objects", "[dev-dependencies]\nvarve-localstack.workspace = true\n"), 0);
        assert_eq!(findings("objects", "[dependencies]\nvarve-localstack.workspace = true\n"), 1);
    }
}
