//! `varve-librdkafka [--gate] [TEST]...`: see `varve_tests::librdkafka`; tests by how their names begin. Exit status 1 where something was
//! wrong.

use std::process::ExitCode;

use varve_tests::{
    librdkafka::{is_installed, run},
    tool::Tool,
};

fn main() -> ExitCode {
    let mut gate = false;
    let mut names = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--gate" => gate = true,
            name if !name.starts_with('-') => names.push(name.to_owned()),
            _ => {
                eprintln!("usage: varve-librdkafka [--gate] [TEST]...");
                return ExitCode::FAILURE;
            }
        }
    }
    if !is_installed() {
        eprintln!("librdkafka's tests are not built: cargo xtask setup librdkafka");
        return ExitCode::FAILURE;
    }
    if !gate && !Tool::need(&[Tool::Java]) {
        return ExitCode::FAILURE;
    }
    let wrong = run(|case| {
        (!gate || case.gate) && (names.is_empty() || names.iter().any(|name| case.name.starts_with(name)))
    });
    wrong.iter().for_each(|what| println!("\n{what}"));
    println!("\n{} wrong", wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
