//! What coracle as the first process makes of what its board has and lacks: console and keys, clock, partitions, kernel
//! modules, cgroups. On one emulated board, since none of it differs from machine to machine. `scripts/test-boot` builds
//! the programs for the boards and runs this.

#[macro_use]
mod machine;

use coracle::base::built::BUILT;
use machine::{AGENT, Board, Firmware, Machine};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

boards!(@ x86_64
    a_shell_in_rescue_takes_both_the_config_and_the_kernels_command_line
    the_watchdog_is_handed_on_to_the_next_program_and_over_a_failure
    ctrl_alt_del_ends_the_board_in_order
    the_clock_is_the_latest_known_time_and_what_is_due_at_a_time_follows_its_steps
    a_partition_is_found_by_its_number_on_a_kernel_that_does_not_tell_it
    a_volume_of_raw_flash_is_found_by_its_name
    a_process_outside_every_group_does_not_keep_the_state_from_being_unmounted
    a_failure_on_the_way_to_the_end_leads_to_that_end_all_the_same
    limits_hold_on_a_kernel_that_has_its_controllers_in_v1_alone
    a_kernel_without_devtmpfs_gets_a_few_nodes_and_runs_its_services
    compressed_modules_are_loaded_where_the_kernel_decompresses_them
    compressed_modules_that_the_kernel_does_not_take_are_said
);

fn power_off(mut machine: Machine<'_>) -> String {
    machine.begin(&["/sbin/poweroff"]);
    machine.off()
}

/// The board has a watchdog, and is not reset in more than the time of that, which is 3 s.
fn is_fed(machine: &mut Machine<'_>) {
    assert!(machine.coracle(&["inspect", "device"]).contains("watchdog0"));
    assert_eq!(machine.watchdogs(), 1);
    let boot = machine.read("/proc/sys/kernel/random/boot_id");
    machine.run(&["/bin/probe", "sleep", "5"]);
    assert_eq!(machine.read("/proc/sys/kernel/random/boot_id"), boot);
}

fn a_shell_in_rescue_takes_both_the_config_and_the_kernels_command_line(arch: &'static str) {
    let config = format!(
        r#"{{ "version": 1, "memroy": "12M", "device": {{ "modules": ["virtio_pci", "virtio_console", "softdog"],
        "watchdog": {{ "timeout": "3s" }}, "rescue": {{ "shell": true, "reboot_after": "0" }} }}, "services": [ {AGENT} ] }}"#
    );
    let files = vec![("/bin/busybox".into(), "/bin/sh")];
    let mut firmware = Board { files, ..Board::new(arch) }.build_with("shell", &config);
    let mut machine = firmware.boot();
    machine.hello();
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(shown.contains("DEGRADED: rescue") && shown.contains("agent"), "{shown}");
    assert!(!shown.contains("rescue-shell"), "the config alone gives a shell: {shown}");
    is_fed(&mut machine);
    power_off(machine);

    firmware.board.append = "coracle.rescue".into();
    let mut machine = firmware.boot();
    machine.hello();
    machine.await_state("rescue-shell", "running");
    // Its words on the console and back, while the lifeline runs.
    machine.enter("echo the shell says $((6*7)) on $(cat /proc/$$/comm)", "the shell says 42 on sh");
    machine.await_state("agent", "running");
    assert!(!machine.console().contains("job control turned off"), "{}", machine.console());
    power_off(machine);
}

fn the_watchdog_is_handed_on_to_the_next_program_and_over_a_failure(arch: &'static str) {
    let device = r#""watchdog": { "timeout": "3s" },"#.to_owned();
    let firmware = Board { device, modules: vec!["softdog"], ..Board::new(arch) }.build("handed", "");
    let mut machine = firmware.boot();
    machine.hello();
    machine.coracle(&["upgrade", "/sbin/coracle"]);
    machine.run(&["&", "/bin/probe", "try", "kill 1 11"]);
    machine.until_supervised();
    is_fed(&mut machine);
    // What the kernel says of one that is closed while it runs.
    let console = machine.console();
    assert!(!console.contains("did not stop"), "{console}");
    // The one that is handed over is the one that runs: it resets a board whose first process stands still.
    let boot = machine.read("/proc/sys/kernel/random/boot_id");
    machine.begin(&["/bin/agent", "stop", "1"]);
    machine.hello();
    assert_ne!(machine.read("/proc/sys/kernel/random/boot_id"), boot);
    power_off(machine);
}

fn ctrl_alt_del_ends_the_board_in_order(arch: &'static str) {
    let firmware = Board { disk: true, ..Board::new(arch) }.build("keys", "");
    let mut machine = firmware.boot();
    machine.hello();
    machine.await_state("agent", "running");
    machine.until("a keyboard", |machine| machine.read("/proc/bus/input/devices").contains("keyboard").then_some(()));
    machine.press("ctrl-alt-delete");
    machine.hello();
    let console = machine.console();
    assert_eq!(console.matches("everything is stopped: the board reboots").count(), 1, "{console}");
    let device = machine.coracle(&["inspect", "device"]);
    assert!(device.contains(r#""last_reset":"reboot""#), "{device}");
    power_off(machine);
    firmware.state_is_clean().unwrap();
}

/// When the board was started, by its own clock.
fn start_time(machine: &mut Machine<'_>) -> i64 {
    let stat = machine.read("/proc/stat");
    let time = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap_or_else(|| panic!("{stat}"));
    time.trim().parse().unwrap()
}

/// How often the service that is due at 03:30 has run in this boot.
fn runs(machine: &mut Machine<'_>) -> usize {
    machine.coracle(&["logs", "daily"]).matches("stat /: ok").count()
}

/// Sets the board's clock, and waits for so many seconds.
fn set_clock(machine: &mut Machine<'_>, time: i64, wait: &str) {
    assert_eq!(machine.run(&["/bin/agent", "clock", &time.to_string()]), (0, String::new()));
    machine.run(&["/bin/probe", "sleep", wait]);
}

fn the_clock_is_the_latest_known_time_and_what_is_due_at_a_time_follows_its_steps(arch: &'static str) {
    const LATER: i64 = 2_208_988_800; // 2040-01-01
    const DAY: i64 = 86_400;
    /// Just before the service is due.
    const DUE: i64 = LATER + 3 * 3600 + 1799;
    let daily = r#"{ "name": "daily", "root": "host", "type": "oneshot", "timer": { "at": "03:30" },
        "command": ["/bin/probe", "try", "stat /"], "limits": { "memory": "8M" } },"#;
    let mut firmware = Board { disk: true, ..Board::new(arch) }.build("clock", daily);
    let mut look = |rtc: &'static str, from: i64, said: Option<&str>, then: fn(&mut Machine<'_>)| {
        firmware.board.options = vec!["-rtc", rtc];
        let mut machine = firmware.boot();
        machine.hello();
        let (time, console) = (start_time(&mut machine), machine.console());
        // The start lies before what was set; nothing here takes an hour.
        assert!((from - 3600..from + 3600).contains(&time), "{rtc}: {time}, {from}: {console}");
        match said {
            Some(said) => assert!(console.contains(&format!("the clock was behind and is set to {said}")), "{console}"),
            // The kernel has set it, to a second.
            None => assert!(!console.contains("the clock was behind"), "{console}"),
        }
        then(&mut machine);
        power_off(machine);
    };
    look("base=2001-01-01T00:00:00", BUILT, Some("the time at which this coracle was built"), |_| {});
    look("base=2040-01-01T00:00:00", LATER, None, |machine| {
        set_clock(machine, DUE + 3600, "2");
        assert_eq!(runs(machine), 0, "a time that is stepped over is not made up");
        set_clock(machine, DUE, "3");
        assert_eq!(runs(machine), 1, "it comes after a step back");
        set_clock(machine, DUE, "3");
        assert_eq!(runs(machine), 1, "and not twice on one day");
        set_clock(machine, DUE + DAY, "3");
        assert_eq!(runs(machine), 2, "but on the next");
        set_clock(machine, DUE + 2 * DAY - 7, "0");
    });
    // What is guessed is just before the time, and passes it.
    look("base=2001-01-01T00:00:00", DUE + 2 * DAY, Some("the last shutdown"), |machine| {
        machine.until("the time", |machine| {
            let uptime: f64 = machine.read("/proc/uptime").split(' ').next()?.parse().ok()?;
            (start_time(machine) + uptime as i64 > DUE + 2 * DAY + 3).then_some(())
        });
        assert_eq!(runs(machine), 0, "nobody knows what time it is");
        set_clock(machine, DUE + 2 * DAY, "3");
        assert_eq!(runs(machine), 1, "now the clock is set");
    });
}

/// What is mounted at a path: source, type.
fn mounted(machine: &mut Machine<'_>, target: &str) -> (String, String) {
    let mounts = machine.read("/proc/mounts");
    let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(target));
    let mut words = line.unwrap_or_else(|| panic!("no {target}: {mounts}")).split(' ').map(str::to_owned);
    (words.next().unwrap(), words.nth(1).unwrap())
}

fn a_partition_is_found_by_its_number_on_a_kernel_that_does_not_tell_it(arch: &'static str) {
    let mount = |source: &str, target: &str, more: &str| {
        format!(r#"{{ "source": "{source}", "target": "{target}", "type": "ext4"{more} }}"#)
    };
    let mounts = [
        mount("PARTUUID=C0AAC1E0-0000-4000-8000-000000000002", "/data", r#", "wait": "20s""#),
        mount("LABEL=state", "/run/label", ""),
        mount("PARTUUID=c0aac1e0-0000-4000-8000-000000000009", "/run/number", r#", "wait": "0s", "fallback": "1M""#),
        mount("LABEL=states", "/run/name", r#", "wait": "0s", "fallback": "2M""#),
    ];
    let config = format!(
        r#"{{ "version": 1, "device": {{ "state": "/data/coracle",
        "modules": ["virtio_pci", "virtio_console", "virtio_blk", "crc32c_generic", "ext4"], "mounts": [ {} ] }},
        "services": [ {AGENT} ] }}"#,
        mounts.join(", ")
    );
    let firmware = Board { disk: true, ..Board::new(arch) }.build_with("number", &config);
    let mut machine = firmware.boot();
    machine.hello();
    let found = mounted(&mut machine, "/data");
    assert_eq!((found.0.as_str(), found.1.as_str()), ("/dev/nvme0n1p2", "ext4"));
    assert_eq!(mounted(&mut machine, "/run/label"), found);
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    for (target, what) in [("/run/number", "1M"), ("/run/name", "2M")] {
        assert_eq!(mounted(&mut machine, target).1, "tmpfs");
        assert!(shown.contains("DEGRADED") && shown.contains(&format!("{target} is {what} of memory")), "{shown}");
    }
    power_off(machine);
    firmware.state_is_clean().unwrap();
}

/// A raw flash of 64 blocks with an empty volume, as the build of a board's image makes it.
fn flash() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (config, flash) = (folder.join("flash.ini"), folder.join("flash"));
    let volume = "mode=ubi\nvol_id=0\nvol_type=dynamic\nvol_name=data\nvol_size=4MiB\n";
    fs::write(&config, format!("[data]\n{volume}")).unwrap();
    let made =
        Command::new("ubinize").args(["-p", "128KiB", "-m", "1", "-o"]).arg(&flash).arg(&config).status().unwrap();
    assert!(made.success());
    let mut bytes = fs::read(&flash).unwrap();
    bytes.resize(64 << 17, 0xff);
    fs::write(&flash, bytes).unwrap();
    flash
}

fn a_volume_of_raw_flash_is_found_by_its_name(arch: &'static str) {
    let mount = |name: &str, more: &str| {
        format!(r#"{{ "source": "ubi0:{name}", "target": "/{name}", "type": "ubifs"{more} }}"#)
    };
    let mounts = [mount("data", ""), mount("gone", r#", "wait": "0s", "fallback": "1M""#)];
    let drive = format!("if=none,id=flash,format=raw,file={}", flash().display()).leak();
    let board = Board {
        flavour: "full",
        device: format!(r#""mounts": [ {} ],"#, mounts.join(", ")),
        // ubifs asks modprobe(8), which is not there, for its compressor, and libcrc32c for its algorithm.
        modules: vec!["virtio_blk", "block2mtd", "ubi", "zstd", "ubifs", "libcrc32c"],
        // What coracle hands on to modules.
        append: "block2mtd.block2mtd=/dev/vda,128KiB ubi.mtd=0".into(),
        options: vec!["-drive", drive, "-device", "virtio-blk-pci,drive=flash"],
        ..Board::new(arch)
    };
    let firmware = board.build("flash", "");
    let mut machine = firmware.boot();
    machine.hello();
    let console = machine.console();
    let refused = console.lines().find(|line| line.contains("the kernel module libcrc32c is not loaded")).unwrap();
    assert!(refused.contains("ENOENT") && refused.ends_with("list what it asks for before it, as zstd before ubifs"));
    assert_eq!(mounted(&mut machine, "/data"), ("ubi0:data".into(), "ubifs".into()));
    assert_eq!(mounted(&mut machine, "/gone").1, "tmpfs");
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(shown.contains("DEGRADED: /gone is 1M of memory") && !shown.contains("/data"), "{shown}");
    assert!(machine.probe(&["create /data/kept"]).contains(": ok"));
    machine.begin(&["/sbin/reboot"]);
    machine.hello();
    assert!(machine.probe(&["stat /data/kept"]).contains(": ok"));
    power_off(machine);
}

fn a_process_outside_every_group_does_not_keep_the_state_from_being_unmounted(arch: &'static str) {
    let firmware = Board { disk: true, ..Board::new(arch) }.build("stray", "");
    let mut machine = firmware.boot();
    machine.hello();
    machine.begin(&["/bin/agent", "stray", "/data/stray"]);
    let group = machine.until("a process at work", |machine| {
        machine.probe(&["read /data/stray"]).trim().strip_prefix("read /data/stray: ok ").map(str::to_owned)
    });
    assert!(group.split('|').all(|line| line == "0::/"), "it is in a group: {group}");
    let console = power_off(machine);
    assert!(console.contains("everything is stopped: the board powers off"), "{console}");
    assert!(!console.contains("in use"), "{console}");
    firmware.state_is_clean().unwrap();
}

fn a_failure_on_the_way_to_the_end_leads_to_that_end_all_the_same(arch: &'static str) {
    // What is to end it does nothing, so that it has all of its time.
    let slow = r#"{ "name": "slow", "image": "demo.tar", "command": ["/bin/demo", "sleep"], "limits": { "memory": "4M" },
        "stop": { "signal": "WINCH", "timeout": "2s" } },"#;
    let device = r#""watchdog": { "timeout": "30s" },"#.to_owned();
    let board = Board { device, disk: true, modules: vec!["softdog"], ..Board::new(arch) };
    let firmware = board.build("failing", slow);
    let mut machine = firmware.boot();
    // Once: it goes on, in order. As soon as it is there again: then it is the kernel's turn. Twice: nobody is asked any more.
    for (times, pause, end, said) in [
        ("1", "0", &["/sbin/coracle", "reboot", "recovery"][..], "Restarting system with command 'recovery'"),
        ("300", "5", &["/sbin/reboot"][..], "Restarting system"),
        ("2", "500", &["/sbin/poweroff"][..], "everything is stopped: the board powers off"),
    ] {
        machine.hello();
        machine.await_state("slow", "running");
        let before = machine.console();
        machine.begin(&["/bin/agent", "fail", times, pause]);
        machine.begin(end);
        let console = machine.until(said, |machine| {
            let console = machine.console()[before.len()..].to_owned();
            console.contains(said).then_some(console)
        });
        assert!(console.contains("it executes itself again"), "{console}");
        let after = console.split_once("it executes itself again").map_or("", |(_, after)| after);
        let after = after.split_once(said).map_or("", |(after, _)| after);
        assert!(!after.contains("is running") && !console.contains("did not stop"), "{console}");
        if times == "1" {
            assert!(after.contains("slow runs on") && after.contains("everything is stopped"), "{console}");
        }
    }
    machine.off();
    firmware.state_is_clean().unwrap();
}

/// Key and number in a line of `ps --json`.
fn count(line: &str, key: &str) -> u64 {
    let (_, rest) = line.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key}: {line}"));
    rest.split([',', '}']).next().unwrap().parse().unwrap_or_else(|_| panic!("{key}: {line}"))
}

fn limits_hold_on_a_kernel_that_has_its_controllers_in_v1_alone(arch: &'static str) {
    let service = |name: &str, attempt: &str, limits: &str| {
        format!(
            r#"{{ "name": "{name}", "image": "probe.tar", "command": ["/bin/probe", "try", "{attempt}"],
            "limits": {{ {limits} }} }}, "#
        )
    };
    let services = [
        service("eater", "eat 64", r#""memory": "8M""#),
        service("bomb", "bomb", r#""memory": "16M", "pids": 12"#),
        service("spinner", "spin 100000", r#""memory": "4M", "cpu": "20%""#),
    ];
    let board = Board::new(arch);
    let files = vec![(board.program("early"), "/bin/early")];
    let board = Board { files, append: "rdinit=/bin/early early.v1".into(), ..board };
    let firmware = board.build("v1", &services.concat());
    let mut machine = firmware.boot();
    machine.hello();
    let mounts = machine.read("/proc/mounts");
    assert!(mounts.contains(" /sys/fs/cgroup/memory cgroup ") && !mounts.contains("cgroup2"), "{mounts}");
    let group = |controller: &str, name: &str, file: &str| format!("/sys/fs/cgroup/{controller}/coracle/{name}/{file}");

    machine.until("a process killed for want of memory", |machine| {
        let listed = machine.coracle(&["ps", "--json"]);
        let line = listed.lines().find(|line| line.contains("\"eater\""))?;
        (count(line, "oom_kills") > 0).then_some(())
    });
    assert_eq!(machine.read(&group("memory", "eater", "memory.limit_in_bytes")).trim(), "8388608");
    machine.until("a fork that is refused", |machine| {
        let events = machine.read(&group("pids", "bomb", "pids.events"));
        (events.split_whitespace().last()?.parse::<u64>().ok()? > 0).then_some(())
    });
    let alive: u64 = machine.read(&group("pids", "bomb", "pids.current")).trim().parse().unwrap();
    assert!(alive <= 12, "{alive}");

    machine.coracle(&["stop", "bomb", "eater"]);
    machine.await_state("spinner", "running");
    // The board's own clock, which an emulator may let run slower than ours.
    let look = |machine: &mut Machine<'_>| {
        let uptime = machine.read("/proc/uptime");
        let used: f64 = machine.read(&group("cpu,cpuacct", "spinner", "cpuacct.usage")).trim().parse().unwrap();
        (uptime.split(' ').next().unwrap().parse::<f64>().unwrap(), used / 1e9)
    };
    let (time, used) = look(&mut machine);
    machine.run(&["/bin/probe", "sleep", "3"]);
    let (later, more) = look(&mut machine);
    let share = (more - used) / (later - time);
    assert!((0.10..0.25).contains(&share), "{:.0} % of a core instead of 20 %", share * 100.0);
    power_off(machine);
}

fn compressed_modules_are_loaded_where_the_kernel_decompresses_them(arch: &'static str) {
    let services =
        r#"{ "name": "web", "image": "demo.tar", "command": ["/bin/demo", "sleep"], "limits": { "memory": "4M" } },"#;
    let device = r#""watchdog": { "timeout": "30s" },"#.to_owned();
    let board = Board { flavour: "trixie", device, modules: vec!["softdog"], memory: 192, ..Board::new(arch) };
    let firmware = board.build("compressed", services);
    let mut machine = firmware.boot();
    machine.hello();
    // A module with another that it needs, and one that the service's root takes.
    machine.await_state("web", "running");
    let modules = machine.read("/proc/modules");
    for name in ["softdog", "watchdog", "overlay"] {
        assert!(modules.lines().any(|line| line.starts_with(&format!("{name} "))), "{modules}");
    }
    assert!(machine.coracle(&["inspect", "device"]).contains("watchdog0"));
    let console = power_off(machine);
    assert!(!console.contains("kernel module"), "{console}");
}

fn compressed_modules_that_the_kernel_does_not_take_are_said(arch: &'static str) {
    let board = Board { compress: "xz --check=crc32", modules: vec!["softdog"], ..Board::new(arch) };
    let firmware: Firmware = board.build("refused", "");
    let mut machine = firmware.boot();
    machine.until_shown("softdog is not loaded: this kernel does not take the compressed /lib/modules/");
    machine.until_shown("decompress it where the firmware is built, or boot a kernel with CONFIG_MODULE_DECOMPRESS");
}

fn a_kernel_without_devtmpfs_gets_a_few_nodes_and_runs_its_services(arch: &'static str) {
    let services = r#"{ "name": "web", "image": "demo.tar", "command": ["/bin/demo", "hello-http", "8080"],
        "limits": { "memory": "4M" } },"#;
    let board = Board::new(arch);
    let files = vec![(board.program("early"), "/bin/early")];
    let board = Board { files, append: "rdinit=/bin/early early.nodevtmpfs".into(), ..board };
    let firmware = board.build("nodevtmpfs", services);
    let mut machine = firmware.boot();
    machine.hello();
    assert_eq!(mounted(&mut machine, "/dev").1, "tmpfs");
    machine.await_state("web", "running");
    let page = machine.coracle(&["exec", "web", "/bin/demo", "get", "8080"]);
    assert!(page.contains("hello"), "{page}");
    let console = power_off(machine);
    assert!(console.contains("the kernel has no devtmpfs: /dev gets a few nodes"), "{console}");
}
