//! From a service and what was found for it to a [`Spec`]: descriptors are opened and facts are looked up here, before
//! the clone, by the process that has a heap and can say at length what is wrong.
#![forbid(unsafe_code)]

use super::capabilities::Credentials;
use super::cgroup::devices::{Access, Kind};
use super::cgroup::{DeviceRule, Join};
use super::command;
use super::ids::Ids;
use super::root::Disk;
use super::secrets;
use super::spec::{Bind, Main, Net, Node, Place, Source, Spec, Stdio};
use super::steps::{self, Found, FoundMount, FoundRoot, Lower, SCRATCH};
use super::usb;
use crate::base::read::read_up_to;
use crate::image::config::ImageConfig;
use crate::plan::{DeviceNode, Memory, MountKind, Network, Ready, RlimitKind, RootFs, Service, UserSpec};
use crate::seccomp;
use crate::sys::path::{self, Links};
use crate::sys::process::CStrings;
use crate::sys::{Errno, meaning, terminal};
use nix::fcntl::OFlag;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// What a start needs to know.
pub struct Order<'a> {
    /// The service.
    pub service: &'a Service,
    /// What its image says about the process.
    pub image: &'a ImageConfig,
    /// The entries of its environment files.
    pub env: &'a [String],
    /// Its root file system; `None`: the host's own, without a container.
    pub root: Option<Root>,
    /// The state folder: volumes and kept upper layers.
    pub state: &'a str,
    /// Its network namespace; must agree with the service's [`Network`].
    pub net: Net,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// How the first process gets into its cgroup.
    pub join: Option<Join>,
    /// Whether it gets a cgroup namespace rooted at that cgroup.
    pub cgroup_namespace: bool,
    /// A cgroup v2 folder that the container may look at, and where it was opened.
    pub cgroup: Option<(OwnedFd, CString)>,
    /// Whether the container ends with the process that starts it.
    pub die_with_parent: bool,
    /// The path of its notify socket as main sees it, if it has one.
    pub notify: Option<&'a str>,
}

/// A root file system, as descriptors of folders.
pub enum Root {
    /// A folder of somebody else's, and where it was opened: nothing is ever written to it.
    Folder(OwnedFd, CString),
    /// Layers, the lowest first.
    Layers(Vec<OwnedFd>),
    /// One folder of coracle's own with all layers in it, for kernels without overlayfs.
    Flat(OwnedFd),
    /// A file system image as a block device.
    Disk(Disk),
}

/// Whether this kernel has overlayfs: a mount(2) without layers fails on that, and only a kernel without the file system,
/// as built-in or module, calls the type unknown.
pub fn has_overlayfs() -> bool {
    crate::sys::mount::mount(c"overlay", c"/", 0, c"") != Err(Errno(libc::ENODEV))
}

/// The error is a sentence.
type Result<T> = core::result::Result<T, String>;

/// Largest passwd, group, hosts or resolv.conf read, in bytes: devices have short ones, and a hostile image may have a
/// sparse one of gigabytes.
const SMALL_FILE_BYTES: u64 = 256 << 10;

/// Resolves `order` into a [`Spec`].
pub fn prepare(order: Order<'_>) -> Result<Spec> {
    let service = order.service;
    let mut held: Vec<OwnedFd> = Vec::new();
    let stdio = stdio(&order, &mut held)?;
    let ids = ids(&order)?;
    let resolve = |own: &[Box<str>]| command::resolve(service, own, order.image, order.env, &ids.home, stdio);
    let beside = |own: &[Box<str>]| match own.is_empty() {
        true => Ok(None),
        false => process(&order, &ids, &resolve(own)?, stdio).map(Some),
    };
    let (pre_start, post_stop) = (beside(&service.pre_start)?, beside(&service.post_stop)?);
    let post_stop = post_stop.map(|command| (command, service.stop.timeout));
    let mut command = resolve(&service.command)?;
    tell(&order, &mut command.env);
    let mut main = process(&order, &ids, &command, stdio)?;
    if let Ready::Fd(fd) = service.ready {
        main.ready_fd = Some(fd.into());
    }
    main.sockets = service.sockets.len();
    main.watchdog_pid = order.notify.is_some() && service.ping_period().is_some();
    let (place, steps) = match &order.root {
        None => (Place::Host, steps::on_host(order.net)),
        Some(root) => {
            let found = find(&order, root, (ids.uid, ids.gid), stdio, &command.working_dir, &mut held)?;
            (Place::Container, steps::compose(found))
        }
    };
    main.join = order.join;
    held.extend(order.cgroup.map(|(folder, _)| folder));
    match order.root {
        Some(Root::Folder(folder, _) | Root::Flat(folder)) => held.push(folder),
        Some(Root::Layers(layers)) => held.extend(layers),
        Some(Root::Disk(disk)) => held.extend([disk.device, disk.tree]),
        None => {}
    }
    let init_filter = seccomp::compile(seccomp::Profile::Init, crate::plan::CapSet::EMPTY, false);
    Ok(Spec {
        place,
        steps,
        pre_start,
        post_stop,
        main,
        init_filter,
        net: order.net,
        die_with_parent: order.die_with_parent,
        stdio,
        held,
        closed: Vec::new(),
    })
}

/// A process of the service, as main, `pre_start` and `post_stop` are.
fn process(order: &Order<'_>, ids: &Ids, command: &command::Command, stdio: Stdio) -> Result<Main> {
    let service = order.service;
    let strings = |list: &[String]| CStrings::of(list).map_err(|error| format!("{error:?}: a NUL byte in the command"));
    Ok(Main {
        programs: strings(&command.programs)?,
        argv: strings(&command.argv)?,
        env: strings(&command.env)?,
        working_dir: text(&command.working_dir)?,
        credentials: Credentials {
            uid: ids.uid,
            gid: ids.gid,
            groups: ids.groups.as_slice().into(),
            caps: service.capabilities,
        },
        filter: seccomp::for_service(service.seccomp, service.capabilities, false),
        rlimits: rlimits(service),
        oom_score_adj: oom_score_adj(service.oom_score_adj),
        cgroup_namespace: order.cgroup_namespace,
        join: None,
        terminal: matches!(stdio, Stdio::Terminal { .. } | Stdio::Device(_)),
        ready_fd: None,
        sockets: 0,
        watchdog_pid: false,
    })
}

/// Tells main of its notify socket (sd_notify(3)) and of the sockets that it gets (sd_listen_fds(3)).
fn tell(order: &Order<'_>, env: &mut Vec<String>) {
    if let Some(socket) = order.notify {
        env.push(format!("NOTIFY_SOCKET={socket}"));
        if let Some(period) = order.service.ping_period() {
            env.push(format!("WATCHDOG_USEC={}", period.0.saturating_mul(1000)));
        }
    }
    let names: Vec<&str> = order.service.sockets.iter().map(|socket| &*socket.name).collect();
    if !names.is_empty() {
        env.push(format!("LISTEN_FDS={}", names.len()));
        env.push(format!("LISTEN_FDNAMES={}", names.join(":")));
    }
}

/// Where standard input and outputs come from: the service's terminal, if it names one.
fn stdio(order: &Order<'_>, held: &mut Vec<OwnedFd>) -> Result<Stdio> {
    let Some(device) = &order.service.tty else { return Ok(order.stdio) };
    let terminal = terminal::open_device(&text(device)?).map_err(|errno| match errno.0 {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => {
            format!("the terminal {device} does not exist here; load its driver, or name another tty")
        }
        libc::ENOTTY => format!("{device} is no terminal; name another tty"),
        _ => format!("the terminal {device} cannot be opened: {errno}"),
    })?;
    let stdio = Stdio::Device(terminal.as_raw_fd());
    held.push(terminal);
    Ok(stdio)
}

/// What the steps of a container are made from.
fn find(
    order: &Order<'_>,
    root: &Root,
    owner: (u32, u32),
    stdio: Stdio,
    working_dir: &str,
    held: &mut Vec<OwnedFd>,
) -> Result<Found> {
    let service = order.service;
    let hostname = service.hostname.as_deref().unwrap_or(service.name.as_str());
    let mut mounts = Vec::with_capacity(service.mounts.len());
    for mount in &service.mounts {
        mounts.push(find_mount(mount, order.state, owner, held)?);
    }
    let mut devices = Vec::with_capacity(service.devices.len());
    for device in &service.devices {
        if let Some(node) = find_device(device, owner)? {
            devices.push(node);
        }
    }
    let secrets = secrets::find(&service.secrets, owner, held)?;
    let root = find_root(order, root, &mounts, held)?;
    Ok(Found {
        root_fs: service.root_fs,
        owner,
        memory: match service.limits.memory {
            Memory::Max(bytes) => Some(bytes),
            Memory::Unlimited => None,
        },
        devices,
        files: files(hostname, service.network),
        working_dir: match &root {
            FoundRoot::Folder { may_create: false, .. } | FoundRoot::Disk(..) => CString::default(),
            _ => beneath(working_dir)?,
        },
        root,
        mounts,
        secrets,
        hostname: text(hostname)?,
        cgroup: order.cgroup.as_ref().map(|(folder, path)| source_at(folder, path)).transpose()?,
        hidden: thermal_folders(),
        own_network: service.network == Network::None,
        notify: order.notify.is_some(),
        stdio,
    })
}

/// The user of the service, or of the image, or root.
fn ids(order: &Order<'_>) -> Result<Ids> {
    let image_user = || {
        let (user, group) = match order.image.user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (&*order.image.user, None),
        };
        (!user.is_empty()).then(|| UserSpec { user: user.into(), group: group.map(Into::into) })
    };
    let Some(user) = order.service.user.clone().or_else(image_user) else { return Ok(Ids::root()) };
    let Some(root) = &order.root else { return host_ids(&user) };
    let (passwd, group) = (image_file(root, c"etc/passwd")?, image_file(root, c"etc/group")?);
    Ids::lookup(&user, &passwd, &group).map_err(|error| error.to_string())
}

/// A user of the board.
pub(super) fn host_ids(user: &UserSpec) -> Result<Ids> {
    let (passwd, group) = (host_file(c"etc/passwd")?, host_file(c"etc/group")?);
    Ids::lookup(user, &passwd, &group).map_err(|error| error.to_string())
}

/// A small file of the host, which whoever set the board up answers for; empty if it is missing.
fn host_file(name: &CStr) -> Result<Vec<u8>> {
    let path = format!("/{}", lossy(name));
    let fail = |error: std::io::Error| format!("{path} cannot be read: {error}");
    match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        file => read_up_to(&mut file.map_err(fail)?, SMALL_FILE_BYTES).map_err(fail),
    }
}

/// A small file of the image, read from its read-only layers: the highest that has it counts. Only a regular file is
/// read; a FIFO or device in its place would hang the supervisor, a link could lead anywhere.
fn image_file(root: &Root, name: &CStr) -> Result<Vec<u8>> {
    let folders = match root {
        Root::Folder(folder, _) | Root::Flat(folder) => core::slice::from_ref(folder),
        Root::Layers(layers) => layers.as_slice(),
        Root::Disk(disk) => core::slice::from_ref(&disk.tree),
    };
    for folder in folders.iter().rev() {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut file = match path::open_beneath(folder.as_fd(), name, flags, Links::Refuse) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno(libc::ENOENT | libc::ENOTDIR)) => continue,
            // A whiteout is a device that no driver serves: the file was removed by this layer.
            Err(Errno(libc::ENXIO)) => return Ok(Vec::new()),
            Err(Errno(libc::ELOOP)) => {
                let sentence = "is a symbolic link, or lies behind one, so no user can be looked up in it";
                return Err(format!("the image's /{} {sentence}; make it a plain file", lossy(name)));
            }
            Err(errno) => return Err(format!("the image's /{} cannot be read: {errno}", lossy(name))),
        };
        let size = file.metadata().map_err(|error| format!("/{}: {error}", lossy(name)))?;
        if !size.is_file() || size.len() > SMALL_FILE_BYTES {
            let name = lossy(name);
            let most = SMALL_FILE_BYTES >> 10;
            return Err(format!("the image's /{name} is no regular file of at most {most}K"));
        }
        let read = read_up_to(&mut file, SMALL_FILE_BYTES);
        return read.map_err(|error| format!("/{}: {error}", lossy(name)));
    }
    Ok(Vec::new())
}

/// Decides how the root is assembled.
fn find_root(order: &Order<'_>, root: &Root, mounts: &[FoundMount], held: &mut Vec<OwnedFd>) -> Result<FoundRoot> {
    let service = order.service;
    let layers = match root {
        Root::Flat(folder) if service.root_fs == RootFs::ReadOnly => {
            return Ok(FoundRoot::Folder { source: source(folder)?, may_create: true });
        }
        Root::Flat(_) => {
            let sentence = "this kernel has no overlayfs, so root_fs can only be \"read-only\"; put a volume where the \
                            service writes";
            return Err(sentence.into());
        }
        Root::Folder(folder, path) if service.root_fs == RootFs::ReadOnly && has_mount_points(folder, mounts) => {
            return Ok(FoundRoot::Folder { source: source_at(folder, path)?, may_create: false });
        }
        Root::Disk(disk) if service.root_fs == RootFs::ReadOnly && has_mount_points(&disk.tree, mounts) => {
            return Ok(FoundRoot::Disk(source(&disk.device)?, disk.kind));
        }
        Root::Folder(folder, path) => Lower::Folders(vec![source_at(folder, path)?]),
        Root::Layers(layers) => {
            let mut sources = Vec::with_capacity(layers.len());
            for layer in layers.iter().rev() {
                sources.push(source(layer)?);
            }
            Lower::Folders(sources)
        }
        Root::Disk(disk) => Lower::Disk(source(&disk.device)?, disk.kind),
    };
    let upper = match service.root_fs {
        RootFs::ReadOnly | RootFs::Scratch => None,
        RootFs::Persistent => {
            let folder = format!("{}/services/{}", order.state, service.name);
            for name in ["upper", "work", "root"] {
                make_folder(&format!("{folder}/{name}"), 0o755)?;
            }
            let fd = open(&folder, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            let upper = Source { fd: fd.as_raw_fd(), path: text(&folder)? };
            held.push(fd);
            Some(upper)
        }
    };
    Ok(FoundRoot::Layers { lower: layers, upper })
}

/// Whether everything that gets mounted finds its place in `folder`.
fn has_mount_points(folder: &OwnedFd, mounts: &[FoundMount]) -> bool {
    let usual = [c"proc", c"sys", c"dev"].into_iter().chain(SCRATCH.into_iter().map(|(path, _)| path));
    usual.chain(mounts.iter().map(FoundMount::target)).all(|place| {
        // What is there but cannot be entered fails later, with its own message.
        let found = path::open_beneath(folder.as_fd(), place, OFlag::O_PATH, Links::InRoot);
        found.err() != Some(Errno(libc::ENOENT))
    })
}

fn find_mount(
    mount: &crate::plan::Mount,
    state: &str,
    owner: (u32, u32),
    held: &mut Vec<OwnedFd>,
) -> Result<FoundMount> {
    let target = beneath(&mount.target)?;
    let (path, flags) = match &mount.kind {
        MountKind::Tmpfs(size) => return Ok(FoundMount::Tmpfs { target, size: *size, read_only: mount.read_only }),
        MountKind::Volume(name) => (volume(state, name.as_str(), owner)?, OFlag::O_PATH | OFlag::O_DIRECTORY),
        MountKind::Bind(source) => (source.to_string(), OFlag::O_PATH),
    };
    let fd = path::open(&text(&path)?, flags).map_err(|errno| match errno.0 {
        libc::ENOENT => format!(
            "{path}, to be mounted at {}, does not exist on this device; create it or remove the mount",
            mount.target
        ),
        _ => format!("{path}, to be mounted at {}, cannot be opened: {errno}", mount.target),
    })?;
    let status = nix::sys::stat::fstat(&fd).map_err(|errno| format!("{path}: {}", meaning(errno)))?;
    let bind = Bind {
        source: Source { fd: fd.as_raw_fd(), path: text(&path)? },
        target,
        directory: status.st_mode & libc::S_IFMT == libc::S_IFDIR,
        read_only: mount.read_only,
        devices: false,
    };
    held.push(fd);
    Ok(FoundMount::Bind(bind))
}

/// A descriptor with the path that it has on the host now.
fn source(fd: &OwnedFd) -> Result<Source> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = std::fs::read_link(&link).map_err(|error| format!("{link} cannot be read: {error}"))?;
    let path = CString::new(path.into_os_string().into_encoded_bytes());
    let path = path.map_err(|_| format!("{link} leads to a path with a NUL byte"))?;
    Ok(Source { fd: fd.as_raw_fd(), path })
}

/// A descriptor with the path that it was opened at, which need not be asked for. Whoever opens that again sees whether it
/// leads elsewhere by then.
fn source_at(fd: &OwnedFd, path: &CStr) -> Result<Source> {
    match path.to_bytes().first() {
        Some(b'/') => Ok(Source { fd: fd.as_raw_fd(), path: path.to_owned() }),
        _ => source(fd),
    }
}

/// The folder of a volume, made on first use and given to the service's user then.
fn volume(state: &str, name: &str, owner: (u32, u32)) -> Result<String> {
    let folder = format!("{state}/volumes/{name}");
    if make_folder(&folder, 0o755)? {
        std::os::unix::fs::chown(&folder, Some(owner.0), Some(owner.1))
            .map_err(|error| format!("{folder} cannot be given to user {}: {error}", owner.0))?;
    }
    Ok(folder)
}

/// Makes a folder and those above it; `false` if it was there.
fn make_folder(folder: &str, mode: u32) -> Result<bool> {
    let fail = |error: std::io::Error| format!("the folder {folder} cannot be made: {error}");
    if let Some((above, _)) = folder.rsplit_once('/') {
        crate::sys::folder::make_all(above.as_ref(), 0o711).map_err(fail)?;
    }
    match crate::sys::folder::make(folder.as_ref(), mode) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(fail(error)),
    }
}

/// The node of a device; `None` for an optional one that is missing.
fn find_device(device: &DeviceNode, owner: (u32, u32)) -> Result<Option<Node>> {
    let place = usb::place(device);
    let status = match std::fs::metadata(&*place) {
        Ok(status) => status,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && device.optional => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!(
                "the device {place} does not exist here; connect it, load its driver, or mark it \"optional\": true"
            ));
        }
        Err(error) => return Err(format!("{place}: {error}")),
    };
    let kind = status.mode() & libc::S_IFMT;
    if kind != libc::S_IFCHR && kind != libc::S_IFBLK {
        return Err(format!("{place} is no device node"));
    }
    if !device.path.starts_with("/dev/") {
        return Err(format!("the device {} does not lie in /dev", device.path));
    }
    let permissions = (u32::from(device.rules.read) * 0o440) | (u32::from(device.rules.write) * 0o220);
    let (path, mode) = (beneath(&device.path)?, kind | permissions);
    Ok(Some(Node { path, mode, device: status.rdev() as libc::dev_t, owner: Some(owner) }))
}

/// The device allow-list of a service: what every container has, and the service's own. A device that is missing now
/// is left out; [`prepare`] says so.
pub fn device_rules(service: &Service) -> Vec<DeviceRule> {
    const ALL: Access = Access::READ.and(Access::WRITE).and(Access::MKNOD);
    // The pseudo-terminals: /dev/pts/ptmx and the slaves.
    let usual = steps::NODES.iter().map(|(_, major, minor)| (*major, Some(*minor))).chain([(5, Some(2)), (136, None)]);
    let usual = usual.map(|(major, minor)| DeviceRule { kind: Kind::Char, major, minor, access: ALL });
    let mut rules: Vec<DeviceRule> = usual.collect();
    for device in &service.devices {
        let Ok(Some(node)) = find_device(device, (0, 0)) else { continue };
        let kind = if node.mode & libc::S_IFMT == libc::S_IFBLK { Kind::Block } else { Kind::Char };
        let read = u8::from(device.rules.read) * Access::READ.0;
        let access = Access(read | (u8::from(device.rules.write) * Access::WRITE.0));
        rules.push(DeviceRule { kind, major: libc::major(node.device), minor: Some(libc::minor(node.device)), access });
    }
    rules
}

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`: on the host's network the host's own, else what holds without
/// any network.
fn files(hostname: &str, network: Network) -> Vec<(&'static CStr, Vec<u8>)> {
    let host = |path: &str| read_up_to(&mut std::fs::File::open(path).ok()?, 16 << 10).ok();
    let (resolv, host_names) = match network {
        Network::Host => (host("/etc/resolv.conf").unwrap_or_default(), host("/etc/hosts")),
        Network::None => (Vec::new(), None),
    };
    let local = || format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n").into_bytes();
    let hosts = host_names.unwrap_or_else(local);
    vec![(c"hosts", hosts), (c"hostname", format!("{hostname}\n").into_bytes()), (c"resolv.conf", resolv)]
}

/// The thermal throttle counters of every cpu, which tell what others compute.
fn thermal_folders() -> Vec<CString> {
    let folder = |cpu: usize| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    let mut found = Vec::new();
    for cpu in 0..4096 {
        let folder = folder(cpu);
        if !std::path::Path::new(&folder).exists() {
            break;
        }
        found.extend(beneath(&folder));
    }
    found
}

fn rlimits(service: &Service) -> Vec<(i32, u64, u64)> {
    // A core dump goes where the host says, outside of every limit of the service.
    let mut limits = vec![(resource(RlimitKind::Core), 0, 0)];
    for limit in &service.rlimits {
        limits.retain(|(number, ..)| *number != resource(limit.kind));
        limits.push((resource(limit.kind), limit.soft, limit.hard));
    }
    limits
}

/// What to write, if it is not what is inherited anyway: writing an equal value is refused to those who may not lower
/// it.
fn oom_score_adj(wanted: i16) -> Option<CString> {
    let mut text = [0; 16];
    let file = path::open(c"/proc/self/oom_score_adj", OFlag::O_RDONLY);
    let length = file.ok().and_then(|file| nix::unistd::read(&file, &mut text).ok()).unwrap_or(0);
    let own = text.get(..length).and_then(|text| core::str::from_utf8(text).ok());
    let (own, wanted) = (own.and_then(|text| text.trim().parse().ok()).unwrap_or(0), i32::from(wanted));
    if own == wanted { None } else { CString::new(wanted.to_string()).ok() }
}

fn open(path: &str, flags: OFlag) -> Result<OwnedFd> {
    path::open(&text(path)?, flags).map_err(|errno| format!("{path} cannot be opened: {errno}"))
}

/// An absolute path as one beneath the root.
fn beneath(path: &str) -> Result<CString> {
    text(path.trim_matches('/'))
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| format!("{text:?} holds a NUL byte"))
}

fn lossy(name: &CStr) -> std::borrow::Cow<'_, str> {
    name.to_string_lossy()
}

/// The kernel's number of a resource limit on this architecture.
pub(super) fn resource(kind: RlimitKind) -> i32 {
    let number = match kind {
        RlimitKind::As => libc::RLIMIT_AS,
        RlimitKind::Core => libc::RLIMIT_CORE,
        RlimitKind::Cpu => libc::RLIMIT_CPU,
        RlimitKind::Data => libc::RLIMIT_DATA,
        RlimitKind::Fsize => libc::RLIMIT_FSIZE,
        RlimitKind::Memlock => libc::RLIMIT_MEMLOCK,
        RlimitKind::Msgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitKind::Nice => libc::RLIMIT_NICE,
        RlimitKind::Nofile => libc::RLIMIT_NOFILE,
        RlimitKind::Nproc => libc::RLIMIT_NPROC,
        RlimitKind::Rtprio => libc::RLIMIT_RTPRIO,
        RlimitKind::Rttime => libc::RLIMIT_RTTIME,
        RlimitKind::Sigpending => libc::RLIMIT_SIGPENDING,
        RlimitKind::Stack => libc::RLIMIT_STACK,
    };
    number as i32
}
