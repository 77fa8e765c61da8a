//! Which files to load for a kernel module, and in which order. Pure.
//!
//! `modules.dep` (its man page) has a line for each module: `kernel/fs/overlayfs/overlay.ko: OTHER.ko …`, all others that
//! it needs, the innermost last. `modules.builtin` lists those that are part of the kernel.
#![forbid(unsafe_code)]

/// What a module is on this kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A part of the kernel itself.
    BuiltIn,
    /// Files beneath the folder of modules, in the order in which they have to be loaded.
    Files(Vec<&'a str>),
    /// Neither.
    Missing,
}

/// Looks `module` up: a name as lsmod(8) or a file calls it, in which `-` and `_` are the same.
pub fn find<'a>(module: &str, depends: &'a str, built_in: &str) -> Found<'a> {
    let wanted = |path: &str| same_module(module_name(path), module);
    for line in depends.lines() {
        let Some((path, others)) = line.split_once(':').filter(|(path, _)| wanted(path)) else { continue };
        let mut files = Vec::new();
        files.extend(others.rsplit(char::is_whitespace).filter(|file| !file.is_empty()));
        files.push(path);
        return Found::Files(files);
    }
    if built_in.lines().any(wanted) { Found::BuiltIn } else { Found::Missing }
}

/// The module's name in a path: without folders, `.ko` and the ending of a compression.
pub fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".ko").map_or(file, |(name, _)| name)
}

/// Whether two names mean the same module.
pub fn same_module(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| plain(a) == plain(b))
}

/// Whether the file is compressed, by its name.
pub fn is_compressed(path: &str) -> bool {
    !path.ends_with(".ko")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDS: &str = "\
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko kernel/lib/crc16.ko
kernel/fs/mbcache.ko:
kernel/drivers/virtio/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/fs/nfs/nfs_layout_nfsv41_files.ko: kernel/fs/nfs/nfsv4.ko
";

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let order = ["kernel/lib/crc16.ko", "kernel/fs/mbcache.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko"];
        assert_eq!(find("ext4", DEPENDS, ""), Found::Files(order.to_vec()));
        assert_eq!(find("mbcache", DEPENDS, ""), Found::Files(vec!["kernel/fs/mbcache.ko"]));
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        assert!(matches!(find("virtio-blk", DEPENDS, ""), Found::Files(files) if files.len() == 3));
        assert!(matches!(find("virtio_blk", DEPENDS, ""), Found::Files(_)));
        assert!(matches!(find("nfs", DEPENDS, ""), Found::Missing), "a name is matched whole");
    }

    #[test]
    fn a_part_of_the_kernel_needs_no_file() {
        assert_eq!(find("loop", DEPENDS, "kernel/drivers/block/loop.ko\n"), Found::BuiltIn);
        assert_eq!(find("loop", "", ""), Found::Missing);
    }

    #[test]
    fn compression_is_told_by_the_name() {
        assert!(is_compressed("a/b.ko.xz") && is_compressed("b.ko.zst") && !is_compressed("a.ko/b.ko"));
    }
}
