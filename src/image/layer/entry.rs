//! One entry of an archive to one object of the file system.

use super::error::os;
use super::path::{components, file_type, open_directory, os_name, stat};
use super::{LayerError, Mode, NodePolicy, Problem, Unpacker};
use crate::base::units::Bytes;
use crate::image::tar::{Entry, Kind, Mtime, Reader, Xattr, printable};
use crate::image::whiteout::{self, Name};
use crate::sys::Errno as SysErrno;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode as Bits, SFlag, UtimensatFlags, futimens, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

impl Unpacker<'_> {
    /// Makes what `entry` describes.
    pub fn entry(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<(), Problem> {
        self.count(entry)?;
        let path = components(&entry.path, self.options.caps.path_depth)?;
        let Some((name, parent)) = path.split_last() else { return self.root_entry(entry) };
        match parent.iter().map(|part| whiteout::classify(part)).find(|meaning| *meaning != Name::Plain) {
            None => {}
            Some(Name::Metadata) => {
                self.report.ignored += 1;
                return Ok(());
            }
            Some(_) => return Err(Problem::Whiteout),
        }
        match whiteout::classify(name) {
            Name::Plain => self.object(entry, &path, parent, name, reader),
            Name::Metadata => {
                self.report.ignored += 1;
                Ok(())
            }
            Name::Bad => Err(Problem::Whiteout),
            _ if !matches!(entry.kind, Kind::File | Kind::HardLink(_)) => Err(Problem::Whiteout),
            Name::Hides(hidden) => self.hide(parent, hidden),
            Name::Opaque => self.opaque(parent),
        }
    }

    /// Sets the times of directories, now that nothing is made in them any more.
    pub fn directory_times(&mut self) -> Result<(), LayerError> {
        let times = core::mem::take(&mut self.times);
        for (path, mtime) in times.iter() {
            self.directory_time(path, mtime).map_err(|problem| LayerError::new(path, problem))?;
        }
        Ok(())
    }

    fn directory_time(&mut self, path: &[u8], mtime: Mtime) -> Result<(), Problem> {
        let path = components(path, self.options.caps.path_depth)?;
        let Some((name, parent)) = path.split_last() else {
            let dir = open_directory(self.root.dir(), b".")?;
            return futimens(&dir, &time(mtime), &time(mtime)).map_err(os("utimens"));
        };
        // A later entry may have replaced it, or removed it with its parent.
        let Some(dir) = self.root.existing(parent)? else { return Ok(()) };
        match stat(dir.as_fd(), name) {
            Ok(found) if file_type(&found) == SFlag::S_IFDIR => set_time(dir.as_fd(), name, mtime),
            _ => Ok(()),
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<(), Problem> {
        let caps = &self.options.caps;
        self.report.entries += 1;
        if self.report.entries > caps.entries.saturating_sub(self.options.used.entries) {
            return Err(Problem::Entries(caps.entries));
        }
        self.report.bytes = self.report.bytes.saturating_add(entry.size);
        if self.report.bytes > caps.bytes.0.saturating_sub(self.options.used.bytes) {
            return Err(Problem::TooLarge(Bytes(caps.bytes.0)));
        }
        Ok(())
    }

    /// An entry for the root directory changes its attributes and nothing else (CVE-2021-29136).
    fn root_entry(&mut self, entry: &Entry) -> Result<(), Problem> {
        if entry.kind != Kind::Directory {
            return Err(Problem::Root);
        }
        let dir = open_directory(self.root.dir(), b".")?;
        self.attributes(&dir, entry)?;
        self.keep_time(b"", entry.mtime);
        Ok(())
    }

    fn object(
        &mut self,
        entry: &Entry,
        path: &[&[u8]],
        parent: &[&[u8]],
        name: &[u8],
        reader: &mut Reader<'_>,
    ) -> Result<(), Problem> {
        match &entry.kind {
            Kind::File => self.file(entry, parent, name, reader),
            Kind::Directory => self.directory(entry, path, parent, name),
            Kind::Symlink(target) => {
                let target = os_name(target);
                self.make(parent, name, "symlink", |dir| symlinkat(target, dir, os_name(name)))?;
                self.report.xattrs_dropped += entry.xattrs.len() as u32;
                self.attributes_at(parent, name, entry, None)
            }
            Kind::HardLink(target) => self.hard_link(target, path, parent, name),
            Kind::CharDevice { major: 0, minor: 0 } => Err(Problem::OverlaySmuggling),
            Kind::CharDevice { major, minor } => self.node(entry, parent, name, SFlag::S_IFCHR, (*major, *minor)),
            Kind::BlockDevice { major, minor } => self.node(entry, parent, name, SFlag::S_IFBLK, (*major, *minor)),
            Kind::Fifo => self.node(entry, parent, name, SFlag::S_IFIFO, (0, 0)),
        }
    }

    /// Makes `name` by `call`, which must fail with EEXIST if there is something already: the last entry wins.
    fn make<T>(
        &mut self,
        parent: &[&[u8]],
        name: &[u8],
        what: &'static str,
        call: impl Fn(BorrowedFd<'_>) -> nix::Result<T>,
    ) -> Result<T, Problem> {
        match call(self.root.directory(parent)?) {
            Err(Errno::EEXIST) => {
                self.root.clear(parent, name)?;
                call(self.root.directory(parent)?).map_err(os(what))
            }
            result => result.map_err(os(what)),
        }
    }

    fn file(&mut self, entry: &Entry, parent: &[&[u8]], name: &[u8], reader: &mut Reader<'_>) -> Result<(), Problem> {
        const NEW: OFlag =
            OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
        let fd = self.make(parent, name, "create", |dir| openat(dir, name, NEW, Bits::S_IRUSR | Bits::S_IWUSR))?;
        let mut file = File::from(fd);
        let failed = |error: std::io::Error| Problem::from_errno("write", SysErrno::from(error));
        let mut position = 0;
        while let Some(chunk) = reader.chunk()? {
            if chunk.offset != position {
                file.seek(SeekFrom::Start(chunk.offset)).map_err(failed)?;
            }
            file.write_all(chunk.bytes).map_err(failed)?;
            position = chunk.offset + chunk.bytes.len() as u64;
        }
        if position < entry.size {
            file.set_len(entry.size).map_err(failed)?;
        }
        self.attributes(&file, entry)?;
        match self.root.marks.on_files() {
            true => futimens(&file, &time(entry.mtime), &time(entry.mtime)).map_err(os("utimens")),
            false => Ok(()),
        }
    }

    fn directory(&mut self, entry: &Entry, path: &[&[u8]], parent: &[&[u8]], name: &[u8]) -> Result<(), Problem> {
        let make = |dir: BorrowedFd<'_>| mkdirat(dir, name, Bits::S_IRWXU);
        let (mut fresh, mut opaque) = (true, false);
        let dir = self.root.directory(parent)?;
        match make(dir) {
            Err(Errno::EEXIST) if file_type(&stat(dir, name)?) == SFlag::S_IFDIR => fresh = false,
            Err(Errno::EEXIST) => {
                // A whiteout and a directory of one name: what is below is hidden, what is in this layer is there.
                opaque = self.root.clear(parent, name)?;
                make(self.root.directory(parent)?).map_err(os("mkdir"))?;
            }
            result => result.map_err(os("mkdir"))?,
        }
        let fd = open_directory(self.root.directory(parent)?, name)?;
        if fresh {
            self.root.marks.forget(&fd)?;
        }
        if opaque {
            self.root.marks.opaque(&fd)?;
        }
        self.attributes(&fd, entry)?;
        self.keep_time(&entry.path, entry.mtime);
        self.root.remember(path, fd);
        Ok(())
    }

    fn keep_time(&mut self, path: &[u8], mtime: Mtime) {
        if self.root.marks.on_files() {
            self.report.times_dropped += u32::from(!self.times.push(path, mtime));
        }
    }

    /// Links to a file that this layer made before; never through a link, never to a directory or a whiteout.
    fn hard_link(&mut self, target: &[u8], path: &[&[u8]], parent: &[&[u8]], name: &[u8]) -> Result<(), Problem> {
        let missing = || Problem::LinkTarget(printable(target));
        let target_path = components(target, self.options.caps.path_depth)?;
        let (target_name, target_parent) = target_path.split_last().ok_or_else(missing)?;
        if target_path == path {
            return Err(missing());
        }
        let target_dir = self.root.directory(target_parent)?.try_clone_to_owned().map_err(|_| missing())?;
        let found = match stat(target_dir.as_fd(), target_name) {
            Ok(found) if file_type(&found) != SFlag::S_IFDIR && !self.root.marks.is_whiteout(&found) => found,
            _ => return Err(missing()),
        };
        let link = |dir: BorrowedFd<'_>| linkat(&target_dir, *target_name, dir, name, AtFlags::empty());
        let dir = self.root.directory(parent)?;
        match link(dir) {
            Err(Errno::EEXIST) => {
                let there = stat(dir, name)?;
                // Two names of one file already, perhaps by way of a symbolic link to its directory.
                if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino) {
                    return Ok(());
                }
                self.root.clear(parent, name)?;
                match link(self.root.directory(parent)?) {
                    Err(Errno::ENOENT) => Err(missing()),
                    result => result.map_err(os("link")),
                }
            }
            result => result.map_err(os("link")),
        }
    }

    fn node(
        &mut self,
        entry: &Entry,
        parent: &[&[u8]],
        name: &[u8],
        kind: SFlag,
        (major, minor): (u32, u32),
    ) -> Result<(), Problem> {
        let fifo = kind == SFlag::S_IFIFO;
        let skipped = if fifo { &mut self.report.fifos_skipped } else { &mut self.report.devices_skipped };
        match if fifo { self.options.fifos } else { self.options.devices } {
            NodePolicy::Keep => {}
            NodePolicy::Skip => {
                *skipped += 1;
                return Ok(());
            }
            NodePolicy::Refuse => return Err(Problem::Node),
        }
        let device = makedev(major.into(), minor.into());
        // With the process's umask the mode would depend on the caller; the bits that it may clear are set below.
        let bits = Bits::from_bits_truncate(entry.mode & 0o777);
        self.make(parent, name, "mknod", |dir| mknodat(dir, name, kind, bits, device))?;
        self.report.xattrs_dropped += entry.xattrs.len() as u32;
        self.attributes_at(parent, name, entry, Some(bits.bits()))
    }

    /// Owner, permissions (of what has some) and time of `name`, not following a link.
    fn attributes_at(
        &mut self,
        parent: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        permissions: Option<u32>,
    ) -> Result<(), Problem> {
        let (dir, marks) = self.root.place(parent)?;
        marks.attributes_at(dir, name, entry, permissions)?;
        if marks.on_files() { set_time(dir, name, entry.mtime) } else { Ok(()) }
    }

    /// A whiteout hides `name` of the layers below; what this layer has of that name stays.
    fn hide(&mut self, parent: &[&[u8]], name: &[u8]) -> Result<(), Problem> {
        self.report.whiteouts += 1;
        if self.options.mode == Mode::Rootfs {
            return Ok(());
        }
        let (dir, marks) = self.root.place(parent)?;
        match marks.whiteout(dir, name) {
            Err(Errno::EEXIST) if file_type(&stat(dir, name)?) == SFlag::S_IFDIR => {
                marks.opaque(open_directory(dir, name)?)
            }
            Err(Errno::EEXIST) => Ok(()),
            result => result.map_err(os("mknod")),
        }
    }

    fn opaque(&mut self, parent: &[&[u8]]) -> Result<(), Problem> {
        self.report.whiteouts += 1;
        if self.options.mode == Mode::Rootfs {
            return Ok(());
        }
        self.report.opaque_root |= parent.is_empty();
        let (dir, marks) = self.root.place(parent)?;
        marks.opaque(open_directory(dir, b".")?)
    }

    /// Owner, then mode (chown clears setuid bits), then extended attributes of what is open at `fd`.
    fn attributes(&mut self, fd: impl AsFd, entry: &Entry) -> Result<(), Problem> {
        let is_directory = entry.kind == Kind::Directory;
        let kept = if is_directory { !SETUID } else { !(SETUID | SETGID) };
        self.report.setuid_dropped += u32::from(entry.mode & SETUID != 0);
        self.report.setgid_dropped += u32::from(!is_directory && entry.mode & SETGID != 0);
        self.root.marks.attributes(&fd, entry, entry.mode & kept)?;
        entry.xattrs.iter().try_for_each(|xattr| self.xattr(&fd, xattr))
    }

    /// Sets what a user may set (`user.*`, POSIX ACLs); counts what would raise privileges or steer the host.
    fn xattr(&mut self, fd: impl AsFd, xattr: &Xattr) -> Result<(), Problem> {
        if xattr.name == b"security.capability" {
            self.report.filecaps_dropped += 1;
            return Ok(());
        }
        let user = xattr.name.starts_with(b"user.") && !xattr.name.starts_with(b"user.overlay.");
        let acl = [&b"system.posix_acl_access"[..], b"system.posix_acl_default"].contains(&&*xattr.name);
        let result = match CString::new(&*xattr.name) {
            Ok(name) if user || acl => self.root.marks.xattr(&fd, &name, &xattr.value),
            _ => Err(SysErrno(libc::EPERM)),
        };
        match result {
            Ok(()) => Ok(()),
            Err(SysErrno(libc::EPERM | libc::EOPNOTSUPP | libc::EACCES)) => {
                self.report.xattrs_dropped += 1;
                Ok(())
            }
            Err(errno) => Err(Problem::from_errno("setxattr", errno)),
        }
    }
}

/// Sets the time of `name`, not following a link.
fn set_time(dir: BorrowedFd<'_>, name: &[u8], mtime: Mtime) -> Result<(), Problem> {
    let time = time(mtime);
    utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(os("utimens"))
}

/// A time as the kernel takes it; what it cannot hold becomes the nearest it can.
fn time(mtime: Mtime) -> TimeSpec {
    #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion, reason = "32 bits on some targets")]
    let seconds = mtime.seconds.try_into().unwrap_or_else(|_| i32::MAX.into());
    TimeSpec::new(seconds, mtime.nanoseconds as libc::c_long)
}
