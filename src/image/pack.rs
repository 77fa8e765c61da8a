//! A folder to an image archive of one layer, in the form that `docker save` writes: OCI and docker's `manifest.json` in
//! one tar, so that docker, podman, skopeo, containerd and coracle read it. The same folder gives the same bytes.
#![forbid(unsafe_code)]

use super::ImageError;
use super::config::ImageConfig;
use super::digest::Digest;
use super::inodes::Inodes;
use super::manifest::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use super::platform::Platform;
use super::tar::write::Writer;
use super::tar::{Entry, Kind, Mtime, Xattr};
use super::text::{quote, quote_list};
use crate::sys::folder;
use crate::sys::xattr;
use nix::libc;
use nix::sys::stat::{major, minor};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Deepest folder that is packed, as unpacking allows.
const DEPTH: usize = 64;
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What is packed.
#[derive(Debug)]
pub struct Pack<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// The image's name and tag, `app:1.2`.
    pub name: Option<&'a str>,
    /// What it says about the process.
    pub config: &'a ImageConfig,
    /// What it is for.
    pub platform: &'a Platform,
    /// Owner and group of all files; `None`: as in the folder.
    pub owner: Option<(u32, u32)>,
    /// No file is younger than this (SOURCE_DATE_EPOCH, seconds since 1970).
    pub newest: Option<i64>,
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the archive's only layer.
    pub bytes: u64,
    /// Its entries.
    pub entries: u64,
    /// Sockets, which no archive can hold, left out.
    pub sockets: u64,
    /// SHA-256 of the config.
    pub image_id: Digest,
}

fn failed(action: &str, path: &Path, error: io::Error) -> ImageError {
    ImageError::failed(&format_args!("cannot {action} {}: {error}", path.display()))
}

/// Writes the archive to `out`. The folder is read twice: for the digest, which names the layer, and for the bytes.
pub fn pack(what: &Pack<'_>, out: &mut dyn Write) -> Result<Packed, ImageError> {
    let mut nowhere = io::sink();
    let first = layer(what, &mut nowhere)?;
    let (sockets, entries, bytes, diff) = (first.sockets, first.entries, first.sink.length, first.sink.digest());
    let config = config_json(what, &diff);
    let manifest = manifest_json(&config, &diff, bytes);
    let image_id = sha(config.as_bytes());
    let archive = Path::new("the archive");
    let mut writer = Writer::new(out);
    let mut add = |name: &str, text: &str| {
        let entry = member(name, text.len() as u64);
        writer.append(&entry, text.as_bytes()).map_err(|error| failed("write", archive, error))
    };
    add("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    add("index.json", &index_json(what, &manifest))?;
    add("manifest.json", &docker_json(what, &image_id, &diff))?;
    add(&blob(&image_id), &config)?;
    add(&blob(&sha(manifest.as_bytes())), &manifest)?;
    // The header, with the digest as name, comes first; so the bytes are made once more and checked to be the same.
    let unwritten = |error| failed("write", archive, error);
    writer.begin(&member(&blob(&diff), bytes)).map_err(unwritten)?;
    let second = layer(what, writer.sink())?;
    if second.sink.digest() != diff {
        let folder = what.folder.display();
        return Err(ImageError::failed(&format_args!(
            "{folder} changed while it was packed; pack it again when it is still"
        )));
    }
    writer.pad(bytes).and_then(|()| writer.finish()?.flush()).map_err(unwritten)?;
    Ok(Packed { bytes, entries, sockets, image_id })
}

fn sha(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn member(name: &str, size: u64) -> Entry {
    Entry {
        path: name.as_bytes().to_vec(),
        kind: Kind::File,
        mode: 0o444,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        size,
        xattrs: Vec::new(),
        offset: 0,
        data_offset: 0,
    }
}

/// Counts and digests what passes.
struct Measured<'a> {
    inner: &'a mut dyn Write,
    hash: Sha256,
    length: u64,
}

impl Measured<'_> {
    fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }
}

impl Write for Measured<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..length).unwrap_or_default());
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Layer<'a> {
    sink: Measured<'a>,
    entries: u64,
    sockets: u64,
}

/// Writes the folder as one layer.
fn layer<'a>(what: &Pack<'_>, out: &'a mut dyn Write) -> Result<Layer<'a>, ImageError> {
    let mut writer = Writer::new(Measured { inner: out, hash: Sha256::new(), length: 0 });
    let mut links = Inodes::default();
    let (mut entries, mut sockets) = (0, 0);
    // Depth first, by name: folders before what is in them.
    let mut open: Vec<(PathBuf, usize)> = vec![(PathBuf::new(), 0)];
    while let Some((name, depth)) = open.pop() {
        let path = what.folder.join(&name);
        let meta = fs::symlink_metadata(&path).map_err(|error| failed("look at", &path, error))?;
        if meta.file_type().is_socket() {
            sockets += 1;
            continue;
        }
        let (entry, file) = entry(what, &name, &path, &meta, &mut links)?;
        let written = match file {
            Some(file) => writer.append(&entry, file),
            None => writer.append(&entry, io::empty()),
        };
        written.map_err(|error| failed("pack", &path, error))?;
        entries += 1;
        if meta.is_dir() {
            if depth == DEPTH {
                return Err(ImageError::invalid(&format_args!(
                    "{} is nested deeper than {DEPTH} folders",
                    path.display()
                )));
            }
            let mut inside = folder::list(&path).map_err(|error| failed("list", &path, error))?;
            crate::base::sort::sort_by(&mut inside, |a, b| b.file_name().cmp(&a.file_name()));
            for child in inside {
                open.push((name.join(child.file_name().unwrap_or_default()), depth + 1));
            }
        }
    }
    let sink = writer.finish().map_err(|error| failed("pack", what.folder, error))?;
    Ok(Layer { sink, entries, sockets })
}

fn entry(
    what: &Pack<'_>,
    name: &Path,
    path: &Path,
    meta: &Metadata,
    links: &mut Inodes<Vec<u8>>,
) -> Result<(Entry, Option<File>), ImageError> {
    let stored = match name.as_os_str().as_bytes() {
        b"" => b"./".to_vec(),
        bytes => bytes.to_vec(),
    };
    let kind = meta.file_type();
    let device = meta.rdev() as libc::dev_t;
    let (major, minor) = (major(device) as u32, minor(device) as u32);
    let mut file = None;
    let mut xattrs = Vec::new();
    let several = !meta.is_dir() && meta.nlink() > 1;
    let inode = (meta.dev(), meta.ino());
    let known = if several { links.get(inode).cloned() } else { None };
    if several && known.is_none() {
        links.insert(inode, stored.clone());
    }
    let kind = if let Some(first) = known {
        Kind::HardLink(first)
    } else if meta.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(|error| failed("read the link", path, error))?;
        Kind::Symlink(target.as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        Kind::CharDevice { major, minor }
    } else if kind.is_block_device() {
        Kind::BlockDevice { major, minor }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
        let opened = options.open(path).map_err(|error| failed("open", path, error))?;
        xattrs = user_attributes(&opened);
        file = Some(opened);
        Kind::File
    };
    let (uid, gid) = what.owner.unwrap_or((meta.uid(), meta.gid()));
    let newest = what.newest.unwrap_or(i64::MAX);
    let entry = Entry {
        path: stored,
        size: if kind == Kind::File { meta.len() } else { 0 },
        kind,
        mode: meta.mode() & 0o7777,
        uid,
        gid,
        mtime: Mtime { seconds: meta.mtime().min(newest), nanoseconds: 0 },
        xattrs,
        offset: 0,
        data_offset: 0,
    };
    Ok((entry, file))
}

/// `user.*` attributes; others belong to the host.
fn user_attributes(file: &File) -> Vec<Xattr> {
    let names = xattr::list(file.as_fd()).unwrap_or_default();
    let own = names.into_iter().filter(|name| name.as_bytes().starts_with(b"user."));
    let read = |name: std::ffi::CString| {
        xattr::get(file.as_fd(), &name).ok().map(|value| Xattr { name: name.into_bytes(), value })
    };
    own.filter_map(read).collect()
}

fn config_json(what: &Pack<'_>, diff: &Digest) -> String {
    let Platform { os, architecture, variant } = what.platform;
    let mut out = String::from("{\"architecture\":");
    quote(&mut out, architecture);
    if !variant.is_empty() {
        out.push_str(",\"variant\":");
        quote(&mut out, variant);
    }
    out.push_str(",\"os\":");
    quote(&mut out, os);
    out.push_str(",\"config\":{");
    let mut first = true;
    let mut key = |out: &mut String, name: &str| {
        out.push_str(if first { "\"" } else { ",\"" });
        out.push_str(name);
        out.push_str("\":");
        first = false;
    };
    for (name, text) in [("User", &what.config.user), ("WorkingDir", &what.config.working_dir)] {
        if !text.is_empty() {
            key(&mut out, name);
            quote(&mut out, text);
        }
    }
    if let Some(signal) = what.config.stop_signal {
        key(&mut out, "StopSignal");
        quote(&mut out, &signal.to_string());
    }
    for (name, list) in [("Env", &what.config.env), ("Entrypoint", &what.config.entrypoint), ("Cmd", &what.config.cmd)]
    {
        if !list.is_empty() {
            key(&mut out, name);
            quote_list(&mut out, list.iter().map(|item| &**item));
        }
    }
    out.push_str(&format!(
        "}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{diff}\"]}},\"history\":[{{\"created_by\":\"coracle pack\"}}]}}"
    ));
    out
}

fn manifest_json(config: &str, diff: &Digest, bytes: u64) -> String {
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{{\"mediaType\":\"{OCI_CONFIG}\",\"digest\":\"{}\",\
         \"size\":{}}},\"layers\":[{{\"mediaType\":\"{LAYER}\",\"digest\":\"{diff}\",\"size\":{bytes}}}]}}",
        sha(config.as_bytes()),
        config.len()
    )
}

fn index_json(what: &Pack<'_>, manifest: &str) -> String {
    let mut out = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{{\"mediaType\":\"{OCI_MANIFEST}\",\"digest\":\"{}\",\"size\":{}",
        sha(manifest.as_bytes()),
        manifest.len()
    );
    if let Some(name) = what.name {
        out.push_str(",\"annotations\":{\"io.containerd.image.name\":");
        quote(&mut out, name);
        out.push_str(",\"org.opencontainers.image.ref.name\":");
        quote(&mut out, name);
        out.push('}');
    }
    out.push_str("}]}");
    out
}

fn docker_json(what: &Pack<'_>, image_id: &Digest, diff: &Digest) -> String {
    let mut out = format!("[{{\"Config\":\"{}\",\"RepoTags\":", blob(image_id));
    quote_list(&mut out, what.name);
    out.push_str(&format!(",\"Layers\":[\"{}\"]}}]", blob(diff)));
    out
}
