//! `coracle run`: one container in the foreground, with the isolation of a service, which dies with the command.
#![forbid(unsafe_code)]

use super::{images, output, tty};
use crate::base::name::Name;
use crate::base::units::{parse_bytes, parse_percent};
use crate::base::{exit, units};
use crate::config::values;
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;
use crate::image::worker::{self, Job};
use crate::plan::{
    self, CapSet, Device, Limits, Memory, Mount, MountKind, Network, Restart, RestartPolicy, RootFs, Seccomp, Service,
    UserSpec,
};
use crate::sandbox::cgroup::{self, Group, Options, RUN_PREFIX, Tree};
use crate::sandbox::foreground::Foreground;
use crate::sandbox::prepare::{Order, Root, device_rules, has_overlayfs, prepare};
use crate::sandbox::root;
use crate::sandbox::spec::{Net, Stdio};
use crate::supervisor::config_file;
use crate::sys::{meaning, path};
use argh::FromArgs;
use core::mem::ManuallyDrop;
use nix::fcntl::OFlag;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Run one container in the foreground: isolated and limited like a service, with this terminal's input and output. It
/// ends with the command, and its exit code is the command's (125: it could not be started, 126: not executable, 127:
/// not found, 128+N: killed by signal N).
///
/// Example: coracle run --rootfs /srv/rootfs -m 16M -v /data:/data:ro /bin/sensor --once
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct RunArgs {
    /// run in this folder instead of an image; nothing is ever written to it
    #[argh(option)]
    rootfs: Option<String>,
    /// memory limit: a size or "unlimited" (default 64M)
    #[argh(option, short = 'm', default = "\"64M\".into()")]
    memory: String,
    /// limit on processes and threads (default 64)
    #[argh(option, default = "64")]
    pids: u32,
    /// cpu limit in percent of one core, such as 25%
    #[argh(option)]
    cpu: Option<String>,
    /// environment entry, KEY=VALUE; repeatable
    #[argh(option, short = 'e')]
    env: Vec<String>,
    /// user, or user:group, by name or number
    #[argh(option, short = 'u')]
    user: Option<String>,
    /// working directory
    #[argh(option, short = 'w')]
    workdir: Option<String>,
    /// none (default) or host
    #[argh(option, default = "\"none\".into()")]
    network: String,
    /// bind mount or volume, SOURCE:TARGET[:ro]; repeatable
    #[argh(option, short = 'v')]
    volume: Vec<String>,
    /// tmpfs, TARGET or TARGET:SIZE; repeatable
    #[argh(option)]
    tmpfs: Vec<String>,
    /// capability to keep, such as NET_BIND_SERVICE; repeatable
    #[argh(option)]
    cap: Vec<String>,
    /// default, strict, log or off
    #[argh(option, default = "\"default\".into()")]
    seccomp: String,
    /// let the root be written to, in memory
    #[argh(switch)]
    scratch: bool,
    /// give the command a terminal of its own
    #[argh(switch, short = 't')]
    tty: bool,
    /// accepted for the habit: standard input is always connected
    #[argh(switch, short = 'i')]
    #[expect(dead_code, reason = "it asks for what always holds")]
    interactive: bool,
    /// host name inside (default: the container's name)
    #[argh(option)]
    hostname: Option<String>,
    /// the container's name (default: run-PID)
    #[argh(option)]
    name: Option<String>,
    /// folder for unpacked images and volumes (default: as the config of this device says, if it has one, which then names
    /// the image folders and the read-only store, too)
    #[argh(option)]
    state: Option<String>,
    /// the image, unless --rootfs is given; then the command and its arguments
    #[argh(positional, greedy)]
    words: Vec<String>,
}

/// Runs the command.
pub fn run(args: &RunArgs) -> u8 {
    match attempt(args) {
        Ok(code) => code,
        Err((code, sentence)) => {
            if !sentence.is_empty() {
                output::complain(&sentence);
            }
            code
        }
    }
}

type Refusal = (u8, String);

fn usage(sentence: impl Into<String>) -> Refusal {
    (exit::USAGE, sentence.into())
}

fn failed(error: impl core::fmt::Display) -> Refusal {
    (exit::RUN_FAILED, error.to_string())
}

fn attempt(args: &RunArgs) -> Result<u8, Refusal> {
    let device = device(args)?;
    let (image, command) = image_and_command(args, &device)?;
    let service = service(args, command)?;
    let stdio = match args.tty {
        true => {
            let (rows, columns) = tty::size().map_err(usage)?;
            Stdio::Terminal { rows, columns }
        }
        false => Stdio::Inherit,
    };
    let make = || Cgroup::make(Tree::discover_flat(RUN_PREFIX).map_err(failed)?, &service, args.name.is_some());
    let group = if cgroup::stays_put() { None } else { Some(make()?) };
    // Never freed: the container shares its pages, and freeing would copy each of them, right before this process ends.
    let spec = prepare(Order {
        service: &service,
        image: &image.config,
        env: &[],
        root: Some(image.root),
        state: &device.state,
        net: if service.network == Network::Host { Net::Host } else { Net::New },
        stdio,
        join: None,
        cgroup_namespace: true,
        cgroup: None,
        notify: None,
        die_with_parent: true,
    })
    .map(ManuallyDrop::new)
    .map_err(failed)?;
    let running = Foreground::start(&spec).map_err(|failure| (failure.exit_code(), failure.to_string()))?;
    // While the steps are walked: the init starts main when it is told where main belongs.
    let group = group.map_or_else(make, Ok)?;
    running.join(&group.0.join().map_err(failed)?).map_err(failed)?;
    group.1.sweep();
    let terminal = if args.tty { running.terminal() } else { None };
    let end = match terminal {
        Some(master) => {
            tty::proxy(&master, |signal| running.on_signal(signal)).map_err(|errno| failed(meaning(errno)))?
        }
        None => running.wait(),
    };
    let code = end.map_err(|failure| (failure.exit_code(), failure.to_string()))?;
    if group.0.oom_kills() > 0 {
        output::complain(&format_args!("killed at its memory limit of {}; -m sets another", args.memory));
    }
    Ok(code)
}

/// The container's cgroup, removed at the end whatever happens.
struct Cgroup(Group, Tree);

impl Cgroup {
    fn make(mut tree: Tree, service: &Service, name_is_given: bool) -> Result<Cgroup, Refusal> {
        let rules = device_rules(service);
        // It tells whose it is, for `Tree::sweep`.
        let name = match service.name.as_str() {
            given if name_is_given => format!("{given}-{}", std::process::id()),
            own => own.to_owned(),
        };
        let group = tree.create(&name, &service.limits, &rules, &Options::default()).map_err(failed)?;
        Ok(Cgroup(group, tree))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove().and_then(|()| self.1.remove()) {
            output::complain(&error);
        }
    }
}

/// A root file system and what its image says.
struct Image {
    root: Root,
    config: ImageConfig,
    /// Keeps it in the store while the container runs.
    _pin: Option<OwnedFd>,
}

/// Where images and volumes are: as the config of this device says. Not looked at for what needs neither.
fn device(args: &RunArgs) -> Result<Device, Refusal> {
    let needs_none = args.rootfs.is_some() && args.volume.iter().all(|volume| volume.starts_with('/'));
    match &args.state {
        None if needs_none || !Path::new(config_file::DEFAULT).exists() => Ok(Device::default()),
        state => images::device(state.as_deref().map(Path::new), None).map_err(said),
    }
}

/// What has been said by then.
fn said(code: u8) -> Refusal {
    (code, String::new())
}

/// The image, and the command given.
fn image_and_command(args: &RunArgs, device: &Device) -> Result<(Image, Vec<Box<str>>), Refusal> {
    let words = |words: &[String]| -> Vec<Box<str>> { words.iter().map(|word| word.as_str().into()).collect() };
    let Some(folder) = &args.rootfs else {
        let Some((image, rest)) = args.words.split_first() else {
            return Err(usage("no root file system: name an image, or give --rootfs DIR"));
        };
        let image = image_root(device, image)?;
        // As Docker does: the words replace the image's cmd, its entrypoint stays.
        let mut command = if rest.is_empty() { Vec::new() } else { image.config.entrypoint.clone() };
        command.append(&mut words(rest));
        return Ok((image, command));
    };
    let name = CString::new(folder.as_str()).map_err(|_| usage("--rootfs holds a NUL byte"))?;
    let folder = path::open(&name, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map_err(|errno| failed(format!("the root folder {folder} cannot be opened: {errno}")))?;
    let image = Image { root: Root::Folder(folder, name), config: ImageConfig::empty(), _pin: None };
    Ok((image, words(&args.words)))
}

/// Unpacks the image into the state folder, unless it is there. Not inlined: with --rootfs its frame is not paid for.
#[inline(never)]
fn image_root(device: &Device, image: &str) -> Result<Image, Refusal> {
    let image = images::locate(device, image).map_err(said)?;
    let store = images::store(device).map_err(said)?;
    let job = Job { image, platform: Platform::native(), caps: device.image_caps };
    let invalid = |error: crate::image::ImageError| (images::fault(&error), String::new());
    let record = worker::run(&store, job, &mut |_| {}).map_err(invalid)?;
    let pin = store.pin(&record).map_err(invalid)?;
    let root = root::open(&store, &record, has_overlayfs()).map_err(failed)?;
    Ok(Image { root, config: record.config, _pin: Some(pin) })
}

/// The service that the arguments describe.
fn service(args: &RunArgs, command: Vec<Box<str>>) -> Result<Service, Refusal> {
    let name = args.name.clone().unwrap_or_else(|| format!("run-{}", std::process::id()));
    let memory = match args.memory.as_str() {
        "unlimited" => Memory::Unlimited,
        size => Memory::Max(
            parse_bytes(size).map_err(|_| usage(format!("--memory {size}: not a size like 64M, nor \"unlimited\"")))?,
        ),
    };
    let mut limits = Limits::with_memory(memory);
    limits.pids = args.pids;
    if let Some(share) = &args.cpu {
        let percent = parse_percent(share).map_err(|_| usage(format!("--cpu {share}: not a share like 25%")))?;
        limits.cpu = Some(percent);
    }
    let user = args.user.as_ref().map(|user| match user.split_once(':') {
        Some((user, group)) => UserSpec { user: user.into(), group: Some(group.into()) },
        None => UserSpec { user: user.as_str().into(), group: None },
    });
    let mut capabilities = CapSet::EMPTY;
    for name in &args.cap {
        let number = CapSet::number(name).ok_or_else(|| usage(format!("--cap {name}: no such capability")))?;
        capabilities = capabilities.with(number);
    }
    if let Some(bad) = args.env.iter().find(|entry| !entry.contains('=')) {
        return Err(usage(format!("--env {bad}: an entry is KEY=VALUE")));
    }
    let tmpfs = args.tmpfs.iter().map(|text| tmpfs(text));
    let name = Name::new(&name).map_err(|bad| usage(format!("--name {name}: {bad}")))?;
    Ok(Service {
        command,
        user,
        env: args.env.iter().map(|entry| entry.as_str().into()).collect(),
        working_dir: args.workdir.as_deref().map(Into::into),
        hostname: args.hostname.as_deref().map(Into::into),
        root_fs: if args.scratch { RootFs::Scratch } else { RootFs::ReadOnly },
        mounts: args.volume.iter().map(|text| volume(text)).chain(tmpfs).collect::<Result<_, _>>()?,
        restart: Restart { policy: RestartPolicy::No, ..Restart::default() },
        network: match args.network.as_str() {
            "none" => Network::None,
            "host" => Network::Host,
            other => return Err(usage(format!("--network {other}: none or host"))),
        },
        capabilities,
        seccomp: match args.seccomp.as_str() {
            "default" => Seccomp::Default,
            "strict" => Seccomp::Strict,
            "log" => Seccomp::Log,
            "off" => Seccomp::Off,
            other => return Err(usage(format!("--seccomp {other}: default, strict, log or off"))),
        },
        // What the root is made of is the caller's business: it has been found already.
        ..Service::new(name, plan::Root::Image("".into()), limits)
    })
}

/// `SOURCE:TARGET[:ro]`; a source without a slash is a volume's name.
fn volume(text: &str) -> Result<Mount, Refusal> {
    let bad = || usage(format!("--volume {text}: SOURCE:TARGET or SOURCE:TARGET:ro, with an absolute target"));
    let (text, read_only) = match text.strip_suffix(":ro") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (source, target) = text.split_once(':').filter(|(_, target)| target.starts_with('/')).ok_or_else(bad)?;
    let kind = match source.starts_with('/') {
        true => MountKind::Bind(source.into()),
        false => MountKind::Volume(Name::new(source).map_err(|_| bad())?),
    };
    place("--volume", target)?;
    Ok(Mount { kind, target: target.into(), read_only })
}

/// Whether something may be mounted at `target`: the same places as in a config.
fn place(option: &str, target: &str) -> Result<(), Refusal> {
    values::target(target).map_err(|bad| usage(format!("{option}: the target {}", bad.message)))
}

/// `TARGET` or `TARGET:SIZE`.
fn tmpfs(text: &str) -> Result<Mount, Refusal> {
    let bad = || usage(format!("--tmpfs {text}: TARGET or TARGET:SIZE, with an absolute target"));
    let (target, size) = match text.split_once(':') {
        Some((target, size)) => (target, parse_bytes(size).map_err(|_| bad())?),
        None => (text, units::Bytes(16 << 20)),
    };
    let target = Some(target).filter(|target| target.starts_with('/')).ok_or_else(bad)?;
    place("--tmpfs", target)?;
    Ok(Mount { kind: MountKind::Tmpfs(size), target: target.into(), read_only: false })
}
