//! The keys of `device`.

use super::{GIB, KIB, Kind, MIB, Object, TIB, optional};
use crate::base::limits;
use crate::config::values::Text;

/// `device`.
pub static DEVICE: Object = Object {
    name: "device",
    keys: &[
        optional("hostname", Kind::Text(Text::HostName), "unchanged", "\"gateway-7\"", "The board's host name."),
        optional(
            "images",
            Kind::Texts(Text::Path, limits::IMAGE_DIRS),
            "[] (absolute image paths only)",
            "[\"/data/images\", \"/usr/share/coracle/images\"]",
            "Folders in which images are looked for, in this order; the first hit wins.",
        ),
        optional(
            "state",
            Kind::Text(Text::Path),
            "\"/var/lib/coracle\"",
            "\"/data/coracle\"",
            "Folder for unpacked layers, volumes and records. It must survive a reboot and lie on one file system.",
        ),
        optional(
            "memory",
            Kind::Text(Text::Size(4 * MIB, TIB)),
            "the machine's own",
            "\"128M\"",
            "Memory of the smallest board of the fleet: what the sum of all limits is checked against.",
        ),
        optional(
            "memory_reserve",
            Kind::Text(Text::SizeOrNone(64 * KIB, TIB)),
            "\"24M\"",
            "\"24M\"",
            "What the kernel and the supervisor keep of the memory.",
        ),
        optional(
            "allow_missing",
            Kind::Texts(Text::Feature, 10),
            "[] (a service is held instead)",
            "[\"limits.io\"]",
            "What this fleet's kernels may lack. Everything else fails closed: a service whose limit cannot be enforced \
             is held.",
        ),
        optional("log", Kind::Object(&DEVICE_LOG), "as its keys say", "{ \"ring\": \"32K\" }", "Logs of all services."),
        optional(
            "image_caps",
            Kind::Object(&IMAGE_CAPS),
            "as its keys say",
            "{ \"bytes\": \"512M\" }",
            "What one image may ask for while it is unpacked. Each cap stands against one kind of hostile archive.",
        ),
    ],
};

static DEVICE_LOG: Object = Object {
    name: "log",
    keys: &[optional(
        "ring",
        Kind::Text(Text::Size(4 * KIB, 64 * MIB)),
        "\"32K\"",
        "\"32K\"",
        "Memory in which a service's latest output is kept, unless the service says otherwise.",
    )],
};

static IMAGE_CAPS: Object = Object {
    name: "image_caps",
    keys: &[
        optional(
            "bytes",
            Kind::Text(Text::Size(MIB, TIB)),
            "\"4G\"",
            "\"512M\"",
            "Decompressed bytes of all layers together.",
        ),
        optional(
            "ratio",
            Kind::Integer(2, 100_000),
            "200",
            "200",
            "Decompressed bytes per compressed byte, judged once 1 MiB has come out.",
        ),
        optional(
            "entries",
            Kind::Integer(1, 100_000_000),
            "400000",
            "50000",
            "Files, folders and links of all layers together.",
        ),
        optional("path_depth", Kind::Integer(1, 1024), "64", "32", "Components of one path."),
        optional(
            "pax",
            Kind::Text(Text::Size(KIB, 16 * MIB)),
            "\"64K\"",
            "\"64K\"",
            "Bytes of the extension records (long names, extended attributes) of one entry.",
        ),
        optional(
            "zstd_window",
            Kind::Text(Text::Size(KIB, 2 * GIB)),
            "\"8M\"",
            "\"8M\"",
            "The window that a zstd frame may ask for: memory while it is decoded.",
        ),
        optional(
            "manifest",
            Kind::Text(Text::Size(KIB, 16 * MIB)),
            "\"256K\"",
            "\"256K\"",
            "Bytes of one manifest, index or image config.",
        ),
    ],
};
