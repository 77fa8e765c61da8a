//! The mounts of a service: from raw to plan.

use super::raw;
use super::validate::{Context, boxed, hides, plain_path};
use super::values::{self, Text};
use super::vars;
use crate::base::name::Name;
use crate::base::units::Bytes;
use crate::plan::{Limits, Memory, Mount, MountKind};

/// The mounts of a service.
pub fn mounts(context: &mut Context<'_, '_, '_>, raw: &[raw::Mount<'_>], limits: Option<&Limits>) -> Vec<Mount> {
    context.repeated(raw, |mount| mount.target, "a mount on", plain_path);
    let mut list: Vec<Mount> = Vec::with_capacity(raw.len());
    for mount in raw {
        let (Some(kind), Some(target)) = (mount.kind, mount.target) else { continue };
        let kind = mount_kind(context, kind, mount, target, limits);
        let own = values::decoded(target).into_owned();
        if let Some(hidden) = list.iter().find(|earlier| hides(&own, &earlier.target)) {
            let message = format_args!("this mount hides the earlier one on {:?}", hidden.target);
            context.problem(target, message, "list the outer mount first");
        }
        if let Some(kind) = kind {
            list.push(Mount { kind, target: boxed(target), read_only: mount.read_only.unwrap_or(false) });
        }
    }
    list
}

fn mount_kind(
    context: &mut Context<'_, '_, '_>,
    kind: raw::MountType,
    mount: &raw::Mount<'_>,
    target: &str,
    limits: Option<&Limits>,
) -> Option<MountKind> {
    let absolute = mount.source.map(|source| values::decoded(source).starts_with('/'));
    let mut problem = |message: &str, hint: &str| {
        context.problem(mount.source.unwrap_or(target), format_args!("{message}"), hint);
        None
    };
    if kind != raw::MountType::Tmpfs
        && let Some(size) = mount.size
    {
        context.problem(size, format_args!("only a tmpfs has a size"), "leave \"size\" out");
        return None;
    }
    match (kind, mount.source, absolute) {
        (raw::MountType::Volume, None, _) => problem("a volume needs its name", "add \"source\": \"data\""),
        (raw::MountType::Volume, Some(_), Some(true)) => {
            problem("a volume has a name, not a path", "use \"type\": \"bind\" for a path of the board")
        }
        (raw::MountType::Volume, Some(source), _) => {
            let name = context.expanded(source, "source", Text::Name);
            Name::new(&name).ok().map(MountKind::Volume)
        }
        (raw::MountType::Bind, None, _) => problem("a bind mount needs its source", "add \"source\": \"/etc/ssl\""),
        (raw::MountType::Bind, Some(_), Some(false)) => {
            problem("a bind mount's source is an absolute path", "use \"type\": \"volume\" for a volume's name")
        }
        (raw::MountType::Bind, Some(source), _) if vars::has(source) => {
            problem("a path has no variables", "only hostname, env, command and the names of volumes can have them")
        }
        (raw::MountType::Bind, source, _) => source.map(boxed).map(MountKind::Bind),
        (raw::MountType::Tmpfs, Some(_), _) => problem("a tmpfs has no source", "leave \"source\" out"),
        (raw::MountType::Tmpfs, None, _) => match mount.size {
            None => problem("a tmpfs needs its size", "add \"size\": \"4M\""),
            Some(typed) => {
                let size = context.size(Some(typed))?;
                tmpfs_fits(context, typed, size, limits);
                Some(MountKind::Tmpfs(size))
            }
        },
    }
}

fn tmpfs_fits(context: &mut Context<'_, '_, '_>, typed: &str, size: Bytes, limits: Option<&Limits>) {
    if let Some(Limits { memory: Memory::Max(max), .. }) = limits
        && size >= *max
    {
        let message = format_args!("this tmpfs of {size} can never be full within the memory limit of {max}");
        context.warning(typed, message, "what is written to it counts as the service's memory");
    }
}
