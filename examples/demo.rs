//! The example services of `scripts/demo`: one static program, told by its first argument what to be.
//!
//! | argument | is |
//! |---|---|
//! | `hello-http PORT` | a web server that answers every request with a greeting |
//! | `crasher SECONDS [exit\|abort]` | works for a while, then ends with code 3 or SIGABRT |
//! | `hog STEP_MIB INTERVAL_MS` | takes memory step by step until someone stops it |
//! | `forkbomb` | starts children until the kernel refuses, and keeps trying |
//! | `chatter INTERVAL_MS` | writes a line to stdout and, every fifth time, one to stderr |
//! | `get PORT` | asks a web server on loopback and prints its answer: a client for `coracle exec` |
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["hello-http", port] => hello_http(port),
        ["crasher", seconds] => return crasher(seconds, "exit"),
        ["crasher", seconds, how] => return crasher(seconds, how),
        ["hog", step, interval] => hog(number(step), number(interval)),
        ["forkbomb"] => forkbomb(),
        ["chatter", interval] => chatter(number(interval)),
        ["get", port] => get(port),
        ["sleep"] => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        _ => {
            eprintln!(
                "usage: demo hello-http PORT | crasher SECONDS [exit|abort] | hog MIB MS | forkbomb | chatter MS | get PORT"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or(1)
}

fn hello_http(port: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("listening on port {port}");
    for (served, connection) in listener.incoming().enumerate() {
        // A client that misbehaves costs its own connection, not the server.
        if let Err(error) = connection.and_then(|stream| answer(stream, served + 1)) {
            eprintln!("request {}: {error}", served + 1);
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream, served: usize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = [0; 1024];
    let length = stream.read(&mut request)?;
    let line = String::from_utf8_lossy(&request[..length]);
    println!("request {served}: {}", line.lines().next().unwrap_or_default());
    let body = format!("hello from a coracle, request {served}\n");
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn get(port: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    print!("{}", text.split("\r\n\r\n").last().unwrap_or_default());
    Ok(())
}

fn crasher(seconds: &str, how: &str) -> ExitCode {
    println!("working for {seconds} s, then {how}");
    std::thread::sleep(Duration::from_secs(number(seconds)));
    eprintln!("something went terribly wrong");
    if how == "abort" {
        std::process::abort();
    }
    ExitCode::from(3)
}

fn hog(step_mib: u64, interval_ms: u64) -> std::io::Result<()> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        // Each page is written, or the kernel would not count it.
        kept.push(vec![kept.len() as u8 | 1; (step_mib << 20) as usize]);
        println!("holding {} MiB", kept.len() as u64 * step_mib);
        std::thread::sleep(Duration::from_millis(interval_ms));
    }
}

fn forkbomb() -> std::io::Result<()> {
    let myself = std::env::current_exe()?;
    let (mut started, mut refused) = (0u64, 0u64);
    let mut shown = Instant::now() - Duration::from_secs(60);
    loop {
        match Command::new(&myself).arg("sleep").stdin(Stdio::null()).spawn() {
            Ok(_) => started += 1,
            Err(error) => {
                refused += 1;
                if shown.elapsed() > Duration::from_secs(1) {
                    println!("{started} children started, {refused} refused: {error}");
                    shown = Instant::now();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn chatter(interval_ms: u64) -> std::io::Result<()> {
    for line in 1u64.. {
        println!("line {line}: all is well");
        if line % 5 == 0 {
            eprintln!("line {line}: this one is for stderr");
        }
        std::thread::sleep(Duration::from_millis(interval_ms));
    }
    Ok(())
}
