//! The keys of one entry of `services`.

use super::life::{RESTART, STOP, TIMER};
use super::{GIB, HOUR, KIB, Kind, MIB, Object, TIB, health, optional, required, with_vars};
use crate::base::limits;
use crate::config::values::Text;

/// One entry of `services`.
pub static SERVICE: Object = Object {
    name: "a service",
    either: &["image", "root"],
    keys: &[
        required(
            "name",
            Kind::Text(Text::Name),
            "\"broker\"",
            "The service's name: a-z, 0-9, '.', '_' and '-', at most 63.",
        ),
        optional(
            "image",
            Kind::Text(Text::Image),
            "this or `root`",
            "\"mosquitto.tar\"",
            "The image: a file or folder in one of `device.images`, or an absolute path; followed by `#name:tag` or \
             `#sha256:...` when the archive holds several.",
        ),
        optional(
            "root",
            Kind::Word(&["host"]),
            "this or `image`",
            "\"host\"",
            "`host`: a program of the board itself instead of an image, under the same limits, restarts and logs. \
             `command` is then needed, with the program's full path; `network`, `capabilities`, `seccomp` and `devices` \
             restrict it only where they are written.",
        ),
        optional(
            "type",
            Kind::Word(&["daemon", "oneshot"]),
            "\"daemon\"",
            "\"oneshot\"",
            "`daemon`: it runs until it is stopped. `oneshot`: it does one thing and ends; with exit code 0 it is done.",
        ),
        optional(
            "when",
            Kind::Object(&WHEN),
            "always",
            "{ \"missing\": \"/data/keys/tls.key\" }",
            "What must hold on the board for it to start. Where it does not, it is skipped, which counts as done.",
        ),
        with_vars(optional(
            "command",
            Kind::Texts(Text::Any, limits::ARGV),
            "the image's entrypoint and cmd",
            "[\"mosquitto\", \"-c\", \"/mosquitto.conf\"]",
            "Program and arguments. No shell is involved.",
        )),
        with_vars(optional(
            "pre_start",
            Kind::Texts(Text::Any, limits::ARGV),
            "none",
            "[\"mkdir\", \"-p\", \"/run/broker\"]",
            "Program and arguments that run before `command` at each start, in the same sandbox, as the same user, within \
             `start_timeout`. Unless it ends with exit code 0 the start has failed.",
        )),
        with_vars(optional(
            "post_stop",
            Kind::Texts(Text::Any, limits::ARGV),
            "none",
            "[\"rm\", \"-f\", \"/data/lock\"]",
            "Program and arguments that run after each end of `command`, once nothing else of the service runs, in the same \
             sandbox, as the same user, within `stop.timeout`. `SERVICE_RESULT` (`success`, `exit-code`, `signal`, \
             `core-dump` or `killed`), `EXIT_CODE` and `EXIT_STATUS` tell how it ended, as systemd's `ExecStopPost` has \
             them. That it fails is shown and changes nothing.",
        )),
        optional(
            "user",
            Kind::Text(Text::User),
            "the image's; root with `root`",
            "\"1883:1883\"",
            "Who it runs as: user or user:group, by number or by a name that the image (with `root`: the board) knows.",
        ),
        with_vars(optional(
            "env",
            Kind::Texts(Text::Env, limits::ENV),
            "[]",
            "[\"LEVEL=info\"]",
            "Environment, over that of `env_files`. Nothing of coracle's own environment is passed on.",
        )),
        optional(
            "env_files",
            Kind::Texts(Text::Path, limits::ENV_FILES),
            "[]",
            "[\"/data/broker.env\"]",
            "Files of the board with KEY=value lines, read at each start, over the image's environment; a later file \
             wins over an earlier one.",
        ),
        optional(
            "secrets",
            Kind::Objects(&SECRET, limits::SECRETS),
            "[]",
            "[ { \"file\": \"/data/keys/tls.key\", \"target\": \"/run/secrets/tls.key\" } ]",
            "Files of the board that it gets a copy of, in memory, owned by its user, mode 0400. Never shown.",
        ),
        optional(
            "sockets",
            Kind::Objects(&SOCKET, limits::SOCKETS),
            "[]",
            "[ { \"name\": \"http\", \"tcp\": \"0.0.0.0:80\" } ]",
            "Sockets that listen before it starts and as long as it is not stopped, across its restarts and those of \
             coracle: what comes meanwhile waits. It gets them from descriptor 3 on, as LISTEN_FDS, LISTEN_PID and \
             LISTEN_FDNAMES tell it (sd_listen_fds(3)), also where it has no network of its own.",
        ),
        optional(
            "tty",
            Kind::Text(Text::DevicePath),
            "none",
            "\"/dev/ttyS0\"",
            "The terminal that becomes its input, output, error and controlling terminal: for a getty on a serial \
             console, or a menu on a screen. What it writes goes there and not to its log.",
        ),
        optional("working_dir", Kind::Text(Text::Path), "the image's", "\"/srv\"", "Working directory, inside."),
        with_vars(optional(
            "hostname",
            Kind::Text(Text::HostName),
            "the service's name",
            "\"broker\"",
            "Host name, inside.",
        )),
        required(
            "limits",
            Kind::Object(&LIMITS),
            "{ \"memory\": \"24M\", \"pids\": 16, \"cpu\": \"25%\" }",
            "What it may use; the kernel enforces it.",
        ),
        optional(
            "rlimits",
            Kind::Objects(&RLIMIT, limits::RLIMITS),
            "[] (core dumps are off)",
            "[ { \"name\": \"nofile\", \"soft\": \"1024\" } ]",
            "Resource limits of the process (setrlimit(2)).",
        ),
        optional(
            "oom_score_adj",
            Kind::Integer(-1000, 1000),
            "0",
            "500",
            "Who the kernel kills when the whole board is out of memory: -1000 is never, 1000 is first.",
        ),
        optional(
            "root_fs",
            Kind::Word(&["read-only", "scratch", "persistent"]),
            "\"read-only\"",
            "\"scratch\"",
            "What happens to what is written to the root: refused, kept in memory until the service ends, or kept in \
             the state folder. /tmp, /run and /var/tmp are memory in any case.",
        ),
        optional(
            "mounts",
            Kind::Objects(&MOUNT, limits::MOUNTS),
            "[]",
            "[ { \"type\": \"volume\", \"source\": \"broker-data\", \"target\": \"/data\" } ]",
            "What is mounted into it, in this order.",
        ),
        optional(
            "needs",
            Kind::Texts(Text::Need, limits::NEEDS),
            "[]",
            "[\"broker\"]",
            "Services that must be running (a daemon) or done (a oneshot) before it starts; it is stopped before they \
             are. `name:started` and `name:done` say which of the two; `name:ready` waits until a daemon is ready, \
             `name:soft` only as long as the other one is on its way. And what the board must have: `mount:/data`, \
             something mounted there; `path:/run/x`, something at that path; `link:eth0`, a network interface that is \
             up and has a carrier; `clock`, the time of day. It waits until they come.",
        ),
        optional(
            "timer",
            Kind::Object(&TIMER),
            "none",
            "{ \"every\": \"1h\", \"jitter\": \"5m\" }",
            "When a oneshot starts again by itself. What comes due while it still runs is left out and counted.",
        ),
        optional(
            "restart",
            Kind::Object(&RESTART),
            "as its keys say",
            "{ \"policy\": \"always\", \"delay\": \"100ms\", \"max_delay\": \"60s\" }",
            "What happens when it ends.",
        ),
        optional(
            "stop",
            Kind::Object(&STOP),
            "as its keys say",
            "{ \"signal\": \"TERM\", \"timeout\": \"10s\" }",
            "How it is stopped.",
        ),
        optional(
            "start_timeout",
            Kind::Text(Text::Duration(100, 24 * HOUR)),
            "\"30s\"",
            "\"30s\"",
            "The longest time from the start of its sandbox until it is ready. What says `EXTEND_TIMEOUT_USEC=` gets \
             more, up to ten times this. A reload (RELOADING=1) has as long until the next READY=1.",
        ),
        optional(
            "ready",
            Kind::Word(&["started", "notify", "fd", "health"]),
            "\"started\"",
            "\"notify\"",
            "When it is ready. `started`: when its program runs. `notify`: when it says READY=1 to the socket that \
             NOTIFY_SOCKET names (sd_notify). `fd`: when it writes a line to descriptor `ready_fd` (s6). `health`: when \
             its `health` check succeeds for the first time; of several the `ready` one, else the `startup` one.",
        ),
        optional(
            "ready_fd",
            Kind::Integer(3, 255),
            "3",
            "4",
            "The descriptor of `\"ready\": \"fd\"`: the number that the program is told or has built in.",
        ),
        optional(
            "notify_access",
            Kind::Word(&["main", "all"]),
            "\"main\"",
            "\"all\"",
            "Whose messages NOTIFY_SOCKET takes: those of its main process, or of all its processes. Written, it gives a \
             socket to a service that neither `ready` nor `watchdog` gives one to.",
        ),
        optional(
            "watchdog",
            Kind::Text(Text::Duration(100, 24 * HOUR)),
            "none",
            "\"10s\"",
            "The longest time between two WATCHDOG=1 to NOTIFY_SOCKET, from its start on. When it passes, main gets \
             SIGABRT, then everything is killed, and the service starts again as `restart` says.",
        ),
        optional(
            "health",
            Kind::OneOrMore(&health::HEALTH, limits::CHECKS),
            "not asked",
            "{ \"tcp\": \"127.0.0.1:1883\", \"interval\": \"5s\", \"timeout\": \"1s\", \"retries\": 3 }",
            "How it is asked whether it works, and how often: one check, or a list with one for each `role`. When a `live` \
             one fails too often, main gets SIGABRT, then everything is killed, and the service starts again as `restart` \
             says. The checks of a service are asked one after another, and none while it is paused or ending.",
        ),
        optional(
            "network",
            Kind::Word(&["none", "host"]),
            "\"none\"; \"host\" with `root`",
            "\"host\"",
            "`none`: loopback alone. `host`: the board's network, shared.",
        ),
        optional(
            "capabilities",
            Kind::Texts(Text::Capability, 41),
            "[]; all with `root`",
            "[\"NET_BIND_SERVICE\"]",
            "Capabilities that it keeps (capabilities(7)). All others are dropped for good.",
        ),
        optional(
            "seccomp",
            Kind::Word(&["default", "strict", "log", "off"]),
            "\"default\"; \"off\" with `root`",
            "\"strict\"",
            "System call filter. `strict` is the default without what a network server does not need; `log` refuses \
             nothing and has the kernel log what `default` would refuse.",
        ),
        optional(
            "devices",
            Kind::Objects(&DEVICE_NODE, limits::DEVICES),
            "[]; all with `root`",
            "[ { \"path\": \"/dev/ttyS1\" } ]",
            "Devices that it may use besides null, zero, full, random, urandom and tty.",
        ),
        optional("log", Kind::Object(&LOG), "as its keys say", "{ \"ring\": \"64K\", \"rate\": 100 }", "Its output."),
        optional(
            "enabled",
            Kind::Bool,
            "true",
            "false",
            "false: known and shown, not started at boot; `coracle start` starts it.",
        ),
        optional(
            "critical",
            Kind::Bool,
            "false",
            "true",
            "Whether `device.watchdog` is fed only while it is well or its recovery is not used up: `restart.tries` within \
             `restart.within`, on each step of `restart.then`. After that the board is reset.",
        ),
        optional(
            "lifeline",
            Kind::Bool,
            "false",
            "true",
            "true: what makes a board reachable. With all that it needs it also runs in rescue, when no config can be used.",
        ),
    ],
};

static WHEN: Object = Object {
    name: "when",
    either: &["exists", "missing"],
    keys: &[
        optional(
            "exists",
            Kind::Text(Text::Path),
            "no condition",
            "\"/data/factory\"",
            "This path of the board exists.",
        ),
        optional(
            "missing",
            Kind::Text(Text::Path),
            "no condition",
            "\"/data/keys/tls.key\"",
            "This path of the board does not exist.",
        ),
    ],
};

static SECRET: Object = Object {
    name: "a secret",
    either: &[],
    keys: &[
        required("file", Kind::Text(Text::Path), "\"/data/keys/tls.key\"", "The file on the board."),
        required(
            "target",
            Kind::Text(Text::SecretTarget),
            "\"/run/secrets/tls.key\"",
            "Where its copy is, inside: beneath /run, which is memory.",
        ),
    ],
};

static SOCKET: Object = Object {
    name: "a socket",
    either: &["tcp", "udp", "unix"],
    keys: &[
        optional("name", Kind::Text(Text::Name), "the service's", "\"http\"", "Its name in LISTEN_FDNAMES."),
        optional("tcp", Kind::Text(Text::Address), "this, `udp` or `unix`", "\"0.0.0.0:80\"", "An address and a port."),
        optional("udp", Kind::Text(Text::Address), "this, `tcp` or `unix`", "\"[::]:514\"", "An address and a port."),
        optional(
            "unix",
            Kind::Text(Text::Path),
            "this, `tcp` or `udp`",
            "\"/run/web.sock\"",
            "A path on the board, of at most 107 bytes, for a stream socket. Its folder has to be there.",
        ),
        optional("mode", Kind::Text(Text::Mode), "\"0600\"", "\"0660\"", "Who may connect to a `unix` socket."),
        optional(
            "user",
            Kind::Text(Text::User),
            "root",
            "\"www-data:www-data\"",
            "Whom a `unix` socket belongs to: user or user:group, by number or by a name of the board.",
        ),
    ],
};

static LIMITS: Object = Object {
    name: "limits",
    either: &[],
    keys: &[
        required(
            "memory",
            Kind::Text(Text::Memory(64 * KIB, TIB)),
            "\"24M\"",
            "Memory, with what it writes to tmpfs and its page cache. Above it the service is killed and restarted. \
             `\"unlimited\"` is a warning.",
        ),
        optional(
            "memory_high",
            Kind::Text(Text::Size(64 * KIB, TIB)),
            "none",
            "\"20M\"",
            "From here on the kernel slows it down and reclaims its memory. Less than `memory`.",
        ),
        optional("swap", Kind::Text(Text::SizeOrNone(64 * KIB, TIB)), "\"0\"", "\"0\"", "Swap on top of memory."),
        optional("pids", Kind::Integer(1, 4_194_304), "64", "16", "Processes and threads: what a fork bomb can reach."),
        optional(
            "cpu",
            Kind::Text(Text::Percent(1, 102_400)),
            "no limit",
            "\"25%\"",
            "Cpu time; 100% is one core, 150% one and a half.",
        ),
        optional(
            "cpu_weight",
            Kind::Integer(1, 10_000),
            "the kernel's 100",
            "50",
            "Share of the cpu against other services when all want it.",
        ),
        optional("cpus", Kind::Text(Text::Cpus), "all", "\"0-1,3\"", "Cores that it may run on."),
        optional(
            "io",
            Kind::Objects(&IO, limits::IO_LIMITS),
            "[]",
            "[ { \"device\": \"/dev/mmcblk0\", \"write_bps\": \"2M\" } ]",
            "Limits per block device.",
        ),
    ],
};

static IO: Object = Object {
    name: "an io limit",
    either: &[],
    keys: &[
        required(
            "device",
            Kind::Text(Text::DevicePath),
            "\"/dev/mmcblk0\"",
            "The whole block device, not a partition.",
        ),
        optional("read_bps", Kind::Text(Text::Size(KIB, TIB)), "no limit", "\"8M\"", "Bytes read per second."),
        optional("write_bps", Kind::Text(Text::Size(KIB, TIB)), "no limit", "\"2M\"", "Bytes written per second."),
        optional("read_iops", Kind::Integer(1, 100_000_000), "no limit", "500", "Reads per second."),
        optional("write_iops", Kind::Integer(1, 100_000_000), "no limit", "100", "Writes per second."),
    ],
};

/// The names of `rlimits`, in the order of [`RlimitKind::ALL`](crate::plan::RlimitKind::ALL).
const RLIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

static RLIMIT: Object = Object {
    name: "a resource limit",
    either: &[],
    keys: &[
        required("name", Kind::Word(RLIMITS), "\"nofile\"", "Which (setrlimit(2), without RLIMIT_)."),
        required(
            "soft",
            Kind::Text(Text::Amount),
            "\"1024\"",
            "What is enforced: a number, a size or `unlimited`, in double quotes.",
        ),
        optional(
            "hard",
            Kind::Text(Text::Amount),
            "the same as `soft`",
            "\"4096\"",
            "How far the program may raise it.",
        ),
    ],
};

static MOUNT: Object = Object {
    name: "a mount",
    either: &[],
    keys: &[
        required(
            "type",
            Kind::Word(&["volume", "bind", "tmpfs"]),
            "\"volume\"",
            "`volume`: a folder that coracle keeps for the service. `bind`: a path of the board. `tmpfs`: memory, \
             within the service's limit.",
        ),
        with_vars(optional(
            "source",
            Kind::Text(Text::Source),
            "needed by `volume` and `bind`",
            "\"broker-data\"",
            "The volume's name, which can hold variables, or the board's path.",
        )),
        required("target", Kind::Text(Text::Target), "\"/data\"", "Where it is mounted, inside."),
        optional("read_only", Kind::Bool, "false", "true", "Whether writing to it is refused."),
        optional(
            "size",
            Kind::Text(Text::Size(4 * KIB, 64 * GIB)),
            "needed by `tmpfs`",
            "\"4M\"",
            "The most that a tmpfs holds.",
        ),
    ],
};

static DEVICE_NODE: Object = Object {
    name: "a device",
    either: &["path", "usb"],
    keys: &[
        optional(
            "path",
            Kind::Text(Text::DevicePath),
            "this or `usb`",
            "\"/dev/ttyS1\"",
            "Its path on the board, and inside unless `as` says another one.",
        ),
        optional(
            "usb",
            Kind::Text(Text::Usb),
            "this or `path`",
            "\"0403:6001@1-1.2\"",
            "The usb device that it belongs to: vendor and product as lsusb shows them, the port as /sys/bus/usb/devices \
             shows it, or both. Behind the port may stand the interface (`1-1.2:1.1`). What its driver has made first is \
             taken; with an `as` beneath /dev/bus/usb, the usb device itself. Needs `as`.",
        ),
        optional("as", Kind::Text(Text::DevicePath), "`path`", "\"/dev/gps\"", "Its path inside. Not with `root`."),
        optional(
            "access",
            Kind::Word(&["r", "w", "rw"]),
            "\"rw\"",
            "\"r\"",
            "Whether it may be read, written or both.",
        ),
        optional(
            "optional",
            Kind::Bool,
            "false",
            "true",
            "true: start without it where it is missing; else the service is held until it appears, and ends when it goes.",
        ),
    ],
};

static LOG: Object = Object {
    name: "log",
    either: &[],
    keys: &[
        optional(
            "ring",
            Kind::Text(Text::Size(4 * KIB, 64 * MIB)),
            "`device.log.ring`",
            "\"64K\"",
            "Memory in which its latest output is kept.",
        ),
        optional(
            "rate",
            Kind::Integer(0, 1_000_000),
            "1000",
            "100",
            "Lines per second that are kept, beyond a burst of five seconds' worth; the others are counted. 0: all.",
        ),
        optional(
            "file",
            Kind::Text(Text::SizeOrNone(4 * KIB, GIB)),
            "\"0\" (no file)",
            "\"256K\"",
            "Also write to a file in the state folder, up to this size, then begin a new one.",
        ),
        optional("keep", Kind::Integer(0, 100), "2", "2", "How many full files are kept."),
    ],
};
