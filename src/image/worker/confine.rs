//! The walls around a worker, raised before it reads the first byte of an image.
//!
//! | wall | what is left |
//! |---|---|
//! | namespaces | no other process, no network, no IPC |
//! | mounts | an empty, read-only root; the staging folder and the image through descriptors whose `..` leads nowhere |
//! | descriptors | those two, the pipe to the parent, the lock of the staging folder, standard error |
//! | capabilities | the seven that writing a layer needs |
//! | Landlock (5.19) | writing beneath the staging folder, reading beneath a layout folder |
//! | seccomp | the calls that unpacking makes; none that CAP_SYS_ADMIN opens but setting attributes |
//! | limits | memory, one file's size, no core dump |
#![forbid(unsafe_code)]

use crate::image::ImageError;
use crate::plan::CapSet;
use crate::plan::device::ImageCaps;
use crate::seccomp::{Filter, Profile, compile, load};
use crate::sys::{Errno, caps, landlock, mount, path, process};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID (setgid folders of another group), SYS_ADMIN (`trusted.*` attributes), MKNOD
/// (whiteouts are devices 0:0).
const KEPT: CapSet = CapSet::EMPTY.with(0).with(1).with(3).with(4).with(21).with(27);
/// Memory beside the zstd window, in bytes: inflate, hashes, names of a folder being walked, and what the process had.
const MEMORY: u64 = 64 << 20;
/// Descriptors: a tree is walked with one for each level.
const FILES: u64 = 1024;

/// What the child needs ready, made before the clone.
pub struct Walls {
    filter: Filter,
    caps: ImageCaps,
}

/// What the child goes in with.
pub struct Inside {
    /// The staging folder, as the root of a mount of its own.
    pub staging: OwnedFd,
    /// A layout folder, likewise.
    pub layout: Option<OwnedFd>,
}

fn step(what: &'static str) -> impl Fn(Errno) -> ImageError {
    move |errno| ImageError::failed(&format_args!("cannot confine the unpacker: {what}: {errno}"))
}

impl Walls {
    /// Prepares the walls.
    pub fn new(caps: ImageCaps) -> Walls {
        Walls { filter: compile(Profile::Worker, KEPT, false), caps }
    }

    /// Raises them around the calling process, which has new mount, pid, IPC, UTS and network namespaces already.
    ///
    /// `base` is a folder that an empty root can be mounted on, `keep` what else stays open.
    pub fn raise(
        &self,
        base: &CStr,
        staging: &CStr,
        layout: Option<&CStr>,
        keep: &[RawFd],
    ) -> Result<Inside, ImageError> {
        process::die_with_parent().map_err(step("prctl(PR_SET_PDEATHSIG)"))?;
        process::reset_signals();
        process::umask(0o077);
        let inside = mounts(base, staging, layout)?;
        let mut open: heapless::Vec<RawFd, 12> = heapless::Vec::new();
        let own = [2, inside.staging.as_raw_fd(), inside.layout.as_ref().map_or(-1, |fd| fd.as_raw_fd())];
        for fd in own.iter().chain(keep) {
            // Room for twelve, and nine at most are given.
            let _ = open.push(*fd);
        }
        process::close_all_but(&open).map_err(step("close_range"))?;
        self.limits()?;
        capabilities()?;
        caps::no_new_privs().map_err(step("no_new_privs"))?;
        let reading: Vec<_> = inside.layout.iter().map(|fd| fd.as_fd()).collect();
        landlock::confine(&[inside.staging.as_fd()], &reading).map_err(step("Landlock"))?;
        nix::unistd::fchdir(&inside.staging).map_err(|errno| step("fchdir")(errno.into()))?;
        load(&self.filter).map_err(step("seccomp"))?;
        Ok(inside)
    }

    fn limits(&self) -> Result<(), ImageError> {
        let memory = MEMORY.saturating_add(self.caps.zstd_window.0.saturating_mul(2));
        let limits = [
            (Resource::RLIMIT_DATA, memory, "RLIMIT_DATA"),
            (Resource::RLIMIT_CORE, 0, "RLIMIT_CORE"),
            (Resource::RLIMIT_NOFILE, FILES, "RLIMIT_NOFILE"),
            (Resource::RLIMIT_FSIZE, self.caps.bytes.0, "RLIMIT_FSIZE"),
        ];
        for (kind, value, name) in limits {
            // The hard limit may be lower already; it cannot be raised, and need not be.
            let hard = getrlimit(kind).map_or(rlim_t::MAX, |(_, hard)| hard);
            let value = rlim_t::try_from(value).unwrap_or(rlim_t::MAX).min(hard);
            setrlimit(kind, value, value).map_err(|errno| step(name)(errno.into()))?;
        }
        Ok(())
    }
}

/// Takes the staging and the layout folder as mounts of their own, then leaves all other mounts behind.
///
/// A descriptor of a detached mount keeps working, but nothing leads from it to where it was mounted.
fn mounts(base: &CStr, staging: &CStr, layout: Option<&CStr>) -> Result<Inside, ImageError> {
    mount::change(c"/", libc::MS_REC | libc::MS_PRIVATE).map_err(step("making mounts private"))?;
    let fresh = |folder: &CStr, flags: libc::c_ulong| {
        mount::bind(folder, folder, 0)?;
        if flags != 0 {
            mount::change(folder, libc::MS_BIND | libc::MS_REMOUNT | flags)?;
        }
        path::open(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    };
    let nothing_runs = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let layout = layout.map(|folder| fresh(folder, libc::MS_RDONLY | nothing_runs)).transpose();
    let layout = layout.map_err(step("mounting the image folder"))?;
    let staging = fresh(staging, nothing_runs).map_err(step("mounting the staging folder"))?;
    let empty = libc::MS_RDONLY | nothing_runs;
    mount::mount(c"tmpfs", base, empty, c"size=4k,nr_inodes=2,mode=0").map_err(step("mounting an empty root"))?;
    path::chdir(base).map_err(step("entering the empty root"))?;
    match mount::pivot_root(c".", c".") {
        Ok(()) => mount::detach(c".").map_err(step("leaving the old root"))?,
        // The root is the kernel's initial RAM file system, which cannot be left: cover it.
        Err(Errno(libc::EINVAL)) => {
            mount::relocate(c".", c"/").map_err(step("covering the old root"))?;
            mount::chroot(c".").map_err(step("chroot"))?;
        }
        Err(errno) => return Err(step("pivot_root")(errno)),
    }
    path::chdir(c"/").map_err(step("entering the empty root"))?;
    Ok(Inside { staging, layout })
}

/// Only [`KEPT`], and nothing that could come back.
fn capabilities() -> Result<(), ImageError> {
    for number in 0..64 {
        if KEPT.0 & 1 << number == 0 {
            match caps::drop_bounding(number) {
                Ok(()) => {}
                // Beyond the kernel's last one.
                Err(Errno(libc::EINVAL)) => break,
                Err(errno) => return Err(step("the bounding set")(errno)),
            }
        }
    }
    let held = caps::get().map_err(step("capget"))?.permitted & KEPT.0;
    let sets = caps::Sets { effective: held, permitted: held, inheritable: 0 };
    caps::set(sets).map_err(step("capset"))?;
    match caps::clear_ambient() {
        // Kernels without ambient capabilities have none to clear.
        Ok(()) | Err(Errno(libc::EINVAL)) => Ok(()),
        Err(errno) => Err(step("the ambient set")(errno)),
    }
}
