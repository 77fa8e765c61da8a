//! The command line as a person meets it: help, mistakes, exit codes.

use std::process::{Command, Output};

fn coracle(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coracle")).args(words).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The commands that `coracle help` lists.
fn commands() -> Vec<String> {
    let help = out(&coracle(&["help"]));
    let (_, list) = help.split_once("Commands:").unwrap();
    let lines = list.lines().skip(1).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn coracle_alone_shows_the_commands() {
    let alone = coracle(&[]);
    assert_eq!(alone.status.code(), Some(0));
    assert_eq!(out(&alone), out(&coracle(&["--help"])));
    assert_eq!(out(&alone), out(&coracle(&["-h"])));
    assert!(commands().contains(&"version".to_owned()), "{}", out(&alone));
}

#[test]
fn help_of_every_command_has_an_example() {
    for command in commands() {
        for words in [vec![command.as_str(), "-h"], vec![command.as_str(), "--help"], vec!["help", command.as_str()]] {
            let help = coracle(&words);
            assert_eq!(help.status.code(), Some(0), "{words:?}");
            let example = format!("Example: coracle {command}");
            // The parser wraps the text.
            let text = out(&help).split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&example), "{words:?} has no '{example}':\n{}", out(&help));
        }
    }
}

#[test]
fn an_unknown_command_gets_a_suggestion_and_exit_code_2() {
    let typo = coracle(&["versoin"]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(err(&typo).contains("unknown command 'versoin': did you mean 'version'?"), "{}", err(&typo));
    let far = coracle(&["\x1b[2Jxylophone"]);
    assert_eq!(far.status.code(), Some(2));
    assert!(!err(&far).contains("did you mean") && !err(&far).contains('\x1b'), "{}", err(&far));
}

#[test]
fn an_unknown_option_gets_a_suggestion_and_exit_code_2() {
    for command in commands() {
        let typo = coracle(&[&command, "--hlep"]);
        assert_eq!(typo.status.code(), Some(2), "{command}");
        assert!(err(&typo).contains("did you mean '--help'?"), "{command}: {}", err(&typo));
        assert!(err(&typo).contains(&format!("`coracle {command} -h`")), "{}", err(&typo));
    }
}

#[test]
fn dev_null_as_output_was_replaced_by_an_archive() {
    use std::os::unix::fs::FileTypeExt;
    let dir = tempfile::tempdir().unwrap();
    let (folder, pipe) = (dir.path().join("root"), dir.path().join("pipe"));
    std::fs::create_dir(&folder).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let packed = coracle(&["pack", folder.to_str().unwrap(), "-o", pipe.to_str().unwrap()]);
    assert_eq!(packed.status.code(), Some(1));
    assert!(err(&packed).contains("it is no file, and would be replaced"), "{}", err(&packed));
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
}
