//! Words that no file may contain: hosts of package registries (tools are reached by their ordinary clients, whose defaults know where).
//! They stand here in parts, so that this file does not contain them either.

use super::{Finding, Tracked};

const HOSTS: &[&[&str]] = &[
    &["crates", "io"],
    &["pypi", "org"],
    &["files", "pythonhosted", "org"],
    &["registry", "npmjs", "org"],
    &["registry", "yarnpkg", "com"],
    &["proxy", "golang", "org"],
    &["sum", "golang", "org"],
    &["repo", "maven", "apache", "org"],
    &["repo1", "maven", "org"],
    &["deb", "debian", "org"],
];

pub fn check(files: &[Tracked]) -> Vec<Finding> {
    let words: Vec<String> = HOSTS.iter().map(|parts| parts.join(".")).collect();
    // The lock file is cargo's own and names its index in every line.
    let readable = files.iter().filter(|file| !file.path.ends_with("Cargo.lock"));
    readable.flat_map(|file| find(file, &words)).collect()
}

fn find(file: &Tracked, words: &[String]) -> Vec<Finding> {
    let hits = |line: &str| words.iter().find(|word| line.contains(word.as_str())).cloned();
    let lines = file.text().lines().enumerate();
    lines
        .filter_map(|(index, line)| hits(line).map(|word| (index + 1, word)))
        .map(|(line, word)| {
            Finding(format!("{}:{line}: names a package registry's host ({word})", file.path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_host_is_found_wherever_it_stands() {
        let text = format!("fine\nsee https://{}/x\n", HOSTS[1].join("."));
        let files = [Tracked { path: "docs/a.md".into(), bytes: text.into() }];
        assert_eq!(check(&files).len(), 1);
    }
}
