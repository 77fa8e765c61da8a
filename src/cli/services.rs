//! What several commands need to know about the services of a run directory, also with the supervisor dead.
#![forbid(unsafe_code)]

use super::output;
use crate::base::name::Name;
use crate::base::suggest::did_you_mean;
use crate::sys::folder;
use std::ffi::OsStr;
use std::path::Path;

/// The names of all services that ever ran since the run directory was made, sorted.
pub fn known(run_dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for path in folder::list(&run_dir.join("services")).unwrap_or_default() {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if Name::new(name).is_ok() {
            names.push(name.to_owned());
        }
    }
    crate::base::sort::sort(&mut names);
    names
}

/// Whether `service` is known; if not, says so, with what was probably meant.
pub fn check(run_dir: &Path, service: &str) -> bool {
    let known = known(run_dir);
    if known.iter().any(|name| name == service) {
        return true;
    }
    output::complain(&unknown(run_dir, service, &known));
    false
}

fn unknown(run_dir: &Path, service: &str, known: &[String]) -> String {
    if let Err(bad) = Name::new(service) {
        return format!("'{service}' is no service: {bad}");
    }
    match did_you_mean(service, &mut known.iter().map(String::as_str)) {
        Some(near) => format!("no service '{service}' in {}: did you mean '{near}'?", run_dir.display()),
        None if known.is_empty() => {
            format!("no service '{service}': nothing has run in {}; start it with `coracle up`", run_dir.display())
        }
        None => format!("no service '{service}' in {}: there are {}", run_dir.display(), known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_the_name_and_a_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(unknown(dir.path(), "web", &known(dir.path())).contains("coracle up"));
        std::fs::create_dir_all(dir.path().join("services/web")).unwrap();
        std::fs::create_dir_all(dir.path().join("services/NOT A NAME")).unwrap();
        assert_eq!(known(dir.path()), ["web"]);
        assert!(check(dir.path(), "web"));
        assert!(unknown(dir.path(), "wbe", &known(dir.path())).contains("did you mean 'web'?"));
        assert!(unknown(dir.path(), "../web", &known(dir.path())).contains("no service"));
        assert!(!check(dir.path(), "../services/web"));
    }
}
