//! Ten thousand crashes of services, as fast as they are started again: what the supervisor, the kernel and the file systems
//! hold afterwards is what they held before. `CRASHES` sets how many. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, service};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Services that crash at the same time.
const SERVICES: usize = 8;

/// What may not grow, each with its count.
type Held = BTreeMap<&'static str, usize>;

fn entries(dir: impl AsRef<Path>) -> usize {
    fs::read_dir(dir).map_or(0, |entries| entries.count())
}

/// Files and folders below `dir`, without following links.
fn below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| 1 + if entry.file_type().is_ok_and(|kind| kind.is_dir()) { below(&entry.path()) } else { 0 })
        .sum()
}

/// Processes that are beneath `pid`, at once or through others, zombies too.
fn processes(pid: &str) -> usize {
    let parents: Vec<(String, String)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned();
            Some((entry.file_name().into_string().ok()?, parent))
        })
        .collect();
    let mut open = vec![pid.to_owned()];
    let mut count = 0;
    while let Some(parent) = open.pop() {
        let children = parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| child.clone());
        let before = open.len();
        open.extend(children);
        count += open.len() - before;
    }
    count
}

fn memory(pid: &str, device: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss_Anon:")).unwrap();
    let all: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // A turn with more to do than any before takes more of it, which is empty again afterwards.
    all - number(device, "most").div_ceil(4096) * 4
}

/// The number that `device` shows under `key`.
fn number(device: &str, key: &str) -> usize {
    let rest = device.split_once(&format!("\"{key}\":")).unwrap().1;
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

/// Cgroups of these services, in all hierarchies.
fn groups() -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup"));
    mounts.filter_map(|line| line.split(' ').nth(4)).map(|mount| folders(Path::new(mount))).sum()
}

fn held(board: &Board, pid: &str) -> Held {
    let mounts = |of: &str| fs::read_to_string(format!("/proc/{of}/mountinfo")).unwrap().lines().count();
    Held::from([
        ("descriptors", entries(format!("/proc/{pid}/fd"))),
        ("processes", processes(pid)),
        ("mounts", mounts(pid)),
        ("mounts of the machine", mounts("self")),
        ("cgroups", groups()),
        ("files in the run folder", below(&board.path("run"))),
        ("files in the state folder", below(&board.path("state"))),
        ("threads", entries(format!("/proc/{pid}/task"))),
    ])
}

/// Those below `dir`.
fn folders(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            let own = entry.file_name().to_string_lossy().starts_with("crash-");
            usize::from(own) + folders(&entry.path())
        })
        .sum()
}

fn starts(board: &Board) -> usize {
    let json = board.says(&["ps", "--json"]);
    json.split("\"restarts\":")
        .skip(1)
        .map(|rest| rest.split([',', '}']).next().unwrap().parse::<usize>().unwrap())
        .sum()
}

#[test]
fn root_ten_thousand_crashes_leave_nothing_behind() {
    let name = "root_ten_thousand_crashes_leave_nothing_behind";
    let crashes = std::env::var("CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let policy = r#""enabled": false, "restart": { "delay": "0", "max_delay": "10ms" },"#;
    let names: Vec<String> = (0..SERVICES).map(|at| format!("crash-{at}")).collect();
    let services: Vec<String> = names.iter().map(|name| service(name, &["probe", "try"], policy)).collect();
    let Some(mut board) = Board::new(name, &services) else { return };
    let config = fs::read_to_string(board.path("config.json")).unwrap();
    let unbounded = config.replacen(r#""device": {"#, r#""device": { "restarts_per_minute": 0, "#, 1);
    fs::write(board.path("config.json"), unbounded).unwrap();
    board.up();
    let device = board.says(&["inspect", "device"]);
    let pid = device.split("\"supervisor\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let crash = |board: &Board, count: usize| {
        for name in &names {
            // It is never up for long enough to be told so.
            board.coracle(&["start", name]);
        }
        let end = starts(board) + count;
        while starts(board) < end {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert!(groups() > 0, "they have no cgroups");
        for name in &names {
            board.says(&["stop", name]);
        }
        // The connection of the last answer may still be closing.
        let mut seen = held(board, &pid);
        loop {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let again = held(board, &pid);
            if again == std::mem::replace(&mut seen, again.clone()) {
                let device = board.says(&["inspect", "device"]);
                return (again, memory(&pid, &device), number(&device, "allocations"));
            }
        }
    };
    // What is kept for the next start is there after the first ones.
    let (before, bytes, blocks) = crash(&board, crashes / 20);
    let begun = std::time::Instant::now();
    let (after, more, further) = crash(&board, crashes);
    println!(
        "measured: {crashes} crashes in {} s, supervisor {bytes}K before and {more}K after",
        begun.elapsed().as_secs()
    );
    assert_eq!(after, before);
    assert_eq!(further, blocks, "blocks from the heap");
    assert!(more <= bytes, "the supervisor grew from {bytes}K to {more}K");
}
