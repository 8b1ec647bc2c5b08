//! Sizes and prose: a file is one noun, a crate opens with what it owns, git holds no artefacts.
//! (Functions have their wall in clippy: `too-many-lines-threshold`.)

use super::{Finding, Tracked};

const LINES_MAX: usize = 500;
const PROSE_LINES_MIN: usize = 3;
const SKELETON_LINES_MAX: usize = 30; // below this a room is empty and has nothing to describe yet
const BYTES_MAX: usize = 300 << 10;
const BINARY_BYTES_MAX: usize = 64 << 10; // fixtures and corpora are small

pub fn check(files: &[Tracked]) -> Vec<Finding> {
    let sizes = files.iter().filter_map(too_long);
    let artefacts = files.iter().filter_map(artefact);
    let prose = files.iter().filter_map(|file| no_prose(file, files));
    sizes.chain(artefacts).chain(prose).collect()
}

fn too_long(file: &Tracked) -> Option<Finding> {
    if !file.path.ends_with(".rs") || is_test_file(&file.path) {
        return None;
    }
    let lines = lines_without_tests(file.text());
    (lines > LINES_MAX)
        .then(|| Finding(format!("{}: {lines} lines without its tests, {LINES_MAX} is the wall", file.path)))
}

/// A room's own test files are free; the room `tests` holds nothing else, so its files are bound like any.
fn is_test_file(path: &str) -> bool {
    !path.starts_with("tests/") && (path.ends_with("/tests.rs") || path.contains("/tests/"))
}

fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |pair: &[&str]| {
        pair[0].starts_with("#[cfg(test)]") && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    };
    lines.windows(2).position(begins).unwrap_or(lines.len())
}

fn artefact(file: &Tracked) -> Option<Finding> {
    let is_binary = file.bytes.contains(&0);
    let is_fixture = ["fixtures/", "corpus/", "fuzz/"].iter().any(|folder| file.path.contains(folder));
    let wall = if is_binary { BINARY_BYTES_MAX } else { BYTES_MAX };
    let bytes = file.bytes.len();
    if bytes > wall {
        return Some(Finding(format!("{}: {bytes} bytes, git holds no large files", file.path)));
    }
    (is_binary && !is_fixture)
        .then(|| Finding(format!("{}: a binary outside fixtures and corpora", file.path)))
}

fn no_prose(file: &Tracked, files: &[Tracked]) -> Option<Finding> {
    let has_library = |room: &str| files.iter().any(|other| other.path == format!("{room}/src/lib.rs"));
    // A binary beside a library says where to look; the library has the prose.
    let binary = || file.path.strip_suffix("/src/main.rs").filter(|room| !has_library(room));
    let room = file.path.strip_suffix("/src/lib.rs").or_else(binary)?;
    let sources = files.iter().filter(|other| other.path.starts_with(&format!("{room}/src/")));
    let total: usize = sources.map(|source| source.text().lines().count()).sum();
    let prose = file.text().lines().take_while(|line| line.starts_with("//!")).count();
    (total > SKELETON_LINES_MAX && prose < PROSE_LINES_MIN).then(|| {
        Finding(format!("{}: opens without prose: what it owns, may touch and keeps true", file.path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, lines: usize) -> Tracked {
        Tracked { path: path.into(), bytes: "x\n".repeat(lines).into() }
    }

    #[test]
    fn a_file_past_the_wall_is_found_and_its_tests_are_free() {
        let mut long = file("wal/src/a.rs", 499);
        long.bytes.extend_from_slice(b"#[cfg(test)]\nmod tests {\n");
        long.bytes.extend_from_slice(&b"y\n".repeat(400));
        assert_eq!(too_long(&long), None);
        assert!(too_long(&file("wal/src/a.rs", 501)).is_some());
        assert!(too_long(&file("tests/tests/blackbox/a.rs", 501)).is_some());
        assert!(too_long(&file("wal/src/log/tests.rs", 501)).is_none());
    }

    #[test]
    fn a_crate_without_prose_is_found_once_it_is_more_than_a_skeleton() {
        let skeleton = [file("wal/src/lib.rs", 2)];
        assert!(no_prose(&skeleton[0], &skeleton).is_none());
        let grown = [file("wal/src/lib.rs", 2), file("wal/src/a.rs", 100)];
        assert!(no_prose(&grown[0], &grown).is_some());
    }

    #[test]
    fn binaries_and_large_files_are_found() {
        let binary = |path: &str| Tracked { path: path.into(), bytes: vec![0; 10] };
        assert!(artefact(&binary("wal/a.bin")).is_some());
        assert!(artefact(&binary("wal/fixtures/a.bin")).is_none());
        assert!(artefact(&file("a.txt", BYTES_MAX)).is_some());
    }
}
