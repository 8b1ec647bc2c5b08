//! librdkafka's own tests: those of them that say most in a minute. `cargo xtask librdkafka` runs all that the list has.

use varve_tests::{librdkafka, tool::Tool};

#[test]
fn librdkafkas_own_tests_pass_and_every_one_of_the_suite_is_listed() {
    if !Tool::need(&[Tool::Librdkafka]) {
        return;
    }
    let wrong = librdkafka::run(|case| case.gate);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
