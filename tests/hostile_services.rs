//! A service that uses up what it can get at, beside one that answers requests: judged by the answers, by the kernel's
//! counters, and by what the supervisor still does. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, said, service};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Requests made while the other service does its worst.
const REQUESTS: usize = 300;

/// The service that answers.
fn server() -> String {
    service("server", &["probe", "try", "serve 127.0.0.1:0"], r#""network": "host", "user": "2001:2001","#)
}

/// Where it answers, from its log.
fn address(board: &Board) -> String {
    board.until_logged("server", "serving ");
    let log = board.logs("server");
    log.lines().rev().find_map(|line| line.split_once("serving ")).unwrap().1.trim().to_owned()
}

/// Makes one request; fails after ten seconds without an answer.
fn request(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "pong\n");
}

/// Private anonymous memory of a process, in KiB.
fn memory(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss_Anon:")).unwrap_or("Pss_Anon: 0");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Asks the server and the supervisor until `over`, at least a hundred times; each has to answer each time. Says how long
/// that took at most.
fn ask_until(board: &Board, address: &str, beside: &str, over: impl Fn(&Board) -> bool) {
    let (mut count, mut server, mut supervisor) = (0, Duration::ZERO, Duration::ZERO);
    while count < 100 || !over(board) {
        let begun = Instant::now();
        request(address);
        server = server.max(begun.elapsed());
        let begun = Instant::now();
        board.says(&["ps"]);
        supervisor = supervisor.max(begun.elapsed());
        count += 1;
        // What it does is to be measured, and not what asking costs.
        std::thread::sleep(Duration::from_millis(20));
    }
    let (server, supervisor) = (server.as_millis(), supervisor.as_millis());
    println!(
        "measured: beside {beside} {count} answers, of a service in {server} ms at most, of `ps` in {supervisor} ms"
    );
}

#[test]
fn root_a_service_that_is_stopped_by_a_signal_is_ended_and_started_again() {
    let name = "root_a_service_that_is_stopped_by_a_signal_is_ended_and_started_again";
    let stopped = ["sh", "-c", "kill -STOP $$"];
    let watched = service("watched", &stopped, r#""watchdog": "500ms", "restart": { "delay": "10ms" },"#);
    let asked = service("asked", &stopped, r#""stop": { "timeout": "200ms" },"#);
    let Some(mut board) = Board::new(name, &[server(), watched, asked]) else { return };
    board.up();
    let address = address(&board);
    let again = |board: &busybox_board::board::Board| board.field("watched", "restarts") != "0";
    ask_until(&board, &address, "a stopped service", |board| again(board));
    assert!(board.says(&["events"]).contains("watchdog"), "{}", board.says(&["events"]));
    board.says(&["stop", "asked"]);
    assert_eq!(board.field("asked", "state"), "stopped");
    board.says(&["stop", "watched"]);
    request(&address);
}

#[test]
fn root_fifty_thousand_orphans_are_reaped_beside_one_who_answers() {
    let name = "root_fifty_thousand_orphans_are_reaped_beside_one_who_answers";
    let storm = ["probe", "try", "orphans 50000", "pause 100000000"];
    let Some(mut board) =
        Board::new(name, &[server(), service("storm", &storm, r#""limits": { "memory": "64M", "pids": 64 },"#)])
    else {
        return;
    };
    board.up();
    let address = address(&board);
    ask_until(&board, &address, "a storm of orphans", |board| board.logs("storm").contains("orphans 50000: "));
    let log = board.logs("storm");
    assert!(log.contains("50000 made"), "{log}");
    board.until("nothing of it is left but main", |board| {
        let record = std::fs::read_to_string(board.path("run/services/storm/instance")).unwrap_or_default();
        let line = record.lines().find_map(|line| line.strip_prefix("cgroup ")).unwrap_or_default();
        let dirs = line.split('\t').filter_map(|dir| dir.splitn(3, ':').nth(2));
        dirs.map(|dir| std::fs::read_to_string(format!("{dir}/cgroup.procs")).unwrap_or_default().lines().count())
            .all(|count| count <= 1)
    });
    request(&address);
}

#[test]
fn root_who_floods_its_notify_socket_or_leaks_descriptors_costs_nobody_an_answer() {
    let name = "root_who_floods_its_notify_socket_or_leaks_descriptors_costs_nobody_an_answer";
    let ready = r#""ready": "notify","#;
    let flood =
        service("flood", &["probe", "try", "notify READY=1", "notify-flood 300000 STATUS=x", "pause 100000000"], ready);
    let leak = service("leak", &["sh", "-c", "while :; do probe try 'open-until-refused 2000000'; done"], "");
    let Some(mut board) = Board::new(name, &[server(), flood, leak]) else { return };
    board.up();
    let address = address(&board);
    let pid = supervisor(&board);
    let before = memory(&pid);
    ask_until(&board, &address, "floods of messages and of descriptors", |board| {
        board.logs("flood").contains("longest wait") && board.logs("leak").contains("EMFILE")
    });
    assert!(memory(&pid) <= before + 64, "the supervisor grew from {before}K to {}K", memory(&pid));
    assert_eq!(board.field("flood", "state"), "running");
    request(&address);
}

fn supervisor(board: &Board) -> String {
    let device = board.says(&["inspect", "device"]);
    device.split("\"supervisor\":").nth(1).unwrap().split(',').next().unwrap().to_owned()
}

#[test]
fn root_a_fork_bomb_leaves_the_others_their_answers() {
    let name = "root_a_fork_bomb_leaves_the_others_their_answers";
    let bomb = ["probe", "try", "pause 1", "bomb"];
    let limits = r#""limits": { "memory": "32M", "pids": 40, "cpu": "50%" },"#;
    let Some(mut board) = Board::new(name, &[server(), service("bomb", &bomb, limits)]) else { return };
    board.up();
    let address = address(&board);
    board.until_logged("bomb", "pause 1: ok");
    let (mut most, mut asked) = (0, 0);
    let end = Instant::now() + Duration::from_secs(60);
    while asked < REQUESTS || most <= 20 && Instant::now() < end {
        request(&address);
        asked += 1;
        let inside: Vec<usize> = board
            .groups("bomb")
            .iter()
            .map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().count())
            .collect();
        most = most.max(inside.iter().copied().max().unwrap_or(0));
        assert!(most <= 40, "{inside:?}");
    }
    assert!(most > 20, "it never went off: at most {most} processes");
    assert!(board.says(&["ps"]).contains("bomb"));
    let groups = board.groups("bomb");
    board.says(&["stop", "bomb"]);
    let left: Vec<_> = groups.iter().filter(|dir| dir.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    request(&address);
}

#[test]
fn root_a_full_volume_is_full_for_its_service_alone() {
    let name = "root_a_full_volume_is_full_for_its_service_alone";
    let mount =
        |volume: &str| format!(r#""mounts": [{{ "type": "volume", "source": "{volume}", "target": "/data" }}],"#);
    let hog = ["probe", "try", "fill /data/x 64", "pause 100000000"];
    let other = ["probe", "try", "pause 500", "fill /data/x 2", "pause 100000000"];
    let services = [server(), service("hog", &hog, &mount("small")), service("other", &other, &mount("own"))];
    let Some(mut board) = Board::new(name, &services) else { return };
    let volume = board.path("state/volumes/small");
    std::fs::create_dir_all(&volume).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&volume).status();
    assert!(mounted.unwrap().success());
    let unmount = busybox_board::board::Unmount(volume);
    board.up();
    board.until_logged("hog", "MiB, then ENOSPC");
    board.until_logged("other", "2 MiB written");
    request(&address(&board));
    board.says(&["down"]);
    drop(unmount);
}

#[test]
fn root_a_flood_of_a_million_lines_costs_nobody_anything() {
    let name = "root_a_flood_of_a_million_lines_costs_nobody_anything";
    let flood = ["probe", "try", "flood 1000000 20", "flood 50 65536"];
    let once = r#""restart": { "policy": "no" }, "enabled": false,"#;
    let Some(mut board) = Board::new(name, &[server(), service("flood", &flood, once)]) else { return };
    board.up();
    let address = address(&board);
    let pid = supervisor(&board);
    let before = memory(&pid);
    board.says(&["start", "flood"]);
    let init = board.field("flood", "init");
    let (mut most, mut answered) = (0, 0);
    while board.field("flood", "state") == "running" {
        request(&address);
        answered += 1;
        most = most.max(memory(&init));
    }
    board.until_logged("flood", "ended: exit code 0");
    println!(
        "measured: beside a flood of lines {answered} answers; init at most {most}K, supervisor {before}K before, {}K after",
        memory(&pid)
    );
    assert!(memory(&pid) <= before + 64, "the supervisor grew from {before}K to {}K", memory(&pid));
    assert!(most <= 400, "the init grew to {most}K");
    let ring = std::fs::metadata(board.path("run/services/flood/log")).unwrap().len();
    assert!(ring <= (32 << 10) + 256, "{ring}");
    let log = board.logs("flood");
    assert!(log.contains("lines dropped by the rate limit"), "{log}");
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "a control character reaches the terminal");
    request(&address);
}

#[test]
fn root_what_one_user_uses_up_another_still_gets() {
    let name = "root_what_one_user_uses_up_another_still_gets";
    let wanted = ["shm-until-refused 100000", "mqueue-until-refused 100000", "inotify-until-refused 100000"];
    let mut words = vec!["probe", "try"];
    words.extend(wanted);
    words.extend(["open-until-refused 2000000", "pause 100000000"]);
    // Users of their own: inotify instances and message bytes are counted for a user, not for a container.
    let hog = service("hog", &words, r#""user": "2002:2002","#);
    let Some(mut board) = Board::new(name, &[server(), hog]) else { return };
    board.up();
    board.until_logged("hog", "EMFILE");
    let log = board.logs("hog");
    for attempt in wanted {
        let line = log.lines().find(|line| line.contains(attempt)).unwrap();
        assert!(line.contains(" taken, then "), "{line}");
    }
    request(&address(&board));
    let again = board.says(&[
        "exec",
        "server",
        "probe",
        "try",
        "shm-until-refused 10",
        "mqueue-until-refused 3",
        "inotify-until-refused 10",
        "open-until-refused 100",
        "fork-until-refused 5",
    ]);
    assert_eq!(again.matches("no refusal").count(), 5, "{again}");
    // The supervisor, and root's own tools, have theirs too.
    board.says(&["restart", "hog"]);
    let mut follow = board.command(&["logs", "-f", "hog"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = [0; 16];
    follow.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(said(&board.coracle(&["ps"])).contains("running"));
}

/// A file system whose files nobody ever answers for: who asks for one waits in the kernel, and SIGKILL does not end that
/// (fuse(4); the kernel takes no request back that was read).
struct Silent(std::path::PathBuf);

impl Silent {
    fn mount(dir: std::path::PathBuf) -> Option<Silent> {
        use nix::mount::{MsFlags, mount};
        use std::os::fd::AsRawFd as _;
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").ok()?;
        std::fs::create_dir_all(&dir).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("silent"), &dir, Some("fuse"), MsFlags::empty(), Some(options.as_str())).ok()?;
        std::thread::spawn(move || {
            let mut request = vec![0; 1 << 20];
            while (&device).read(&mut request).is_ok() {
                let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
                let mut body = vec![0_u8; 0];
                match word(4) {
                    // LOOKUP, FORGET
                    1 | 2 => continue,
                    // GETATTR: a folder that everyone may read, which stays so for long
                    3 => {
                        body.resize(104, 0);
                        body[0] = 255;
                        body[16] = 1;
                        body[76..80].copy_from_slice(&0o040_755_u32.to_le_bytes());
                        body[80] = 2;
                    }
                    // INIT: version 7.31, writes of 4 KiB
                    26 => {
                        body.resize(64, 0);
                        (body[0], body[4], body[21]) = (7, 31, 16);
                    }
                    _ => {}
                }
                let error = if body.is_empty() { -nix::libc::ENOSYS } else { 0 };
                let mut answer = (16 + body.len() as u32).to_le_bytes().to_vec();
                answer.extend(error.to_le_bytes());
                answer.extend(&request[8..16]);
                answer.extend(body);
                let _ = (&device).write_all(&answer);
            }
        });
        Some(Silent(dir))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        use nix::mount::{MntFlags, umount2};
        let _ = umount2(&self.0, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
}

#[test]
fn root_a_service_that_waits_in_the_kernel_for_good_keeps_nobody_waiting() {
    let name = "root_a_service_that_waits_in_the_kernel_for_good_keeps_nobody_waiting";
    let folder = tempfile::tempdir().unwrap();
    let Some(silent) = Silent::mount(folder.path().join("silent")) else {
        return println!("skip: {name}: no file system in user space (CONFIG_FUSE_FS)");
    };
    let mount = format!(r#""mounts": [ {{ "type": "bind", "source": {:?}, "target": "/data" }} ],"#, silent.0);
    let stuck = service("stuck", &["sh", "-c", "echo up; cat /data/file; exit 1"], &mount);
    let Some(mut board) = Board::new(name, &[server(), stuck]) else { return };
    board.up();
    board.until_running("stuck");
    let address = address(&board);
    let (pid, init, groups) = (board.field("stuck", "pid"), board.field("stuck", "init"), board.groups("stuck"));
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let waiting = || {
        let listed = std::fs::read_to_string(groups[0].join("cgroup.procs")).unwrap_or_default();
        let asks = |pid: &&str| stat(pid).contains("(cat) S ");
        listed.lines().find(asks).map(str::to_owned)
    };
    board.until("it asks", |_| waiting().is_some());
    let cat = waiting().unwrap();
    let server = board.field("server", "pid");
    board.says(&["kill", "--signal", "KILL", "stuck"]);
    let again = |board: &busybox_board::board::Board| {
        board.field("stuck", "state") == "running" && board.field("stuck", "pid") != pid
    };
    ask_until(&board, &address, "a service that cannot be killed", |board| again(board));
    let named = format!("stuck does not die: init {init} and processes [{cat}] are stuck");
    assert!(board.report().contains(&named), "{}", board.report());
    assert!(stat(&cat).contains("(cat) D "), "it is not stuck: {:?}", stat(&cat));
    let fresh = board.groups("stuck");
    assert!(fresh.iter().all(|dir| !groups.contains(dir) && dir.exists()), "{fresh:?}");
    assert_eq!(board.field("server", "pid"), server);
    // What waited dies once nobody can answer any more, and nothing of it stays.
    drop(silent);
    board.until("its end", |_| !std::fs::exists(format!("/proc/{cat}")).unwrap());
    board.until("nothing is left of it", |_| groups.iter().all(|dir| !dir.exists()));
    board.down();
}
