//! `coracle images`, `verify`, `rmi`, `prune`: what the store holds, and less of it.
#![forbid(unsafe_code)]

use super::{device, fault, store};
use crate::base::exit;
use crate::base::json::Quoted;
use crate::base::units::Bytes;
use crate::cli::output;
use crate::cli::table::Table;
use crate::image::digest::Digest;
use crate::image::mountable::Mountable;
use crate::image::record::{ImageRecord, Root};
use crate::image::store::{Health, Removed, Store, source_id};
use argh::FromArgs;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// List the unpacked images.
///
/// Example: coracle images --json
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct ImagesArgs {
    /// the state folder, in place of the config's
    #[argh(option, arg_name = "dir")]
    state: Option<PathBuf>,

    /// the config file (default: /etc/coracle/config.json, unless --state is given)
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<PathBuf>,

    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Compare unpacked images with the checksums taken when they were unpacked. Exits with 1 if one is damaged; a damaged
/// layer is unpacked anew by the next start or `coracle unpack`.
///
/// Example: coracle verify app.tar
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct VerifyArgs {
    /// the images (default: all)
    #[argh(positional)]
    images: Vec<String>,

    /// the state folder, in place of the config's
    #[argh(option, arg_name = "dir")]
    state: Option<PathBuf>,

    /// the config file (default: /etc/coracle/config.json, unless --state is given)
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<PathBuf>,
}

/// Remove unpacked images, and the layers that no other image needs. The image's file stays.
///
/// Example: coracle rmi app.tar
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct RmiArgs {
    /// the images: by file, file name, or the beginning of the image ID
    #[argh(positional)]
    images: Vec<String>,

    /// the state folder, in place of the config's
    #[argh(option, arg_name = "dir")]
    state: Option<PathBuf>,

    /// the config file (default: /etc/coracle/config.json, unless --state is given)
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<PathBuf>,
}

/// Remove what is not needed: images whose file is gone or replaced, layers that no image has, unfinished unpacks.
///
/// Example: coracle prune --state /data/coracle
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct PruneArgs {
    /// the state folder, in place of the config's
    #[argh(option, arg_name = "dir")]
    state: Option<PathBuf>,

    /// the config file (default: /etc/coracle/config.json, unless --state is given)
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<PathBuf>,
}

fn opened(state: Option<&Path>, config: Option<&Path>) -> Result<Store, u8> {
    store(&device(state, config)?)
}

fn all(store: &Store) -> Result<Vec<ImageRecord>, u8> {
    let (images, unreadable) = store.images().map_err(|error| fault(&error))?;
    if unreadable > 0 {
        output::complain(&format_args!(
            "{unreadable} image records cannot be read; a newer coracle may have written them"
        ));
    }
    Ok(images)
}

/// Runs `coracle images`.
pub fn images(args: &ImagesArgs) -> u8 {
    let list = || -> Result<u8, u8> {
        let store = opened(args.state.as_deref(), args.config.as_deref())?;
        let images = all(&store)?;
        match args.json {
            true => output::line(&json(&store, &images)),
            false => output::line(&table(&store, &images).to_string().trim_end()),
        }
        Ok(exit::OK)
    };
    list().unwrap_or_else(|code| code)
}

fn table(store: &Store, images: &[ImageRecord]) -> Table {
    let mut table = Table::new(&["IMAGE", "NAME", "ID", "PLATFORM", ">LAYERS", ">SIZE", "STORE"]);
    for image in images {
        let layers = match &image.root {
            Root::Layers(layers) => layers.len().to_string(),
            Root::Folder(_) => "folder".into(),
            Root::File(kind, _) => kind.name().into(),
        };
        let size = match &image.root {
            Root::File(..) => image.source.size,
            _ => super::unpack::total(store, image).bytes,
        };
        table.row(vec![
            image.reference.to_string(),
            image.names.first().map_or(String::new(), |name| name.to_string()),
            image.image_id.map_or(String::new(), |id| id.short()),
            image.config.platform.as_ref().map_or(String::new(), |platform| platform.to_string()),
            layers,
            Bytes(size).to_string(),
            place(store, image).into(),
        ]);
    }
    table
}

/// Which store an image's layers are in.
fn place(store: &Store, image: &ImageRecord) -> &'static str {
    let layers = image.root.layers();
    match layers.iter().filter(|layer| store.is_baked(layer)).count() {
        0 if layers.is_empty() => "",
        0 => "state",
        baked if baked == layers.len() => "read-only",
        _ => "both",
    }
}

fn json(store: &Store, images: &[ImageRecord]) -> String {
    let mut out = String::from("[");
    for (index, image) in images.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let names: Vec<String> = image.names.iter().map(|name| Quoted(name).to_string()).collect();
        let layers: Vec<String> = image.root.layers().iter().map(|layer| format!("\"{layer}\"")).collect();
        let stats = super::unpack::total(store, image);
        let (kind, bytes) = match &image.root {
            Root::Layers(_) => ("layers", stats.bytes),
            Root::Folder(_) => ("folder", stats.bytes),
            Root::File(kind, _) => (kind.name(), image.source.size),
        };
        let id = image.image_id.map_or("null".into(), |id| format!("\"{id}\""));
        let platform = image.config.platform.as_ref().map_or("null".into(), |p| Quoted(&p.to_string()).to_string());
        let _ = write!(
            out,
            "{comma}{{\"image\":{},\"names\":[{}],\"id\":{id},\"platform\":{platform},\"root\":\"{kind}\",\"layers\":[{}],\"store\":\"{}\",\"bytes\":{},\
             \"entries\":{},\"setuid_dropped\":{},\"capabilities_dropped\":{},\"devices_dropped\":{},\"xattrs_dropped\":{}}}",
            Quoted(&image.reference),
            names.join(","),
            layers.join(","),
            place(store, image),
            bytes,
            stats.entries,
            stats.setuid,
            stats.capabilities,
            stats.devices,
            stats.xattrs
        );
    }
    out.push(']');
    out
}

/// The images that a person means by `typed`: the whole reference, the file's name, or the beginning of the ID.
fn meant<'a>(images: &'a [ImageRecord], typed: &str) -> Result<Vec<&'a ImageRecord>, u8> {
    let absolute = std::path::absolute(typed).map(|path| path.display().to_string()).unwrap_or_default();
    let id = typed.strip_prefix("sha256:").unwrap_or(typed);
    let found: Vec<&ImageRecord> = images
        .iter()
        .filter(|image| {
            let reference = &*image.reference;
            let by_id = id.len() >= 6 && image.image_id.is_some_and(|known| known.hex().starts_with(id));
            reference == typed || reference == absolute || reference.rsplit('/').next() == Some(typed) || by_id
        })
        .collect();
    if found.is_empty() {
        output::complain(&format_args!("no unpacked image is called \"{typed}\"; `coracle images` lists them"));
        return Err(exit::FAILED);
    }
    Ok(found)
}

/// Runs `coracle verify`.
pub fn verify(args: &VerifyArgs) -> u8 {
    let work = || -> Result<u8, u8> {
        let store = opened(args.state.as_deref(), args.config.as_deref())?;
        let images = all(&store)?;
        let mut chosen: Vec<&ImageRecord> = Vec::new();
        for typed in &args.images {
            chosen.extend(meant(&images, typed)?);
        }
        if args.images.is_empty() {
            chosen.extend(&images);
        }
        let mut known: Vec<(Digest, Health)> = Vec::new();
        let mut bad = 0;
        for image in chosen {
            if let Root::File(kind, file) = &image.root {
                bad += usize::from(!as_used(image, *kind, file));
            }
            for (index, layer) in image.root.layers().iter().enumerate() {
                let health = match known.iter().find(|(known, _)| known == layer) {
                    Some((_, health)) => *health,
                    None => {
                        let health = store.verify_layer(layer).map_err(|error| fault(&error))?;
                        known.push((*layer, health));
                        health
                    }
                };
                if health != Health::Good {
                    bad += 1;
                    let word = if health == Health::Damaged { "damaged" } else { "missing" };
                    let of = image.root.layers().len();
                    output::line(&format_args!(
                        "{}: layer {} of {of} ({}) is {word}",
                        image.reference,
                        index + 1,
                        layer.short()
                    ));
                }
            }
        }
        let good = known.iter().filter(|(_, health)| *health == Health::Good).count();
        output::line(&format_args!("{good} of {} layers are as they were unpacked", known.len()));
        if bad > 0 {
            output::complain(
                &"`coracle unpack` or the next start of a service unpacks damaged layers anew, if the image's file is there",
            );
        }
        Ok(if bad > 0 { exit::FAILED } else { exit::OK })
    };
    work().unwrap_or_else(|code| code)
}

/// Says how a file that is mounted as it is compares with the one that was first used: by size and time alone, for the
/// store has no checksum of it.
fn as_used(image: &ImageRecord, kind: Mountable, file: &str) -> bool {
    let same = source_id(Path::new(file)).is_ok_and(|found| found == image.source);
    let how = if same {
        "are as when it was first used; its content is not verified"
    } else {
        "are not as when it was first used"
    };
    output::line(&format_args!("{}: {}, mounted as it is: size and time {how}", image.reference, kind.name()));
    same
}

/// Runs `coracle rmi`.
pub fn rmi(args: &RmiArgs) -> u8 {
    if args.images.is_empty() {
        output::complain(&"which image? `coracle images` lists them");
        return exit::USAGE;
    }
    let work = || -> Result<u8, u8> {
        let store = opened(args.state.as_deref(), args.config.as_deref())?;
        for typed in &args.images {
            let images = all(&store)?;
            for image in meant(&images, typed)? {
                let removed = store.remove(image).map_err(|error| fault(&error))?;
                output::line(&format_args!("{}: removed, {}", image.reference, freed(&removed)));
            }
        }
        Ok(exit::OK)
    };
    work().unwrap_or_else(|code| code)
}

/// Runs `coracle prune`.
pub fn prune(args: &PruneArgs) -> u8 {
    let work = || -> Result<u8, u8> {
        let store = opened(args.state.as_deref(), args.config.as_deref())?;
        let removed = store.prune().map_err(|error| fault(&error))?;
        output::line(&format_args!("{} images removed, {}", removed.images, freed(&removed)));
        Ok(exit::OK)
    };
    work().unwrap_or_else(|code| code)
}

fn freed(removed: &Removed) -> String {
    format!("{} layers with {} freed", removed.layers, Bytes(removed.bytes))
}
