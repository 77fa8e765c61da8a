//! The keys of `device`.

use super::{GIB, HOUR, KIB, Kind, MIB, Object, SECOND, TIB, optional, required, with_vars};
use crate::base::limits;
use crate::config::values::Text;

/// `device`.
pub static DEVICE: Object = Object {
    name: "device",
    either: &[],
    keys: &[
        with_vars(optional(
            "hostname",
            Kind::Text(Text::HostName),
            "unchanged",
            "\"gateway-7\"",
            "The board's host name.",
        )),
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
            "store",
            Kind::Text(Text::Path),
            "none",
            "\"/usr/share/coracle/store\"",
            "Folder of a store that `coracle bake` made for the firmware. Its layers are looked for first and never \
             changed; an image in it needs neither its file nor unpacking.",
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
        optional(
            "modules",
            Kind::Texts(Text::Module, limits::MODULES),
            "[]",
            "[\"overlay\", \"softdog\"]",
            "Kernel modules that coracle as the first process loads, in this order, each after what it depends on; what one asks for at run time, as ubifs for zstd, stands before it.",
        ),
        optional(
            "sysctls",
            Kind::Objects(&SYSCTL, limits::SYSCTLS),
            "[]",
            "[ { \"name\": \"net.ipv4.ip_forward\", \"value\": \"1\" } ]",
            "Kernel parameters that coracle as the first process sets, in this order.",
        ),
        optional(
            "mounts",
            Kind::Objects(&BOARD_MOUNT, limits::BOARD_MOUNTS),
            "[]",
            "[ { \"source\": \"PARTNAME=data\", \"target\": \"/data\", \"type\": \"ext4\" } ]",
            "File systems that coracle as the first process mounts, in this order. It mounts /proc, /sys, /dev, /run and \
             the cgroups itself.",
        ),
        optional(
            "watchdog",
            Kind::Object(&WATCHDOG),
            "none is opened",
            "{ \"device\": \"auto\", \"timeout\": \"30s\" }",
            "The hardware watchdog: it resets the board when coracle no longer feeds it.",
        ),
        optional(
            "rescue",
            Kind::Object(&RESCUE),
            "as its keys say",
            "{ \"shell\": false, \"reboot_after\": \"10m\" }",
            "What happens when no config can be used: services with `lifeline` and what they need run, nothing else.",
        ),
        optional(
            "restarts_per_minute",
            Kind::Integer(0, 60_000),
            "600",
            "120",
            "Restarts after failures that the whole board has in a minute, a tenth of them at once; further ones are put \
             off. The first one after a healthy run is never put off. 0: no bound.",
        ),
        optional(
            "crash_records",
            Kind::Integer(0, 1000),
            "16",
            "4",
            "Crash records that the whole board writes to `crashes` in its state folder in a day, one for each incident of a \
             service: reason, limits, counters, last lines of its log. The latest 16 are kept.",
        ),
        optional(
            "max_resets",
            Kind::Integer(1, 100),
            "3",
            "3",
            "Resets in a row by the watchdog, or because a service did not recover, after which the board runs its lifelines \
             alone and is reset no more. A power cut does not count.",
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

static SYSCTL: Object = Object {
    name: "a sysctl",
    either: &[],
    keys: &[
        required(
            "name",
            Kind::Text(Text::Sysctl),
            "\"net.ipv4.ip_forward\"",
            "Its name, with dots; a dot within a part is written as a slash: `net.ipv4.conf.eth0/100.forwarding`.",
        ),
        required("value", Kind::Text(Text::Line), "\"1\"", "What it is set to."),
    ],
};

static BOARD_MOUNT: Object = Object {
    name: "a mount of the device",
    either: &[],
    keys: &[
        required(
            "source",
            Kind::Text(Text::BoardSource),
            "\"PARTNAME=data\"",
            "What: a block device's path, `PARTNAME=`, `PARTUUID=` or `LABEL=` and a value, `ubi0:volume`, or a word such as \
             `tmpfs` for a file system without a device.",
        ),
        required("target", Kind::Text(Text::BoardTarget), "\"/data\"", "Where it is mounted."),
        required("type", Kind::Text(Text::FsType), "\"ext4\"", "Its file system, as /proc/filesystems calls it."),
        optional(
            "options",
            Kind::Text(Text::MountOptions),
            "none",
            "\"noatime,nodev\"",
            "Mount options, separated by commas.",
        ),
        optional(
            "wait",
            Kind::Text(Text::Duration(0, HOUR)),
            "\"5s\"",
            "\"5s\"",
            "How long the boot waits for the source to appear.",
        ),
        optional(
            "fallback",
            Kind::Text(Text::Size(64 * KIB, 64 * GIB)),
            "none",
            "\"8M\"",
            "The size of a tmpfs that is mounted where the source cannot be had; the board is then shown as degraded.",
        ),
    ],
};

static WATCHDOG: Object = Object {
    name: "watchdog",
    either: &[],
    keys: &[
        optional(
            "device",
            Kind::Text(Text::WatchdogDevice),
            "\"auto\"",
            "\"/dev/watchdog1\"",
            "Its device; `auto`: the first that there is.",
        ),
        optional(
            "timeout",
            Kind::Text(Text::Duration(SECOND, HOUR)),
            "\"30s\"",
            "\"30s\"",
            "How long it waits for a sign of life before it resets the board; the driver's nearest is taken. Where \
             the driver has a pretimeout, the kernel acts a quarter of it before, unless the board has set another.",
        ),
    ],
};

static RESCUE: Object = Object {
    name: "rescue",
    either: &[],
    keys: &[
        optional(
            "shell",
            Kind::Bool,
            "false",
            "true",
            "Whether `coracle.rescue` on the kernel's command line gives a shell on the console.",
        ),
        optional(
            "reboot_after",
            Kind::Text(Text::DurationOrNone(10 * SECOND, 24 * HOUR)),
            "\"10m\"",
            "\"10m\"",
            "How long rescue lasts before the board reboots; `\"0\"`: for good.",
        ),
    ],
};

static DEVICE_LOG: Object = Object {
    name: "log",
    either: &[],
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
    either: &[],
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
