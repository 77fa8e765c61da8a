//! Real servers of the distribution as images of several layers, under the default sandbox: read-only root, no
//! capability, default filter, not root. Needs root, buildah, podman, and the servers.

mod board;

use board::{Board, find, installed};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

const PAGE: &str = "<h1>hello from a container</h1>\n";

/// Copies a file of this machine to the same place beneath `root`.
fn copy(root: &Path, path: &Path) {
    let place = root.join(path.strip_prefix("/").unwrap());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(path, place).unwrap();
}

/// Copies the shared libraries of a program, loader included, as ldd(1) lists them.
fn copy_libraries(root: &Path, program: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8(listed.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        copy(root, Path::new(word));
    }
}

/// An image built by buildah: a layer of libraries, one of programs, one of configuration and content.
fn build(board: &Board, program: &str, more: &[&str], settings: &[(&str, &str)], command: &str) {
    let program = find(program).unwrap();
    let layers = board.path("layers");
    fs::create_dir_all(layers.join("libraries")).unwrap();
    copy_libraries(&layers.join("libraries"), &program);
    copy(&layers.join("programs"), &program);
    copy(&layers.join("programs"), &find("busybox").unwrap());
    for folder in more {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            copy(&layers.join("programs"), &entry.unwrap().path());
        }
    }
    for (path, content) in settings {
        let path = layers.join("settings").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let file = format!("FROM scratch\nCOPY libraries /\nCOPY programs /\nCOPY settings /\nUSER web\nCMD [{command}]\n");
    fs::write(layers.join("Dockerfile"), file).unwrap();
    fs::write(board.path("policy.json"), "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}").unwrap();
    let policy = board.path("policy.json");
    let policy = ["--signature-policy", policy.to_str().unwrap()];
    tool(
        board,
        "buildah",
        &[&["bud", "--layers", "--isolation", "chroot", "-q", "-t", "server:1"], &policy[..], &["."]],
    );
    for (format, name) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let image = board.path("images").join(name);
        tool(
            board,
            "podman",
            &[&["save", "-q", "--format", format, "-o", image.to_str().unwrap(), "localhost/server:1"]],
        );
    }
}

/// Runs buildah or podman on a storage of the board's own.
fn tool(board: &Board, program: &str, words: &[&[&str]]) {
    let mut command = Command::new(program);
    command
        .arg("--root")
        .arg(board.path("cs"))
        .arg("--runroot")
        .arg(board.path("cr"))
        .args(["--storage-driver", "vfs"]);
    let output = command.args(words.concat()).current_dir(board.path("layers")).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", board::text(&output));
}

const PASSWD: (&str, &str) = ("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:4711:4712::/srv:/bin/false\n");
const GROUP: (&str, &str) = ("etc/group", "root:x:0:\nweb:x:4712:\n");

/// A loopback port that is free now.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends `request` and reads up to the end of the connection, or up to `end`.
fn ask(port: u16, request: &str, end: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let (mut answer, mut buffer) = (Vec::new(), [0u8; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..length]);
        if !end.is_empty() && answer.ends_with(end.as_bytes()) {
            break;
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// A GET of the page, with its status and its body.
fn get(port: u16) -> Option<String> {
    let answer = ask(port, "GET /index.html HTTP/1.0\r\nHost: localhost\r\n\r\n", "")?;
    (answer.starts_with("HTTP/1.") && answer.contains(" 200 ")).then_some(())?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// User, capabilities, filter and privileges of the service's main process, as the kernel tells them outside.
fn assert_default_sandbox(board: &Board, service: &str) {
    let status = fs::read_to_string(format!("/proc/{}/status", board.field(service, "pid"))).unwrap();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
    assert_eq!(value("Uid:"), "4711\t4711\t4711\t4711");
    assert_eq!(value("Gid:"), "4712\t4712\t4712\t4712");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!((value("Seccomp:"), value("NoNewPrivs:")), ("2", "1"));
    let inside = board.says(&["exec", service, "busybox", "sh", "-c", "busybox touch /x 2>&1; busybox id -u"]);
    assert!(inside.contains("Read-only file system") && inside.contains("4711"), "{inside}");
}

fn services(network: &str, command: &str) -> String {
    let one = |name: &str| {
        format!(
            r#"{{ "name": "{name}", "image": "{name}.tar", "network": "{network}"{command},
                "limits": {{ "memory": "32M", "pids": 32 }} }}"#
        )
    };
    format!("{}, {}", one("docker"), one("oci"))
}

/// As [`services`] on the host's network, where the two need ports of their own.
fn on_host(command: impl Fn(u16) -> String) -> (String, [u16; 2]) {
    let ports = [port(), port()];
    let one = |name: &str, port: u16| {
        format!(
            r#"{{ "name": "{name}", "image": "{name}.tar", "network": "host", {},
                "limits": {{ "memory": "32M", "pids": 32 }} }}"#,
            command(port)
        )
    };
    (format!("{}, {}", one("docker", ports[0]), one("oci", ports[1])), ports)
}

#[test]
fn lighttpd_serves_pages_from_both_kinds_of_archive() {
    let name = "lighttpd_serves_pages_from_both_kinds_of_archive";
    if !installed(name, &["lighttpd", "buildah", "podman", "busybox"]) {
        return;
    }
    let Some(mut board) = Board::new(name) else { return };
    // `env.PORT` comes from the service's environment.
    let config = "server.document-root = \"/srv\"\nserver.port = env.PORT\nserver.bind = \"127.0.0.1\"\n\
                  server.errorlog = \"/dev/stderr\"\nserver.modules = ( \"mod_accesslog\" )\n\
                  accesslog.filename = \"/dev/stderr\"\nserver.upload-dirs = ( \"/tmp\" )\n\
                  index-file.names = ( \"index.html\" )\nmimetype.assign = ( \".html\" => \"text/html\" )\n";
    let settings = [PASSWD, GROUP, ("etc/lighttpd.conf", config), ("srv/index.html", PAGE)];
    build(
        &board,
        "lighttpd",
        &["/usr/lib/lighttpd"],
        &settings,
        r#""/usr/sbin/lighttpd","-D","-f","/etc/lighttpd.conf""#,
    );
    let (host, ports) = on_host(|port| format!(r#""env": ["PORT={port}"]"#));
    board.configure(&host);
    board.up();
    for (service, port) in ["docker", "oci"].into_iter().zip(ports) {
        board.until(&format!("{service} serves"), |_| get(port).as_deref() == Some(PAGE));
        assert_default_sandbox(&board, service);
        board.until_logged(service, "server started");
        let before = board.field(service, "pid");
        board.says(&["restart", service]);
        board.until(&format!("{service} serves again"), |_| get(port).as_deref() == Some(PAGE));
        assert_ne!(board.field(service, "pid"), before);
        // It writes its access log late, at its end at the latest.
        board.until_logged(service, "GET /index.html");
        board.until_logged(service, "ended: exit code 0");
    }
    board.down();

    board.configure(&services("none", r#", "env": ["PORT=8080"]"#));
    board.up();
    for service in ["docker", "oci"] {
        board.until_running(service);
        let wget = ["exec", service, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html"];
        board.until(&format!("{service} serves inside"), |board| board.coracle(&wget).stdout == PAGE.as_bytes());
    }
    assert_eq!(get(8080), None, "reached from outside");
    board.down();
}

#[test]
fn memcached_keeps_values_from_both_kinds_of_archive() {
    let name = "memcached_keeps_values_from_both_kinds_of_archive";
    if !installed(name, &["memcached", "buildah", "podman", "busybox"]) {
        return;
    }
    let Some(mut board) = Board::new(name) else { return };
    let command = r#""/usr/bin/memcached","-v","-m","8","-t","2","-l","127.0.0.1","-p","11211""#;
    build(&board, "memcached", &[], &[PASSWD, GROUP], command);
    let (host, ports) = on_host(|port| format!(r#""command": [{}]"#, command.replace("11211", &port.to_string())));
    board.configure(&host);
    board.up();
    for (service, port) in ["docker", "oci"].into_iter().zip(ports) {
        let set = |value: &str| ask(port, &format!("set key 0 0 {}\r\n{value}\r\n", value.len()), "STORED\r\n");
        board.until(&format!("{service} stores"), |_| set("boat").as_deref() == Some("STORED\r\n"));
        assert_eq!(ask(port, "get key\r\n", "END\r\n").unwrap(), "VALUE key 0 4\r\nboat\r\nEND\r\n");
        assert_default_sandbox(&board, service);
        board.says(&["restart", service]);
        board.until(&format!("{service} answers again"), |_| {
            ask(port, "get key\r\n", "END\r\n").as_deref() == Some("END\r\n")
        });
        assert_eq!(set("barge").unwrap(), "STORED\r\n");
        assert!(ask(port, "stats\r\n", "END\r\n").unwrap().contains("STAT threads 2"));
    }
    board.down();

    board.configure(&services("none", ""));
    board.up();
    for service in ["docker", "oci"] {
        board.until_running(service);
        let dialog = "printf 'set key 0 0 4\\r\\nboat\\r\\nget key\\r\\nquit\\r\\n' | busybox nc 127.0.0.1 11211";
        board.until(&format!("{service} stores inside"), |board| {
            board::text(&board.coracle(&["exec", service, "busybox", "sh", "-c", dialog]))
                .contains("VALUE key 0 4\r\nboat")
        });
    }
    assert_eq!(ask(11211, "get key\r\n", "END\r\n"), None, "reached from outside");
    board.down();
}

#[test]
fn the_web_server_of_busybox_serves_pages() {
    let name = "the_web_server_of_busybox_serves_pages";
    if !installed(name, &["buildah", "podman", "busybox"]) {
        return;
    }
    let Some(mut board) = Board::new(name) else { return };
    build(&board, "busybox", &[], &[PASSWD, GROUP, ("srv/index.html", PAGE)], r#""busybox","true""#);
    let (host, ports) = on_host(|port| {
        format!(r#""command": ["busybox", "httpd", "-f", "-vv", "-p", "127.0.0.1:{port}", "-h", "/srv"]"#)
    });
    board.configure(&host);
    board.up();
    for (service, port) in ["docker", "oci"].into_iter().zip(ports) {
        board.until(&format!("{service} serves"), |_| get(port).as_deref() == Some(PAGE));
        assert_default_sandbox(&board, service);
        board.until_logged(service, "index.html");
        board.says(&["restart", service]);
        board.until(&format!("{service} serves again"), |_| get(port).as_deref() == Some(PAGE));
    }
    board.down();
}
