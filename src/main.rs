//! The `coracle` binary: calls the command line and maps its answer to an exit code.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    coracle::cli::main()
}
