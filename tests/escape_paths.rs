//! Root folders, working directories and commands made to steer the set-up of a container out of its root.

mod container;

use container::probe::value;
use container::{Rootfs, binary, said};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A folder outside of the root with one file, to see whether anything reaches it.
fn outside(rootfs: &Rootfs) -> std::path::PathBuf {
    let folder = rootfs.beside("outside");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("secret"), "of the host").unwrap();
    fs::write(folder.join("hosts"), "of the host").unwrap();
    fs::write(folder.join("resolv.conf"), "of the host").unwrap();
    folder
}

fn untouched(folder: &Path) {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().display().to_string()).collect();
    names.sort();
    assert_eq!(names, ["hosts", "resolv.conf", "secret"]);
    for name in names {
        assert_eq!(fs::read_to_string(folder.join(&name)).unwrap(), "of the host", "{name}");
    }
}

/// Whether coracle itself refused the start, in a sentence.
fn start_refused(output: &Output) -> bool {
    let errors = String::from_utf8_lossy(&output.stderr);
    matches!(output.status.code(), Some(125..=127)) && errors.starts_with("coracle: ") && output.stdout.is_empty()
}

#[test]
fn a_working_directory_behind_a_descriptor_is_refused() {
    // CVE-2024-21626: a leaked descriptor of a host folder as the working directory.
    let Some(rootfs) = Rootfs::new("a_working_directory_behind_a_descriptor_is_refused") else { return };
    for number in 0..16 {
        let path = format!("/proc/self/fd/{number}");
        let output = rootfs.run(&["-w", &path], &["/probe", "status"]);
        assert!(start_refused(&output), "{path}: {:?} {}", output.status, said(&output));
    }
}

#[test]
fn a_command_behind_a_descriptor_is_not_one_of_the_host() {
    // CVE-2024-21626: a program, or the PATH that it is looked for in, through a descriptor of a host folder that is
    // still open while the program is being found.
    let Some(rootfs) = Rootfs::new("a_command_behind_a_descriptor_is_not_one_of_the_host") else { return };
    let probe = rootfs.beside("outside-probe");
    fs::copy(container::probe::path(), &probe).unwrap();
    let host = probe.to_str().unwrap();
    for number in 3..24 {
        let up = format!("/proc/self/fd/{number}{}", "/..".repeat(8));
        let output = rootfs.run(&[], &[&format!("{up}{host}"), "status"]);
        assert!(start_refused(&output), "{number}: {:?} {}", output.status, said(&output));
        let path = format!("PATH={up}{}", probe.parent().unwrap().to_str().unwrap());
        let output = rootfs.run(&["-e", &path], &["outside-probe", "status"]);
        assert!(start_refused(&output), "{number}: {:?} {}", output.status, said(&output));
    }
}

#[test]
fn a_host_folder_mounted_on_etc_keeps_its_hosts_file() {
    let Some(rootfs) = Rootfs::new("a_host_folder_mounted_on_etc_keeps_its_hosts_file") else { return };
    let folder = outside(&rootfs);
    let (whole, file) = (format!("{}:/etc", folder.display()), format!("{}/hosts:/etc/hosts", folder.display()));
    for mode in [&["--scratch"][..], &[]] {
        for volume in [&whole, &file] {
            let output = rootfs.run(&[mode, &["-v", volume.as_str()]].concat(), &["/probe", "try", "read /etc/hosts"]);
            let text = said(&output);
            assert!(output.status.success() && text.contains("of the host"), "{mode:?} {volume}: {text}");
        }
    }
    untouched(&folder);
}

#[test]
fn a_command_that_is_the_runtime_itself_does_not_change_it() {
    // CVE-2019-5736: the command is a link to the runtime, which then runs inside, as a static program can, and whose
    // file is then there to be written through /proc.
    let Some(rootfs) = Rootfs::new("a_command_that_is_the_runtime_itself_does_not_change_it") else { return };
    let before = fs::read(binary()).unwrap();
    for command in ["/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe"] {
        let output = rootfs.run(&["--seccomp", "off"], &[command, "up", "-d"]);
        assert!(!output.status.success(), "{command}: {}", said(&output));
    }
    symlink("/proc/self/exe", rootfs.path("init")).unwrap();
    assert!(!rootfs.run(&[], &["/init", "up", "-d"]).status.success());
    assert!(before == fs::read(binary()).unwrap(), "the binary has changed");
}

#[test]
fn the_file_of_a_running_coracle_cannot_be_written() {
    // CVE-2019-5736 seen from outside. As long as one process runs from a file the kernel refuses to write it; what holds
    // afterwards is that the link leads to a read-only mount, or to a sealed copy.
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::statvfs::{FsFlags, fstatvfs};
    let Some(rootfs) = Rootfs::new("the_file_of_a_running_coracle_cannot_be_written") else { return };
    let mut run = rootfs.command(&[], &["/probe", "sleep", "2"]).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let held = fs::File::open(format!("/proc/{}/exe", run.id())).unwrap();
    run.wait().unwrap();
    let read_only = fstatvfs(&held).unwrap().flags().contains(FsFlags::ST_RDONLY);
    let seals = fcntl(&held, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    assert!(read_only || seals.is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_WRITE)));
}

#[test]
fn links_where_the_container_gets_its_own_file_systems_lead_nowhere() {
    // CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: masked paths, consoles and procfs through links.
    for name in ["proc", "sys", "dev"] {
        let Some(rootfs) = Rootfs::new("links_where_the_container_gets_its_own_file_systems") else { return };
        let outside = outside(&rootfs);
        fs::remove_dir(rootfs.path(name)).unwrap();
        for target in [outside.to_str().unwrap(), "../outside", "/tmp", "/proc/self/root"] {
            symlink(target, rootfs.path(name)).unwrap();
            let output = rootfs.run(&[], &["/probe", "status"]);
            assert!(start_refused(&output), "{name} -> {target}: {:?} {}", output.status, said(&output));
            assert!(said(&output).contains(name), "{}", said(&output));
            fs::remove_file(rootfs.path(name)).unwrap();
        }
        untouched(&outside);
    }
}

#[test]
fn files_that_coracle_provides_are_not_written_through_links() {
    let Some(rootfs) = Rootfs::new("files_that_coracle_provides_are_not_written_through_links") else { return };
    let outside = outside(&rootfs);
    for name in ["hosts", "resolv.conf", "hostname"] {
        symlink(outside.join(name), rootfs.path("etc").join(name)).unwrap();
    }
    let output = rootfs.run(&[], &["/probe", "try", "read /etc/hosts"]);
    assert!(!said(&output).contains("of the host"), "{}", said(&output));
    untouched(&outside);
    fs::remove_dir_all(rootfs.path("etc")).unwrap();
    symlink(&outside, rootfs.path("etc")).unwrap();
    let output = rootfs.run(&[], &["/probe", "try", "read /etc/secret"]);
    assert!(!said(&output).contains("of the host"), "{}", said(&output));
    untouched(&outside);
}

#[test]
fn nodes_and_links_in_the_dev_of_an_image_are_not_used() {
    let Some(rootfs) = Rootfs::new("nodes_and_links_in_the_dev_of_an_image_are_not_used") else { return };
    let outside = outside(&rootfs);
    for name in ["null", "console", "ptmx", "shm", "pts", "log"] {
        symlink(outside.join("secret"), rootfs.path("dev").join(name)).unwrap();
    }
    let output = rootfs.run(&[], &["/probe", "try", "write /dev/null x", "read /dev/null", "read /dev/console"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("of the host"), "{}", said(&output));
    untouched(&outside);
}

#[test]
fn a_mount_target_that_is_swapped_while_starting_stays_inside() {
    // CVE-2021-30465: a folder becomes a link between its check and the mount.
    let Some(rootfs) = Rootfs::new("a_mount_target_that_is_swapped_while_starting_stays_inside") else { return };
    let outside = outside(&rootfs);
    let volume = rootfs.beside("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("marker"), "").unwrap();
    let (data, spare) = (rootfs.path("data"), rootfs.path("spare"));
    symlink(&outside, &spare).unwrap();
    let stop = AtomicBool::new(false);
    let option = format!("{}:/data", volume.display());
    let mut ends = [0; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                exchange(&data, &spare);
            }
        });
        let start = Instant::now();
        while ends[0] + ends[1] < 300 && start.elapsed() < Duration::from_secs(20) {
            let output = rootfs.run(&["-v", &option], &["/probe", "try", "ls /data", "ls /spare"]);
            let text = said(&output);
            assert!(!text.contains("secret"), "the folder of the host shows: {text}");
            ends[usize::from(output.status.success())] += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} starts refused, {} mounted inside", ends[0], ends[1]);
    untouched(&outside);
}

#[test]
fn set_uid_programs_give_nothing() {
    let Some(rootfs) = Rootfs::new("set_uid_programs_give_nothing") else { return };
    fs::set_permissions(rootfs.path("probe"), fs::Permissions::from_mode(0o6755)).unwrap();
    let text = rootfs.probe(&["-u", "1000:1000"], &["status"]);
    assert_eq!(value(&text, "Uid"), "1000 1000 1000 1000");
    assert_eq!(value(&text, "Gid"), "1000 1000 1000 1000");
    let text = rootfs.probe(&["-u", "1000:1000"], &["try", "setuid 0"]);
    assert_eq!(value(&text, "setuid 0"), "EPERM");
}

#[test]
fn the_root_and_a_read_only_volume_cannot_be_written() {
    let Some(rootfs) = Rootfs::new("the_root_and_a_read_only_volume_cannot_be_written") else { return };
    let volume = rootfs.beside("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "as it was").unwrap();
    let option = format!("{}:/data:ro", volume.display());
    let tries = ["create /x", "create /etc/x", "create /data/x", "append /data/file", "mount none /data none 0x1020"];
    let mut words = vec!["try"];
    words.extend(tries);
    let text = rootfs.probe(&["-v", &option, "--seccomp", "off"], &words);
    for attempt in tries {
        assert!(["EROFS", "EPERM"].contains(&value(&text, attempt)), "{attempt}: {}", value(&text, attempt));
    }
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "as it was");
    assert!(!rootfs.path("x").exists() && !volume.join("x").exists());
}

#[test]
fn nothing_is_left_when_the_command_is_killed() {
    let Some(rootfs) = Rootfs::new("nothing_is_left_when_the_command_is_killed") else { return };
    let mut run = rootfs.command(&[], &["/probe", "sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap();
    let ours = || -> Vec<String> {
        let root = rootfs.root().display().to_string();
        let of = |entry: fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (line == "/probe sleep 1000 " || line.contains(&root)).then_some(line)
        };
        fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
    };
    let wait = |wanted: &dyn Fn(&[String]) -> bool| {
        let start = Instant::now();
        while !wanted(&ours()) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait(&|all| all.iter().any(|line| line == "/probe sleep 1000 "));
    assert!(ours().iter().any(|line| line == "/probe sleep 1000 "), "it runs: {:?}", ours());
    run.kill().unwrap();
    run.wait().unwrap();
    wait(&|all| all.is_empty());
    assert_eq!(ours(), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(rootfs.root().to_str().unwrap()), "a mount is left");
    rootfs.probe(&[], &["exit", "0"]);
    // The killed command could not remove its empty cgroups.
    remove_groups(Path::new("/sys/fs/cgroup"), &format!("run-{}", run.id()), 6);
}

/// Removes the cgroups beneath `folder` whose name ends in `name`, with what they contain.
fn remove_groups(folder: &Path, name: &str, depth: u8) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let inside = entry.file_name().to_string_lossy().ends_with(name);
            remove_groups(&entry.path(), if inside { "" } else { name }, depth - 1);
            if inside {
                fs::remove_dir(entry.path()).unwrap();
            }
        }
    }
}

/// `renameat2(2)` with RENAME_EXCHANGE: two names swap what they stand for, at once.
#[allow(unsafe_code)]
fn exchange(one: &Path, other: &Path) {
    let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
    // SAFETY: both paths are NUL-terminated and live until the call returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}
