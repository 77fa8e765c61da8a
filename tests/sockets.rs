//! Listening sockets of services: made before the start, kept over restarts and over the death of the supervisor, and
//! handed on as sd_listen_fds(3) has it. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, service};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn says(name: &str, attempts: &[&str], more: &str) -> String {
    service(name, &[&["probe", "try"], attempts].concat(), more)
}

/// A port that was free a moment ago.
fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the service answers to who says `word`.
fn asked(mut stream: impl std::io::Read + std::io::Write, word: &str) -> String {
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn root_sockets_listen_before_their_service_runs_and_are_handed_to_it() {
    let name = "root_sockets_listen_before_their_service_runs_and_are_handed_to_it";
    let port = port();
    let Some(mut board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    let path = board.path("web.sock");
    let sockets = format!(
        r#""sockets": [ {{ "name": "http", "tcp": "127.0.0.1:{port}" }}, {{ "udp": "127.0.0.1:{port}" }},
            {{ "name": "local", "unix": "{}", "mode": "0660", "user": "1000:1001" }} ],
           "ready": "fd", "ready_fd": 7, "user": "app", "restart": {{ "policy": "always", "delay": "500ms" }},"#,
        path.display()
    );
    board.configure(&says("web", &["read /proc/self/stat", "write-fd 7 ready|", "answer 3", "answer 5"], &sockets));
    board.up();
    board.until_running("web");
    // It has no network of its own, and is reached at the board's.
    let answer = asked(tcp(port), "one");
    assert_eq!(answer, "3 http:web:local own=true main=2\n", "{}", board.logs("web"));
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o777), (1000, 1001, 0o660));
    asked(tcp(port), "end");
    assert!(asked(UnixStream::connect(&path).unwrap(), "end").starts_with("3 http"));
    // Nobody runs for half a second, and who comes meanwhile is served by the next one.
    board.until("its restart", |board| board.field("web", "state") == "backoff");
    let waiting = tcp(port);
    assert_eq!(board.field("web", "state"), "backoff");
    assert!(asked(waiting, "two").starts_with("3 http"));
    // What is stopped listens no more, and leaves nothing.
    board.says(&["stop", "web"]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!path.exists());
    board.says(&["start", "web"]);
    assert!(asked(tcp(port), "one").starts_with("3 http"));
    board.down();
    assert!(!path.exists());
}

#[test]
fn root_sockets_survive_the_supervisor() {
    let name = "root_sockets_survive_the_supervisor";
    let (port, idle) = (port(), port());
    let socket = |port: u16| format!(r#""sockets": [ {{ "name": "http", "tcp": "127.0.0.1:{port}" }} ],"#);
    let waits = format!(r#"{} "restart": {{ "policy": "always", "delay": "1s", "max_delay": "1s" }},"#, socket(idle));
    let services = [
        says("web", &["answer 3"], &format!(r#"{} "restart": {{ "policy": "always", "delay": "1s" }},"#, socket(port))),
        says("idle", &["answer 3"], &waits),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("web");
    board.until_running("idle");
    board.kill_supervisor();
    // While nobody supervises, the service serves; and it may even end: its init took the sockets with it.
    assert!(asked(tcp(port), "one").starts_with("1 http"));
    board.up();
    board.until("both are known", |board| {
        board.field("web", "state") == "running" && board.field("idle", "state") == "running"
    });
    let inspected = board.says(&["inspect", "web"]);
    assert!(inspected.contains("http"), "{inspected}");
    std::thread::sleep(Duration::from_millis(200));
    // The next supervisor holds it over a restart: whoever comes between two instances waits.
    asked(tcp(port), "end");
    board.until("its end", |board| board.field("web", "state") == "backoff");
    let waiting = tcp(port);
    assert!(asked(waiting, "two").starts_with("1 http"));
    // One that ends while nobody supervises, and is idle: bound anew.
    board.kill_supervisor();
    asked(tcp(idle), "end");
    board.until("its end", |_| TcpStream::connect(("127.0.0.1", idle)).is_err());
    board.up();
    board.until("it listens again", |_| TcpStream::connect(("127.0.0.1", idle)).is_ok());
    board.until_running("idle");
    board.down();
}

#[test]
fn root_who_waits_for_a_service_that_waits_is_served_after_an_upgrade() {
    let name = "root_who_waits_for_a_service_that_waits_is_served_after_an_upgrade";
    let port = port();
    let here = tempfile::tempdir().unwrap();
    let key = here.path().join("key");
    let more = format!(
        r#""sockets": [ {{ "name": "http", "tcp": "127.0.0.1:{port}" }} ], "needs": ["path:{}"],
        "restart": {{ "policy": "always", "delay": "10ms" }},"#,
        key.display()
    );
    let Some(mut board) = Board::new(name, &[says("web", &["answer 3"], &more)]) else { return };
    std::fs::write(&key, "").unwrap();
    board.up();
    board.until_running("web");
    std::fs::remove_file(&key).unwrap();
    asked(tcp(port), "end");
    board.until("it waits", |board| board.field("web", "state") == "waiting");
    let waiting = tcp(port);
    let upgraded = board.coracle(&["upgrade", env!("CARGO_BIN_EXE_coracle")]);
    assert!(upgraded.status.success(), "{}", board.report());
    board.until("it waits again", |board| board.field("web", "state") == "waiting");
    std::fs::write(&key, "").unwrap();
    assert!(asked(waiting, "one").starts_with("1 http"), "{}", board.report());
    board.down();
}

#[test]
fn root_a_socket_that_cannot_be_had_is_named_and_tried_again() {
    let name = "root_a_socket_that_cannot_be_had_is_named_and_tried_again";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let more = format!(
        r#""sockets": [ {{ "tcp": "127.0.0.1:{port}" }} ], "restart": {{ "delay": "50ms", "max_delay": "50ms" }},"#
    );
    let Some(mut board) = Board::new(name, &[says("web", &["answer 3"], &more)]) else { return };
    board.up();
    let said = format!("its socket tcp 127.0.0.1:{port} cannot be made");
    board.until("it is said", |board| board.report().contains(&said));
    assert!(board.report().contains("end what listens there"), "{}", board.report());
    drop(taken);
    board.until_running("web");
    board.down();
}
