//! The program; everything it does is in the library.

use std::process::ExitCode;

// Measured against the system's allocator on the hot path; see `benches`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    modgate::cli::main()
}
