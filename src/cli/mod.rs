//! What a person types. Each command has a file with its arguments and its action; this one lists them.
#![forbid(unsafe_code)]

use crate::base::exit;
use argh::FromArgs;

/// A tiny container runtime and service supervisor for embedded and edge Linux devices.
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
struct Coracle {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Version(VersionArgs),
}

/// Print the version.
///
/// Example: coracle version
#[derive(FromArgs)]
#[argh(subcommand, name = "version", help_triggers("-h", "--help"))]
struct VersionArgs {}

/// Runs the command line and gives the process's exit code.
pub fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let code = match Coracle::from_args(&["coracle"], words.get(1..).unwrap_or(&[])) {
        Ok(parsed) => run(parsed.command),
        Err(early) if early.status.is_ok() => {
            println!("{}", early.output);
            exit::OK
        }
        Err(early) => {
            eprintln!("{}", early.output.trim_end());
            exit::USAGE
        }
    };
    code.into()
}

fn run(command: Command) -> u8 {
    match command {
        Command::Version(_) => {
            println!("coracle {}", env!("CARGO_PKG_VERSION"));
            exit::OK
        }
    }
}
