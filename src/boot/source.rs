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
}

/// The value of a key in the text of a `uevent` in /sys/class/block: `DEVNAME` is the device's name in /dev, `PARTNAME` that in
/// the partition table, since Linux 2.6.38.
pub fn value<'t>(uevent: &'t str, key: &str) -> Option<&'t str> {
    uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Whether `uuid` is what the kernel, which tells it since 6.13 alone, calls partition `number` of a disk: in a GPT its
/// GUID, in an MBR the disk's signature and the number. `at` gives what is at a place on the disk, counted in bytes.
pub fn is_partition(uuid: &str, number: u8, at: &dyn Fn(u64) -> Option<[u8; 16]>) -> bool {
    let signature = || at(440).map(|[a, b, c, d, ..]| spells(uuid, &[d, c, b, a, number]));
    guid(number, at).map(|guid| spells(uuid, &guid)).or_else(signature) == Some(true)
}

/// The unique GUID of a partition, its bytes in the order in which they are written (UEFI specification, 5.3).
fn guid(number: u8, at: &dyn Fn(u64) -> Option<[u8; 16]>) -> Option<[u8; 16]> {
    // The header is in the second block, whatever a block has.
    let block = [512, 4096].into_iter().find(|block| at(*block).is_some_and(|start| start.starts_with(b"EFI PART")))?;
    let (entries, length) = (at(block + 72)?, at(block + 84)?);
    let (entries, length) = (u64::from_le_bytes(*entries.first_chunk()?), u32::from_le_bytes(*length.first_chunk()?));
    let place = u64::from(length) * u64::from(number.saturating_sub(1)) + 16;
    let [a, b, c, d, e, f, g, h, rest @ ..] = at(entries.checked_mul(block)?.checked_add(place)?)?;
    let [i, j, k, l, m, n, o, p] = rest;
    // The first three fields are numbers with the lowest byte first.
    Some([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
}

/// Whether the digits of `text`, with dashes wherever they are, are those of `bytes`.
fn spells(text: &str, bytes: &[u8]) -> bool {
    let digits = text.chars().filter(|letter| *letter != '-').map(|letter| letter.to_digit(16));
    digits.eq(bytes.iter().flat_map(|byte| [Some(u32::from(byte >> 4)), Some(u32::from(byte & 15))]))
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
    fn what_the_kernel_says_of_a_partition_is_read() {
        let uevent = "MAJOR=254\nMINOR=2\nDEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=data\nPARTUUID=AB-cd\n";
        assert_eq!((value(uevent, "PARTNAME"), value(uevent, "DEVNAME")), (Some("data"), Some("vda2")));
        assert_eq!((value(uevent, "PART"), value("DEVNAME=vda\nDEVTYPE=disk\n", "PARTNAME")), (None, None));
    }

    /// Reads from `disk`.
    fn at(disk: &[u8]) -> impl Fn(u64) -> Option<[u8; 16]> {
        |place| disk.get(usize::try_from(place).ok()?..)?.first_chunk().copied()
    }

    #[test]
    fn a_partition_is_told_by_the_table_of_its_disk() {
        const UUID: &str = "00112233-4455-6677-8899-AABBccddeeff";
        for block in [512, 4096] {
            let mut disk = vec![0; 4 * block];
            disk[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
            assert!(is_partition("12345678-03", 3, &at(&disk)) && !is_partition("12345678-04", 3, &at(&disk)));
            disk[block..block + 8].copy_from_slice(b"EFI PART");
            disk[block + 72] = 3;
            disk[block + 84] = 128;
            let guid = [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
            disk[3 * block + 128 + 16..3 * block + 128 + 32].copy_from_slice(&guid);
            assert!(is_partition(UUID, 2, &at(&disk)) && !is_partition(UUID, 1, &at(&disk)));
            assert!(!is_partition(&UUID[..35], 2, &at(&disk)) && !is_partition("", 2, &at(&disk)));
            assert!(!is_partition("12345678-03", 3, &at(&disk)), "the MBR before a GPT protects it, and is nobody's");
            // A table that points beyond the disk, or beyond all numbers.
            disk[block + 72..block + 88].fill(0xff);
            assert!(!is_partition(UUID, 2, &at(&disk)));
        }
        assert!(!is_partition(UUID, 2, &at(&[])));
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
