//! `coracle pack`: a folder to an image archive, without a container engine.
#![forbid(unsafe_code)]

use super::fault;
use crate::base::exit;
use crate::base::units::Bytes;
use crate::cli::output;
use crate::image::config::{ImageConfig, stop_signal};
use crate::image::pack::{Pack, pack};
use crate::image::platform::Platform;
use argh::FromArgs;
use std::fs::{self, File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Pack a folder into an image archive that docker, podman, skopeo and coracle read. The same folder gives the same
/// bytes; times later than SOURCE_DATE_EPOCH, if that is set, become it.
///
/// Example: coracle pack rootfs -o app.tar --name app:1.2 --entrypoint /bin/app --cmd --serve --env LEVEL=info
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct PackArgs {
    /// the folder that becomes the root file system
    #[argh(positional)]
    folder: PathBuf,

    /// the archive to write
    #[argh(option, short = 'o', arg_name = "file")]
    output: PathBuf,

    /// name and tag of the image, such as app:1.2
    #[argh(option, arg_name = "name")]
    name: Option<String>,

    /// a word of the entrypoint; may be given several times
    #[argh(option, arg_name = "word")]
    entrypoint: Vec<String>,

    /// a word of the command; may be given several times
    #[argh(option, arg_name = "word")]
    cmd: Vec<String>,

    /// KEY=value; may be given several times
    #[argh(option, arg_name = "key=value")]
    env: Vec<String>,

    /// user, uid, user:group or uid:gid that it runs as
    #[argh(option, arg_name = "user")]
    user: Option<String>,

    /// working directory
    #[argh(option, arg_name = "dir")]
    workdir: Option<String>,

    /// signal that asks it to end
    #[argh(option, arg_name = "signal")]
    stop_signal: Option<String>,

    /// architecture, such as arm64, arm/v7 or amd64 (default: this machine's)
    #[argh(option, arg_name = "arch", from_str_fn(arch))]
    arch: Option<Platform>,

    /// uid:gid that owns all files (default: as in the folder)
    #[argh(option, arg_name = "uid:gid", from_str_fn(owner))]
    owner: Option<Owner>,
}

struct Owner(u32, u32);

fn arch(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| format!("{text:?} is no architecture such as arm64, arm/v7 or amd64"))
}

fn owner(text: &str) -> Result<Owner, String> {
    let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let ids = text.split_once(':').and_then(|(user, group)| Some(Owner(id(user)?, id(group)?)));
    ids.ok_or_else(|| format!("{text:?} is not of the form 0:0"))
}

/// Runs the command.
pub fn run(args: &PackArgs) -> u8 {
    if !args.folder.is_dir() {
        output::complain(&format_args!("{} is no folder", args.folder.display()));
        return exit::FAILED;
    }
    let words = |list: &[String]| list.iter().map(|word| word.as_str().into()).collect();
    if let Some(bad) = args.env.iter().find(|entry| entry.split_once('=').is_none_or(|(key, _)| key.is_empty())) {
        output::complain(&format_args!("--env \"{bad}\" is no KEY=value"));
        return exit::USAGE;
    }
    let Ok(stop_signal) = stop_signal(args.stop_signal.as_deref().unwrap_or_default()) else {
        output::complain(&"--stop-signal takes a signal such as TERM, SIGQUIT or 10");
        return exit::USAGE;
    };
    let config = ImageConfig {
        entrypoint: words(&args.entrypoint),
        cmd: words(&args.cmd),
        env: words(&args.env),
        user: args.user.as_deref().unwrap_or_default().into(),
        working_dir: args.workdir.as_deref().unwrap_or_default().into(),
        stop_signal,
        health: None,
        platform: None,
    };
    let platform = args.arch.clone().unwrap_or_else(Platform::native);
    let what = Pack {
        folder: &args.folder,
        name: args.name.as_deref(),
        config: &config,
        platform: &platform,
        owner: args.owner.as_ref().map(|owner| (owner.0, owner.1)),
        newest: std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()),
    };
    write(&what, &args.output)
}

/// Writes beside and renames, so that a half-written archive is never seen under the name.
fn write(what: &Pack<'_>, target: &Path) -> u8 {
    if !output::may_replace(target) {
        return exit::FAILED;
    }
    let mut beside = target.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside);
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            output::complain(&format_args!("cannot write {}: {error}", target.display()));
            return exit::FAILED;
        }
    };
    let packed = pack(what, &mut BufWriter::with_capacity(64 << 10, file));
    let code = match packed {
        Ok(packed) => match sync(&beside).and_then(|()| fs::rename(&beside, target)) {
            Ok(()) => {
                let (size, entries) = (Bytes(packed.bytes), packed.entries);
                output::line(&format_args!(
                    "{}: {size} in {entries} entries\nimage ID {}",
                    target.display(),
                    packed.image_id
                ));
                if packed.sockets > 0 {
                    output::complain(&format_args!("{} sockets left out", packed.sockets));
                }
                return exit::OK;
            }
            Err(error) => {
                output::complain(&format_args!("cannot write {}: {error}", target.display()));
                exit::FAILED
            }
        },
        Err(error) => fault(&error),
    };
    // Nothing half-written stays.
    let _ = fs::remove_file(&beside);
    code
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
