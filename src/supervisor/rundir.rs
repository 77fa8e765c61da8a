//! The run directory: one supervisor's socket, logs and records, on a tmpfs.
//!
//! ```text
//! RUN/                        0700, 0711 once there is a notify socket; locked (flock) by the supervisor as long as it
//!                             lives
//! RUN/control.sock            0600
//! RUN/boot                    which boot of the kernel all of it is of (random(4))
//! RUN/log                     the ring of the supervisor itself (see [`super::report`])
//! RUN/events                  the ring of its steps (see [`super::events`])
//! RUN/services/NAME/log       the ring, written by the service's init
//! RUN/services/NAME/exit      the exit record, written by the init before it ends
//! RUN/services/NAME/instance  the running instance (see [`super::instance`])
//! RUN/notify/NAME             the notify socket of a service on the host's root, read by its init
//! ```
#![forbid(unsafe_code)]

use super::instance::{self, Instance};
use crate::sandbox::rootfs::bind_datagrams;
use crate::sys::Errno;
use crate::sys::datagram::name_senders;
use crate::sys::folder;
use nix::libc;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use twox_hash::XxHash64;

/// The run directory that needs no `--run-dir`.
pub const DEFAULT: &str = "/run/coracle";

/// Of which boot what lies in the directory is.
const BOOT: &str = "boot";

/// How often a directory that vanishes under the hands is made anew: others end meanwhile, but not without end.
const ATTEMPTS: usize = 1000;

/// A run directory that this process has locked.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    lock: File,
    /// Whether no supervisor has been here before.
    new: bool,
    /// Whether one has been here in another boot.
    outdated: bool,
}

/// Why a run directory cannot be had.
#[derive(Debug)]
pub enum Unclaimed {
    /// Another supervisor has it.
    Taken,
    /// The file system says no.
    Failed(io::Error),
}

impl RunDir {
    /// Makes the directory if it is missing, and locks it; `held`: the descriptor that has locked it already.
    ///
    /// # Errors
    /// It is taken, or it can be neither made nor opened.
    pub fn claim(path: &Path, held: Option<OwnedFd>) -> Result<RunDir, Unclaimed> {
        if let Some(held) = held {
            // The lock is the descriptor's, so that locking it again changes nothing.
            return RunDir::lock(held.into(), true);
        }
        for _ in 0..ATTEMPTS {
            // Whoever ends removes the directory while it has the lock: what was found, or even locked, may be gone by
            // then.
            match RunDir::attempt(path) {
                Err(Unclaimed::Failed(error))
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {}
                claimed => return claimed,
            }
        }
        RunDir::attempt(path)
    }

    fn attempt(path: &Path) -> Result<RunDir, Unclaimed> {
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
        let opened = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => folder::make_all(path, 0o700).and_then(|()| open()),
            opened => opened,
        };
        RunDir::lock(opened.map_err(Unclaimed::Failed)?, false)
    }

    fn lock(dir: File, goes_on: bool) -> Result<RunDir, Unclaimed> {
        // What the kernel calls it: links on the way are followed already.
        let path = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).map_err(Unclaimed::Failed)?;
        dir.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Unclaimed::Taken,
            TryLockError::Error(error) => Unclaimed::Failed(error),
        })?;
        let (locked, now) = (dir.metadata().map_err(Unclaimed::Failed)?, fs::metadata(&path));
        let now = now.map_err(Unclaimed::Failed)?;
        if (locked.dev(), locked.ino()) != (now.dev(), now.ino()) {
            return Err(Unclaimed::Failed(ErrorKind::NotFound.into()));
        }
        trusted(&now).map_err(Unclaimed::Failed)?;
        let outdated = renew(&path, goes_on).map_err(Unclaimed::Failed)?;
        let new = match folder::make(&path.join("services"), 0o700) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(Unclaimed::Failed)?,
        };
        Ok(RunDir { path, lock: dir, new, outdated })
    }

    /// What to say of what lay here, if a supervisor of another boot had left it: none of it is left.
    pub fn outdated(&self) -> Option<&'static str> {
        self.outdated.then_some("the run directory was kept from another boot; everything in it begins anew")
    }

    /// Whether no supervisor has been here before.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Its path, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, whose descriptor holds the lock.
    pub fn lock_file(&self) -> &File {
        &self.lock
    }

    /// The descriptor that holds the lock.
    pub fn lock_fd(&self) -> RawFd {
        self.lock.as_raw_fd()
    }

    /// The folder for this supervisor's groups: `coracle` for the default run directory, so that it is found by eye, and
    /// a name of its own for any other.
    pub fn cgroup_folder(&self) -> String {
        if self.path == Path::new(DEFAULT) {
            return "coracle".to_owned();
        }
        let sum = XxHash64::oneshot(0, self.path.as_os_str().as_encoded_bytes());
        format!("coracle-{:08x}", sum as u32)
    }

    /// The directory of a service, made if it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn service(&self, name: &str) -> io::Result<File> {
        let path = instance::service_dir(&self.path, name);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => folder::make(&path, 0o700)?,
            opened => return opened,
        }
        File::open(path)
    }

    /// Makes the notify socket of a service on the host's root. Its programs may run as any user, so everyone may write to
    /// it; who is listened to is decided by who sends.
    ///
    /// # Errors
    /// What the file system says.
    pub fn notify(&self, name: &str) -> io::Result<OwnedFd> {
        let path = notify_socket(&self.path, name);
        let sockets = path.parent().unwrap_or(&self.path);
        let search_only = || Permissions::from_mode(0o711);
        folder::make_all(sockets, 0o777)?;
        fs::set_permissions(&self.path, search_only())?;
        fs::set_permissions(sockets, search_only())?;
        self.forget_notify(name);
        let text = CString::new(path.as_os_str().as_encoded_bytes())?;
        let socket = bind_datagrams(&text).and_then(|socket| name_senders(&socket).map(|()| socket));
        let socket = socket.map_err(|errno| match errno {
            Errno(libc::ENAMETOOLONG) => {
                io::Error::other("its path is longer than a socket's may be; use a shorter --run-dir")
            }
            Errno(number) => io::Error::from_raw_os_error(number),
        })?;
        // The umask has had its say.
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(socket)
    }

    /// Removes the notify socket of a service.
    pub fn forget_notify(&self, name: &str) {
        let _ = fs::remove_file(notify_socket(&self.path, name));
    }

    /// The names of the services that have a directory here.
    pub fn services(&self) -> Vec<String> {
        let mut names = Vec::new();
        let Ok(entries) = fs::read_dir(self.path.join("services")) else { return names };
        for entry in entries.flatten() {
            names.extend(entry.file_name().into_string());
        }
        names
    }

    /// The records of instances that a supervisor has left here, last in the start order first, and a sentence for each
    /// one that cannot be read.
    pub fn leftovers(&self) -> (Vec<Instance>, Vec<String>) {
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        if self.new {
            return (found, bad);
        }
        for name in self.services() {
            match Instance::read(&self.path, &name) {
                Ok(Some(record)) => found.push(record),
                Ok(None) => {}
                Err(why) => bad.push(why),
            }
        }
        crate::base::sort::sort_by(&mut found, |a, b| b.order.cmp(&a.order));
        (found, bad)
    }

    /// Removes a service's directory with all in it.
    pub fn forget(&self, service: &str) {
        let _ = fs::remove_dir_all(instance::service_dir(&self.path, service));
    }

    /// Removes everything in the directory that is ours, and the directory if nothing else is in it.
    pub fn clear(self) {
        let _ = wipe(&self.path);
        let _ = fs::remove_file(self.path.join(BOOT));
        let _ = fs::remove_file(self.path.join(super::report::RING));
        let _ = fs::remove_file(self.path.join(super::events::RING));
        let _ = fs::remove_dir(&self.path);
        drop(self.lock);
    }
}

/// Removes what is of one boot alone.
fn wipe(path: &Path) -> io::Result<()> {
    let there = |gone: io::Result<()>| match gone {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    there(fs::remove_dir_all(path.join("services")))?;
    there(fs::remove_dir_all(path.join("notify")))?;
    there(fs::remove_file(path.join(crate::control::wire::SOCKET)))
}

/// Makes the directory at `path` one of this boot: processes, times and counters of another one say nothing about it.
/// `goes_on`: this very process has it already. Whether there was something of another boot.
fn renew(path: &Path, goes_on: bool) -> io::Result<bool> {
    let (note, own) = (path.join(BOOT), boot_id());
    let kept = fs::read_to_string(&note).unwrap_or_default();
    if kept == own || own.is_empty() {
        return Ok(false);
    }
    // Where nothing is noted, an older version has been here, in this boot as far as anyone can tell.
    let outdated = !kept.is_empty() && !goes_on;
    if outdated {
        wipe(path)?;
    }
    let beside = folder::beside(&note, ".new");
    fs::write(&beside, own).and_then(|()| fs::rename(&beside, note))?;
    Ok(outdated)
}

/// Which boot this is, random(4); empty where that is not to be had.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The path of the notify socket of a service on the host's root.
pub fn notify_socket(run_dir: &Path, service: &str) -> PathBuf {
    run_dir.join("notify").join(service)
}

/// Whether nobody but root and this user can change what is in the directory: the control socket and the records that
/// say which processes to end.
fn trusted(directory: &fs::Metadata) -> io::Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    if directory.uid() != own && directory.uid() != 0 {
        let owner = directory.uid();
        return Err(io::Error::other(format!("it belongs to user {owner}; give it to root, or name another one")));
    }
    if directory.mode() & 0o022 != 0 {
        let mode = directory.mode() & 0o7777;
        return Err(io::Error::other(format!("others may write to it (mode {mode:o}); name one of coracle's own")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_has_one_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let first = RunDir::claim(&path, None).unwrap();
        assert!(matches!(RunDir::claim(&path, None), Err(Unclaimed::Taken)));
        first.service("web").unwrap();
        first.service("web").unwrap();
        assert_eq!(first.services(), ["web"]);
        assert_ne!(first.cgroup_folder(), "coracle");
        first.clear();
        assert!(!path.exists());
        RunDir::claim(&path, None).unwrap();
    }

    #[test]
    fn a_directory_that_is_removed_while_it_is_claimed_has_one_supervisor_still() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let claims = || {
            for _ in 0..200 {
                match RunDir::claim(&path, None) {
                    Ok(run) => {
                        fs::create_dir(path.join("services/mine")).expect("no other supervisor is here");
                        run.clear();
                    }
                    Err(Unclaimed::Taken) => {}
                    Err(Unclaimed::Failed(error)) => panic!("{error}"),
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(claims))));
    }

    #[test]
    fn a_directory_that_can_never_be_made_is_an_error_not_a_loop() {
        for path in ["/proc/none", "/proc/version", "/proc/version/below"] {
            assert!(matches!(RunDir::claim(Path::new(path), None), Err(Unclaimed::Failed(_))), "{path}");
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let Err(Unclaimed::Failed(error)) = RunDir::claim(dir.path(), None) else { panic!("claimed") };
        assert!(error.to_string().contains("1777"), "{error}");
    }

    #[test]
    fn what_another_boot_has_left_is_not_of_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let leave = |boot: Option<&str>| {
            let run = RunDir::claim(&path, None).unwrap();
            run.service("web").unwrap();
            let note = run.path().join(BOOT);
            assert_eq!(fs::read_to_string(&note).unwrap(), boot_id());
            boot.map_or_else(|| fs::remove_file(&note), |boot| fs::write(&note, boot)).unwrap();
        };
        let found = |held: bool| {
            let held = held.then(|| File::open(&path).unwrap().into());
            let run = RunDir::claim(&path, held).unwrap();
            (run.services().len(), run.is_new(), run.outdated().is_some())
        };
        leave(Some("another"));
        assert_eq!(found(false), (0, true, true));
        assert_eq!(found(false), (0, false, false), "it is told once");
        leave(None);
        assert_eq!(found(false), (1, false, false), "of a version that notes no boot");
        leave(Some("another"));
        assert_eq!(found(true), (1, false, false), "of this process, before it executed another program");
        RunDir::claim(&path, None).unwrap().clear();
        assert!(!path.exists());
    }

    #[test]
    fn leftovers_come_in_stop_order() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::claim(&dir.path().join("run"), None).unwrap();
        for (order, name) in ["a", "b", "c"].into_iter().enumerate() {
            run.service(name).unwrap();
            let record = Instance { service: name.into(), order: order as u16, ..Instance::default() };
            record.write(run.path()).unwrap();
        }
        fs::write(instance::path(run.path(), "b"), "junk").unwrap();
        drop(run);
        let (found, bad) = RunDir::claim(&dir.path().join("run"), None).unwrap().leftovers();
        assert_eq!(found.iter().map(|record| record.service.as_str()).collect::<Vec<_>>(), ["c", "a"]);
        assert_eq!(bad.len(), 1);
    }
}
