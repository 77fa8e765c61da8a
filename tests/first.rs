//! What concerns a first process and can be shown without a board: a start without descriptors, the commands that end a
//! board, what an init that started a supervisor is told.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn coracle() -> Command {
    Command::new(env!("CARGO_BIN_EXE_coracle"))
}

/// A supervisor without services that tells `socket` how it stands.
fn supervisor(folder: &Path, socket: &str) -> Child {
    let config = folder.join("config.json");
    let text = format!(r#"{{ "version": 1, "device": {{ "state": "{}" }}, "services": [] }}"#, folder.display());
    fs::write(&config, text).unwrap();
    let mut command = coracle();
    command.arg("up").arg("-c").arg(config).arg("--run-dir").arg(folder.join("run"));
    command.env("NOTIFY_SOCKET", socket).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Starts a supervisor, ends it, and gives what the socket was told, a message each.
fn told(folder: &Path, socket: &UnixDatagram, name: &str) -> Vec<String> {
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = supervisor(folder, name);
    let next = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut heard = vec![next(), next()];
    let down = coracle().arg("down").arg("--run-dir").arg(folder.join("run")).status().unwrap();
    assert!(down.success());
    heard.push(next());
    assert!(child.wait().unwrap().success());
    heard
}

#[test]
fn systemd_is_told_by_path_when_a_supervisor_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let heard = told(folder.path(), &socket, path.to_str().unwrap());
    assert!(heard[0].lines().any(|line| line == "READY=1"), "{heard:?}");
    assert_eq!(heard[1], "STATUS=everything runs");
    assert!(heard[2].lines().any(|line| line == "STOPPING=1"), "{heard:?}");
}

#[test]
fn systemd_is_told_by_abstract_name_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("coracle-test-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let heard = told(folder.path(), &socket, &format!("@{name}"));
    assert!(heard[0].starts_with("READY=1"), "{heard:?}");
}

#[test]
fn a_notify_socket_where_nobody_listens_does_not_stop_a_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = supervisor(folder.path(), "/no/such/socket");
    let run = folder.path().join("run");
    let down = || coracle().arg("down").arg("--run-dir").arg(&run).stderr(Stdio::null()).status().unwrap();
    let mut ended = false;
    for _ in 0..600 {
        ended = run.join("control.sock").exists() && down().success();
        if ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(ended && child.wait().unwrap().success());
}

#[test]
fn a_program_without_descriptors_on_a_board_without_dev_null_is_not_aborted() {
    use nix::mount::{MsFlags, mount};
    let mut command = coracle();
    command.arg("version");
    // SAFETY: system calls alone between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount(Some("none"), "/dev", Some("tmpfs"), MsFlags::empty(), none)?;
            (0..3).try_for_each(nix::unistd::close)?;
            Ok(())
        });
    }
    let status = match command.status() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            println!(
                "skip: a_program_without_descriptors_on_a_board_without_dev_null_is_not_aborted: needs CAP_SYS_ADMIN"
            );
            return;
        }
        status => status.unwrap(),
    };
    // Its output reaches nobody; an abort would be a signal.
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn the_commands_that_end_a_board_need_a_supervisor_that_is_its_first_process() {
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    assert_ne!(first.trim(), "coracle", "this test would switch the machine off");
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    for name in ["reboot", "poweroff", "halt"] {
        let answer = coracle().arg(name).arg("--run-dir").arg(&run).output().unwrap();
        let said = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(3), "{said}");
        assert!(said.contains("not coracle"), "{said}");
    }
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut child = supervisor(folder.path(), path.to_str().unwrap());
    socket.recv(&mut [0; 64]).unwrap();
    let answer = coracle().arg("poweroff").arg("--run-dir").arg(&run).output().unwrap();
    assert_eq!(answer.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("not the board's first process"), "{answer:?}");
    assert!(coracle().arg("down").arg("--run-dir").arg(&run).status().unwrap().success());
    child.wait().unwrap();
}

#[test]
fn the_program_called_by_another_name_is_that_command() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("poweroff");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_coracle"), &link).unwrap();
    let answer = Command::new(&link).arg("-h").output().unwrap();
    assert!(String::from_utf8_lossy(&answer.stdout).contains("Example: coracle poweroff"), "{answer:?}");
    let answer = coracle().arg("init").output().unwrap();
    assert!(String::from_utf8_lossy(&answer.stderr).contains("the kernel starts"), "{answer:?}");
}
