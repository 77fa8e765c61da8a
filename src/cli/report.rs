//! `coracle report`: all that a support desk asks for first, in one small tar without secrets.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output, services};
use crate::base::exit;
use crate::base::hide::{hide, is_secret};
use crate::base::read::read_up_to;
use crate::base::units::Bytes;
use crate::image::tar::write::Writer;
use crate::image::tar::{Entry, Kind, Mtime};
use crate::supervisor::board::Files;
use crate::supervisor::config_file::{self, Texts};
use crate::supervisor::crash;
use crate::sys::process::{self, CStrings, Forked};
use argh::FromArgs;
use nix::fcntl::OFlag;
use nix::libc::O_NONBLOCK;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest report.
const REPORT_BYTES: usize = 1 << 20;
/// What a header, the padding behind a member and the note of a cut take at most.
const AROUND_BYTES: usize = 2048;
/// Kept for the names of what there is no room for.
const MISSED_BYTES: usize = 16 << 10;
/// Largest member, and what all logs, or all crash records, share.
const MEMBER_BYTES: usize = 64 << 10;
const SHARED_BYTES: usize = 192 << 10;
/// Read of anything at all.
const READ_BYTES: u64 = 4 << 20;
/// Seconds that one question may take.
const PATIENCE: u32 = 20;
/// The shortest value, and line of a secret, that is looked for everywhere: shorter ones are words of other things, too.
const SECRET_BYTES: usize = 6;

/// Gather what a support desk asks for first into one tar of at most 1 MiB: config, state of all services, events, logs,
/// crash records, why the board last started, what its kernel can, the kernel's messages, memory, versions. What cannot be
/// had is said in its place.
///
/// What came from secrets and env_files, and the values of what is named like a password, a token, a secret or a key, are
/// taken out. Services can say secrets of their own in their logs: look before you send it.
///
/// Example: coracle report -o report.tar
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct ReportArgs {
    /// the tar to write; - is standard output
    #[argh(option, short = 'o', arg_name = "file")]
    output: PathBuf,
    /// the config file (default: /etc/coracle/config.json)
    #[argh(option, short = 'c', default = "config_file::DEFAULT.into()")]
    config: PathBuf,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
}

/// Runs the command.
pub fn run(args: &ReportArgs) -> u8 {
    let written = gather(args).finish().and_then(|tar| {
        if args.output == Path::new("-") {
            return std::io::stdout().write_all(&tar).map(|()| None);
        }
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600).open(&args.output)?.write_all(&tar)?;
        Ok(Some(tar.len()))
    });
    match written {
        Ok(None) => exit::OK,
        Ok(Some(size)) => {
            let (name, size) = (args.output.display(), Bytes(size as u64));
            output::line(&format_args!("{name}: {size}; look for secrets in its logs before you send it"));
            exit::OK
        }
        Err(error) => {
            output::complain(&format!("cannot write {}: {error}", args.output.display()));
            exit::FAILED
        }
    }
}

struct Report {
    tar: Writer<Vec<u8>>,
    left: usize,
    /// The members that it had no room for.
    missed: String,
    /// What is not to be in it.
    known: Vec<Vec<u8>>,
    mtime: i64,
}

fn gather(args: &ReportArgs) -> Writer<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let tar = Writer::new(Vec::new());
    let mut report =
        Report { tar, left: REPORT_BYTES - MISSED_BYTES, missed: String::new(), known: Vec::new(), mtime: now as i64 };
    let text = |path: &str| String::from_utf8_lossy(&file(Path::new(path))).into_owned();
    let versions = format!(
        "coracle {}\n{}command line {}uptime {}",
        env!("CARGO_PKG_VERSION"),
        text("/proc/version"),
        text("/proc/cmdline"),
        text("/proc/uptime")
    );
    let crashes = report.configs(&args.config);
    report.add("versions", versions.into_bytes(), MEMBER_BYTES);
    report.add("meminfo", file(Path::new("/proc/meminfo")), MEMBER_BYTES);
    let (dir, config) = (args.run_dir.to_string_lossy(), args.config.to_string_lossy());
    for (name, words) in [
        ("check", &["check", &*config][..]),
        ("ps", &["ps", "--run-dir", &dir]),
        ("stats", &["stats", "--run-dir", &dir]),
        ("device.json", &["inspect", "--run-dir", &dir, "device"]),
        ("doctor", &["doctor"]),
        ("events", &["events", "--run-dir", &dir]),
        ("last-boot", &["logs", "--boot", "-1"]),
        ("supervisor.log", &["logs", "--supervisor", "--run-dir", &dir]),
    ] {
        report.add(name, said(words), MEMBER_BYTES);
    }
    report.add("dmesg", kernel_messages(), MEMBER_BYTES);
    let names = services::known(&args.run_dir);
    for name in &names {
        let most = SHARED_BYTES / names.len() - AROUND_BYTES / 2;
        report.add(&format!("logs/{name}"), said(&["logs", "--run-dir", &dir, name]), most);
    }
    match crashes {
        Some(folder) => {
            let found = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
            crate::base::sort::sort(&mut found);
            for path in &found {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                report.add(&format!("{}/{name}", crash::FOLDER), file(path), SHARED_BYTES / found.len().max(16));
            }
        }
        None => report.add(crash::FOLDER, b"the config tells of no state folder, see check".to_vec(), MEMBER_BYTES),
    }
    if !report.missed.is_empty() {
        let missed = core::mem::take(&mut report.missed);
        report.left = MISSED_BYTES;
        report.add("no-room-for", missed.into_bytes(), MISSED_BYTES / 2);
    }
    report.tar
}

impl Report {
    /// The files of the configs there are, each under its own path; learns what is secret. Gives the folder of crash records.
    fn configs(&mut self, config: &Path) -> Option<PathBuf> {
        let mut folder = None;
        let mut texts = vec![Texts::read(config, &Files::here())];
        let plan = texts.first()?.as_ref().ok().and_then(|texts| texts.load().ok());
        if let Some((plan, _)) = plan {
            let state = Path::new(&*plan.device.state);
            let second = state.join("config.json");
            if second.exists() {
                texts.push(Texts::read(&second, &Files::here()));
            }
            folder = Some(state.join(crash::FOLDER));
        }
        for texts in texts.iter().flatten() {
            let Ok((plan, _)) = texts.load() else { continue };
            for service in &plan.services {
                for entry in
                    service.env.iter().filter(|entry| is_secret(entry.split('=').next().unwrap_or("").as_bytes()))
                {
                    self.learn(entry.as_bytes(), true);
                }
                let entries = service.env_files.iter().map(|path| (path, true));
                for (path, entries) in entries.chain(service.secrets.iter().map(|secret| (&secret.file, false))) {
                    self.learn(&read(path).unwrap_or_default(), entries);
                }
            }
        }
        for texts in &texts {
            match texts {
                Ok(texts) => {
                    for (name, bytes) in texts.files() {
                        let name = format!("config/{}", name.trim_start_matches('/').replace("..", "_"));
                        self.add(&name, bytes.to_vec(), MEMBER_BYTES);
                    }
                }
                Err(sentence) => self.add("config/missing", sentence.as_bytes().to_vec(), MEMBER_BYTES),
            }
        }
        folder
    }

    /// A secret, or the values of an environment file.
    fn learn(&mut self, bytes: &[u8], entries: bool) {
        for line in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            let begin = line.iter().position(|byte| entries && *byte == b'=').map_or(0, |at| at + 1);
            let value = line.get(begin..).unwrap_or_default();
            if value.len() >= SECRET_BYTES && !(entries && line.starts_with(b"#")) {
                self.known.push(value.to_vec());
            }
        }
    }

    /// Adds a member of at most `most` bytes: of more, the end.
    fn add(&mut self, name: &str, bytes: Vec<u8>, most: usize) {
        let bytes = if bytes.is_empty() { b"nothing is known\n".to_vec() } else { hide(&bytes, &self.known) };
        let Some(room) = self.left.checked_sub(AROUND_BYTES) else {
            self.missed.extend([name, "\n"]);
            return;
        };
        let cut = bytes.len().saturating_sub(most.min(room));
        // From the beginning of a line on.
        let from = bytes.iter().skip(cut.saturating_sub(1)).position(|byte| *byte == b'\n').map_or(cut, |at| cut + at);
        let (from, note) = match cut {
            0 => (0, String::new()),
            _ => (from, format!("[cut: {from} bytes that came before]\n")),
        };
        let data = [note.as_bytes(), bytes.get(from..).unwrap_or_default()].concat();
        let entry = Entry {
            path: format!("coracle-report/{name}").into_bytes(),
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Mtime { seconds: self.mtime, nanoseconds: 0 },
            size: data.len() as u64,
            xattrs: Vec::new(),
            offset: 0,
            data_offset: 0,
        };
        // Memory takes it.
        let _ = self.tar.append(&entry, &*data);
        self.left = room.saturating_sub(data.len());
    }
}

/// What a file holds, or why that is not known.
fn file(path: &Path) -> Vec<u8> {
    let path = &path.to_string_lossy();
    read(path).unwrap_or_else(|error| format!("{path} cannot be read: {error}\n").into_bytes())
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    // Whatever a name may have come to lead to, it is not waited for.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    read_up_to(&mut file?, READ_BYTES)
}

/// What coracle says to these words, complaints included.
fn said(words: &[&str]) -> Vec<u8> {
    let words = ["coracle"].iter().chain(words).filter_map(|word| CString::new(*word).ok());
    let words = CStrings::new(words.collect());
    let Ok((out, pipe)) = nix::unistd::pipe2(OFlag::O_CLOEXEC) else { return Vec::new() };
    match process::clone(0, None) {
        Err(errno) => errno.to_string().into_bytes(),
        Ok(Forked::Parent(pid)) => {
            drop(pipe);
            let read = read_up_to(&mut File::from(out), READ_BYTES);
            process::reap(pid);
            read.unwrap_or_default()
        }
        Ok(Forked::Child) => {
            process::reset_signals();
            nix::unistd::alarm::set(PATIENCE);
            let _ = [1, 2].map(|fd| process::duplicate(pipe.as_raw_fd(), fd));
            process::execve_same_env(c"/proc/self/exe", &words);
            process::exit_now(127)
        }
    }
}

/// The kernel's messages as /dev/kmsg gives them: one record a read, until there is none.
fn kernel_messages() -> Vec<u8> {
    let mut out = Vec::new();
    match OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg") {
        Err(error) => return format!("/dev/kmsg cannot be read: {error}\n").into_bytes(),
        Ok(mut file) => {
            let mut record = [0; 8192];
            while out.len() < READ_BYTES as usize {
                match file.read(&mut record) {
                    Ok(count @ 1..) => out.extend(record.get(..count).unwrap_or_default()),
                    // Overwritten before it was read: the next read goes on with the oldest there is.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }
    out
}
