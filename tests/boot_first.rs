//! coracle as the first process of emulated boards: its signals, its own failure, its configs. `scripts/test-boot` builds
//! the programs for the boards and runs this.

#[macro_use]
mod machine;

use machine::{AGENT, Board, Machine};

boards!(
    signals_of_an_init_end_the_board,
    a_first_process_that_fails_goes_on_and_soon_after_that_is_a_rescue,
    another_program_takes_the_place_of_the_first_process,
    a_partition_that_is_missing_is_shown_as_degraded,
    an_edited_config_is_used_and_a_broken_one_is_not,
    rescue_can_be_asked_for_and_ends_by_itself,
    a_message_is_shown_once_on_a_console_that_the_kernel_writes_to_as_well,
    a_data_partition_is_found_by_the_label_of_its_file_system,
    an_initramfs_is_sealed_without_a_second_start,
);

fn attempt(machine: &mut Machine<'_>, attempt: &str) {
    let answer = machine.probe(&[attempt]);
    assert!(answer.contains(": ok"), "{answer}");
}

fn signals_of_an_init_end_the_board(arch: &'static str) {
    let firmware = Board::new(arch).build("signals", "");
    let mut machine = firmware.boot();
    // SIGINT, which is what Ctrl-Alt-Del becomes, and SIGTERM: reboot.
    for signal in ["kill 1 2", "kill 1 15"] {
        machine.hello();
        machine.await_state("agent", "running");
        machine.begin(&["/bin/probe", "try", signal]);
    }
    machine.hello();
    machine.begin(&["/sbin/coracle", "reboot", "recovery"]);
    machine.hello();
    // SIGPWR: power off.
    machine.begin(&["/bin/probe", "try", "kill 1 30"]);
    let console = machine.off();
    assert_eq!(console.matches("everything is stopped: the board reboots").count(), 3, "{console}");
    assert!(console.contains("everything is stopped: the board powers off"), "{console}");
    assert!(console.contains("Restarting system with command 'recovery'"), "the word for the boot loader: {console}");
    // SIGUSR1: the board stands still, with its power on.
    let mut machine = firmware.boot();
    machine.hello();
    machine.begin(&["/bin/probe", "try", "kill 1 10"]);
    machine.until("a halt", |machine| machine.console().contains("System halted").then_some(()));
    assert!(machine.console().contains("everything is stopped: the board halts"), "{}", machine.console());
}

fn a_first_process_that_fails_goes_on_and_soon_after_that_is_a_rescue(arch: &'static str) {
    let services = r#"{ "name": "web", "image": "demo.tar", "command": ["/bin/demo", "sleep"], "limits": { "memory": "4M" } },
        { "name": "down", "image": "demo.tar", "command": ["/bin/demo", "sleep"], "limits": { "memory": "4M" } },"#;
    let firmware = Board::new(arch).build("fault", services);
    let mut machine = firmware.boot();
    machine.hello();
    machine.coracle(&["stop", "down"]);
    let pids = |line: &str| {
        let of = |key: &str| Some(line.split_once(key)?.1.split([',', '}']).next()?.to_owned());
        (of("\"pid\":").unwrap(), of("\"init\":").unwrap())
    };
    let before = machine.await_state("web", "running");
    machine.run(&["&", "/bin/probe", "try", "kill 1 11"]);
    machine.until_supervised();
    // The same process, and someone's word still holds.
    assert_eq!(pids(&machine.await_state("web", "running")), pids(&before));
    machine.await_state("down", "stopped");
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(!shown.contains("DEGRADED"), "{shown}");
    // It is still the parent, and learns how its children end.
    machine.coracle(&["kill", "--signal", "9", "web"]);
    machine.await_state("web", "running");
    // Once more within ten seconds; a slow board may need more than one attempt to be so fast.
    let rescued = |machine: &mut Machine<'_>| {
        machine.run(&["&", "/bin/probe", "try", "kill 1 11"]);
        machine.until_supervised();
        machine.run(&["/sbin/coracle", "ps"]).1
    };
    let mut shown = String::new();
    for _ in 0..5 {
        shown = rescued(&mut machine);
        if shown.contains("DEGRADED") {
            break;
        }
    }
    assert!(shown.contains("DEGRADED: rescue: the first process has failed again and again"), "{shown}");
    assert!(shown.contains("agent") && !shown.contains("web"), "{shown}");
    // In rescue it is the same; then a reboot.
    assert!(rescued(&mut machine).contains("DEGRADED: rescue"));
    machine.begin(&["/bin/probe", "try", "kill 1 11"]);
    machine.hello();
    machine.await_state("web", "running");
    machine.begin(&["/sbin/poweroff"]);
    let console = machine.off();
    assert!(console.contains("web runs on and is supervised again"), "{console}");
}

fn another_program_takes_the_place_of_the_first_process(arch: &'static str) {
    let services =
        r#"{ "name": "web", "image": "demo.tar", "command": ["/bin/demo", "sleep"], "limits": { "memory": "4M" } },"#;
    let device = r#""watchdog": { "timeout": "4s" },"#.to_owned();
    let firmware = Board { device, modules: vec!["softdog"], ..Board::new(arch) }.build("upgrade", services);
    let mut machine = firmware.boot();
    machine.hello();
    let before = machine.await_state("web", "running");
    let place = |line: &str| line.split_once("\"pid\":").unwrap().1.split(',').next().unwrap().to_owned();
    for _ in 0..2 {
        machine.coracle(&["upgrade", "/sbin/coracle"]);
        assert_eq!(place(&machine.await_state("web", "running")), place(&before));
    }
    // The watchdog has stayed open: the kernel would say that it was closed, and a stray one would reset the board.
    assert_eq!(machine.watchdogs(), 1);
    let boot = machine.read("/proc/sys/kernel/random/boot_id");
    machine.run(&["/bin/probe", "sleep", "6"]);
    assert_eq!(machine.read("/proc/sys/kernel/random/boot_id"), boot);
    let (code, said) = machine.run(&["/sbin/coracle", "upgrade", "/bin/probe"]);
    assert!(code == 1 && said.contains("nothing has changed"), "{said}");
    machine.coracle(&["kill", "--signal", "9", "web"]);
    machine.until("its restart", |machine| {
        (place(&machine.await_state("web", "running")) != place(&before)).then_some(())
    });
    machine.begin(&["/sbin/poweroff"]);
    let console = machine.off();
    assert_eq!(console.matches("web runs on and is supervised again").count(), 2, "{console}");
    assert!(!console.contains("did not stop") && !console.contains("NO HARDWARE WATCHDOG"), "{console}");
}

fn a_partition_that_is_missing_is_shown_as_degraded(arch: &'static str) {
    let device = r#""mounts": [ { "source": "PARTNAME=data", "target": "/data", "type": "ext4", "fallback": "2M" } ],"#;
    let firmware = Board { device: device.to_owned(), ..Board::new(arch) }.build("degraded", "");
    let mut machine = firmware.boot();
    machine.hello();
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(shown.contains("DEGRADED: /data is 2M of memory"), "{shown}");
    let device = machine.coracle(&["inspect", "device"]);
    assert!(device.contains("\"degraded\":[\"/data is 2M of memory"), "{device}");
    let mounts = machine.read("/proc/mounts");
    assert!(mounts.lines().any(|line| line.starts_with("tmpfs /data tmpfs")), "{mounts}");
    machine.begin(&["/sbin/poweroff"]);
    assert!(machine.off().contains("DEGRADED: /data is 2M of memory"));
}

fn an_edited_config_is_used_and_a_broken_one_is_not(arch: &'static str) {
    let firmware = Board { disk: true, ..Board::new(arch) }.build("edited", "");
    let mut machine = firmware.boot();
    machine.hello();
    machine.await_state("agent", "running");
    let seed = machine.probe(&["stat /data/coracle/random-seed"]);
    assert!(seed.contains(": ok"), "the seed for the next boot is there: {seed}");
    let edited = r#"{"version":1,"device":{"hostname":"edited","state":"/data/coracle"},"services":[{"name":"agent","root":"host","command":["/bin/agent","serve"],"lifeline":true,"limits":{"memory":"unlimited","pids":256}}]}"#;
    attempt(&mut machine, "create /data/coracle/config.json");
    attempt(&mut machine, &format!("write /data/coracle/config.json {edited}"));
    machine.begin(&["/sbin/reboot"]);
    machine.hello();
    machine.await_state("agent", "running");
    assert_eq!(machine.read("/proc/sys/kernel/hostname").trim(), "edited");
    machine.until("the last good config", |machine| {
        machine.probe(&["read /data/coracle/last-good"]).contains(": ok").then_some(())
    });
    attempt(&mut machine, "create /data/coracle/config.json");
    attempt(&mut machine, "write /data/coracle/config.json {\"version\":1,\"memroy\":2}");
    machine.begin(&["/sbin/reboot"]);
    machine.hello();
    assert_eq!(machine.read("/proc/sys/kernel/hostname").trim(), "edited");
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(shown.contains("the last good config runs in its place"), "{shown}");
    machine.begin(&["/sbin/poweroff"]);
    machine.off();
    firmware.state_is_clean().unwrap();
}

fn rescue_can_be_asked_for_and_ends_by_itself(arch: &'static str) {
    let device = r#""rescue": { "reboot_after": "20s" },"#;
    let board = Board { device: device.to_owned(), append: "coracle.rescue".to_owned(), ..Board::new(arch) };
    let firmware = board.build("asked", "");
    let mut machine = firmware.boot();
    machine.hello();
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(shown.contains("rescue: the kernel's command line asks for it"), "{shown}");
    assert!(!shown.contains("rescue-shell"), "the command line alone gives a shell: {shown}");
    // It reboots, and the agent says hello again.
    machine.hello();
    machine.begin(&["/sbin/poweroff"]);
    machine.off();
}

fn a_message_is_shown_once_on_a_console_that_the_kernel_writes_to_as_well(arch: &'static str) {
    // As loud as a kernel without any word about it.
    let board = Board { append: "loglevel=7 coracle.log=both".to_owned(), ..Board::new(arch) };
    let firmware = board.build("both", "");
    let mut machine = firmware.boot();
    machine.hello();
    machine.await_state("agent", "running");
    machine.begin(&["/sbin/poweroff"]);
    let console = machine.off();
    for message in ["coracle: last reset: ", "coracle: agent is running", "coracle: everything is stopped"] {
        assert_eq!(console.matches(message).count(), 1, "{message}: {console}");
    }
}

fn a_data_partition_is_found_by_the_label_of_its_file_system(arch: &'static str) {
    let config = format!(
        r#"{{ "version": 1, "device": {{ "state": "/data/coracle",
        "modules": ["virtio_pci", "virtio_console", "virtio_blk", "crc32c_generic", "ext4"],
        "mounts": [ {{ "source": "LABEL=state", "target": "/data", "type": "ext4", "wait": "20s" }} ] }},
        "services": [ {AGENT} ] }}"#
    );
    let firmware = Board { disk: true, ..Board::new(arch) }.build_with("label", &config);
    let mut machine = firmware.boot();
    machine.hello();
    let mounts = machine.read("/proc/mounts");
    assert!(mounts.lines().any(|line| line.contains(" /data ext4 rw")), "{mounts}");
    machine.begin(&["/sbin/poweroff"]);
    machine.off();
    firmware.state_is_clean().unwrap();
}

fn an_initramfs_is_sealed_without_a_second_start(arch: &'static str) {
    let firmware = Board::new(arch).build("sealed", "");
    let mut machine = firmware.boot();
    machine.hello();
    // A program that was executed again to seal it runs from a mount of its own or from memory.
    let answer = machine.probe(&["readlink /proc/1/exe"]);
    assert_eq!(answer.trim().rsplit(": ").next(), Some("ok /sbin/coracle"), "{answer}");
    machine.await_state("agent", "running");
    machine.begin(&["/sbin/poweroff"]);
    machine.off();
}
