//! `coracle run`, seen from inside the container and from outside. Needs root, cgroups and a static busybox.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A root file system with busybox.
struct Rootfs(tempfile::TempDir);

impl Rootfs {
    /// `None`, with the reason printed, where this machine cannot run containers.
    fn new(test: &str) -> Option<Rootfs> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let (Some(busybox), true) = (busybox, nix::unistd::geteuid().is_root()) else {
            println!("skip: {test}: needs root and a static busybox");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "proc", "sys", "dev", "tmp", "run", "var/tmp", "etc", "data"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        std::fs::copy(busybox, folder.path().join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", folder.path().join("bin/sh")).unwrap();
        std::fs::write(folder.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")
            .unwrap();
        std::fs::write(folder.path().join("etc/hosts"), "").unwrap();
        Some(Rootfs(folder))
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.args(["run", "--rootfs"]).arg(self.0.path()).args(words);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    /// Runs a shell script inside; its output.
    fn script(&self, options: &[&str], script: &str) -> String {
        let out = self.run(&[options, &["/bin/busybox", "sh", "-c", script]].concat());
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    }
}

fn error(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn kernel_run_has_no_capability_a_filter_and_no_new_privs() {
    let Some(root) = Rootfs::new("kernel_run_has_no_capability_a_filter_and_no_new_privs") else { return };
    let status = root.script(&[], "busybox cat /proc/self/status");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{set}: {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let named = root.script(&["--cap", "NET_RAW", "-u", "web"], "busybox cat /proc/self/status; busybox id -G");
    assert!(named.contains("CapAmb:\t0000000000002000") && named.contains("CapBnd:\t0000000000002000"), "{named}");
    assert!(named.contains("Uid:\t33\t33\t33\t33"), "{named}");
}

#[test]
fn kernel_run_sees_no_namespace_of_the_host() {
    let Some(root) = Rootfs::new("kernel_run_sees_no_namespace_of_the_host") else { return };
    let inside = root.script(&[], "for n in mnt pid ipc uts net cgroup; do busybox readlink /proc/self/ns/$n; done");
    for (name, seen) in ["mnt", "pid", "ipc", "uts", "net", "cgroup"].iter().zip(inside.lines()) {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(seen.starts_with(name) && Path::new(seen) != host, "{name}: {inside}");
    }
    let shared = root.script(&["--network", "host"], "busybox readlink /proc/self/ns/net");
    assert_eq!(Path::new(shared.trim()), std::fs::read_link("/proc/self/ns/net").unwrap());
}

#[test]
fn kernel_run_writes_to_nothing_but_memory() {
    let Some(root) = Rootfs::new("kernel_run_writes_to_nothing_but_memory") else { return };
    let script = "for p in /x /bin/x /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/x /sys/fs/cgroup/x; do
        echo 1 > $p && echo WROTE $p; done 2>/dev/null
        for p in /tmp/x /run/x /var/tmp/x /dev/shm/x; do echo 1 > $p || echo CANNOT $p; done
        busybox head -c1 /proc/kcore; busybox ls /sys/firmware /proc/acpi";
    let out = root.script(&[], script);
    assert!(!out.contains("WROTE") && !out.contains("CANNOT"), "{out}");
    assert!(!root.path("x").exists() && !root.path("tmp/x").exists());
    let scratch = root.script(&["--scratch"], "echo kept > /x && busybox cat /x");
    assert_eq!(scratch, "kept\n");
    assert!(!root.path("x").exists());
}

#[test]
fn kernel_run_leaks_no_descriptor() {
    let Some(root) = Rootfs::new("kernel_run_leaks_no_descriptor") else { return };
    // Descriptors 5 and 9 are the caller's, open across exec.
    let mut command = Command::new("sh");
    let line = "exec 5</ 9</etc/passwd; exec \"$0\" run --rootfs \"$1\" /bin/busybox sh -c 'for f in /proc/self/fd/*; do echo $f; done'";
    let out = command.args(["-c", line, env!("CARGO_BIN_EXE_coracle")]).arg(root.0.path()).output().unwrap();
    let seen = String::from_utf8_lossy(&out.stdout);
    let open: Vec<&str> = seen.lines().filter(|fd| !fd.ends_with("/3")).collect();
    // 3 is the shell's own, reading the directory.
    assert_eq!(open, ["/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"], "{seen}{}", error(&out));
}

#[test]
fn kernel_run_says_what_failed() {
    let Some(root) = Rootfs::new("kernel_run_says_what_failed") else { return };
    let cases: [(&[&str], i32, &str); 7] = [
        (&["nosuch"], 127, "nosuch: command not found"),
        (&["/etc/passwd"], 126, "not executable"),
        (&["/bin/script"], 126, "its interpreter"),
        (&["/bin/text"], 126, "neither an ELF program nor a script"),
        (&["-w", "/nosuch", "/bin/sh"], 125, "the working directory /nosuch does not exist"),
        (&["-w", "/proc/self/fd/5", "/bin/sh"], 125, "leads through `..` or /proc"),
        (&["-v", "/nosuch/source:/data", "/bin/sh"], 125, "/nosuch/source, to be mounted at /data, does not exist"),
    ];
    for (name, text) in [("script", "#!/no/such/interpreter\n"), ("text", "just text\n")] {
        std::fs::write(root.path("bin").join(name), text).unwrap();
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.path("bin").join(name), all).unwrap();
    }
    for (words, code, sentence) in cases {
        let out = root.run(words);
        assert_eq!(out.status.code(), Some(code), "{words:?}: {}", error(&out));
        assert!(error(&out).contains(sentence), "{words:?}: {}", error(&out));
    }
}

#[test]
fn kernel_run_refuses_an_image_whose_proc_is_a_link() {
    let Some(root) = Rootfs::new("kernel_run_refuses_an_image_whose_proc_is_a_link") else { return };
    for name in ["proc", "sys", "dev"] {
        std::fs::remove_dir(root.path(name)).unwrap();
        std::os::unix::fs::symlink("tmp", root.path(name)).unwrap();
        let out = root.run(&["/bin/sh"]);
        assert_eq!(out.status.code(), Some(125));
        assert!(error(&out).contains("symbolic link"), "{}", error(&out));
        std::fs::remove_file(root.path(name)).unwrap();
        std::fs::create_dir(root.path(name)).unwrap();
    }
}

#[test]
fn kernel_run_mounts_stay_beneath_the_root() {
    let Some(root) = Rootfs::new("kernel_run_mounts_stay_beneath_the_root") else { return };
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "from outside\n").unwrap();
    // A target that is a link out of the root resolves inside it.
    let elsewhere = tempfile::tempdir_in("/var").unwrap();
    std::fs::create_dir_all(root.path(elsewhere.path().to_str().unwrap().trim_start_matches('/'))).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.path("link")).unwrap();
    let volume = format!("{}:/link/deep:ro", outside.path().display());
    let script = format!("busybox cat {}/deep/file; echo x > /link/deep/new", elsewhere.path().display());
    let out = root.script(&["-v", &volume], &script);
    assert!(out.contains("from outside") && out.contains("Read-only"), "{out}");
    assert!(std::fs::read_dir(elsewhere.path()).unwrap().next().is_none());
    let state = tempfile::tempdir().unwrap();
    let state_path = state.path().to_str().unwrap();
    let options = ["--state", state_path, "-v", "kept:/data", "-u", "web"];
    assert_eq!(root.script(&options, "echo 1 > /data/x; busybox cat /data/x"), "1\n");
    assert!(state.path().join("volumes/kept/x").exists());
}

#[test]
fn kernel_run_gives_exit_codes_and_leaves_nothing() {
    let Some(root) = Rootfs::new("kernel_run_gives_exit_codes_and_leaves_nothing") else { return };
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    assert_eq!(root.run(&["/bin/sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(root.run(&["/bin/sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    let name = format!("left-{}", std::process::id());
    let hog = "busybox tail /dev/zero";
    let out = root.run(&["--name", &name, "-m", "8M", "/bin/sh", "-c", hog]);
    assert_eq!(out.status.code(), Some(137), "{}", error(&out));
    assert!(error(&out).contains("memory limit of 8M"), "{}", error(&out));
    let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("*{name}*")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&groups.stdout), "");
    let tree = root.0.path().to_str().unwrap();
    assert!(!mounts().contains(tree), "{} {}", before.len(), mounts());
}

#[test]
fn kernel_run_dies_with_its_caller() {
    let Some(root) = Rootfs::new("kernel_run_dies_with_its_caller") else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    let marker = format!("{}", 100_000 + std::process::id());
    command.args(["run", "--rootfs"]).arg(root.0.path()).args(["/bin/busybox", "sleep", &marker]);
    let mut child = command.spawn().unwrap();
    let running = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(format!("/bin/busybox\0sleep\0{marker}").as_bytes())
        })
    };
    let wait = |wanted: bool| {
        (0..500).any(|_| {
            running() == wanted || {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        })
    };
    assert!(wait(true), "it starts");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait(false), "it ends with the killed command");
    // The group outlives a killed command; nothing is in it any more, and the next run removes it.
    let group = format!("coracle-run-run-{}", child.id());
    let gone = (0..500).any(|_| {
        assert_eq!(root.run(&["/bin/sh", "-c", "exit 7"]).status.code(), Some(7));
        glob(&group).is_empty() || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }
    });
    assert!(gone, "{:?}", glob(&group));
}

#[test]
fn kernel_run_leaves_the_group_of_another_that_still_runs() {
    let Some(root) = Rootfs::new("kernel_run_leaves_the_group_of_another_that_still_runs") else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.args(["run", "--name", "long-lived", "--rootfs"]).arg(root.0.path());
    let script = "echo ready; read line; exit 4";
    let pipe = std::process::Stdio::piped;
    let mut child = command.args(["/bin/sh", "-c", script]).stdin(pipe()).stdout(pipe()).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let name = format!("coracle-run-long-lived-{}", child.id());
    let before = glob(&name);
    assert!(!before.is_empty());
    assert_eq!(root.run(&["/bin/sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(glob(&name), before);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_eq!(glob(&name), Vec::<PathBuf>::new());
}

#[test]
fn kernel_run_tells_death_by_a_real_time_signal() {
    let Some(root) = Rootfs::new("kernel_run_tells_death_by_a_real_time_signal") else { return };
    for signal in [34, 50, 64] {
        let out = root.run(&["/bin/sh", "-c", &format!("busybox kill -{signal} $$; exit 1")]);
        assert_eq!(out.status.code(), Some(128 + signal), "{}", error(&out));
    }
}

/// Folders of that name beneath /sys/fs/cgroup.
fn glob(name: &str) -> Vec<PathBuf> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-depth", "-type", "d", "-name", name]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect()
}

#[test]
fn kernel_run_cannot_be_made_to_write_to_its_own_program() {
    let Some(root) = Rootfs::new("kernel_run_cannot_be_made_to_write_to_its_own_program") else { return };
    let program = env!("CARGO_BIN_EXE_coracle");
    let before = std::fs::read(program).unwrap();
    // Runs coracle itself as the interpreter of the entry point, and the entry point tries to write to what ran it.
    std::fs::write(root.path("bin/evil"), "#!/proc/self/exe\n").unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(root.path("bin/evil"), all).unwrap();
    root.run(&["/bin/evil"]);
    let out = root.script(&["--cap", "SYS_PTRACE"], "echo x >> /proc/1/exe && echo WROTE");
    assert!(!out.contains("WROTE"), "{out}");
    assert!(std::fs::read(program).unwrap() == before, "the program file is unchanged");
}

#[test]
fn a_folder_of_sys_can_be_mounted_though_the_new_root_is_assembled_over_sys() {
    let name = "a_folder_of_sys_can_be_mounted_though_the_new_root_is_assembled_over_sys";
    let Some(root) = Rootfs::new(name) else { return };
    let listed = root.script(&["-v", "/sys/kernel:/data:ro"], "busybox ls /data");
    assert!(listed.contains("mm"), "{listed}");
}

#[test]
#[allow(unsafe_code)]
fn the_end_is_seen_where_the_caller_ignores_sigchld() {
    // An ignored SIGCHLD is handed down by execve(2), and the kernel then reaps children itself.
    let Some(rootfs) = Rootfs::new("the_end_is_seen_where_the_caller_ignores_sigchld") else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.args(["run", "--rootfs"]).arg(rootfs.0.path()).args(["/bin/sh", "-c", "exit 7"]);
    let ignore = || {
        // SAFETY: signal(2) may be called between fork and execve; SIG_IGN is no handler that could run.
        let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        if before == libc::SIG_ERR { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes one async-signal-safe call and touches no memory of the parent.
    let command = unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, ignore) };
    let mut child = command.spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if std::time::Instant::now() < end => std::thread::sleep(std::time::Duration::from_millis(10)),
            None => {
                let _ = child.kill();
                panic!("it waits for ever");
            }
        }
    };
    assert_eq!(status.code(), Some(7));
}
