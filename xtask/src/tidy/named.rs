//! docs/anomalies.md and docs/faults.md say which test holds which promise; a test that they name exists.

use std::collections::BTreeSet;

use super::{Finding, Tracked};

const MAPS: [&str; 2] = ["docs/anomalies.md", "docs/faults.md"];
/// Names of tests are sentences; what has fewer words between backticks is something else.
const UNDERSCORES_MIN: usize = 2;

pub fn check(files: &[Tracked]) -> Vec<Finding> {
    let functions: BTreeSet<&str> =
        files.iter().filter(|file| file.path.ends_with(".rs")).flat_map(functions).collect();
    let maps = files.iter().filter(|file| MAPS.contains(&file.path.as_str()));
    let unknown = maps.flat_map(|map| named(map.text()).map(move |(line, name)| (map, line, name)));
    let unknown = unknown.filter(|(_, _, name)| !functions.contains(name));
    unknown
        .map(|(map, line, name)| Finding(format!("{}:{line}: there is no test {name}", map.path)))
        .collect()
}

fn functions(file: &Tracked) -> impl Iterator<Item = &str> {
    file.text().split("fn ").skip(1).map(|rest| rest.split(['(', '<']).next().unwrap_or_default())
}

/// What stands between backticks and reads like the name of a test, with its line.
fn named(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_name = |word: &&str| {
        word.matches('_').count() >= UNDERSCORES_MIN
            && word.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let lines = text.lines().enumerate();
    lines.flat_map(move |(at, line)| {
        line.split('`').skip(1).step_by(2).filter(is_name).map(move |name| (at + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_named_and_not_there_is_found() {
        let file = |path: &str, text: &str| Tracked { path: path.into(), bytes: text.into() };
        let tests = file("a/src/b.rs", "#[test]\nfn s1_a_thing_holds() {}\nfn b<T>() {}");
        let map = file(
            MAPS[0],
            "| S1 | `s1_a_thing_holds`, `sim` |\n| S2 | `s2_another_thing_holds`, `VARVE_BIN_IS_NONE` |",
        );
        let found = check(&[tests, map]);
        assert_eq!(found, [Finding("docs/anomalies.md:2: there is no test s2_another_thing_holds".into())]);
    }
}
