//! coracle as the first process of whole boards, emulated by QEMU with Debian's kernels. `scripts/test-boot` builds the
//! programs for the boards and runs this.

#[macro_use]
mod machine;

/// The reading of a filter, without the kernel.
#[path = "../src/seccomp/interpret.rs"]
mod interpret;

use coracle::plan::CapSet;
use coracle::seccomp::policy::Decision;
use coracle::seccomp::syscalls::Sys;
use coracle::seccomp::{Arch, Policy, Profile, Verdict};
use interpret::{Call, run};
use machine::{AGENT, Board, Firmware, Machine};
use seccompiler::sock_filter;

boards!(
    five_services_run_from_an_initramfs_in_little_memory,
    it_runs_from_a_read_only_disk_and_leaves_its_state_and_a_seed_for_the_next_boot,
    limits_hold_on_the_unified_tree,
    what_a_service_may_is_what_was_asked_for,
    the_filter_that_the_kernel_has_is_the_policy,
    crashes_hangs_and_shortages_of_memory_are_recovered_from,
    a_supervisor_that_stands_still_is_reset_by_the_watchdog,
    the_watchdog_is_fed_while_the_boot_waits_for_a_disk,
    a_kernel_that_panics_starts_again_and_that_is_said,
    a_broken_config_leads_to_rescue_with_its_lifeline,
    a_kernel_without_memory_controller_holds_what_it_cannot_limit,
);

/// A service of the demo image.
fn demo(name: &str, command: &str, more: &str) -> String {
    service(name, "demo", command, "4M", more)
}

/// A service of the probe image that makes attempts.
fn probe(name: &str, command: &str, memory: &str, more: &str) -> String {
    service(name, "probe", command, memory, more)
}

fn service(name: &str, image: &str, command: &str, memory: &str, more: &str) -> String {
    format!(
        r#"{{ "name": "{name}", "image": "{image}.tar", "command": [{command}], "limits": {{ "memory": "{memory}"{more} }} }},
        "#
    )
}

/// The text of a key in JSON of one level.
fn value<'a>(json: &'a str, key: &str) -> &'a str {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}"));
    rest.split([',', '}']).next().unwrap_or_default().trim_matches('"')
}

fn number(json: &str, key: &str) -> u64 {
    value(json, key).parse().unwrap_or_else(|_| panic!("{key} is no number in {json}"))
}

fn power_off(mut machine: Machine<'_>) -> String {
    machine.begin(&["/sbin/poweroff"]);
    machine.off()
}

fn five_services_run_from_an_initramfs_in_little_memory(arch: &'static str) {
    let services = [
        demo("web", r#""/bin/demo", "hello-http", "8080""#, ""),
        demo("chatter", r#""/bin/demo", "chatter", "500""#, ""),
        demo("idle-a", r#""/bin/demo", "sleep""#, ""),
        demo("idle-b", r#""/bin/demo", "sleep""#, ""),
        demo("idle-c", r#""/bin/demo", "sleep""#, ""),
    ];
    let memory = if arch == "x86_64" { 96 } else { 64 };
    let device = r#""hostname": "small", "sysctls": [ { "name": "kernel.panic", "value": "7" } ],"#.to_owned();
    let firmware = Board { memory, device, ..Board::new(arch) }.build("initramfs", &services.concat());
    let mut machine = firmware.boot();
    machine.hello();
    for name in ["web", "chatter", "idle-a", "idle-b", "idle-c", "agent"] {
        machine.await_state(name, "running");
    }
    assert!(machine.read("/proc/1/comm").starts_with("coracle"), "{}", machine.read("/proc/1/comm"));
    // IFF_UP and IFF_LOOPBACK.
    assert_eq!(machine.read("/sys/class/net/lo/flags").trim(), "0x9", "the board's own loopback interface");
    for (path, wanted) in [("hostname", "small"), ("panic", "7")] {
        assert_eq!(machine.read(&format!("/proc/sys/kernel/{path}")).trim(), wanted);
    }
    let page = machine.coracle(&["exec", "web", "/bin/demo", "get", "8080"]);
    assert!(page.contains("hello"), "{page}");
    let memory = machine.read("/proc/1/smaps_rollup");
    let anonymous =
        memory.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap_or_else(|| panic!("{memory}"));
    let anonymous: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{arch}: the supervisor of six services holds {anonymous} KiB of its own");
    assert!(anonymous <= 400, "{anonymous} KiB");
    let listed = machine.coracle(&["ps", "--json"]);
    assert!(listed.lines().all(|line| number(line, "restarts") == 0), "{listed}");
    power_off(machine);
}

/// The random seed in the state of a board that is off and has left it clean.
fn seed_left(firmware: &Firmware) -> Vec<u8> {
    firmware.state_is_clean().unwrap();
    let mut show = std::process::Command::new("debugfs");
    show.args(["-R", "cat /coracle/random-seed"]).arg(firmware.part("data")).output().unwrap().stdout
}

/// The same of a board that runs.
fn seed(machine: &mut Machine<'_>) -> String {
    machine.read("/data/coracle/random-seed")
}

fn it_runs_from_a_read_only_disk_and_leaves_its_state_and_a_seed_for_the_next_boot(arch: &'static str) {
    let services = demo("web", r#""/bin/demo", "hello-http", "8080""#, "");
    // A kernel that has no randomness but what it is given, and says when that is enough.
    let append = "random.trust_cpu=off random.trust_bootloader=off loglevel=6".to_owned();
    let firmware = Board { disk: true, append, ..Board::new(arch) }.build("disk", &services);
    let mut machine = firmware.boot();
    machine.hello();
    machine.await_state("web", "running");
    let mounts = machine.read("/proc/mounts");
    let options = |target: &str| {
        let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(target)).map(str::to_owned);
        line.and_then(|line| line.split(' ').nth(3).map(str::to_owned)).unwrap_or_default()
    };
    assert!(options("/").split(',').any(|word| word == "ro"), "{mounts}");
    assert!(options("/data").split(',').any(|word| word == "rw"), "{mounts}");
    let device = machine.coracle(&["inspect", "device"]);
    assert_eq!(value(&device, "last_reset"), "unknown", "{device}");

    machine.begin(&["/sbin/reboot"]);
    machine.hello();
    machine.await_state("web", "running");
    let device = machine.coracle(&["inspect", "device"]);
    assert_eq!(value(&device, "last_reset"), "reboot", "{device}");
    assert!(!machine.console().contains("recovery complete"), "the journal was replayed after an orderly reboot");

    // Waits until the kernel has enough.
    machine.probe(&[&format!("syscall {} 0 0 0", Sys::getrandom.number(architecture(arch)).unwrap())]);
    power_off(machine);
    let left = seed_left(&firmware);
    assert_eq!((left.len(), left[0]), (65, b'1'));
    let mut machine = firmware.boot();
    machine.hello();
    let device = machine.coracle(&["inspect", "device"]);
    assert_eq!(value(&device, "last_reset"), "power-off", "{device}");
    // It counted before the first service ran, and was replaced by then: no other boot begins with the same.
    let console = machine.console();
    let before = console.split_once("agent is running").map_or("", |(before, _)| before);
    assert!(before.contains("random: crng init done"), "{console}");
    let renewed = seed(&mut machine);
    let left = String::from_utf8_lossy(&left).trim().replace('|', "\n");
    assert!(renewed.starts_with('1') && renewed.trim() != left, "{renewed}");
    // A power cut.
    drop(machine);
    let mut machine = firmware.boot();
    machine.hello();
    assert_ne!(seed(&mut machine), renewed);
    let device = machine.coracle(&["inspect", "device"]);
    assert_eq!(value(&device, "last_reset"), "unclean", "{device}");
    // The signal by which BusyBox powers off.
    machine.begin(&["/bin/probe", "try", "kill 1 12"]);
    machine.off();
    firmware.state_is_clean().unwrap();
}

fn limits_hold_on_the_unified_tree(arch: &'static str) {
    let services = [
        probe("eater", r#""/bin/probe", "try", "eat 64""#, "8M", ""),
        probe("bomb", r#""/bin/probe", "try", "bomb""#, "16M", r#", "pids": 12"#),
        probe("spinner", r#""/bin/probe", "try", "spin 100000""#, "4M", r#", "cpu": "20%""#),
    ];
    let firmware = Board::new(arch).build("limits", &services.concat());
    let mut machine = firmware.boot();
    machine.hello();
    assert!(machine.read("/proc/mounts").lines().any(|line| line.contains(" cgroup2 ")));
    let group = |name: &str, file: &str| format!("/sys/fs/cgroup/coracle/{name}/{file}");

    machine.until("a process killed for want of memory", |machine| {
        let line = machine.coracle(&["ps", "--json"]);
        let line = line.lines().find(|line| line.contains("\"eater\""))?.to_owned();
        (number(&line, "oom_kills") > 0).then_some(())
    });
    assert_eq!(machine.read(&group("eater", "memory.max")).trim(), "8388608");
    assert_eq!(machine.read(&group("eater", "memory.swap.max")).trim(), "0");

    machine.until("a fork that is refused", |machine| {
        let events = machine.read(&group("bomb", "pids.events"));
        let refused = events.split_whitespace().last()?.parse::<u64>().ok()?;
        (refused > 0).then_some(())
    });
    assert_eq!(machine.read(&group("bomb", "pids.max")).trim(), "12");
    let alive: u64 = machine.read(&group("bomb", "pids.current")).trim().parse().unwrap();
    assert!(alive <= 12, "{alive}");

    // The board's own clock, which an emulator may let run slower than ours.
    machine.coracle(&["stop", "bomb", "eater"]);
    machine.await_state("spinner", "running");
    let look = |machine: &mut Machine<'_>| {
        let uptime = machine.read("/proc/uptime");
        let stat = machine.read(&group("spinner", "cpu.stat"));
        let used =
            stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().trim().parse::<f64>().unwrap();
        (uptime.split(' ').next().unwrap().parse::<f64>().unwrap(), used / 1e6)
    };
    let (time, used) = look(&mut machine);
    machine.run(&["/bin/probe", "sleep", "5"]);
    let (later, more) = look(&mut machine);
    let share = (more - used) / (later - time);
    assert!((0.10..0.25).contains(&share), "{:.0} % of a core instead of 20 %", share * 100.0);
    assert_eq!(machine.read(&group("spinner", "cpu.max")).trim(), "20000 100000");
    power_off(machine);
}

fn what_a_service_may_is_what_was_asked_for(arch: &'static str) {
    let services = [
        probe("plain", r#""/bin/probe", "sleep", "100000""#, "4M", ""),
        r#"{ "name": "able", "image": "probe.tar", "command": ["/bin/probe", "sleep", "100000"], "user": "7:8",
             "capabilities": ["NET_ADMIN"], "seccomp": "off", "network": "host", "limits": { "memory": "4M" } },"#
            .to_owned(),
    ];
    let firmware = Board::new(arch).build("isolation", &services.concat());
    let mut machine = firmware.boot();
    machine.hello();
    let mut outside = |name: &str| {
        let line = machine.await_state(name, "running");
        let pid = value(&line, "pid").to_owned();
        let status = machine.read(&format!("/proc/{pid}/status"));
        let mut links = Vec::new();
        for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup"] {
            let of =
                |machine: &mut Machine<'_>, pid: &str| machine.probe(&[&format!("readlink /proc/{pid}/ns/{kind}")]);
            let (own, first) = (of(&mut machine, &pid), of(&mut machine, "1"));
            let inode = |text: &str| text.split_once(": ok ").map(|(_, link)| link.trim().to_owned()).unwrap();
            if inode(&own) != inode(&first) {
                links.push(kind);
            }
        }
        (status, links)
    };
    let field = |status: &str, key: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}: {status}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (status, apart) = outside("plain");
    assert_eq!(apart, ["mnt", "pid", "ipc", "uts", "net", "cgroup"]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!((field(&status, "NoNewPrivs:").as_str(), field(&status, "Seccomp:").as_str()), ("1", "2"));
    let (status, apart) = outside("able");
    assert_eq!(apart, ["mnt", "pid", "ipc", "uts", "cgroup"]);
    assert_eq!(field(&status, "CapEff:"), "0000000000001000");
    assert_eq!(field(&status, "CapBnd:"), "0000000000001000");
    assert_eq!(field(&status, "Seccomp:"), "0");
    assert_eq!((field(&status, "Uid:").as_str(), field(&status, "Gid:").as_str()), ("7 7 7 7", "8 8 8 8"));

    // The same from inside.
    let status = machine.coracle(&["exec", "plain", "/bin/probe", "status"]);
    assert_eq!(field(&status, "CapBnd:"), "0000000000000000");
    assert_eq!((field(&status, "hostname:").as_str(), field(&status, "Seccomp:").as_str()), ("plain", "2"));
    let attempts = [
        ("mount none /tmp tmpfs 0", "EPERM"),
        ("unshare 0x10000000", "EPERM"),
        ("mknod /tmp/disk b 259 0", "EPERM"),
        ("create /file", "EROFS"),
        ("chroot /tmp", "EPERM"),
        ("write /proc/sysrq-trigger b", "EACCES"),
    ];
    let mut words = vec!["exec", "plain", "/bin/probe", "try"];
    words.extend(attempts.iter().map(|(attempt, _)| *attempt));
    let answers = machine.coracle(&words);
    for (attempt, wanted) in attempts {
        let answer = answers.lines().find_map(|line| line.strip_prefix(attempt)).unwrap_or_default();
        let refused = answer.trim_start_matches(": ");
        assert!(refused == wanted || wanted == "EACCES" && refused == "EROFS", "{attempt}: {refused}");
    }
    power_off(machine);
}

fn the_filter_that_the_kernel_has_is_the_policy(name: &'static str) {
    let firmware = Board::new(name).build("filter", &probe("plain", r#""/bin/probe", "sleep", "100000""#, "4M", ""));
    let mut machine = firmware.boot();
    machine.hello();
    let line = machine.await_state("plain", "running");
    let (code, text) = machine.run(&["/bin/agent", "filter", value(&line, "pid")]);
    assert_eq!(code, 0, "{text}");
    let programs: Vec<Vec<sock_filter>> = text.lines().map(program).collect();
    assert_eq!(programs.len(), 1, "main has one filter");
    let arch = architecture(name);
    let policy = Policy::new(Profile::Default, CapSet::EMPTY);
    let mut seen = 0;
    for number in (0..1024).chain(0xf0000..0xf0010).chain(0x4000_0000..0x4000_0400) {
        let verdict = run(&programs[0], &Call::new(arch, number, [0; 6]));
        let known = Sys::ALL.iter().find(|call| call.number(arch) == Some(number));
        match known.map(|call| policy.decision(*call)) {
            None => assert_eq!(verdict, policy.unknown, "{number}"),
            Some(Decision::Fixed(wanted)) => assert_eq!(verdict, wanted, "{number}"),
            // Which arguments it allows is a test of the policy; here it must at least not kill.
            Some(Decision::ByArguments(rule)) => assert_ne!(verdict, Verdict::Kill, "{}", rule.call.name()),
        }
        seen += usize::from(known.is_some());
    }
    assert!(seen > 300, "{seen} calls");
    // What the kernel does with it: a call that it has is refused, one that nobody has does not exist.
    let number = |call: Sys| call.number(arch).unwrap();
    let attempts = [format!("syscall {} 0", number(Sys::bpf)), "syscall 1000".to_owned()];
    let mut words = vec!["exec", "plain", "/bin/probe", "try"];
    words.extend(attempts.iter().map(String::as_str));
    let answers = machine.coracle(&words);
    let answers: Vec<&str> = answers.lines().filter_map(|line| line.rsplit(": ").next()).collect();
    assert_eq!(answers, ["EPERM", "ENOSYS"]);
    power_off(machine);
}

fn architecture(board: &str) -> Arch {
    match board {
        "x86_64" => Arch::X86_64,
        "aarch64" => Arch::Aarch64,
        _ => Arch::Arm,
    }
}

/// A filter as the agent prints it; all these boards have little-endian processors.
fn program(hex: &str) -> Vec<sock_filter> {
    let words =
        hex.as_bytes().chunks(16).map(|digits| u64::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
    words
        .map(|word| sock_filter {
            code: word as u16,
            jt: (word >> 16) as u8,
            jf: (word >> 24) as u8,
            k: (word >> 32) as u32,
        })
        .collect()
}

fn crashes_hangs_and_shortages_of_memory_are_recovered_from(arch: &'static str) {
    let services = [
        demo("crasher", r#""/bin/demo", "crasher", "1", "abort""#, ""),
        demo("hog", r#""/bin/demo", "hog", "1", "50""#, ""),
        demo("witness", r#""/bin/demo", "sleep""#, ""),
        // It says a few times that it lives, and then nothing any more.
        r#"{ "name": "hanging", "image": "probe.tar", "command": ["/bin/probe", "try", "pings 200 4", "spin 100000"],
             "watchdog": "1s", "limits": { "memory": "4M" } },"#
            .to_owned(),
    ];
    let firmware = Board::new(arch).build("recovery", &services.concat());
    let mut machine = firmware.boot();
    machine.hello();
    let witness = machine.await_state("witness", "running");
    for (name, times) in [("crasher", 2), ("hog", 2), ("hanging", 1)] {
        machine.until(&format!("{times} restarts of {name}"), |machine| {
            let listed = machine.coracle(&["ps", "--json"]);
            let line = listed.lines().find(|line| line.contains(&format!("\"name\":\"{name}\"")))?;
            (number(line, "restarts") >= times).then_some(())
        });
    }
    let told = machine.coracle(&["events", "hanging"]);
    assert!(told.contains("watchdog"), "{told}");
    // Killed from outside: nothing can hold that against it.
    machine.begin(&["/bin/probe", "try", &format!("kill {} 9", value(&witness, "pid"))]);
    machine.until("a restart after a kill", |machine| {
        let listed = machine.coracle(&["ps", "--json"]);
        let line = listed.lines().find(|line| line.contains("\"name\":\"witness\",\"state\":\"running\""))?;
        (value(line, "pid") != value(&witness, "pid")).then_some(())
    });
    power_off(machine);
}

fn a_supervisor_that_stands_still_is_reset_by_the_watchdog(arch: &'static str) {
    // The one knows why it reset the board, the other resets it without a trace.
    let (flavour, driver, options, cause) = match arch {
        "x86_64" => ("full", "i6300esb", vec!["-device", "i6300esb", "-action", "watchdog=reset"], "watchdog"),
        _ => ("", "softdog", vec![], "unclean"),
    };
    let device = r#""watchdog": { "device": "auto", "timeout": "4s" },"#.to_owned();
    let board = Board { flavour, options, device, disk: true, memory: 160, modules: vec![driver], ..Board::new(arch) };
    let firmware = board.build("watchdog", "");
    let mut machine = firmware.boot();
    machine.hello();
    let boot = machine.read("/proc/sys/kernel/random/boot_id");
    let device = machine.coracle(&["inspect", "device"]);
    assert!(device.contains("watchdog0"), "{device}");
    // While it works, nothing happens: three times as long as the watchdog waits.
    machine.run(&["/bin/probe", "sleep", "12"]);
    assert_eq!(machine.read("/proc/sys/kernel/random/boot_id"), boot);
    machine.begin(&["/bin/agent", "stop", "1"]);
    machine.hello();
    assert_ne!(machine.read("/proc/sys/kernel/random/boot_id"), boot);
    let device = machine.coracle(&["inspect", "device"]);
    assert_eq!(value(&device, "last_reset"), cause, "{device}");
    power_off(machine);
    firmware.state_is_clean().unwrap();
}

fn the_watchdog_is_fed_while_the_boot_waits_for_a_disk(arch: &'static str) {
    let device = r#""watchdog": { "timeout": "4s" }, "mounts": [ { "source": "PARTNAME=gone", "target": "/data",
        "type": "ext4", "wait": "10s", "fallback": "1M" } ],"#;
    let board = Board { device: device.to_owned(), modules: vec!["softdog"], ..Board::new(arch) };
    let firmware = board.build("waiting", "");
    let mut machine = firmware.boot();
    // A board that is reset before it has waited never comes so far.
    machine.hello();
    let uptime: f64 = machine.read("/proc/uptime").split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 10.0, "{uptime}");
    let listed = machine.coracle(&["ps"]);
    assert!(listed.contains("DEGRADED") && listed.contains("PARTNAME=gone"), "{listed}");
    assert!(machine.coracle(&["inspect", "device"]).contains("watchdog0"));
    power_off(machine);
}

fn a_kernel_that_panics_starts_again_and_that_is_said(arch: &'static str) {
    let firmware = Board { disk: true, ..Board::new(arch) }.build("panic", "");
    let mut machine = firmware.boot();
    machine.hello();
    machine.begin(&["/bin/probe", "try", "write /proc/sysrq-trigger c"]);
    machine.hello();
    assert!(machine.console().contains("Kernel panic"));
    let device = machine.coracle(&["inspect", "device"]);
    assert_eq!(value(&device, "last_reset"), "unclean", "{device}");
}

fn a_broken_config_leads_to_rescue_with_its_lifeline(arch: &'static str) {
    let services = demo("web", r#""/bin/demo", "hello-http", "8080""#, "");
    let config = format!(
        r#"{{ "version": 1, "device": {{ "modules": ["virtio_pci", "virtio_console"], "rescue": {{ "reboot_after": "0" }} }},
        "services": [ {services} {AGENT} ], "memroy": "12M" }}"#
    );
    let firmware = Board::new(arch).build_with("rescue", &config);
    let mut machine = firmware.boot();
    machine.hello();
    let listed = machine.coracle(&["ps", "--json"]);
    assert!(listed.contains("\"agent\"") && !listed.contains("\"web\""), "{listed}");
    let console = machine.console();
    assert!(console.contains("memroy") && console.to_lowercase().contains("rescue"), "{console}");
    power_off(machine);
}

fn a_kernel_without_memory_controller_holds_what_it_cannot_limit(arch: &'static str) {
    let services = demo("web", r#""/bin/demo", "hello-http", "8080""#, "");
    let board = Board { append: "cgroup_disable=memory".to_owned(), ..Board::new(arch) };
    let firmware = board.build("no-memory-controller", &services);
    let mut machine = firmware.boot();
    machine.hello();
    let line = machine.await_state("web", "held");
    assert!(value(&line, "reason").contains("memory"), "{line}");
    machine.await_state("agent", "running");
    // A build host that judges by this board's profile refuses the same service for the same reason.
    let (_, profile) = machine.run(&["/sbin/coracle", "doctor", "--json"]);
    std::fs::write(firmware.part("profile.json"), profile).unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_coracle"));
    check.arg("check").arg("--board").arg(firmware.part("profile.json"));
    check.arg("--root").arg(firmware.part("firmware")).arg(firmware.part("config.json"));
    let checked = check.output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.code() == Some(78) && said.contains("web: limits.memory cannot be enforced here"), "{said}");
    power_off(machine);
}
