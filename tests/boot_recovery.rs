//! What becomes of an emulated board whose service does not recover: its watchdog is no longer fed, or it is rebooted, so
//! often and no more. `scripts/test-boot` builds the programs for the boards and runs this.

#[macro_use]
mod machine;

use machine::{Board, Firmware, Machine};

boards!(
    a_critical_service_that_does_not_recover_resets_the_board_once_its_budget_is_spent,
    escalation_ends_in_reboots_and_those_in_a_board_that_is_reachable,
);

/// A service that ends with code 3 after a second, with more keys.
fn bad(restart: &str, more: &str) -> String {
    format!(
        r#"{{ "name": "bad", "image": "demo.tar", "command": ["/bin/demo", "crasher", "1"], {more}
            "limits": {{ "memory": "4M" }}, "restart": {{ "delay": "100ms", "max_delay": "500ms", {restart} }} }},
           {{ "name": "web", "image": "demo.tar", "command": ["/bin/demo", "sleep"], "limits": {{ "memory": "4M" }} }},
        "#
    )
}

/// The text of a key of `inspect device`.
fn fact(machine: &mut Machine<'_>, key: &str) -> String {
    let json = machine.coracle(&["inspect", "device"]);
    let (_, rest) = json.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}"));
    rest.split([',', '}']).next().unwrap_or_default().trim_matches('"').to_owned()
}

fn boot_id(machine: &mut Machine<'_>) -> String {
    machine.read("/proc/sys/kernel/random/boot_id")
}

/// The board runs its lifelines alone, says why, and is left alone.
fn is_guarded(machine: &mut Machine<'_>) {
    assert_eq!((fact(machine, "resets"), fact(machine, "reset_for")), ("2".into(), "bad".into()));
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(shown.contains("agent") && !shown.contains("web"), "{shown}");
    assert!(shown.contains("DEGRADED: 2 resets in a row, the last one because of bad: only lifelines run"), "{shown}");
    let boot = boot_id(machine);
    machine.run(&["/bin/probe", "sleep", "12"]);
    assert_eq!(boot_id(machine), boot, "it was reset again");
}

fn firmware(arch: &'static str, name: &str, device: &str, services: &str) -> Firmware {
    let device = format!("{device} \"max_resets\": 2,");
    Board { device, disk: true, memory: 160, modules: vec!["softdog"], ..Board::new(arch) }.build(name, services)
}

fn a_critical_service_that_does_not_recover_resets_the_board_once_its_budget_is_spent(arch: &'static str) {
    let services = bad(r#""tries": 3, "within": "10m""#, r#""critical": true,"#);
    let firmware = firmware(arch, "critical", r#""watchdog": { "timeout": "4s" },"#, &services);
    let mut machine = firmware.boot();
    machine.hello();
    assert_eq!(fact(&mut machine, "resets"), "0");
    // The board does this by itself: its watchdog is one that keeps no record, so what is known was written before.
    machine.hello();
    let console = machine.console();
    let (before, _) =
        console.split_once("THE HARDWARE WATCHDOG IS NO LONGER FED").unwrap_or_else(|| panic!("{console}"));
    let ends = before.matches("bad ended").count();
    assert!(ends >= 4, "reset after {ends} ends, before its three tries were used up: {console}");
    assert_eq!(fact(&mut machine, "resets"), "1");
    assert_eq!((fact(&mut machine, "reset_for"), fact(&mut machine, "last_reset")), ("bad".into(), "unclean".into()));
    machine.hello();
    is_guarded(&mut machine);

    // Someone who acts begins anew, and whose hands-off holds keeps the board alive.
    machine.begin(&["/sbin/reboot"]);
    machine.hello();
    machine.coracle(&["hold", "--all", "--for", "1h"]);
    assert_eq!((fact(&mut machine, "resets"), fact(&mut machine, "last_reset")), ("0".into(), "reboot".into()));
    let boot = boot_id(&mut machine);
    machine.run(&["/bin/probe", "sleep", "12"]);
    assert_eq!(boot_id(&mut machine), boot);
    machine.begin(&["/sbin/poweroff"]);
    machine.off();
    firmware.state_is_clean().unwrap();
}

fn escalation_ends_in_reboots_and_those_in_a_board_that_is_reachable(arch: &'static str) {
    let services = bad(r#""tries": 1, "within": "10m", "then": "reboot""#, "");
    let firmware = firmware(arch, "escalation", "", &services);
    let mut machine = firmware.boot();
    machine.hello();
    for resets in ["1", "2"] {
        machine.hello();
        assert_eq!((fact(&mut machine, "resets"), fact(&mut machine, "reset_for")), (resets.into(), "bad".into()));
        assert_eq!(fact(&mut machine, "last_reset"), "reboot");
    }
    is_guarded(&mut machine);
    let console = machine.console();
    let mut rest = console.as_str();
    for step in
        ["those that need it are started again", "everything but lifelines is started again", "the board reboots"]
    {
        let at = rest.find(&format!("bad does not recover: {step}")).unwrap_or_else(|| panic!("no {step}: {console}"));
        rest = &rest[at..];
    }
    // A power cut is no crash: it neither counts nor forgives.
    drop(machine);
    let mut machine = firmware.boot();
    machine.hello();
    assert_eq!((fact(&mut machine, "resets"), fact(&mut machine, "last_reset")), ("2".into(), "unclean".into()));
    let (_, shown) = machine.run(&["/sbin/coracle", "ps"]);
    assert!(shown.contains("DEGRADED: 2 resets in a row: only lifelines run"), "{shown}");
    machine.begin(&["/sbin/reboot"]);
    machine.hello();
    assert_eq!(fact(&mut machine, "resets"), "0");
    machine.await_state("web", "running");
}
