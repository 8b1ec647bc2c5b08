//! The black-box tests, several beside each other: two processors and one disk carry whole clusters meanwhile. What fails there is told,
//! and runs again with the machine to itself, more than once: a fault of the product, of a test or of a tool fails there too, and a
//! machine whose disk stood still for some seconds does not end an hour's run.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::shell::{self, Failure, Outcome, command, run as run_command};

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

/// Runs all of them against the release binary.
pub fn run() -> Outcome {
    let mut beside = tests(&["--test-threads", BESIDE]);
    let (passed, failed) = told(&mut beside)?;
    if passed {
        return Ok(());
    }
    if failed.is_empty() || failed.len() > AGAIN_MAX {
        return Err(Failure(format!("{} tests failed: {}", failed.len(), failed.join(", "))));
    }
    for round in 1..=ALONE_TIMES {
        println!("\nfailed beside others, alone now ({round} of {ALONE_TIMES}): {}", failed.join(", "));
        let exactly: Vec<&str> = failed.iter().map(String::as_str).collect();
        run_command(&mut tests(&[&["--exact", "--test-threads", "1"], exactly.as_slice()].concat()))?;
    }
    println!("\nFLAKY: failed beside others and passed alone {ALONE_TIMES} times: {}", failed.join(", "));
    Ok(())
}

/// Tool folders go in front of the path, so that the tests find pinned tools before the machine's.
fn tests(arguments: &[&str]) -> Command {
    let mut test = command("cargo");
    test.args(["test", "--locked", "--no-fail-fast", "--package", "varve-tests", "--"]).args(arguments);
    let unnamed = SIZES.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    test.envs(unnamed.copied()).env("VARVE_BIN", shell::varve()).env("VARVE_TOOLS", shell::cache());
    test
}

/// Whether a run passed, its output shown as it comes, and the names of the tests that did not.
fn told(test: &mut Command) -> Outcome<(bool, Vec<String>)> {
    let broken = |error| Failure(format!("the tests cannot be run: {error}"));
    let mut child = test.stdout(Stdio::piped()).spawn().map_err(broken)?;
    let mut failed = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line.map_err(broken)?;
        println!("{line}");
        failed.extend(failing(&line).map(str::to_owned));
    }
    Ok((child.wait().map_err(broken)?.success(), failed))
}

/// The name of a test that failed, by the test runner's line of it.
fn failing(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_failed_is_known_by_its_line() {
        assert_eq!(failing("test restore::all_of_it ... FAILED"), Some("restore::all_of_it"));
        for other in ["test a::b ... ok", "test result: FAILED. 1 passed; 1 failed", "    a::b", "failures:"]
        {
            assert_eq!(failing(other), None);
        }
    }

    #[test]
    fn a_run_tells_which_tests_failed_and_whether_all_passed() {
        let script = "echo 'test a::b ... FAILED'; echo 'test c ... ok'; exit 101";
        assert_eq!(told(&mut shell::bash(script)).unwrap(), (false, vec!["a::b".to_owned()]));
        assert_eq!(told(&mut shell::bash("echo 'test c ... ok'")).unwrap(), (true, Vec::new()));
    }
}
