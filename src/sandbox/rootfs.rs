//! Walking the steps: mounts, nodes, links, masks, pivot.
//!
//! Until the pivot the working directory is the new root. What lies in the image is reached by descriptors opened
//! beneath it; plain paths are used only inside file systems that this start has just mounted on a directory proven to
//! be one (`proc`, `sys`, `dev`), which nothing else has had a chance to touch.
#![forbid(unsafe_code)]

use super::root::mount_read_only;
use super::secrets;
use super::spec::{Act, Bind, FileSystem, NOTIFY, Node, Reach, Source, Step};
use super::stage::{Failure, Note};
use crate::base::limits::{LAYERS, MOUNTS};
use crate::sys::datagram::name_senders;
use crate::sys::path::{self, CWD, Links, terminated};
use crate::sys::{Errno, Result, mount, process, terminal};
use core::fmt::Write;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A directory of the host that the new root is assembled over, in the new mount namespace alone: it exists wherever
/// there are cgroups, nothing is needed from it any more, and it vanishes with the old root.
const COVERED: &CStr = c"/sys";
/// The empty read-only directory that the other hidden ones are bound from; every kernel has it.
pub(super) const HIDDEN: &CStr = c"sys/firmware";

/// What the steps leave for the init.
#[derive(Debug, Default)]
pub(super) struct Made {
    root: Option<OwnedFd>,
    may_create: bool,
    /// What is bound, in the order of the steps: the service's mounts and the view of its cgroup.
    sources: heapless::Deque<OwnedFd, { MOUNTS + 1 }>,
    pub(super) dev_log: Option<OwnedFd>,
    pub(super) notify: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) terminal_slave: Option<OwnedFd>,
}

impl Made {
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_ref().map_or(CWD, |root| root.as_fd())
    }
}

/// Opens what the steps will bind from the host, before [`COVERED`] hides a part of it.
pub(super) fn open_sources(steps: &[Step], made: &mut Made) -> core::result::Result<(), Failure> {
    for step in steps {
        let Act::Bind(bind) = &step.act else { continue };
        let opened = reopen(&bind.source);
        let kept = opened.and_then(|source| made.sources.push_back(source).map_err(|_| Errno(libc::EMFILE)));
        kept.map_err(|errno| Failure::at(step.stage, errno, &bind.source.path))?;
    }
    Ok(())
}

/// Does one step.
pub(super) fn perform(step: &Step, made: &mut Made) -> core::result::Result<(), Failure> {
    act(&step.act, made).map_err(|errno| {
        let failure = Failure::at(step.stage, errno, subject(&step.act));
        match (errno.0, &step.act) {
            (libc::ELOOP, Act::Mount(FileSystem { reach: Reach::Strict, .. })) => failure.with_note(Note::Symlink),
            (libc::ELOOP, Act::File { .. }) => failure.with_note(Note::Symlink),
            _ => failure,
        }
    })
}

/// The path that a failure of the act is about.
fn subject(act: &Act) -> &CStr {
    match act {
        Act::Private | Act::Pivot | Act::SealRoot { .. } => c"/",
        Act::Stage { .. } => c"the upper layer",
        Act::Overlay { .. } => c"overlay",
        Act::Enter(source) | Act::BindRoot { source, .. } | Act::Disk { device: source, .. } => &source.path,
        Act::Mount(mount) => &mount.target,
        Act::Bind(bind) => &bind.target,
        Act::Dir { path, .. } | Act::MaskDir(path) | Act::WorkingDir { path, .. } => path,
        Act::Node(node) => &node.path,
        Act::Secret(copy) => &copy.target,
        Act::LeaveSecrets(place) => place,
        Act::Link { path, .. } | Act::MaskFile(path) | Act::ReadOnly(path) => path,
        Act::File { name, .. } => name,
        Act::DevLog => c"/dev/log",
        Act::Notify => NOTIFY,
        Act::Terminal { .. } => c"/dev/pts/ptmx",
        Act::Hostname(name) => name,
        Act::Loopback => c"lo",
    }
}

fn act(act: &Act, made: &mut Made) -> Result<()> {
    match act {
        Act::Private => mount::change(c"/", libc::MS_REC | libc::MS_PRIVATE),
        Act::Stage { options } => {
            mount::mount(c"tmpfs", COVERED, libc::MS_NOSUID | libc::MS_NODEV, options)?;
            path::chdir(COVERED)?;
            [c"upper", c"work", c"root"].into_iter().try_for_each(|name| path::make_dir(CWD, name, 0o755))
        }
        Act::Enter(folder) => path::enter(reopen(folder)?.as_raw_fd()),
        Act::Overlay { lower } => {
            overlay(lower)?;
            path::chdir(c"root")?;
            keep_root(made, true)
        }
        Act::Disk { device, kind, as_root } => {
            let device = reopen(device)?;
            let target = if *as_root { COVERED } else { c"root" };
            mount_read_only(Link::to(device.as_raw_fd()).path(), *kind, target)?;
            if !as_root {
                return Ok(());
            }
            path::chdir(COVERED)?;
            keep_root(made, false)
        }
        Act::BindRoot { source, may_create } => {
            mount::bind(Link::to(reopen(source)?.as_raw_fd()).path(), COVERED, 0)?;
            path::chdir(COVERED)?;
            keep_root(made, *may_create)
        }
        Act::Mount(mount) => mount_on(mount, made),
        Act::Bind(bind) => bind_on(bind, made),
        Act::Dir { path, mode } => path::make_dir(CWD, path, *mode),
        Act::Node(node) => make_node(node),
        Act::Link { to, path } => path::make_link(to, path),
        Act::File { dir, name, content, in_place: true } => write_file(dir, name, content, made),
        Act::File { dir, name, content, in_place: false } => cover_file(dir, name, content, made),
        Act::Secret(copy) => secrets::copy(copy, made),
        Act::LeaveSecrets(place) => secrets::leave(place),
        Act::WorkingDir { path, owner } => make_working_dir(path, *owner, made),
        Act::MaskFile(path) => if_there(mount::bind(c"dev/null", path, 0)),
        Act::MaskDir(path) => if_there(mount::bind(HIDDEN, path, 0)),
        Act::ReadOnly(path) => {
            const FLAGS: libc::c_ulong =
                libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            match mount::bind(path, path, libc::MS_REC) {
                Ok(()) => mount::change(path, FLAGS),
                missing => if_there(missing),
            }
        }
        Act::DevLog => {
            made.dev_log = Some(bind_datagrams(c"/dev/log")?);
            Ok(())
        }
        Act::Notify => {
            made.notify = Some(bind_datagrams(NOTIFY)?);
            made.notify.as_ref().map_or(Ok(()), name_senders)
        }
        Act::Terminal { rows, columns, owner } => {
            let (master, slave) = terminal::open(c"/dev/pts/ptmx", *rows, *columns)?;
            path::change_owner(&slave, owner.0, owner.1)?;
            (made.terminal, made.terminal_slave) = (Some(master), Some(slave));
            Ok(())
        }
        Act::SealRoot { read_only } => {
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOSUID | libc::MS_NODEV;
            mount::change(c".", if *read_only { flags | libc::MS_RDONLY } else { flags })
        }
        Act::Pivot => pivot(made),
        Act::Hostname(name) => process::set_hostname(name),
        Act::Loopback => process::loopback_up(),
    }
}

/// A datagram socket at `path` that everyone may write to.
pub(crate) fn bind_datagrams(path: &CStr) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(0o666))?;
    bind(made.as_raw_fd(), &UnixAddr::new(path.to_bytes())?)?;
    Ok(made)
}

fn keep_root(made: &mut Made, may_create: bool) -> Result<()> {
    made.root = Some(path::open(c".", OFlag::O_PATH | OFlag::O_DIRECTORY)?);
    made.may_create = may_create;
    Ok(())
}

/// Opens a source in this mount namespace; ESTALE if the path leads to something else by now.
fn reopen(source: &Source) -> Result<OwnedFd> {
    let fd = path::open(&source.path, OFlag::O_PATH)?;
    if path::is_same_file(fd.as_raw_fd(), source.fd)? { Ok(fd) } else { Err(Errno(libc::ESTALE)) }
}

/// What the kernel's own configuration must not decide: an index ties a kept upper layer to the very layers beneath it,
/// so that an image with new ones would not start; redirections and bare metadata are names and content that an
/// attribute of a file chooses.
const OVERLAY_OPTIONS: &str = "index=off,redirect_dir=nofollow,metacopy=off,upperdir=upper,workdir=work,lowerdir=";

/// Mounts the layers. They are named by descriptor: 127 of them fit into the one page of options that kernels before
/// 6.5 take, and no character of a path needs escaping.
fn overlay(lower: &[Source]) -> Result<()> {
    let mut options = heapless::String::<4096>::new();
    let mut opened = heapless::Vec::<OwnedFd, LAYERS>::new();
    let full = |_| Errno(libc::E2BIG);
    options.push_str(OVERLAY_OPTIONS).map_err(full)?;
    if lower.is_empty() {
        options.push_str("root").map_err(full)?;
    }
    for (index, layer) in lower.iter().enumerate() {
        let fd = reopen(layer)?;
        let colon = if index == 0 { "" } else { ":" };
        write!(options, "{colon}/proc/self/fd/{}", fd.as_raw_fd()).map_err(|_| Errno(libc::E2BIG))?;
        opened.push(fd).map_err(|_| Errno(libc::E2BIG))?;
    }
    options.push('\0').map_err(full)?;
    let options = CStr::from_bytes_until_nul(options.as_bytes()).map_err(|_| Errno(libc::EINVAL))?;
    mount::mount(c"overlay", c"root", libc::MS_NOSUID | libc::MS_NODEV, options)
}

/// What this kernel does not have needs no hiding.
fn if_there(answer: Result<()>) -> Result<()> {
    match answer {
        Err(Errno(libc::ENOENT)) => Ok(()),
        answer => answer,
    }
}

fn missing_is_fine(fs: &FileSystem, answer: Result<()>) -> Result<()> {
    match answer {
        Err(Errno(libc::ENODEV)) if fs.optional => Ok(()),
        answer => answer,
    }
}

/// `/proc/self/fd/N`, which mount(2) takes as the very thing behind the descriptor.
pub(super) struct Link(heapless::String<32>);

impl Link {
    pub(super) fn to(fd: RawFd) -> Link {
        // Without what formats: each page of it would be a fault more in a fresh clone. 14 bytes and 10 digits always fit.
        let mut text = heapless::String::new();
        let _ = text.push_str("/proc/self/fd/");
        let mut unit = 1_000_000_000;
        while unit > 0 {
            if fd >= unit || unit == 1 {
                let _ = text.push(char::from(b'0' + (fd / unit % 10) as u8));
            }
            unit /= 10;
        }
        let _ = text.push('\0');
        Link(text)
    }

    pub(super) fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(self.0.as_bytes()).unwrap_or(c"")
    }
}

fn mount_on(fs: &FileSystem, made: &Made) -> Result<()> {
    let links = match fs.reach {
        Reach::Ours => return missing_is_fine(fs, mount::mount(fs.kind, &fs.target, fs.flags, &fs.options)),
        Reach::Strict => Links::Refuse,
        Reach::InRoot => Links::InRoot,
    };
    let target = target(made, &fs.target, true, links)?;
    // The working directory stays what was opened, whatever its path leads to by now.
    path::enter(target.as_raw_fd())?;
    let answer = mount::mount(fs.kind, c".", fs.flags, &fs.options);
    path::enter(made.root().as_raw_fd())?;
    answer
}

/// A file that cannot be written in place is made in our own `/dev`, mounted over the one in the image, and unlinked.
fn cover_file(dir: &CStr, name: &CStr, content: &[u8], made: &Made) -> Result<()> {
    const MADE: &CStr = c"dev/file";
    let links = Links::Refuse;
    let place = path::open_beneath(made.root(), dir, OFlag::O_PATH | OFlag::O_DIRECTORY, links)
        .and_then(|dir| path::open_beneath(dir.as_fd(), name, OFlag::O_PATH, links));
    let place = match place {
        // No such file, or a link to elsewhere: the image does without.
        Err(Errno(libc::ENOENT | libc::ELOOP)) => return Ok(()),
        place => place?,
    };
    let file = path::open_at(CWD, MADE, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY, 0o444)?;
    process::write_all(file.as_raw_fd(), content)?;
    mount::bind(MADE, Link::to(place.as_raw_fd()).path(), 0)?;
    path::remove(CWD, MADE)
}

fn bind_on(bind: &Bind, made: &mut Made) -> Result<()> {
    let mut attributes = mount::NOSUID;
    let mut flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOSUID;
    if bind.read_only {
        attributes |= mount::RDONLY;
        flags |= libc::MS_RDONLY;
    }
    if !bind.devices {
        attributes |= mount::NODEV;
        flags |= libc::MS_NODEV;
    }
    let place = target(made, &bind.target, bind.directory, Links::InRoot)?;
    if !bind.directory && nix::sys::stat::fstat(&place)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno(libc::EISDIR));
    }
    let source = made.sources.pop_front().ok_or(Errno(libc::ENOENT))?;
    match mount::clone_tree(source.as_raw_fd(), attributes).and_then(|tree| mount::attach(&tree, place.as_fd())) {
        Err(errno) if mount::is_missing(errno) => {}
        answer => return answer,
    }
    // Before 5.12 flags are set by a second call that needs a path to the new mount: opening the target again leads
    // into it. Only the topmost mount gets them, so that what is mounted beneath the source stays out.
    mount::bind(Link::to(source.as_raw_fd()).path(), Link::to(place.as_raw_fd()).path(), 0)?;
    let mounted = target(made, &bind.target, bind.directory, Links::InRoot)?;
    mount::change(Link::to(mounted.as_raw_fd()).path(), flags)
}

/// Opens a mount's target beneath the root; makes it, with the directories above it, where that is allowed.
fn target(made: &Made, path: &CStr, directory: bool, links: Links) -> Result<OwnedFd> {
    let flags = if directory { OFlag::O_PATH | OFlag::O_DIRECTORY } else { OFlag::O_PATH };
    match path::open_beneath(made.root(), path, flags, links) {
        Err(Errno(libc::ENOENT)) if made.may_create => path::create_beneath(made.root(), path, directory, links)?,
        answer => return answer,
    }
    path::open_beneath(made.root(), path, flags, links)
}

fn make_node(node: &Node) -> Result<()> {
    let kind = SFlag::from_bits_truncate(node.mode & libc::S_IFMT);
    let permissions = Mode::from_bits_truncate(node.mode & 0o777);
    match nix::sys::stat::mknod(node.path.as_c_str(), kind, permissions, node.device) {
        Err(nix::Error::EPERM) => bind_node(node)?,
        answer => answer?,
    }
    if let Some((uid, gid)) = node.owner {
        nix::unistd::chown(node.path.as_c_str(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// Where mknod(2) is refused (a device cgroup above coracle's own), the host's node takes its place, if it is the right
/// one. Its owner is the host's business then.
fn bind_node(node: &Node) -> Result<()> {
    let mut host = [0u8; 256];
    let (slash, rest) = host.split_at_mut(1);
    slash.copy_from_slice(b"/");
    terminated(node.path.to_bytes(), rest)?;
    let path = CStr::from_bytes_until_nul(&host).map_err(|_| Errno(libc::EINVAL))?;
    let source = path::open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    let found = nix::sys::stat::fstat(&source)?;
    if found.st_rdev != node.device || (found.st_mode ^ node.mode) & libc::S_IFMT != 0 {
        return Err(Errno(libc::ENODEV));
    }
    drop(path::open_at(CWD, &node.path, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY, 0o600)?);
    mount::bind(Link::to(source.as_raw_fd()).path(), &node.path, 0)
}

fn write_file(dir: &CStr, name: &CStr, content: &[u8], made: &Made) -> Result<()> {
    let dir = match path::open_beneath(made.root(), dir, OFlag::O_PATH | OFlag::O_DIRECTORY, Links::Refuse) {
        Err(Errno(libc::ENOENT)) => return Ok(()),
        dir => dir?,
    };
    // What the image has there, often a link into /run, gives way.
    if_there(path::remove(dir.as_fd(), name))?;
    let file = path::open_at(dir.as_fd(), name, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY, 0o644)?;
    process::write_all(file.as_raw_fd(), content)
}

fn make_working_dir(path: &CStr, owner: (u32, u32), made: &Made) -> Result<()> {
    match path::open_beneath(made.root(), path, OFlag::O_PATH, Links::InRoot) {
        Err(Errno(libc::ENOENT)) => {}
        answer => return answer.map(drop),
    }
    path::create_beneath(made.root(), path, true, Links::InRoot)?;
    let dir = path::open_beneath(made.root(), path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Links::InRoot)?;
    path::change_owner(&dir, owner.0, owner.1)
}

fn pivot(made: &mut Made) -> Result<()> {
    made.root = None;
    match mount::pivot_root(c".", c".") {
        // The old root lies on top of the new one and is the working directory now.
        Ok(()) => mount::detach(c".")?,
        Err(Errno(libc::EINVAL)) => {
            // The initial root of a kernel (an initramfs) cannot be pivoted away: the new root is moved over it. Its
            // own /proc and /dev go first, so that nothing unmasked is left beneath.
            for old in [c"/proc", c"/dev"] {
                // One that is no mount has nothing to leave behind.
                let _ = mount::detach(old);
            }
            mount::relocate(c".", c"/")?;
            mount::chroot(c".")?;
        }
        Err(errno) => return Err(errno),
    }
    path::chdir(c"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_its_descriptor() {
        for fd in [0, 7, 10, 4096, RawFd::MAX] {
            assert_eq!(Link::to(fd).path().to_str(), Ok(format!("/proc/self/fd/{fd}").as_str()));
        }
    }
}
