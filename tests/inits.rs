//! The files in config/init under the inits that they are for: each runs as the first process of a pid namespace of its own,
//! with these files where its manual says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a namespace is prepared with before its init begins: a private `/run` and `/etc`, and more programs.
const PREPARE: &str = r#"
    mount --make-rprivate / && mount -t tmpfs none /run && mount -t tmpfs none /mnt &&
    cp -r "$0/etc" /mnt/etc && mount --bind /mnt/etc /etc &&
    mount -t overlay overlay -o "lowerdir=$0/sbin:/usr/sbin" /usr/sbin && exec "$@""#;

/// Held by the one machine that there is: all have the same groups.
static ALONE: Mutex<()> = Mutex::new(());

/// A machine that consists of an init and what it starts.
struct Machine {
    _alone: MutexGuard<'static, ()>,
    dir: tempfile::TempDir,
    unshare: Child,
}

impl Machine {
    /// Starts `init` with `file` of config/init as `place` in /etc; `None`, after saying why, where that cannot be.
    fn new(test: &str, init: &[&str], file: &str, place: &str) -> Option<Machine> {
        if !nix::unistd::geteuid().is_root() {
            println!("skip: {test}: needs root");
            return None;
        }
        let found = |program: &str| ["/bin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
        if let Some(missing) = [init[0], "busybox", "unshare"].iter().find(|program| !found(program)) {
            println!("skip: {test}: {missing} is not installed");
            return None;
        }
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for name in ["etc/coracle", "sbin", "root/bin", "root/proc", "root/sys", "root/dev", "root/tmp", "root/run"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["root/var/tmp", "root/etc"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::create_dir_all(at("etc").join(place).parent().unwrap()).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/init").join(file);
        let copied = Command::new("cp").arg("-r").arg(from).arg(at("etc").join(place)).status().unwrap();
        assert!(copied.success());
        fs::copy(env!("CARGO_BIN_EXE_coracle"), at("sbin/coracle")).unwrap();
        fs::copy("/bin/busybox", at("root/bin/busybox")).unwrap();
        let config = format!(
            r#"{{ "version": 1, "device": {{ "state": "{0}/state" }}, "services": [ {{ "name": "one", "image": "{0}/root",
            "command": ["/bin/busybox", "sleep", "100000"], "limits": {{ "memory": "8M" }} }} ] }}"#,
            dir.path().display()
        );
        fs::write(at("etc/coracle/config.json"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "sh", "-c", PREPARE]);
        command.arg(dir.path()).args(init).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let unshare = command.spawn().unwrap();
        Some(Machine { _alone, dir, unshare })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The init as this machine sees it.
    fn init(&self) -> Option<String> {
        let pid = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().next().map(str::to_owned)
    }

    /// Runs a command in there.
    fn run(&self, words: &[&str]) -> Option<Output> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init()?, "-m", "-p"]).args(words).stdin(Stdio::null());
        command.output().ok()
    }

    fn until(&self, what: &str, reached: impl Fn(&Machine) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !reached(self) {
            assert!(Instant::now() < end, "never came: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The service runs, the supervisor is killed, and another one has the service.
    fn until_started_again(&self) {
        self.until_running();
        let first = self.supervisor();
        self.run(&["kill", "-KILL", &first]).unwrap();
        self.until("another supervisor", |machine| {
            machine.run(&["/usr/sbin/coracle", "inspect", "device"]).is_some_and(|output| output.status.success())
                && machine.supervisor() != first
        });
        self.until_running();
    }

    fn until_running(&self) {
        self.until("the service runs", |machine| {
            let output = machine.run(&["/usr/sbin/coracle", "ps", "--json"]);
            output.is_some_and(|output| String::from_utf8_lossy(&output.stdout).contains("\"state\":\"running\""))
        });
    }

    /// The supervisor's own process, in there.
    fn supervisor(&self) -> String {
        let output = self.run(&["/usr/sbin/coracle", "inspect", "device"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, rest) = text.split_once("\"supervisor\":").unwrap_or_else(|| panic!("{text}"));
        rest.split([',', '}']).next().unwrap_or_default().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// Where another supervisor left nothing, the groups of this one are gone with it.
fn groups() -> Vec<PathBuf> {
    let folders = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    folders
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|path| path.join("coracle/one"))
        .filter(|p| p.exists())
        .collect()
}

#[test]
fn busybox_init_starts_it_again_and_stops_it_in_order() {
    let test = "busybox_init_starts_it_again_and_stops_it_in_order";
    let Some(machine) = Machine::new(test, &["busybox", "init"], "coracle.inittab", "inittab") else { return };
    machine.until_started_again();
    // What BusyBox takes for "power off"; in a pid namespace that ends everything in it.
    let init = machine.init().unwrap();
    assert!(Command::new("kill").args(["-USR2", &init]).status().unwrap().success());
    machine.until("the end", |machine| machine.init().is_none());
    assert!(machine.log().contains("one is stopped"), "{}", machine.log());
    assert_eq!(groups(), Vec::<PathBuf>::new());
}

#[test]
fn runit_runs_it_and_stops_it_in_order() {
    let test = "runit_runs_it_and_stops_it_in_order";
    let init = ["runsvdir", "-P", "/etc/service"];
    let Some(machine) = Machine::new(test, &init, "coracle.runit", "service/coracle") else { return };
    machine.until_started_again();
    let down = machine.run(&["sv", "-w", "30", "down", "/etc/service/coracle"]).unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stdout));
    assert!(machine.log().contains("one is stopped"), "{}", machine.log());
    assert_eq!(groups(), Vec::<PathBuf>::new());
}
