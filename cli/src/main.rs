//! `varve`: the broker and its command line. See the library.

fn main() -> std::process::ExitCode {
    varve_cli::main()
}
