//! `coracle unpack`: an image into the store, without a supervisor.
#![forbid(unsafe_code)]

use super::{device, fault, locate, store};
use crate::base::exit;
use crate::base::units::{Bytes, parse_bytes};
use crate::cli::{output, progress};
use crate::image::platform::Platform;
use crate::image::record::{ImageRecord, LayerStats, Root};
use crate::image::store::Store;
use crate::image::worker::{self, Job};
use argh::FromArgs;
use std::path::PathBuf;

/// Unpack an image into the state folder: every digest is checked, what is there already is not unpacked again.
///
/// Example: coracle unpack --state /data/coracle app.tar#app:1.2
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct UnpackArgs {
    /// the image: a file, or FILE#name:tag, or FILE#sha256:…
    #[argh(positional)]
    image: String,

    /// the state folder, in place of the config's
    #[argh(option, arg_name = "dir")]
    state: Option<PathBuf>,

    /// the config file (default: /etc/coracle/config.json, unless --state is given)
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<PathBuf>,

    /// unpack for another architecture than this machine's: arm64, arm/v7, amd64, …
    #[argh(option, arg_name = "arch", from_str_fn(arch))]
    arch: Option<Platform>,

    /// most bytes of all layers together, in place of the config's, such as 8G
    #[argh(option, arg_name = "size", from_str_fn(size))]
    max_bytes: Option<Bytes>,

    /// most entries of all layers together, in place of the config's
    #[argh(option, arg_name = "count")]
    max_entries: Option<u32>,
}

fn arch(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| format!("{text:?} is no architecture such as arm64, arm/v7 or amd64"))
}

fn size(text: &str) -> Result<Bytes, String> {
    parse_bytes(text).map_err(|_| format!("{text:?} is no size such as 8G"))
}

/// Runs the command.
pub fn run(args: &UnpackArgs) -> u8 {
    work(args).unwrap_or_else(|code| code)
}

fn work(args: &UnpackArgs) -> Result<u8, u8> {
    let device = device(args.state.as_deref(), args.config.as_deref())?;
    let image = locate(&device, &args.image)?;
    let store = store(&device)?;
    let mut caps = device.image_caps;
    caps.bytes = args.max_bytes.unwrap_or(caps.bytes);
    caps.entries = args.max_entries.unwrap_or(caps.entries);
    let platform = args.arch.clone().unwrap_or_else(Platform::native);
    let known = store.lookup(&image).map_err(|error| fault(&error))?.is_some();
    let name = image.file.rsplit('/').next().unwrap_or_default().to_owned();
    let mut bar: Option<progress::Progress> = None;
    let mut report = |progress: worker::Progress| {
        let label = match (progress.layer, progress.layers) {
            (0, _) => format!("unpacking {name}"),
            (layer, 0) => format!("unpacking {name}, layer {layer}"),
            (layer, layers) => format!("unpacking {name}, layer {layer} of {layers}"),
        };
        let total = (progress.total > 0).then_some(progress.total);
        let bar = bar.get_or_insert_with(|| progress::Progress::new(&label, total));
        bar.relabel(&label);
        bar.update(progress.done);
    };
    let record = worker::run(&store, Job { image, platform, caps }, &mut report);
    drop(bar);
    let record = record.map_err(|error| fault(&error))?;
    output::line(&summary(&store, &record, known));
    Ok(exit::OK)
}

/// What was unpacked and what was left out, in a few lines.
fn summary(store: &Store, record: &ImageRecord, known: bool) -> String {
    let mut text = format!("{}: {}", record.reference, if known { "unpacked already" } else { "unpacked" });
    match record.root {
        Root::Folder(_) => return format!("{}: a folder, used in place", record.reference),
        Root::File(kind, _) => {
            return format!("{}: {}, mounted as it is: there is nothing to unpack", record.reference, kind.name());
        }
        Root::Layers(_) => {}
    }
    let layers = record.root.layers();
    let stats = total(store, record);
    let plural = if layers.len() == 1 { "" } else { "s" };
    text += &format!(", {} layer{plural}, {} in {} entries", layers.len(), Bytes(stats.bytes), stats.entries);
    if let Some(id) = record.image_id {
        text += &format!("\nimage ID {id}");
    }
    left_out(&stats, &mut text);
    text
}

/// Adds a line for each kind of thing that was left out.
pub fn left_out(stats: &LayerStats, text: &mut String) {
    for (count, what) in [
        (stats.setuid, "setuid and setgid bits dropped: no_new_privs voids them"),
        (stats.capabilities, "file capabilities dropped: no_new_privs voids them"),
        (stats.devices, "device nodes left out: a service gets the devices that its config names"),
        (stats.xattrs, "extended attributes left out"),
    ] {
        if count > 0 {
            *text += &format!("\n{count} {what}");
        }
    }
}

/// The sums over an image's layers.
pub fn total(store: &Store, record: &ImageRecord) -> LayerStats {
    let layers = record.root.layers().iter();
    let stats = layers.filter_map(|layer| store.layer_record(layer).ok()).map(|record| record.stats);
    stats.fold(LayerStats::default(), LayerStats::plus)
}
