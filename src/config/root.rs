//! What the root of a service is made of, and what it cannot have then.

use super::raw;
use super::validate::{Context, boxed, list};
use super::values;
use crate::plan::Root;

/// The root, with the checks of what a program of the board cannot have.
pub fn root(context: &mut Context<'_, '_, '_>, raw: &raw::Service<'_>) -> Option<Root> {
    match (raw.image, raw.root) {
        (Some(image), None) => Some(Root::Image(boxed(image))),
        (None, Some(root)) => {
            host(context, raw, root);
            Some(Root::Host)
        }
        (Some(_), Some(root)) => {
            let hint = "an image brings its own root: keep \"image\" or \"root\"";
            context.problem(root, format_args!("this service has both an image and the host's root"), hint);
            None
        }
        (None, None) => None,
    }
}

fn host(context: &mut Context<'_, '_, '_>, raw: &raw::Service<'_>, root: &str) {
    let first_mount = list(&raw.mounts).iter().find_map(|mount| mount.target);
    let first_secret = list(&raw.secrets).iter().find_map(|secret| secret.file);
    let first_name = list(&raw.devices).iter().find_map(|device| device.inside);
    for (written, key, hint) in [
        (raw.root_fs, "root_fs", "it writes where the board lets its user write"),
        (raw.hostname, "hostname", "it sees the board's own: set \"hostname\" under \"device\""),
        (first_mount, "mounts", "it sees the board's own files: mount them under \"device\""),
        (first_name, "as", "it sees the board's own names"),
        (first_secret, "secrets", "it can read the file itself"),
    ] {
        let Some(typed) = written else { continue };
        context.problem(typed, format_args!("a program on the host's root has no {key:?}"), hint);
    }
    match list(&raw.command).first() {
        None => {
            let hint = "add \"command\": [\"/usr/sbin/dropbear\", \"-F\"]";
            context.problem(root, format_args!("a service on the host's root needs its command"), hint);
        }
        Some(program) if !program.is_empty() => {
            if let Err(complaint) = values::path(&values::decoded(program)) {
                let message = format_args!("the program {}", complaint.message);
                context.problem(program, message, "write its full path on the board");
            }
        }
        Some(_) => {}
    }
}
