//! What a file system is mounted from: how the config names a device, and which one of the board's is meant. Pure.
#![forbid(unsafe_code)]

/// How a device is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// An absolute path.
    Path(&'a str),
    /// `PARTNAME=`: a name in the partition table.
    PartName(&'a str),
    /// `PARTUUID=`: a number in the partition table.
    PartUuid(&'a str),
    /// `LABEL=`: a name in an ext4 file system.
    Label(&'a str),
    /// `ubi0:volume`: UBI device 0 and a volume's name.
    Ubi(&'a str, &'a str),
    /// A word for a file system without a device.
    None,
}

impl<'a> Source<'a> {
    /// Reads it as the config has it.
    pub fn parse(text: &'a str) -> Source<'a> {
        let named = |kind: &str| text.strip_prefix(kind);
        if text.starts_with('/') {
            Source::Path(text)
        } else if let Some(name) = named("PARTNAME=") {
            Source::PartName(name)
        } else if let Some(name) = named("PARTUUID=") {
            Source::PartUuid(name)
        } else if let Some(name) = named("LABEL=") {
            Source::Label(name)
        } else if let Some((device, volume)) = named("ubi").and_then(|rest| rest.split_once(':')) {
            Source::Ubi(device, volume)
        } else {
            Source::None
        }
    }

    /// The name in /dev of the block device that this text of its `uevent` in /sys/class/block describes, if it is the
    /// one that is meant. The kernel writes `PARTNAME` since 2.6.38 and `PARTUUID` since 6.13.
    pub fn of_uevent<'t>(&self, uevent: &'t str) -> Option<&'t str> {
        let value = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let meant = match self {
            Source::PartName(name) => value("PARTNAME") == Some(name),
            Source::PartUuid(name) => value("PARTUUID").is_some_and(|uuid| uuid.eq_ignore_ascii_case(name)),
            _ => false,
        };
        value("DEVNAME").filter(|_| meant)
    }
}

/// Where an ext2, ext3 or ext4 superblock is, and how much of it is read here, in bytes.
pub const SUPERBLOCK: (u64, usize) = (1024, 0x88);

/// The label in the first [`SUPERBLOCK`] bytes of an ext2, ext3 or ext4 superblock (kernel:
/// `Documentation/filesystems/ext4/super.rst`): `s_magic` at 0x38, `s_volume_name` at 0x78.
pub fn ext4_label(superblock: &[u8]) -> Option<&[u8]> {
    if superblock.get(0x38..0x3a)? != [0x53, 0xef] {
        return None;
    }
    let name = superblock.get(0x78..0x88)?;
    name.split(|byte| *byte == 0).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_device_is_read() {
        for (text, source) in [
            ("/dev/mmcblk0p3", Source::Path("/dev/mmcblk0p3")),
            ("PARTNAME=data", Source::PartName("data")),
            ("PARTUUID=1234-02", Source::PartUuid("1234-02")),
            ("LABEL=x=y", Source::Label("x=y")),
            ("ubi0:rootfs", Source::Ubi("0", "rootfs")),
            ("tmpfs", Source::None),
            ("ubifs", Source::None),
        ] {
            assert_eq!(Source::parse(text), source);
        }
    }

    #[test]
    fn a_partition_is_found_by_what_the_kernel_says_of_it() {
        let uevent = "MAJOR=254\nMINOR=2\nDEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=data\nPARTUUID=AB-cd\n";
        assert_eq!(Source::PartName("data").of_uevent(uevent), Some("vda2"));
        assert_eq!(Source::PartName("dat").of_uevent(uevent), None);
        assert_eq!(Source::PartUuid("ab-CD").of_uevent(uevent), Some("vda2"));
        assert_eq!(Source::Label("data").of_uevent(uevent), None);
        assert_eq!(Source::PartName("").of_uevent("DEVNAME=vda\nDEVTYPE=disk\n"), None);
    }

    #[test]
    fn a_label_is_read_from_an_ext4_superblock_alone() {
        let mut block = [0u8; SUPERBLOCK.1];
        assert_eq!(ext4_label(&block), None);
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        block[0x78..0x7c].copy_from_slice(b"data");
        assert_eq!(ext4_label(&block), Some(b"data".as_slice()));
        block[0x78..0x88].copy_from_slice(b"sixteen-letters!");
        assert_eq!(ext4_label(&block), Some(b"sixteen-letters!".as_slice()));
        assert_eq!(ext4_label(&block[..0x80]), None);
    }
}
