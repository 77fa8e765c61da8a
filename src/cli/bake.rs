//! `coracle bake`: the images of a config to a read-only store for a firmware, on the build host.
#![forbid(unsafe_code)]

use super::{check, images, output, progress};
use crate::base::exit;
use crate::base::units::Bytes;
use crate::config::Problem;
use crate::image::ImageError;
use crate::image::archive::Source;
use crate::image::bake::{self, Baked, Job, Order, Output, distinct};
use crate::image::mountable::Mountable;
use crate::image::platform::Platform;
use crate::image::record::SourceId;
use crate::image::reference::Reference;
use crate::image::store::{is_layout, source_id};
use crate::image::tar::write::Writer;
use crate::plan::Plan;
use crate::supervisor::board::{Board, Files};
use crate::supervisor::config_file::{Fault, Texts};
use crate::sys::folder;
use crate::sys::process::{self, Forked};
use crate::sys::wait::wait_for;
use crate::sys::{caps, landlock};
use argh::FromArgs;
use nix::libc;
use std::fs::{self, File, OpenOptions};
use std::io::BufWriter;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Check a config as its board would and unpack the images that it names into a read-only store for the firmware. The
/// board finds it by "store" in "device" and unpacks nothing; the archives need not be on it. A tar keeps owners, devices
/// and attributes and needs no root; the same images give the same bytes. Unpack it in the firmware's build with
/// `tar --xattrs --xattrs-include='*'` under fakeroot, or make a file system of it with `sqfstar` or `mkfs.erofs --tar`.
///
/// Example: coracle bake --root rootfs --images images --arch arm64 -o store.tar
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct BakeArgs {
    /// the config file (default: /etc/coracle/config.json beneath --root)
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<PathBuf>,

    /// the board's file system while it is being built: paths of the config lie beneath it (default: /)
    #[argh(option, arg_name = "dir")]
    root: Option<PathBuf>,

    /// a folder of this machine with the archives that the board is not to have
    #[argh(option, arg_name = "dir")]
    images: Option<PathBuf>,

    /// architecture of the board, such as arm64, arm/v7 or amd64
    #[argh(option, arg_name = "arch", from_str_fn(check::arch))]
    arch: Option<Platform>,

    /// judge by this profile, which `coracle doctor --json` wrote on the board
    #[argh(option, arg_name = "file")]
    board: Option<PathBuf>,

    /// memory of the smallest board, such as 128M, in place of device.memory
    #[argh(option, arg_name = "size", from_str_fn(check::memory))]
    memory: Option<Bytes>,

    /// the tar to write; a folder (a name with a slash at the end, or one that is there) as root alone
    #[argh(option, short = 'o', arg_name = "file")]
    output: PathBuf,
}

/// Runs the command.
pub fn run(args: &BakeArgs) -> u8 {
    attempt(args).unwrap_or_else(|code| code)
}

fn attempt(args: &BakeArgs) -> Result<u8, u8> {
    if !check::is_root(args.root.as_deref()) {
        return Err(exit::USAGE);
    }
    let file = check::config_file(args.config.as_ref(), args.root.as_deref());
    let board = board(args)?;
    let refuse = |fault| check::refuse(&file, &fault, false);
    let texts = Texts::read(&file, &board.files).map_err(|sentence| refuse(Fault::Unreadable(sentence)))?;
    let (mut plan, warnings) = texts.load().map_err(|problems| refuse(Fault::Problems(problems)))?;
    if plan.device.store.take().is_none() {
        output::complain(&format_args!(
            "{} names no \"store\" in \"device\": the board will not look into it",
            file.display()
        ));
    }
    let platform = judged(&file, &plan, &warnings, &board)?;
    let newest = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let jobs = jobs(&plan, &board.files, newest).map_err(|error| images::fault(&error))?;
    let target = Target::new(&args.output)?;
    let work = || work(jobs, &plan, platform, newest, &target).map_err(|error| images::fault(&error));
    let code = confined(work).unwrap_or_else(|sentence| {
        output::complain(&sentence);
        exit::FAILED
    });
    match code {
        exit::OK => target.keep(),
        code => Err(code),
    }
}

fn board(args: &BakeArgs) -> Result<Board, u8> {
    let mut board = Board::beneath(args.root.as_deref().unwrap_or(Path::new("/")));
    if let Some(file) = &args.board {
        board = board.with_profile(check::profile(file)?);
    }
    board.files = board.files.with_archives(args.images.clone());
    board.memory = args.memory.or(board.memory);
    board.platform = args.arch.clone().or(board.platform);
    Ok(board)
}

/// The board's platform, if it lacks nothing for the plan.
fn judged<'a>(file: &Path, plan: &Plan, warnings: &[Problem], board: &'a Board) -> Result<&'a Platform, u8> {
    let Some(platform) = &board.platform else {
        output::complain(&"for which architecture? --arch arm64, arm/v7, amd64, …, or --board with a profile of it");
        return Err(exit::USAGE);
    };
    let found = check::judge(plan, board);
    check::explain(file, plan, warnings, &found);
    if found.is_empty() { Ok(platform) } else { Err(exit::INVALID) }
}

/// The archives that the services are made of; a folder is used in place on the board, too.
fn jobs(plan: &Plan, files: &Files, newest: Option<i64>) -> Result<Vec<Job>, ImageError> {
    let mut jobs = Vec::new();
    for service in &plan.services {
        let Some(reference) = service.image().and_then(|image| Reference::parse(image).ok()) else { continue };
        let Some(found) = files.image(&plan.device, &reference) else { continue };
        let Some(path) = files.archive(&found.path, &reference) else { continue };
        let layout = path.is_dir();
        let in_place = if layout { !is_layout(&path) } else { Mountable::at(&path).is_some() };
        if in_place && files.exists(&found.path) {
            continue;
        }
        if in_place {
            return Err(ImageError::invalid(&format_args!(
                "{} is used in place: put it beneath --root, as {}",
                path.display(),
                found.path.display()
            )));
        }
        let kind = if layout { libc::O_DIRECTORY } else { 0 };
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | kind).open(&path);
        let file =
            opened.map_err(|error| ImageError::failed(&format_args!("cannot open {}: {error}", path.display())))?;
        let source = if layout { Source::Layout(file.into()) } else { Source::File(file) };
        let id = source_id(&path)?;
        // What the firmware makes of the file's time is known only to who fixes it.
        let seconds = newest.map_or(0, |newest| id.mtime_ns.div_euclid(1_000_000_000).min(newest));
        let id = SourceId { size: id.size, mtime_ns: seconds.saturating_mul(1_000_000_000), inode: 0 };
        jobs.push(Job { image: reference.located_at(&found.path), source, id });
    }
    Ok(distinct(jobs))
}

/// Where the store goes, and where it is made. Dropping it removes what is unfinished.
struct Target {
    output: PathBuf,
    folder: bool,
    scratch: PathBuf,
}

impl Target {
    fn new(output: &Path) -> Result<Target, u8> {
        let refuse = |sentence: String| {
            output::complain(&sentence);
            exit::FAILED
        };
        let shown = output.display();
        let folder = output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/");
        if !folder && !output::may_replace(output) {
            return Err(exit::FAILED);
        }
        let mut scratch: PathBuf = output.components().collect();
        scratch.as_mut_os_string().push(format!(".{}.new", std::process::id()));
        let made = folder::make(&scratch, 0o700);
        made.map_err(|error| refuse(format!("cannot write {shown}: {error}")))?;
        let target = Target { output: output.to_owned(), folder, scratch };
        if !folder {
            return Ok(target);
        }
        if fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(refuse(format!("the folder {shown} is not empty; remove it, or name another")));
        }
        if !target.may_give_away() {
            return Err(refuse(format!(
                "a store in a folder needs files of other owners, which only root makes; write a tar (-o {}.tar), or call \
                 coracle as root or, if it is not linked statically, under fakeroot",
                output.components().collect::<PathBuf>().display()
            )));
        }
        Ok(target)
    }

    /// Whether files can be given to another user here: by root, or by who passes for root.
    fn may_give_away(&self) -> bool {
        let probe = self.scratch.join("probe");
        let given = fs::write(&probe, "").and_then(|()| std::os::unix::fs::chown(&probe, Some(1), Some(1)));
        let seen = given.and_then(|()| fs::metadata(&probe)).is_ok_and(|found| (found.uid(), found.gid()) == (1, 1));
        let _ = fs::remove_file(&probe);
        seen
    }

    /// What is made before it has its name.
    fn unfinished(&self) -> PathBuf {
        self.scratch.join("store")
    }

    fn open(&self) -> std::io::Result<Output> {
        let path = self.unfinished();
        if self.folder {
            return folder::make(&path, 0o755).map(|()| Output::Folder(path));
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        Ok(Output::Archive(Writer::new(BufWriter::with_capacity(64 << 10, file))))
    }

    /// Gives it its name.
    fn keep(&self) -> Result<u8, u8> {
        match fs::rename(self.unfinished(), &self.output) {
            Ok(()) => Ok(exit::OK),
            Err(error) => {
                output::complain(&format_args!("cannot write {}: {error}", self.output.display()));
                Err(exit::FAILED)
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Nothing half-written stays; what cannot be removed is seen beside the output.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

fn work(
    jobs: Vec<Job>,
    plan: &Plan,
    platform: &Platform,
    newest: Option<i64>,
    target: &Target,
) -> Result<(), ImageError> {
    let failed = |error| ImageError::failed(&format_args!("cannot write {}: {error}", target.scratch.display()));
    let out = target.open().map_err(failed)?;
    confine(&jobs, target)?;
    let names: Vec<String> = jobs.iter().map(|job| job.image.to_string()).collect();
    let mut bar: Option<(usize, progress::Progress)> = None;
    let mut report = |number: usize, heard: crate::image::archive::Progress| {
        if bar.as_ref().is_none_or(|(shown, _)| *shown != number) {
            let label = format!("unpacking {}", names.get(number).map_or("", String::as_str));
            bar = Some((number, progress::Progress::new(&label, (heard.total > 0).then_some(heard.total))));
        }
        bar.iter_mut().for_each(|(_, bar)| bar.update(heard.done));
    };
    let order = Order { platform, caps: plan.device.image_caps, scratch: &target.scratch, newest };
    let baked = bake::bake(jobs, &order, out, &mut report)?;
    drop(bar);
    output::line(&summary(target, platform, &baked));
    Ok(())
}

fn summary(target: &Target, platform: &Platform, baked: &Baked) -> String {
    let Baked { images, layers, stats } = baked;
    let output = target.output.display();
    let mut text = format!(
        "{output}: {images} images for {platform}, {layers} layers, {} in {} entries",
        Bytes(stats.bytes),
        stats.entries
    );
    images::unpack::left_out(stats, &mut text);
    text
}

/// A hostile archive reaches this folder and nothing else, where the build host's kernel has Landlock.
fn confine(jobs: &[Job], target: &Target) -> Result<(), ImageError> {
    let step = |errno| ImageError::failed(&format_args!("cannot confine the unpacker: {errno}"));
    let scratch = File::open(&target.scratch).map_err(|error| step(error.into()))?;
    let layouts: Vec<BorrowedFd<'_>> = jobs
        .iter()
        .filter_map(|job| match &job.source {
            Source::Layout(folder) => Some(folder.as_fd()),
            Source::File(_) => None,
        })
        .collect();
    caps::no_new_privs().map_err(step)?;
    landlock::confine(&[scratch.as_fd()], &layouts).map(drop).map_err(step)
}

/// Does `work` in a child process, whose walls end with it; gives its exit code.
fn confined(work: impl FnOnce() -> Result<(), u8>) -> Result<u8, String> {
    match process::clone(0, None) {
        Ok(Forked::Child) => {
            let _ = process::die_with_parent();
            process::exit_now(i32::from(work().err().unwrap_or(exit::OK)))
        }
        Ok(Forked::Parent(pid)) => match wait_for(pid) {
            Ok(status) if libc::WIFEXITED(status) => {
                Ok(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(exit::FAILED))
            }
            Ok(status) => Err(format!("the unpacker was killed by signal {}", libc::WTERMSIG(status))),
            Err(errno) => Err(format!("the unpacker cannot be waited for: {errno}")),
        },
        Err(errno) => Err(format!("cannot start the unpacker: {errno}")),
    }
}
