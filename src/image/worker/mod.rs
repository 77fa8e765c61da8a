//! The confined process that unpacks: a hostile archive meets a sandbox first.
//!
//! [`start`] makes it and never blocks; [`Worker::progress_fd`] becomes readable when it has something to tell;
//! [`Worker::poll`] takes that in; [`Worker::finish`] makes the result visible. [`run`] does all of it for a command.
//!
//! The worker stages; the parent commits. So what a half-done or taken-over worker can do is fill the staging folder and
//! give wrong content for the diff IDs that it was asked for.
#![forbid(unsafe_code)]

mod confine;
mod message;

pub use super::archive::Progress;

use super::ImageError;
use super::archive::{self, Sink, Source, Wanted};
use super::config::ImageConfig;
use super::digest::Digest;
use super::layer::LayerOptions;
use super::mountable::Mountable;
use super::platform::Platform;
use super::record::{ImageRecord, Root, SourceId};
use super::reference::{Reference, Select};
use super::store::{Staging, Store, is_layout, source_id};
use crate::base::read::read_up_to;
use crate::plan::device::ImageCaps;
use crate::sys::meaning;
use crate::sys::process::{self, Forked};
use crate::sys::wait::send_signal;
use confine::Walls;
use message::{MESSAGE_BYTES, Message};
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file in the staging folder in which a worker leaves the image's record.
const RESULT: &str = "image";

/// What is to be unpacked.
#[derive(Debug, Clone)]
pub struct Job {
    /// The image, by the absolute path of its file.
    pub image: Reference,
    /// The platform that it must be for.
    pub platform: Platform,
    /// Caps.
    pub caps: ImageCaps,
}

/// What [`start`] came to.
pub enum Started {
    /// There was nothing to unpack.
    Ready(ImageRecord),
    /// A worker is at it.
    Working(Worker),
}

/// What [`Worker::poll`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on; the latest progress, if there is any news.
    Running(Option<Progress>),
    /// It ended: call [`Worker::finish`].
    Ended,
}

/// A running worker. Dropping it kills it and removes what it staged.
#[derive(Debug)]
pub struct Worker {
    pid: i32,
    reaped: bool,
    pipe: File,
    held: Vec<u8>,
    outcome: Option<Result<(), ImageError>>,
    job: Job,
    source: SourceId,
    staging: Option<Staging>,
}

/// Starts unpacking an image, or finds it unpacked. The caller must be single-threaded.
pub fn start(store: &Store, job: Job) -> Result<Started, ImageError> {
    // An image that was unpacked for another platform is chosen from its archive again.
    let fits = |record: &ImageRecord| {
        record.config.platform.as_ref().is_none_or(|platform| job.platform.fitness(platform).is_some())
    };
    if let Some(record) = store.lookup(&job.image)?.filter(fits) {
        return Ok(Started::Ready(record));
    }
    let path = Path::new(&*job.image.file);
    let source = source_id(path)?;
    let layout = path.is_dir();
    if layout && !is_layout(path) {
        let root = Root::Folder(job.image.file.clone());
        return in_place(store, job, source, root);
    }
    if let Some(kind) = Mountable::at(path) {
        if job.image.select != Select::Only {
            return Err(ImageError::invalid(&format_args!(
                "{} is a {} with one root file system; name it without '#'",
                job.image.file,
                kind.name()
            )));
        }
        let root = Root::File(kind, job.image.file.clone());
        return in_place(store, job, source, root);
    }
    let staging = store.begin()?;
    let archive = if layout { None } else { Some(open_archive(path)?) };
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|errno| {
        ImageError::failed(&format_args!("cannot make a pipe for the unpacker: {}", meaning(errno)))
    })?;
    let ready = Ready {
        base: terminated(&store.state().join("staging"))?,
        staging: terminated(staging.path())?,
        layout: layout.then(|| terminated(path)).transpose()?,
        walls: Walls::new(job.caps),
        layers: store.layers()?,
        job: &job,
        archive,
        pipe: write,
        lock: staging.lock_fd(),
    };
    let namespaces = process::NEW_NS | process::NEW_PID | process::NEW_IPC | process::NEW_UTS | process::NEW_NET;
    match process::clone(namespaces, None) {
        Ok(Forked::Child) => ready.run(),
        Ok(Forked::Parent(pid)) => Ok(Started::Working(Worker {
            pid,
            reaped: false,
            pipe: File::from(read),
            held: Vec::new(),
            outcome: None,
            source,
            staging: Some(staging),
            job,
        })),
        Err(errno) => Err(ImageError::failed(&format_args!(
            "cannot start the confined unpacker: {errno}; it needs root (CAP_SYS_ADMIN) and all of pid, mount, ipc, uts and \
             network namespaces in the kernel"
        ))),
    }
}

/// Unpacks an image, blocking; `report` hears how far it is. The caller must be single-threaded.
pub fn run(store: &Store, job: Job, report: &mut dyn FnMut(Progress)) -> Result<ImageRecord, ImageError> {
    let mut worker = match start(store, job)? {
        Started::Ready(record) => return Ok(record),
        Started::Working(worker) => worker,
    };
    loop {
        match worker.poll() {
            Step::Ended => return worker.finish(store),
            Step::Running(progress) => progress.into_iter().for_each(&mut *report),
        }
        // Interrupted or not: the next turn looks again.
        let _ = poll(&mut [PollFd::new(worker.progress_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
    }
}

/// A rootfs folder or a file system is used in place.
fn in_place(store: &Store, job: Job, source: SourceId, root: Root) -> Result<Started, ImageError> {
    let record = ImageRecord {
        reference: job.image.to_string().into(),
        source,
        names: Vec::new(),
        image_id: None,
        root,
        config: ImageConfig::empty(),
    };
    let staging = store.begin()?;
    store.commit(staging, record).map(Started::Ready)
}

fn open_archive(path: &Path) -> Result<File, ImageError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
    let file = options.open(path);
    file.map_err(|error| ImageError::invalid(&format_args!("cannot open the image {}: {error}", path.display())))
}

fn terminated(path: &Path) -> Result<CString, ImageError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| ImageError::invalid(&format_args!("the path {} holds a NUL character", path.display())))
}

impl Worker {
    /// Its process ID.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when it has something to tell or has ended.
    pub fn progress_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// The image that it unpacks.
    pub fn image(&self) -> &Reference {
        &self.job.image
    }

    /// Takes in what the worker told. Never blocks.
    pub fn poll(&mut self) -> Step {
        let mut latest = None;
        let mut buffer = [0u8; 4 * MESSAGE_BYTES];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => return Step::Ended,
                Ok(length) => self.held.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Step::Running(latest),
                Err(_) => return Step::Ended,
            }
            while let Some((bytes, _)) = self.held.split_first_chunk::<MESSAGE_BYTES>() {
                match Message::decode(bytes) {
                    Some(Message::Progress(progress)) => latest = Some(progress),
                    Some(Message::Done) => self.outcome = Some(Ok(())),
                    Some(Message::Failed(error)) => self.outcome = Some(Err(error)),
                    None => {}
                }
                self.held.drain(..MESSAGE_BYTES);
            }
        }
    }

    /// Reaps the worker and makes what it unpacked visible.
    pub fn finish(mut self, store: &Store) -> Result<ImageRecord, ImageError> {
        // One that has closed its pipe but does not end must not hold up whoever waits here. One that is ending keeps
        // its exit code.
        let _ = send_signal(self.pid, libc::SIGKILL);
        let status = self.reap();
        let failed = |error: ImageError| error.at(&self.job.image);
        match self.outcome.take() {
            Some(Err(error)) => return Err(failed(error)),
            Some(Ok(())) if status == Some(0) => {}
            _ => return Err(failed(died(status))),
        }
        let staging = self.staging.take().ok_or_else(|| failed(ImageError::failed(&"was committed already")))?;
        let record = read_result(&staging).map_err(failed)?;
        if source_id(Path::new(&*self.job.image.file))? != self.source {
            return Err(failed(ImageError::invalid(&"the file was replaced while it was read; unpack it again")));
        }
        // What the worker may say is the image's own; which file it came from is known here.
        let record = ImageRecord { reference: self.job.image.to_string().into(), source: self.source, ..record };
        if !matches!(record.root, Root::Layers(_)) {
            return Err(failed(ImageError::failed(&"the unpacker gave no layers")));
        }
        store.commit(staging, record)
    }

    /// The exit code, or the signal as a negative number.
    fn reap(&mut self) -> Option<i32> {
        loop {
            let answer = waitpid(Pid::from_raw(self.pid), None);
            self.reaped = true;
            match answer {
                Ok(WaitStatus::Exited(_, code)) => return Some(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Some(-(signal as i32)),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                // Someone else reaped it.
                Err(_) => return Some(0),
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = send_signal(self.pid, libc::SIGKILL);
            self.reap();
        }
    }
}

fn died(status: Option<i32>) -> ImageError {
    ImageError::failed(&match status {
        Some(code) if code == -libc::SIGSYS => "the unpacker made a system call that its filter refuses".to_owned(),
        Some(code) if code == -libc::SIGABRT => {
            "the unpacker reached its memory limit or met a fault of its own".to_owned()
        }
        Some(code) if code < 0 => format!("the unpacker was killed by signal {}; nothing of it was kept", -code),
        Some(code) => format!("the unpacker ended early with code {code}; nothing of it was kept"),
        None => "the unpacker ended early; nothing of it was kept".to_owned(),
    })
}

fn read_result(staging: &Staging) -> Result<ImageRecord, ImageError> {
    let path = staging.path().join(RESULT);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let read = options.open(&path).and_then(|mut file| read_up_to(&mut file, 4 << 20));
    let bytes =
        read.map_err(|error| ImageError::failed(&format_args!("cannot read the unpacker's result: {error}")))?;
    ImageRecord::from_json(&bytes)
}

/// All that the child needs, made before it exists.
struct Ready<'a> {
    base: CString,
    staging: CString,
    layout: Option<CString>,
    walls: Walls,
    layers: Vec<Digest>,
    job: &'a Job,
    archive: Option<File>,
    pipe: OwnedFd,
    lock: RawFd,
}

impl Ready<'_> {
    /// The child's whole life.
    fn run(self) -> ! {
        // A panic must not run on in a copy of the parent.
        let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| self.work()));
        let error = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(ImageError::failed(&"the unpacker met a fault of its own; please report it")),
        };
        let code = error.is_some().into();
        self.tell(&error.map_or(Message::Done, Message::Failed), true);
        process::exit_now(code)
    }

    fn work(&self) -> Result<(), ImageError> {
        let keep = [self.pipe.as_raw_fd(), self.lock, self.archive.as_ref().map_or(-1, |file| file.as_raw_fd())];
        let inside = self.walls.raise(&self.base, &self.staging, self.layout.as_deref(), &keep)?;
        let source = match (&self.archive, inside.layout) {
            (Some(file), _) => Source::File(file.try_clone().map_err(|error| ImageError::failed(&error))?),
            (None, Some(folder)) => Source::Layout(folder),
            (None, None) => return Err(ImageError::failed(&"has no source")),
        };
        let mut report = |progress| self.tell(&Message::Progress(progress), false);
        let options = LayerOptions { caps: self.job.caps, ..LayerOptions::default() };
        let mut sink = Sink::new(Path::new("."), options, &mut report);
        let wanted = Wanted {
            select: &self.job.image.select,
            platform: &self.job.platform,
            caps: self.job.caps,
            have: &|layer| self.layers.contains(layer),
        };
        let unpacked = archive::unpack(source, &wanted, &mut sink)?;
        let record = ImageRecord {
            reference: "".into(),
            source: SourceId { size: 0, mtime_ns: 0, inode: 0 },
            names: unpacked.names,
            image_id: unpacked.image_id,
            root: Root::Layers(unpacked.layers),
            config: unpacked.config,
        };
        let written = fs::write(RESULT, record.to_json());
        written
            .and_then(|()| nix::unistd::syncfs(&inside.staging).map_err(Into::into))
            .map_err(|error| ImageError::failed(&format_args!("cannot write to the state folder: {error}")))
    }

    /// Progress is dropped when the pipe is full; the outcome waits until it is not.
    fn tell(&self, message: &Message, wait: bool) {
        let bytes = message.encode();
        let Ok(pipe) = self.pipe.try_clone() else { return };
        let mut pipe = File::from(pipe);
        while let Err(error) = pipe.write_all(&bytes) {
            if !wait || error.kind() != std::io::ErrorKind::WouldBlock {
                return;
            }
            let _ = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
        }
    }
}
