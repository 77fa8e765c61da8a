//! Where the start of a container can fail, and the sentence that says so.
//!
//! A failing child has no heap and no locale: it fills in a fixed-size [`Failure`], which travels over the channel and
//! into the exit record as bytes and becomes a sentence wherever someone reads it.
#![forbid(unsafe_code)]

use crate::base::escaped::Escaped;
use crate::base::exit;
use crate::sys::Errno;
use core::fmt;

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal, $sentence:literal;)*) => {
        /// A stage of the start. The numbers are part of the channel's format: they are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Stage { $($(#[$doc])* $name = $number,)* }

        impl Stage {
            /// All stages in the order of their numbers.
            pub const ALL: &'static [Stage] = &[$(Stage::$name,)*];

            /// Its name in `inspect --steps` and in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Stage::$name => $word,)* }
            }

            /// What could not be done, as the middle of a sentence.
            const fn sentence(self) -> &'static str {
                match self { $(Stage::$name => $sentence,)* }
            }
        }
    };
}

stages! {
    /// clone3(2) of the init with its namespaces.
    Clone = 0, "clone", "creating the namespaces failed";
    /// Cutting mount propagation to and from the host.
    Propagation = 1, "propagation", "separating the mounts from the host's failed";
    /// Assembling the root file system.
    Root = 2, "root", "assembling the root file system failed";
    /// Resolving or creating a mount's target beneath the root.
    Target = 3, "target", "no mount point could be had";
    /// A mount.
    Mount = 4, "mount", "mounting failed";
    /// A device node.
    Device = 5, "device", "creating the device node failed";
    /// A symbolic link in `/dev`.
    Link = 6, "link", "creating the link failed";
    /// Hiding a path.
    Mask = 7, "mask", "hiding the path failed";
    /// Making a path read-only.
    ReadOnly = 8, "read-only", "making the path read-only failed";
    /// A generated file in `/etc`.
    File = 9, "file", "writing the file failed";
    /// The socket `/dev/log`.
    DevLog = 10, "dev-log", "making the log socket failed";
    /// pivot_root(2).
    Pivot = 11, "pivot", "changing into the new root failed";
    /// sethostname(2).
    Hostname = 12, "hostname", "setting the host name failed";
    /// Bringing up the loopback interface.
    Loopback = 13, "loopback", "bringing up the loopback interface failed";
    /// Cloning the first process of the service.
    Fork = 14, "fork", "starting the first process failed";
    /// Joining the cgroup.
    Join = 15, "cgroup-join", "joining the cgroup failed";
    /// A namespace of cgroups of its own.
    CgroupNamespace = 16, "cgroup-namespace", "making a cgroup namespace failed";
    /// setsid(2) and the controlling terminal.
    Session = 17, "session", "starting a session of its own failed";
    /// setrlimit(2).
    Rlimit = 18, "rlimit", "setting the resource limit failed";
    /// oom_score_adj.
    OomScore = 19, "oom-score", "setting oom_score_adj failed";
    /// The working directory.
    WorkingDir = 20, "working-dir", "changing into the working directory failed";
    /// User, group and supplementary groups.
    Ids = 21, "ids", "changing to the user failed";
    /// Capabilities and no_new_privs.
    Capabilities = 22, "capabilities", "dropping capabilities failed";
    /// The system call filter.
    Seccomp = 23, "seccomp", "installing the system call filter failed";
    /// Standard input, output and error.
    Stdio = 24, "stdio", "connecting standard input, output and error failed";
    /// execve(2).
    Exec = 25, "exec", "executing the command failed";
    /// The init's own confinement after the start.
    Confine = 26, "confine", "confining the init failed";
    /// Copying a secret.
    Secret = 27, "secret", "copying the secret failed";
    /// The notify socket.
    Notify = 28, "notify", "making the notify socket failed";
    /// The command that runs before the first process.
    PreStart = 29, "pre-start", "its pre_start failed";
    /// The command that runs after the first process.
    PostStop = 30, "post-stop", "its post_stop failed";
}

// Decoding indexes `ALL` by number.
const _: () = {
    let mut at = 0;
    while at < Stage::ALL.len() {
        assert!(Stage::ALL[at] as usize == at, "a stage's number is its place in the table");
        at += 1;
    }
};

/// What is known beyond an error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Note {
    /// Nothing.
    None = 0,
    /// The file is there; what is missing is the interpreter or dynamic loader that it names.
    Interpreter = 1,
    /// An ELF file of another machine.
    ForeignMachine = 2,
    /// Neither ELF nor `#!`.
    NoFormat = 3,
    /// A symbolic link stands where a directory of the container's own must be.
    Symlink = 4,
    /// Raising a hard limit or lowering oom_score_adj needs CAP_SYS_RESOURCE, which coracle itself lacks.
    NeedsSysResource = 5,
    /// The working directory leads out of the root.
    Outside = 6,
}

const NOTES: [Note; 7] = [
    Note::None,
    Note::Interpreter,
    Note::ForeignMachine,
    Note::NoFormat,
    Note::Symlink,
    Note::NeedsSysResource,
    Note::Outside,
];

/// Bytes of a failure's detail: enough for any sane path; a longer one keeps its end.
pub const DETAIL_BYTES: usize = 112;

/// A start that failed: where, why, and on what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub errno: Errno,
    /// What more is known.
    pub note: Note,
    detail: [u8; DETAIL_BYTES],
    detail_len: u8,
}

impl Failure {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 8 + DETAIL_BYTES;

    /// A failure at `stage` about `detail` (a path, a command, a limit's name).
    pub fn new(stage: Stage, errno: Errno, detail: &[u8]) -> Failure {
        let mut kept = [0; DETAIL_BYTES];
        let end = detail.get(detail.len().saturating_sub(DETAIL_BYTES)..).unwrap_or(detail);
        kept.iter_mut().zip(end).for_each(|(to, from)| *to = *from);
        Failure { stage, errno, note: Note::None, detail: kept, detail_len: end.len() as u8 }
    }

    /// A failure at `stage` about a path, shown from the container's root.
    pub fn at(stage: Stage, errno: Errno, path: &core::ffi::CStr) -> Failure {
        Failure::new(stage, errno, path.to_bytes())
    }

    /// The same with a note.
    #[must_use]
    pub const fn with_note(mut self, note: Note) -> Failure {
        self.note = note;
        self
    }

    /// What it is about; what is not UTF-8 is replaced when shown.
    pub fn detail(&self) -> &[u8] {
        self.detail.get(..usize::from(self.detail_len)).unwrap_or(&self.detail)
    }

    /// The exit code that `run` and `exec` give for it.
    pub fn exit_code(&self) -> u8 {
        match (self.stage, self.errno.0, self.note) {
            (Stage::Exec, libc::ENOENT | libc::ENOTDIR, Note::None) => exit::RUN_NOT_FOUND,
            (Stage::Exec, ..) => exit::RUN_NOT_EXECUTABLE,
            _ => exit::RUN_FAILED,
        }
    }

    /// Its bytes: stage, note, length, zero, errno (little endian), detail.
    pub fn encode(&self) -> [u8; Failure::BYTES] {
        let mut bytes = [0; Failure::BYTES];
        let head = [self.stage as u8, self.note as u8, self.detail_len, 0];
        let all = head.into_iter().chain(self.errno.0.to_le_bytes()).chain(self.detail);
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads what [`Failure::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8; Failure::BYTES]) -> Option<Failure> {
        let [stage, note, detail_len, 0, e0, e1, e2, e3, detail @ ..] = *bytes else { return None };
        let stage = *Stage::ALL.get(usize::from(stage))?;
        let note = *NOTES.get(usize::from(note))?;
        let fits = usize::from(detail_len) <= DETAIL_BYTES;
        fits.then_some(Failure { stage, errno: Errno(i32::from_le_bytes([e0, e1, e2, e3])), note, detail, detail_len })
    }
}

impl fmt::Display for Failure {
    /// One sentence: what failed, on what, why, and the way out where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = String::from_utf8_lossy(self.detail());
        // What lies beneath the new root has no slash in front before the root is entered.
        let above = match self.stage {
            Stage::File => "/etc/",
            Stage::Target
            | Stage::Secret
            | Stage::Mount
            | Stage::Device
            | Stage::Link
            | Stage::Mask
            | Stage::ReadOnly => "/",
            _ => "",
        };
        let detail = format!("{}{}", if detail.starts_with('/') { "" } else { above }, Escaped(&detail));
        match (self.stage, self.note, self.errno.0) {
            (Stage::Exec, Note::Interpreter, _) => write!(
                f,
                "{detail}: the file is there, but its interpreter (the `#!` line) or its dynamic loader is missing \
                 in the root file system"
            ),
            (Stage::Exec, Note::ForeignMachine, _) => {
                write!(f, "{detail}: an ELF program for another machine than this one ({})", std::env::consts::ARCH)
            }
            (Stage::Exec, Note::NoFormat, _) => {
                write!(f, "{detail}: neither an ELF program nor a script with a `#!` line")
            }
            (Stage::Exec, _, libc::ENOENT | libc::ENOTDIR) => {
                write!(f, "{detail}: command not found in the root file system")
            }
            (Stage::Exec, _, libc::EACCES) => {
                write!(f, "{detail}: not executable for the service's user (no execute permission, or a directory)")
            }
            (_, Note::Symlink, _) => write!(
                f,
                "{detail}: {}: the root file system has a symbolic link there, where a plain directory must be",
                self.stage.sentence()
            ),
            (_, Note::NeedsSysResource, _) => write!(
                f,
                "{}: {detail}: {}: coracle itself lacks CAP_SYS_RESOURCE; ask for no more than it has",
                self.stage.sentence(),
                self.errno
            ),
            (Stage::WorkingDir, Note::Outside, _) => {
                write!(f, "the working directory {detail} leads out of the root file system; name one inside")
            }
            (Stage::WorkingDir, _, libc::ENOENT) => write!(
                f,
                "the working directory {detail} does not exist and cannot be created on a read-only root; name \
                 another, or put a volume or tmpfs there"
            ),
            (Stage::Target, _, libc::EROFS) => write!(
                f,
                "the mount point {detail} is missing and the file system there is read-only; create it in the image"
            ),
            (Stage::Secret, _, libc::EFBIG) => write!(f, "the secret for {detail} has grown beyond what fits"),
            (Stage::Mount | Stage::Secret, _, libc::EISDIR) => {
                write!(f, "{detail} is a folder, and what is to be mounted there is a file: name a file in it")
            }
            (Stage::Mount, _, libc::ENOTDIR) => {
                write!(f, "{detail} is no folder, and what is to be mounted there is one: name another target")
            }
            (Stage::PreStart, _, 0) => write!(f, "{}: {detail}", self.stage.sentence()),
            (stage, ..) => write!(f, "{}: {detail}: {}", stage.sentence(), self.errno),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({}: {self})", self.stage.word())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_channel() {
        for stage in Stage::ALL {
            let failure = Failure::new(*stage, Errno(libc::ENOENT), b"/data").with_note(Note::Symlink);
            assert_eq!(Failure::decode(&failure.encode()), Some(failure));
        }
        let mut bytes = Failure::new(Stage::Exec, Errno(2), b"x").encode();
        bytes[0] = 200;
        assert_eq!(Failure::decode(&bytes), None);
        bytes[0] = 25;
        bytes[2] = 255;
        assert_eq!(Failure::decode(&bytes), None);
    }

    #[test]
    fn a_mount_on_the_wrong_kind_of_target_says_which_is_which() {
        let on_folder = Failure::new(Stage::Mount, Errno(libc::EISDIR), b"data").to_string();
        assert!(on_folder.starts_with("/data is a folder") && on_folder.contains("is a file"), "{on_folder}");
        let on_file = Failure::new(Stage::Mount, Errno(libc::ENOTDIR), b"etc/hosts").to_string();
        assert!(on_file.starts_with("/etc/hosts is no folder"), "{on_file}");
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        let path = format!("/{}/target", "d".repeat(300));
        let failure = Failure::new(Stage::Mount, Errno(libc::EPERM), path.as_bytes());
        assert!(failure.to_string().contains("d/target"), "{failure}");
    }

    #[test]
    fn exit_codes_tell_missing_from_not_executable() {
        let exec = |errno| Failure::new(Stage::Exec, Errno(errno), b"/x");
        assert_eq!(exec(libc::ENOENT).exit_code(), 127);
        assert_eq!(exec(libc::ENOENT).with_note(Note::Interpreter).exit_code(), 126);
        assert_eq!(exec(libc::EACCES).exit_code(), 126);
        assert_eq!(Failure::new(Stage::Mount, Errno(libc::ENOENT), b"/x").exit_code(), 125);
    }
}
