//! Which config the board runs: the one in the state folder, the last good one, the firmware's, or none.
//!
//! The firmware's config says how the state folder is mounted, so its mounts, modules and watchdog hold whichever config
//! is used.
#![forbid(unsafe_code)]

use crate::base::read::read_up_to;
use crate::plan::Plan;
use crate::supervisor::board::Files;
use crate::supervisor::config_file::{KEPT_BYTES, Texts};
use crate::supervisor::keeper::Say;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The config in the state folder that replaces the firmware's.
const EDITED: &str = "config.json";
/// The last one that was used and with which everything ran, with all files that it includes.
const GOOD: &str = "last-good";

/// What became of the firmware's config.
pub struct Firmware {
    /// Its plan; what could be salvaged if it is refused.
    pub plan: Plan,
    /// Why it is refused.
    pub refused: Option<String>,
}

/// What the board runs.
pub struct Choice {
    /// The plan; for a rescue what it is made of.
    pub plan: Plan,
    /// The bytes to keep as the last good config once everything runs, if they are not kept already.
    pub unproven: Option<Vec<u8>>,
    /// Why the board runs something else than it should: a rescue, or an older config.
    pub degraded: Option<String>,
    /// Whether nothing but lifelines is to run.
    pub rescue: bool,
}

/// Reads the firmware's config.
pub fn firmware(path: &Path, say: Say<'_>) -> Firmware {
    match load(path, say) {
        Ok((plan, _)) => Firmware { plan, refused: None },
        Err(why) => {
            say(why);
            // A file that it includes may be what cannot be read.
            let texts = Texts::read(path, &Files::here()).or_else(|_| Texts::alone(path));
            let plan = texts.map(|texts| texts.salvage()).unwrap_or_default();
            Firmware { plan, refused: Some(format!("{} cannot be used", path.display())) }
        }
    }
}

/// Chooses, once the firmware's mounts are there.
pub fn choose(firmware: Firmware, say: Say<'_>) -> Choice {
    let state = PathBuf::from(&*firmware.plan.device.state);
    let (edited, good) = (state.join(EDITED), state.join(GOOD));
    let boot = firmware.plan.device.boot.clone();
    let from_state = |loaded: Result<(Plan, Vec<u8>), String>, say: Say<'_>| match loaded {
        Ok((mut plan, bytes)) => {
            let own = &mut plan.device.boot;
            (own.modules, own.mounts, own.watchdog) =
                (boot.modules.clone(), boot.mounts.clone(), boot.watchdog.clone());
            Some((plan, bytes))
        }
        Err(why) => {
            say(why);
            None
        }
    };
    let mut degraded = None;
    if edited.exists() {
        if let Some((plan, bytes)) = from_state(load(&edited, say), say) {
            let unproven = fs::read(&good).ok().as_ref() != Some(&bytes);
            return Choice { plan, unproven: unproven.then_some(bytes), degraded: None, rescue: false };
        }
        degraded = Some(format!("{} cannot be used", edited.display()));
        if good.exists() {
            if let Some((plan, _)) = from_state(load_kept(&good), say) {
                let degraded = degraded.map(|why| format!("{why}; the last good config runs in its place"));
                return Choice { plan, unproven: None, degraded, rescue: false };
            }
            degraded = degraded.map(|why| format!("{why}, nor can {}", good.display()));
        }
    }
    match firmware.refused {
        None => {
            let degraded = degraded.map(|why| format!("{why}; the firmware's config runs in its place"));
            Choice { plan: firmware.plan, unproven: None, degraded, rescue: false }
        }
        Some(refused) => {
            let why = degraded.map_or(String::new(), |why| format!("{why}; "));
            let degraded = Some(format!("rescue: {why}{refused}; correct it and reboot"));
            Choice { plan: firmware.plan, unproven: None, degraded, rescue: true }
        }
    }
}

/// The plan of the config at `path`, and all its files as they are kept. Warnings are said.
fn load(path: &Path, say: Say<'_>) -> Result<(Plan, Vec<u8>), String> {
    let texts = Texts::read(path, &Files::here())?;
    let (plan, warnings) = texts.load().map_err(|problems| problems.to_string())?;
    warnings.iter().for_each(|warning| say(format!("warning: {warning}")));
    Ok((plan, texts.to_kept()))
}

/// The same of a config that was kept, which has been warned of before.
fn load_kept(path: &Path) -> Result<(Plan, Vec<u8>), String> {
    let read = File::open(path).and_then(|mut file| read_up_to(&mut file, KEPT_BYTES));
    let bad = |why: &dyn core::fmt::Display| format!("the last good config {} {why}", path.display());
    let kept = read.map_err(|error| bad(&format_args!("cannot be read: {error}")))?;
    let texts = Texts::of_kept(&kept, &Files::here()).map_err(|why| bad(&why))?;
    let (plan, _) = texts.load().map_err(|problems| problems.to_string())?;
    Ok((plan, kept))
}

/// Keeps `bytes` as the last good config: whole, or not at all.
///
/// # Errors
/// What the file system says.
pub fn keep(state: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = state.join(format!(".{GOOD}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, state.join(GOOD))?;
    File::open(state)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Board {
        folder: tempfile::TempDir,
    }

    impl Board {
        fn new() -> Board {
            Board { folder: tempfile::tempdir().unwrap() }
        }

        fn write(&self, name: &str, hostname: &str) {
            let state = self.folder.path().display();
            let text = format!(
                "{{ \"version\": 1, \"device\": {{ \"state\": \"{state}\", \"hostname\": \"{hostname}\" }}, \"services\": [] }}"
            );
            fs::write(self.folder.path().join(name), text).unwrap();
        }

        fn choose(&self) -> Choice {
            let firmware = firmware(&self.folder.path().join("firmware.json"), &mut |_| {});
            choose(firmware, &mut |_| {})
        }

        fn host(&self) -> String {
            self.choose().plan.device.hostname.unwrap().to_string()
        }
    }

    #[test]
    fn an_edited_config_replaces_the_firmwares_and_is_kept_once_it_has_proven_itself() {
        let board = Board::new();
        board.write("firmware.json", "firmware");
        assert_eq!(board.host(), "firmware");
        board.write(EDITED, "edited");
        let choice = board.choose();
        assert_eq!(choice.plan.device.hostname.as_deref(), Some("edited"));
        keep(board.folder.path(), &choice.unproven.unwrap()).unwrap();
        assert_eq!(board.choose().unproven, None, "what is kept already is not written again");
    }

    #[test]
    fn a_broken_edit_falls_back_to_the_last_good_one_and_then_to_the_firmwares() {
        let board = Board::new();
        board.write("firmware.json", "firmware");
        board.write(EDITED, "-");
        board.write("main.json", "good");
        let (_, kept) = load(&board.folder.path().join("main.json"), &mut |_| {}).unwrap();
        keep(board.folder.path(), &kept).unwrap();
        let choice = board.choose();
        assert_eq!(choice.plan.device.hostname.as_deref(), Some("good"));
        assert!(choice.degraded.unwrap().contains("the last good config runs"));
        board.write(GOOD, "-");
        let choice = board.choose();
        assert_eq!((choice.plan.device.hostname.as_deref(), choice.rescue), (Some("firmware"), false));
        assert!(choice.degraded.unwrap().contains("the firmware's config runs"));
    }

    #[test]
    fn the_last_good_config_has_lost_nothing_that_it_included() {
        let board = Board::new();
        let at = |name: &str| board.folder.path().join(name);
        board.write("firmware.json", "firmware");
        let state = board.folder.path().display();
        let edited = format!(
            r#"{{ "version": 1, "include": ["{state}/d/*.json"], "device": {{ "state": "{state}" }}, "services": [] }}"#
        );
        fs::write(at(EDITED), edited).unwrap();
        fs::create_dir(at("d")).unwrap();
        let service = r#"{ "services": [ { "name": "ssh", "image": "/x", "limits": { "memory": "1M" } } ] }"#;
        fs::write(at("d/ssh.json"), service).unwrap();
        let choice = board.choose();
        keep(board.folder.path(), &choice.unproven.unwrap()).unwrap();
        assert_eq!(board.choose().unproven, None, "what is kept already is not written again");
        // The edit that breaks it is one of an included file.
        fs::write(at("d/ssh.json"), "-").unwrap();
        let choice = board.choose();
        assert!(choice.degraded.unwrap().contains("the last good config runs"));
        assert_eq!(choice.plan.services.first().map(|service| service.name.as_str()), Some("ssh"));
    }

    #[test]
    fn a_broken_firmware_is_a_rescue_unless_an_edit_repairs_it() {
        let board = Board::new();
        board.write("firmware.json", "firmware");
        let path = board.folder.path().join("firmware.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"services\": []", "\"services\": [ 3 ]")).unwrap();
        let choice = board.choose();
        assert!(choice.rescue && choice.degraded.unwrap().starts_with("rescue: "));
        board.write(EDITED, "edited");
        assert_eq!((board.host(), board.choose().rescue), ("edited".into(), false));
    }

    #[test]
    fn a_board_without_any_config_is_a_rescue_of_nothing() {
        let choice = Board::new().choose();
        assert!(choice.rescue);
        assert_eq!(choice.plan, Plan::default());
    }
}
