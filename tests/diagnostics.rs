//! Every kind of mistake in a config file, with everything that is said about it.
//!
//! `tests/diagnostics/NAME.json` is the file, with those of `NAME.d/` included, `NAME.expected` the message. After a change of words,
//! `CORACLE_BLESS=1 cargo test --test diagnostics` writes the messages anew; read the difference before committing it.

use coracle::config::{Input, Source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    cases.sort();
    assert!(cases.len() > 20, "only {} cases", cases.len());
    cases
}

/// The file with those that it includes, as their names and contents.
fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.strip_prefix(path.ancestors().nth(1).unwrap()).unwrap().display().to_string();
    let mut files = vec![(name(path), fs::read(path).unwrap())];
    let folder = path.with_extension("d");
    let mut included: Vec<PathBuf> =
        fs::read_dir(&folder).map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    included.sort();
    files.extend(included.iter().map(|file| (format!("{}/{}", name(&folder), name(file)), fs::read(file).unwrap())));
    files
}

fn said(path: &Path) -> String {
    let files = files(path);
    let sources: Vec<Source<'_>> = files.iter().map(|(name, bytes)| Source { name, bytes }).collect();
    match coracle::config::load_all(&Input { sources: &sources, values: &[], absent: &[] }) {
        Err(problems) => format!("{problems}\n"),
        Ok((_, warnings)) => {
            assert!(!warnings.is_empty(), "{} has nothing wrong with it", path.display());
            warnings.iter().map(|warning| format!("warning: {warning}\n")).collect()
        }
    }
}

#[test]
fn every_mistake_is_named_with_its_place_and_the_way_out() {
    let mut wrong = Vec::new();
    for path in cases() {
        let expected = path.with_extension("expected");
        let said = said(&path);
        if std::env::var_os("CORACLE_BLESS").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        if said != wanted {
            wrong.push(format!("{}\n--- expected\n{wanted}--- said\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn check_says_the_same_and_ends_with_the_code_for_an_invalid_config() {
    for path in cases().iter().filter(|path| !path.ends_with("warnings.json")).take(8) {
        let run = Command::new(env!("CARGO_BIN_EXE_coracle"))
            .current_dir(path.parent().unwrap())
            .arg("check")
            .arg(path.file_name().unwrap())
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(78), "{}", path.display());
        assert_eq!(String::from_utf8_lossy(&run.stderr), said(path));
        assert_eq!(run.stdout, b"");
    }
}
