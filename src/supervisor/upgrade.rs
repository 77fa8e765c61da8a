//! Another program in the place of this one: asked first whether it would take over, then executed, with everything that
//! runs untouched. What it refuses after that comes back to this program.
#![forbid(unsafe_code)]

use super::event::Token;
use super::handover::{CHECK, TAKE_OVER, Text, across_exec, word};
use super::run::Supervisor;
use crate::base::exit;
use crate::control::wire::DoneLine;
use crate::sys::meaning;
use crate::sys::process::{self, CStrings, Forked};
use crate::sys::wait::wait_for;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// In the run directory: a symbolic link to the program that is to take over; afterwards, where it did not, a file with the
/// reason.
pub const WISH: &str = "upgrade";
/// Seconds that a program may take to say whether it would.
const PATIENCE: u32 = 10;
/// Bytes of its reason that are read.
const REASON_BYTES: usize = 400;

/// A program that was asked.
#[derive(Debug)]
pub(super) struct Upgrade {
    token: Token,
    pid: i32,
    said: OwnedFd,
    program: OwnedFd,
    text: File,
    agreed: bool,
}

impl Supervisor<'_> {
    /// Someone asks for an upgrade.
    pub(super) fn upgrade(&mut self, token: Token) {
        let begun = match self.upgrade {
            Some(_) => Err("another upgrade is under way".to_owned()),
            None if self.end.is_some() => Err("the supervisor is ending".to_owned()),
            None => self.ask_program(token),
        };
        match begun {
            Ok(upgrade) => self.upgrade = Some(upgrade),
            Err(why) => self.server.done(token.client, &DoneLine::failed(token.id, exit::FAILED, &why), self.now),
        }
    }

    /// Runs the program that is to take over, to ask whether it would.
    fn ask_program(&mut self, token: Token) -> Result<Upgrade, String> {
        let path =
            fs::read_link(self.run.path().join(WISH)).map_err(|error| format!("no program is named: {error}"))?;
        let failed = |why: &dyn std::fmt::Display| format!("{} cannot be asked: {why}", path.display());
        let program = OwnedFd::from(File::open(&path).map_err(|error| failed(&error))?);
        let text = memfd_create(c"coracle-handover", MFdFlags::MFD_CLOEXEC).map_err(|errno| failed(&meaning(errno)))?;
        let text = File::from(text);
        self.write_text(&text, &program).map_err(|error| failed(&error))?;
        let (said, pipe) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|errno| failed(&meaning(errno)))?;
        let text = OwnedFd::from(text);
        let file = of(&program);
        let words = CStrings::of(&["coracle", CHECK, &word(&text)]).map_err(|error| failed(&error))?;
        match process::clone(0, None) {
            Err(errno) => Err(failed(&errno)),
            Ok(Forked::Parent(pid)) => Ok(Upgrade { token, pid, said, program, text: text.into(), agreed: false }),
            Ok(Forked::Child) => {
                process::reset_signals();
                // Whatever it does, it does not do it for long.
                nix::unistd::alarm::set(PATIENCE);
                let _ = [1, 2].map(|fd| process::duplicate(pipe.as_raw_fd(), fd));
                let _ = [&text, &program].map(|fd| across_exec(fd, true));
                process::execve_same_env(&file, &words);
                process::exit_now(127)
            }
        }
    }

    /// The program that was asked has ended; `false`: that was another process.
    pub(super) fn has_answered(&mut self, pid: i32) -> bool {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.pid == pid && !upgrade.agreed) else {
            return false;
        };
        let token = upgrade.token;
        if wait_for(pid) == Ok(0) {
            upgrade.agreed = true;
            let line = DoneLine::ok(token.id, &"the new program takes over");
            self.server.done(token.client, &line, self.now);
            return true;
        }
        let mut bytes = [0; REASON_BYTES];
        let count = nix::unistd::read(&upgrade.said, &mut bytes).unwrap_or(0);
        let reason = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
        let reason = match reason.trim() {
            "" => "it does not say why; is it a coracle that knows upgrades?",
            reason => reason,
        };
        let sentence = format!("the new program would not take over, and nothing has changed: {reason}");
        self.report.line(&sentence);
        self.upgrade = None;
        self.server.done(token.client, &DoneLine::failed(token.id, exit::FAILED, &sentence), self.now);
        true
    }

    /// Executes the program that has agreed, if there is one. Comes back only where that fails.
    pub(super) fn give_way(&mut self) {
        let Some(upgrade) = self.upgrade.take_if(|upgrade| upgrade.agreed) else { return };
        let Upgrade { program, text, .. } = upgrade;
        let done = self.write_text(&text, &program).map_err(|error| error.to_string()).and_then(|()| {
            // What is executed when the other one refuses: this very program, whatever lies at its path by then.
            let own = OwnedFd::from(File::open("/proc/self/exe").map_err(|error| error.to_string())?);
            let text = OwnedFd::from(text.try_clone().map_err(|error| error.to_string())?);
            let words =
                CStrings::of(&["coracle", TAKE_OVER, &word(&text), &word(&own)]).map_err(|error| error.to_string())?;
            self.report.line("another program takes over");
            self.keep_open(true);
            let _ = [&text, &own, &program].map(|fd| across_exec(fd, true));
            let errno = process::execve_same_env(&of(&program), &words);
            self.keep_open(false);
            Err::<(), String>(errno.to_string())
        });
        if let Err(why) = done {
            let sentence = format!("the other program cannot be executed, and nothing has changed: {why}");
            self.report.line(&sentence);
            note_refusal(self.run.path(), &sentence);
        }
    }

    /// Whether what is handed over stays open across execve(2).
    fn keep_open(&mut self, open: bool) {
        let report = &mut self.report;
        self.keeper.keep_open(open, &mut |sentence| report.line(sentence));
        let _ = across_exec(self.run.lock_file(), open);
        let _ = across_exec(self.server.listener(), open);
        self.sockets(|_, socket| {
            let _ = across_exec(socket, open);
        });
    }

    /// The listening sockets, also those that an init holds: it may have ended before the next program asks it.
    fn sockets(&self, mut each: impl FnMut(&str, &OwnedFd)) {
        for (slot, service) in self.slots.iter().zip(&self.plan.services) {
            slot.sockets.iter().for_each(|socket| each(service.name.as_str(), socket));
        }
    }

    fn write_text(&self, to: &File, program: &OwnedFd) -> std::io::Result<()> {
        let mut sockets = Vec::new();
        self.sockets(|service, socket| sockets.push((service.to_owned(), socket.as_raw_fd())));
        let text = Text {
            origin: self.origin.clone(),
            run: self.run.path().to_owned(),
            lock: self.run.lock_fd(),
            control: self.server.listener_fd(),
            sockets,
            rest: vec![program.as_raw_fd()],
        };
        let text = text.write();
        to.set_len(0)?;
        to.write_all_at(text.as_bytes(), 0)
    }
}

/// The program that was wished for is there; or the other one is there again, and why.
pub fn arrived(run: &Path, refused: Option<&str>) {
    match refused {
        Some(why) => note_refusal(run, &format!("the new program went back to the one before: {why}")),
        None => drop(fs::remove_file(run.join(WISH))),
    }
}

/// The last wish was not fulfilled: why is for whoever waits.
fn note_refusal(run: &Path, why: &str) {
    let beside = run.join("upgrade.new");
    let _ = fs::write(&beside, why).and_then(|()| fs::rename(&beside, run.join(WISH)));
}

fn of(fd: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}
