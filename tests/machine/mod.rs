//! An emulated board: what it boots is built by `scripts/firmware`, QEMU is started by `scripts/qemu-boot`, and what the
//! test wants done on it is done by `examples/agent.rs` over a virtual serial port.
#![allow(dead_code)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Each test once for each board, as `BOARD::TEST`.
#[allow(unused_macro_rules)]
macro_rules! boards {
    ($($test:ident),* $(,)?) => {
        boards!(@ x86_64 $($test)*);
        boards!(@ aarch64 $($test)*);
        boards!(@ armv7 $($test)*);
    };
    (@ $arch:ident $($test:ident)*) => {
        mod $arch {
            $(#[test] fn $test() { super::$test(stringify!($arch)); })*
        }
    };
}

/// The longest that anything may take: an emulated board beside a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(150);

/// The service that obeys the test.
pub const AGENT: &str = r#"{ "name": "agent", "root": "host", "command": ["/bin/agent", "serve"], "lifeline": true,
    "limits": { "memory": "unlimited", "pids": 256 } }"#;

/// Which board, and what differs from the usual one.
#[derive(Clone)]
pub struct Board {
    pub arch: &'static str,
    pub disk: bool,
    /// `full`, `trixie` or nothing, as scripts/board takes it.
    pub flavour: &'static str,
    /// MiB.
    pub memory: u32,
    /// More words for the kernel.
    pub append: String,
    /// More options for QEMU.
    pub options: Vec<&'static str>,
    /// More kernel modules.
    pub modules: Vec<&'static str>,
    /// More keys of the config's device, each with a comma behind it.
    pub device: String,
    /// Files of this machine that it has besides: from where, and where on the board.
    pub files: Vec<(PathBuf, &'static str)>,
    /// A program with its options that compresses the kernel's modules.
    pub compress: &'static str,
}

impl Board {
    pub fn new(arch: &'static str) -> Board {
        Board {
            arch,
            disk: false,
            flavour: "",
            memory: 128,
            append: String::new(),
            options: Vec::new(),
            modules: Vec::new(),
            device: String::new(),
            files: Vec::new(),
            compress: "",
        }
    }

    /// One of the programs that are built for it.
    pub fn program(&self, name: &str) -> PathBuf {
        let programs =
            std::env::var_os("BOARD_PROGRAMS").expect("BOARD_PROGRAMS: scripts/test-boot builds and names them");
        Path::new(&programs).join(self.arch).join(name)
    }

    /// A config with the agent and these services, each as an object with a comma behind it.
    fn config(&self, services: &str) -> String {
        let mut modules = vec!["overlay", "virtio_pci", "virtio_console"];
        let mut device = self.device.clone();
        if self.disk {
            modules.extend(["virtio_blk", "crc32c_generic", "ext4"]);
            device += r#""state": "/data/coracle", "mounts": [ { "source": "PARTNAME=data", "target": "/data",
                "type": "ext4", "options": "noatime", "wait": "20s" } ],"#;
        }
        modules.extend(&self.modules);
        format!(
            r#"{{ "version": 1, "device": {{ {device} "images": ["/usr/share/coracle/images"], "modules": {modules:?} }},
                "services": [ {services} {AGENT} ] }}"#
        )
    }

    /// Builds it with these services.
    pub fn build(self, name: &str, services: &str) -> Firmware {
        let config = self.config(services);
        self.build_with(name, &config)
    }

    /// Builds it with this config.
    pub fn build_with(self, name: &str, config: &str) -> Firmware {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", self.arch));
        let more = folder.join("more");
        let _ = fs::remove_dir_all(&more);
        fs::create_dir_all(&more).unwrap();
        for (from, to) in &self.files {
            let to = more.join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        let file = folder.join("config.json");
        fs::write(&file, config).unwrap();
        let mut command = self.command("scripts/firmware");
        if self.disk {
            command.arg("--disk");
        }
        command.arg("--config").arg(file).arg("--add").arg(more).arg("--out").arg(folder.join("firmware"));
        command.env("PROGRAMS", self.program("")).env("PACKER", env!("CARGO_BIN_EXE_coracle"));
        command.env("COMPRESS", self.compress).env("MODULES", self.modules.join(" "));
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Firmware { board: self, folder }
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
        command.arg(self.arch).env("FLAVOUR", self.flavour).stdin(Stdio::null());
        command
    }
}

/// What a board boots.
pub struct Firmware {
    pub board: Board,
    folder: PathBuf,
}

impl Firmware {
    /// A file of its folder: `config.json` is what the board is given.
    pub fn part(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Switches the board on.
    pub fn boot(&self) -> Machine<'_> {
        let mut command = self.board.command("scripts/qemu-boot");
        command.arg("--firmware").arg(self.part("firmware")).arg("--");
        for (name, more) in [
            ("port", String::new()),
            ("monitor", String::new()),
            ("terminal", format!(",logfile={}", self.part("console").display())),
        ] {
            let _ = fs::remove_file(self.part(name));
            let path = self.part(name);
            command.arg("-chardev");
            command.arg(format!("socket,id={name},server=on,wait=off,path={}{more}", path.display()));
        }
        command.args(["-serial", "chardev:terminal", "-mon", "monitor"]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port"]);
        command.args(&self.board.options).env("MEMORY", self.board.memory.to_string());
        command.env("APPEND", format!("quiet loglevel=4 {}", self.board.append));
        // Whatever becomes of the test, the board does not outlive it.
        // SAFETY: one system call with two numbers between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)
            });
        }
        let process =
            command.stdout(Stdio::null()).stderr(fs::File::create(self.part("qemu")).unwrap()).spawn().unwrap();
        let mut machine = Machine { firmware: self, process, port: None, failures: 0 };
        let stream = machine.until("QEMU's port", |machine| machine.socket("port").ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        machine.port = Some(BufReader::new(stream));
        machine
    }

    /// What e2fsck and dumpe2fs say of the partition with the state; the board is off.
    pub fn state_is_clean(&self) -> Result<(), String> {
        let partition = self.part("data");
        let skip = fs::read_to_string(self.part("firmware/data-offset")).unwrap();
        let mut disk = fs::File::open(self.part("firmware/disk")).unwrap();
        std::io::Seek::seek(&mut disk, std::io::SeekFrom::Start(skip.trim().parse::<u64>().unwrap() << 20)).unwrap();
        std::io::copy(&mut disk.take(24 << 20), &mut fs::File::create(&partition).unwrap()).unwrap();
        let show = Command::new("dumpe2fs").arg("-h").arg(&partition).output().unwrap();
        let head = String::from_utf8_lossy(&show.stdout).into_owned();
        let check = Command::new("e2fsck").args(["-f", "-n"]).arg(&partition).output().unwrap();
        let clean = head.lines().any(|line| line.starts_with("Filesystem state:") && line.ends_with(" clean"));
        if clean && !head.contains("needs_recovery") && check.status.success() {
            return Ok(());
        }
        Err(format!("{head}\n{}", String::from_utf8_lossy(&check.stdout)))
    }
}

/// A board that runs. It is switched off when it goes.
pub struct Machine<'a> {
    firmware: &'a Firmware,
    process: Child,
    port: Option<BufReader<UnixStream>>,
    /// Failures of the first process so far.
    failures: usize,
}

impl Machine<'_> {
    /// What its serial console has shown.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.firmware.part("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    fn socket(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(self.firmware.part(name))
    }

    /// Types a line on its serial console, and waits until the console shows `answer`.
    pub fn enter(&mut self, line: &str, answer: &str) {
        let mut terminal = self.socket("terminal").unwrap();
        terminal.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.until_shown(answer);
    }

    /// Waits until the console shows something.
    pub fn until_shown(&mut self, text: &str) {
        self.until(&format!("{text:?}"), |machine| machine.console().contains(text).then_some(()));
    }

    /// Presses keys on the board's keyboard, as QEMU's `sendkey` names them.
    pub fn press(&self, keys: &str) {
        let mut monitor = self.socket("monitor").unwrap();
        monitor.set_read_timeout(Some(PATIENCE)).unwrap();
        monitor.write_all(format!("sendkey {keys}\n").as_bytes()).unwrap();
        // It is done when it asks for the next command.
        let (mut said, mut some) = (String::new(), [0; 1024]);
        while said.matches("(qemu)").count() < 2 {
            let length = monitor.read(&mut some).unwrap();
            assert_ne!(length, 0, "{said}");
            said += &String::from_utf8_lossy(&some[..length]);
        }
    }

    fn fail(&self, what: &str) -> ! {
        let console = self.console();
        let last: Vec<&str> = console.lines().rev().take(60).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        panic!("{what}; the console's last lines:\n{}", last.join("\n"));
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = self.port.as_mut().unwrap().read_until(b'\n', &mut line);
        match read {
            Ok(1..) => String::from_utf8_lossy(&line).trim_end().to_owned(),
            answer => self.fail(&format!("the agent says nothing: {answer:?}")),
        }
    }

    /// Waits until the agent has come up on the board.
    pub fn hello(&mut self) -> &mut Self {
        while !self.line().ends_with("hello") {}
        self
    }

    fn send(&mut self, words: &[&str]) {
        let request: String = words.iter().map(|word| format!("{word}\0")).collect();
        let port = self.port.as_mut().unwrap().get_mut();
        port.write_all(format!("{}\n{request}", request.len()).as_bytes()).unwrap();
    }

    /// Runs a command on the board: exit code and output.
    pub fn run(&mut self, words: &[&str]) -> (i32, String) {
        self.send(words);
        let head = self.line();
        let Some((code, length)) = head.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        else {
            self.fail(&format!("{words:?}: the agent answers {head:?}"));
        };
        let mut output = vec![0; length];
        if let Err(error) = self.port.as_mut().unwrap().read_exact(&mut output) {
            self.fail(&format!("{words:?}: {error}"));
        }
        (code, String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs a command that takes the board or the agent away: nothing is waited for.
    pub fn begin(&mut self, words: &[&str]) {
        let words: Vec<&str> = ["&"].iter().chain(words).copied().collect();
        self.send(&words);
    }

    /// Runs a command of coracle that has to go well.
    pub fn coracle(&mut self, words: &[&str]) -> String {
        let words: Vec<&str> = ["/sbin/coracle"].iter().chain(words).copied().collect();
        match self.run(&words) {
            (0, output) => output,
            (code, output) => self.fail(&format!("{words:?} ends with {code}: {output}")),
        }
    }

    /// Makes attempts with the probe on the board itself.
    pub fn probe(&mut self, attempts: &[&str]) -> String {
        let words: Vec<&str> = ["/bin/probe", "try"].iter().chain(attempts).copied().collect();
        self.run(&words).1
    }

    /// A file of the board.
    pub fn read(&mut self, path: &str) -> String {
        let answer = self.probe(&[&format!("read {path}")]);
        let text = answer.trim_end().split_once(": ok ").map(|(_, text)| text.replace('|', "\n"));
        text.unwrap_or_else(|| self.fail(&format!("cannot read {path}: {answer}")))
    }

    /// How often the first process has a watchdog open.
    pub fn watchdogs(&mut self) -> usize {
        let listed = self.probe(&["ls /proc/1/fd"]);
        let numbers = listed.split_whitespace().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        let attempts: Vec<String> = numbers.map(|number| format!("readlink /proc/1/fd/{number}")).collect();
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        self.probe(&attempts).matches(": ok /dev/watchdog").count()
    }

    /// Waits until the first process has failed, has executed itself again, and answers.
    pub fn until_supervised(&mut self) {
        self.failures += 1;
        let failures = self.failures;
        self.until("its failure", |machine| {
            let console = machine.console();
            (console.matches("the first process has failed; it executes itself again").count() >= failures)
                .then_some(())
        });
        self.until("its answer", |machine| (machine.run(&["/sbin/coracle", "ps"]).0 == 0).then_some(()));
    }

    /// Waits until a service is in a state, and gives its line of `ps --json`.
    pub fn await_state(&mut self, service: &str, state: &str) -> String {
        let start = format!("\"name\":\"{service}\",\"state\":\"{state}\"");
        let mut last = String::new();
        let found = self.until_or(&mut |machine| {
            last = machine.coracle(&["ps", "--json"]);
            last.lines().find(|line| line.contains(&start)).map(str::to_owned)
        });
        found.unwrap_or_else(|| self.fail(&format!("{service} does not become {state}: {last}")))
    }

    /// Waits until there is something.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        self.until_or(&mut look).unwrap_or_else(|| self.fail(&format!("waited in vain for {what}")))
    }

    fn until_or<T>(&mut self, look: &mut dyn FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(found) = look(self) {
                return Some(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }

    /// Waits until the board is off, and gives all that its console has shown.
    pub fn off(mut self) -> String {
        let status = self.until("the board's end", |machine| machine.process.try_wait().unwrap());
        assert!(status.success(), "QEMU ends with {status}");
        let console = self.console();
        assert!(!console.contains("Kernel panic"), "{console}");
        console
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // It may be off already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
