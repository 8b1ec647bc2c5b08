//! `varve`: the broker and its command line. See the library.

/// Requests are allocated by network threads and freed by others: the C library's allocator hands such memory back to the kernel
/// and asks for it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    varve_cli::main()
}
