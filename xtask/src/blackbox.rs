//! The black-box tests, several beside each other: two processors and one disk carry whole clusters meanwhile. What fails there is told,
//! and runs again with the machine to itself, more than once: a fault of the product, of a test or of a tool fails there too, and a
//! machine whose disk stood still for some seconds does not end an hour's run.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::shell::{self, Failure, Outcome, command};

/// How many tests run at a time.
const BESIDE: &str = "3";
/// More failures than this are no accident of the machine.
const AGAIN_MAX: usize = 6;
/// How often a test that failed beside others must pass alone.
const ALONE_TIMES: usize = 2;

/// Sizes that keep the gate within minutes, where the caller names no others; `cargo test -p varve-tests` runs them in full: 2 GiB past
/// the log's bound of 256 MiB, thirty power cuts at random, three at each point.
const SIZES: &[(&str, &str)] = &[
    ("VARVE_WAL_BOUND_MIB", "600"),
    ("VARVE_POWER_CUTS", "6"),
    ("VARVE_POWER_ROUNDS", "1"),
    ("VARVE_PROOF_RECORDS", "90000"),
    ("VARVE_PROOF_KILLS", "5"),
];

/// What a run of the tests told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Whether it ended well.
    passed: bool,
    /// Tests by name, and whether they passed.
    tests: Vec<(String, bool)>,
    /// Tests that were to run, and those that all programs together say to have run at their end, and those that failed.
    begun: usize,
    ended: usize,
    failures: usize,
}

/// Runs all of them against the release binary.
pub fn run() -> Outcome {
    let first = told(&mut tests(&["--test-threads", BESIDE]))?;
    let Some(failed) = first.worth_another_look()? else { return Ok(()) };
    for round in 1..=ALONE_TIMES {
        println!("\nfailed beside others, alone now ({round} of {ALONE_TIMES}): {}", failed.join(", "));
        let exactly: Vec<&str> = failed.iter().map(String::as_str).collect();
        let alone = told(&mut tests(&[&["--exact", "--test-threads", "1"], exactly.as_slice()].concat()))?;
        let passes = |name: &String| alone.tests.iter().any(|(test, passed)| test == name && *passed);
        if !alone.passed || !failed.iter().all(passes) {
            return Err(Failure(format!("failed beside others, and alone as well: {}", failed.join(", "))));
        }
    }
    println!("\nFLAKY: failed beside others and passed alone {ALONE_TIMES} times: {}", failed.join(", "));
    Ok(())
}

impl Told {
    /// Takes in a line of the test runner's.
    fn take(&mut self, line: &str) {
        let number = |text: &str| text.trim().parse::<usize>().unwrap_or_default();
        if let Some(count) = line.strip_prefix("running ") {
            self.begun += count.split(' ').next().map_or(0, number);
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let of = |what: &str| result.split(&['.', ';']).find_map(|part| part.trim().strip_suffix(what));
            let [passed, failed, ignored] =
                [" passed", " failed", " ignored"].map(|what| of(what).map_or(0, number));
            self.ended += passed + failed + ignored;
            self.failures += failed;
        } else if let Some((name, how)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
            && let "ok" | "FAILED" = how
        {
            self.tests.push((name.to_owned(), how == "ok"));
        }
    }

    /// The tests that failed, where they are few and all are known, and every other one came to its end; nothing where none did.
    fn worth_another_look(&self) -> Outcome<Option<Vec<String>>> {
        if self.passed {
            return Ok(None);
        }
        let failed: Vec<String> =
            self.tests.iter().filter(|(_, passed)| !passed).map(|(name, _)| name.clone()).collect();
        let are_known = failed.len() == self.failures && self.ended == self.begun;
        if failed.is_empty() || failed.len() > AGAIN_MAX || !are_known {
            let (ended, begun) = (self.ended, self.begun);
            let names = failed.join(", ");
            return Err(Failure(format!(
                "{} tests failed, {ended} of {begun} came to their end: {names}",
                failed.len()
            )));
        }
        Ok(Some(failed))
    }
}

/// Tool folders go in front of the path, so that the tests find pinned tools before the machine's.
fn tests(arguments: &[&str]) -> Command {
    let mut test = command("cargo");
    test.args(["test", "--locked", "--no-fail-fast", "--package", "varve-tests", "--"]).args(arguments);
    let unnamed = SIZES.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    test.envs(unnamed.copied()).env("VARVE_BIN", shell::varve()).env("VARVE_TOOLS", shell::cache());
    test
}

/// Runs tests, their output shown as it comes.
fn told(test: &mut Command) -> Outcome<Told> {
    let broken = |error| Failure(format!("the tests cannot be run: {error}"));
    let mut child = test.stdout(Stdio::piped()).spawn().map_err(broken)?;
    let mut told = Told::default();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line.map_err(broken)?;
        println!("{line}");
        told.take(&line);
    }
    told.passed = child.wait().map_err(broken)?.success();
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_by(script: &str) -> Told {
        told(&mut shell::bash(script)).unwrap()
    }

    const TWO: &str = "echo 'running 2 tests'; echo 'test a::b ... FAILED'; echo 'test c ... ok'";
    const ONE_FAILED: &str =
        "echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out'";

    #[test]
    fn tests_that_failed_beside_others_are_worth_another_look() {
        let run = told_by(&format!("{TWO}; {ONE_FAILED}; exit 101"));
        assert_eq!(run.worth_another_look().unwrap(), Some(vec!["a::b".to_owned()]));
        let run = told_by(
            "echo 'running 1 test'; echo 'test c ... ok'; echo 'test result: ok. 1 passed; 0 failed'",
        );
        assert_eq!((run.worth_another_look().unwrap(), run.begun, run.ended), (None, 1, 1));
    }

    #[test]
    fn a_run_that_was_cut_short_or_hides_a_failure_is_not_looked_at_again() {
        let aborted = told_by(&format!("{TWO}; exit 134"));
        assert!(aborted.worth_another_look().is_err(), "nobody knows what did not run");
        let hidden = "echo 'running 1 test'; echo 'some wordstest d ... FAILED'; echo 'test result: FAILED. 0 passed; 1 failed'";
        let run = told_by(&format!("{TWO}; {ONE_FAILED}; {hidden}; exit 101"));
        assert!(run.worth_another_look().is_err());
        assert!(told_by("exit 101").worth_another_look().is_err());
    }
}
