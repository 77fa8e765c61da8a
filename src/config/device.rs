//! `device`: from raw to plan, with the checks that look at several of its values.

use super::raw;
use super::validate::{Context, boxed, hides, plain_path};
use super::values::{self, Text, board};
use crate::base::units::{Bytes, Millis};
use crate::plan::{BoardMount, Boot, Device, FeatureSet, Rescue, Sysctl, Watchdog};
use core::fmt;

/// How long a mount's source is waited for unless it says otherwise.
const WAIT: Millis = Millis::from_secs(5);
/// The hardware watchdog's timeout unless it is written.
const WATCHDOG: Millis = Millis::from_secs(30);

/// The device part of the plan.
pub fn device(context: &mut Context<'_, '_, '_>, raw: &raw::Device<'_>) -> Device {
    let default = Device::default();
    context.repeated(&raw.images, |folder| Some(folder), "the image folder", plain_path);
    context.repeated(&raw.allow_missing, |word| Some(word), "the word", str::to_owned);
    let mut allow_missing = FeatureSet::default();
    for word in &raw.allow_missing {
        if let Some(feature) = context.read(Some(word), values::feature) {
            allow_missing = allow_missing.with(feature);
        }
    }
    let memory = context.size(raw.memory);
    let memory_reserve = context.size(raw.memory_reserve).unwrap_or(default.memory_reserve);
    if let (Some(memory), Some(typed)) = (memory, raw.memory)
        && memory <= memory_reserve
    {
        let message = format_args!("the reserve of {memory_reserve} leaves nothing of the memory of {memory}");
        context.problem(
            raw.memory_reserve.unwrap_or(typed),
            message,
            "services get \"memory\" less \"memory_reserve\"",
        );
    }
    let caps = &raw.image_caps;
    let mut image_caps = default.image_caps;
    let mut set = |target: &mut Bytes, raw| {
        if let Some(size) = context.size(raw) {
            *target = size;
        }
    };
    set(&mut image_caps.bytes, caps.bytes);
    set(&mut image_caps.pax, caps.pax);
    set(&mut image_caps.zstd_window, caps.zstd_window);
    set(&mut image_caps.manifest, caps.manifest);
    image_caps.ratio = caps.ratio.unwrap_or(image_caps.ratio);
    image_caps.entries = caps.entries.unwrap_or(image_caps.entries);
    image_caps.path_depth = caps.path_depth.unwrap_or(image_caps.path_depth);
    Device {
        hostname: raw.hostname.map(|name| context.expanded(name, "hostname", Text::HostName)),
        images: raw.images.iter().map(|path| boxed(path)).collect(),
        state: raw.state.map_or(default.state, boxed),
        store: raw.store.map(boxed),
        memory,
        memory_reserve,
        allow_missing,
        restarts_per_minute: raw.restarts_per_minute.unwrap_or(default.restarts_per_minute),
        crash_records: raw.crash_records.unwrap_or(default.crash_records),
        max_resets: raw.max_resets.unwrap_or(default.max_resets),
        log_ring: context.size(raw.log.ring).unwrap_or(default.log_ring),
        image_caps,
        boot: boot(context, raw),
    }
}

fn boot(context: &mut Context<'_, '_, '_>, raw: &raw::Device<'_>) -> Boot {
    context.repeated(&raw.modules, |name| Some(name), "the module", |name| name.replace('-', "_"));
    context.repeated(&raw.sysctls, |sysctl| sysctl.name, "the sysctl", str::to_owned);
    let sysctl = |raw: &raw::Sysctl<'_>| Some(Sysctl { name: boxed(raw.name?), value: boxed(raw.value?) });
    let default = Rescue::default();
    let reboot_after = context.read(raw.rescue.reboot_after, |text| values::duration_or_none(text, 0, u64::MAX));
    Boot {
        modules: raw.modules.iter().map(|name| boxed(name)).collect(),
        sysctls: raw.sysctls.iter().filter_map(sysctl).collect(),
        mounts: mounts(context, &raw.mounts),
        watchdog: raw.watchdog.as_ref().map(|raw| Watchdog {
            device: raw.device.map(boxed).filter(|device| **device != *"auto"),
            timeout: context.duration(raw.timeout).unwrap_or(WATCHDOG),
        }),
        rescue: Rescue {
            shell: raw.rescue.shell.unwrap_or(false),
            reboot_after: reboot_after.unwrap_or(default.reboot_after),
        },
    }
}

fn mounts(context: &mut Context<'_, '_, '_>, raw: &[raw::BoardMount<'_>]) -> Vec<BoardMount> {
    context.repeated(raw, |mount| mount.target, "a mount on", plain_path);
    let mut list: Vec<BoardMount> = Vec::with_capacity(raw.len());
    for mount in raw {
        let (Some(source), Some(target), Some(kind)) = (mount.source, mount.target, mount.kind) else { continue };
        let own = BoardMount {
            source: boxed(source),
            target: boxed(target),
            kind: boxed(kind),
            options: mount.options.map(boxed).unwrap_or_default(),
            wait: context.duration(mount.wait).unwrap_or(WAIT),
            fallback: context.size(mount.fallback),
        };
        if let Some(hidden) = list.iter().find(|earlier| hides(&own.target, &earlier.target)) {
            let message = format_args!("this mount hides the earlier one on {:?}", hidden.target);
            context.problem(target, message, "list the outer mount first");
        }
        source_fits(context, mount, &own);
        list.push(own);
    }
    list
}

/// File systems that lie on a device.
const ON_DEVICES: [&str; 13] =
    ["btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jffs2", "squashfs", "ubifs", "vfat", "xfs"];
/// File systems that lie on none.
const ON_NOTHING: [&str; 8] = ["bpf", "configfs", "debugfs", "hugetlbfs", "pstore", "ramfs", "tmpfs", "tracefs"];

/// Whether source and type of a mount can belong together.
fn source_fits(context: &mut Context<'_, '_, '_>, raw: &raw::BoardMount<'_>, mount: &BoardMount) {
    let on_device = board::is_device_source(&mount.source);
    let (source, kind) = (&mount.source, &mount.kind);
    let ubi = source.starts_with("ubi") && on_device;
    let mut problem = |raw: Option<&str>, message: fmt::Arguments<'_>, hint: &str| {
        context.problem(raw.unwrap_or_default(), message, hint);
    };
    if !on_device && ON_DEVICES.contains(&&**kind) {
        let hint = "write \"/dev/...\", \"PARTNAME=...\", \"LABEL=...\" or \"ubi0:...\"";
        problem(raw.source, format_args!("{source:?} is no device, and {kind} lies on one"), hint);
    } else if on_device && ON_NOTHING.contains(&&**kind) {
        problem(raw.source, format_args!("{kind} lies on no device"), "write the type's name as the source");
    } else if ubi && &**kind != "ubifs" {
        problem(
            raw.kind,
            format_args!("{source:?} is a UBI volume, and {kind} does not lie on one"),
            "write \"ubifs\"",
        );
    }
    if !on_device && mount.fallback.is_some() {
        let hint = "leave \"fallback\" out";
        problem(raw.fallback, format_args!("{kind} needs no device, so that nothing can be missing"), hint);
    }
}
