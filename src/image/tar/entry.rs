//! One entry, put together from its headers.

use super::Problem;
use super::header::Block;
use super::pax::Extended;

/// One entry of an archive, all extension headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as stored, without interpretation; it may hold `..`, begin or end with `/`. Holds no NUL, is not empty.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Mtime,
    /// Bytes of the file, holes included; 0 for all but files.
    pub size: u64,
    /// Extended attributes in the order of the archive.
    pub xattrs: Vec<Xattr>,
    /// Where its first header begins, in bytes of the archive.
    pub offset: u64,
    /// Where its data begins, in bytes of the archive.
    pub data_offset: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target, verbatim.
    Symlink(Vec<u8>),
    /// A hard link and the name of the entry that it links to.
    HardLink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A time in seconds and nanoseconds since the epoch; the nanoseconds always count forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mtime {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its name with the namespace, for example `user.mime_type`. Holds no NUL.
    pub name: Vec<u8>,
    /// Its value, any bytes.
    pub value: Vec<u8>,
}

/// What the header says that the entry called `path` is.
pub(super) fn kind(block: &Block, path: &[u8], extended: &mut Extended) -> Result<Kind, Problem> {
    let slash = path.ends_with(b"/");
    let mut target = || extended.take_link(block);
    let kind = match block.typeflag() {
        b'\0' if slash && block.name_ends_in_slash() => Kind::Directory,
        b'\0' | b'0' | b'7' | b'S' if slash || block.name_ends_in_slash() => return Err(Problem::FileWithSlash),
        b'\0' | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink(target()?),
        b'2' => Kind::Symlink(target()?),
        b'3' => Kind::CharDevice { major: block.major()?, minor: block.minor()? },
        b'4' => Kind::BlockDevice { major: block.major()?, minor: block.minor()? },
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(Problem::Type(other)),
    };
    Ok(kind)
}

/// The entry whose parts are known; `offsets` are those of its first header and of its data.
pub(super) fn assemble(
    block: &Block,
    path: Vec<u8>,
    kind: Kind,
    size: u64,
    offsets: (u64, u64),
    extended: Extended,
) -> Result<Entry, Problem> {
    Ok(Entry {
        path,
        kind,
        mode: block.mode()?,
        uid: id(extended.uid, block.uid(), "owner (uid)")?,
        gid: id(extended.gid, block.gid(), "group (gid)")?,
        mtime: match extended.mtime {
            Some(mtime) => mtime,
            None => Mtime { seconds: block.mtime()?, nanoseconds: 0 },
        },
        size,
        xattrs: extended.xattrs,
        offset: offsets.0,
        data_offset: offsets.1,
    })
}

/// An owner or group; the largest 32-bit number means "leave unchanged" to chown(2) and is refused.
fn id(pax: Option<u64>, ustar: Result<u64, Problem>, field: &'static str) -> Result<u32, Problem> {
    let number = match pax {
        Some(number) => number,
        None => ustar?,
    };
    u32::try_from(number).ok().filter(|id| *id != u32::MAX).ok_or(Problem::Number(field))
}
