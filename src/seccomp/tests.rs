//! What the compiled filters answer, read by the interpreter.

use super::groups::{GROUPS, INIT, WORKER};
use super::interpret::{Call, run};
use super::policy::{Access, Case, Cond, Decision, REFUSED, Rule, UNKNOWN, Width};
use super::rules::RULES;
use super::syscalls::Sys;
use super::*;

const NONE: CapSet = CapSet::EMPTY;

fn program(profile: Profile, caps: CapSet, arch: Arch) -> Vec<sock_filter> {
    assemble::assemble(&Policy::new(profile, caps), &[arch]).instructions().to_vec()
}

fn ask(program: &[sock_filter], arch: Arch, call: Sys, args: &[u64]) -> Verdict {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(program, &Call::new(arch, call.number(arch).unwrap(), all))
}

#[test]
fn every_call_has_exactly_one_place_in_the_policy() {
    for call in Sys::ALL {
        let groups = GROUPS.iter().flat_map(|group| group.calls).filter(|listed| *listed == call).count();
        let rules = RULES.iter().filter(|rule| rule.call == *call).count();
        assert_eq!(groups + rules, 1, "{} stands {groups} times in groups, {rules} in rules", call.name());
    }
}

/// The numbers that a filter could confuse: all near the tables, the private ARM calls, x32, and the extremes.
fn numbers() -> impl Iterator<Item = u32> {
    (0..1024).chain(0xf0000..0xf0010).chain(0x4000_0000..0x4000_0400).chain([0x7fff_ffff, 0x8000_0000, u32::MAX])
}

#[test]
fn every_number_of_every_architecture_meets_the_policy() {
    for profile in [Profile::Default, Profile::Strict, Profile::Log, Profile::Init, Profile::Worker] {
        for caps in [NONE, CapSet(u64::MAX)] {
            let policy = Policy::new(profile, caps);
            for arch in Arch::ALL {
                let program = program(profile, caps, arch);
                assert!(program.len() < 300, "{profile:?} {arch:?}: {} instructions", program.len());
                for number in numbers() {
                    let known = Sys::ALL.iter().find(|call| call.number(arch) == Some(number));
                    let verdict = run(&program, &Call::new(arch, number, [0; 6]));
                    match known.map(|call| policy.decision(*call)) {
                        None => assert_eq!(verdict, policy.unknown, "{arch:?} {number}"),
                        Some(Decision::Fixed(wanted)) => assert_eq!(verdict, wanted, "{arch:?} {number}"),
                        Some(Decision::ByArguments(rule)) => {
                            assert_eq!(verdict, by_arguments(&policy, rule, [0; 6]), "{arch:?} {number}");
                        }
                    }
                }
            }
        }
    }
}

/// What a rule says, read directly from the data.
fn by_arguments(policy: &Policy, rule: &Rule, args: [u64; 6]) -> Verdict {
    let case = rule.cases.iter().find(|case| {
        case.with.is_none_or(|any| any.0 & policy.caps.0 != 0)
            && case.when.iter().all(|cond| {
                let arg = args[cond.arg as usize];
                let read = if cond.width == Width::Low32 { arg & 0xffff_ffff } else { arg };
                read & cond.mask == cond.value
            })
    });
    policy.shown(case.map_or(rule.otherwise, |case| case.then))
}

/// Values that evade a filter which compares other bits than the kernel reads.
const ARGUMENTS: [u64; 22] = [
    0,
    1,
    2,
    8,
    9,
    10,
    16,
    17,
    29,
    35,
    38,
    40,
    0x80,
    0x2_0000,
    0x1000_0000,
    0x5412,
    0x541c,
    0xffff_ffff,
    1 << 32,
    1 << 32 | 1,
    1 << 63 | 0x5412,
    u64::MAX,
];

#[test]
fn rules_hold_for_all_interesting_arguments() {
    for caps in [NONE, CapSet(1 << 12), CapSet(1 << 13), CapSet(1 << 29)] {
        let policy = Policy::new(Profile::Default, caps);
        for arch in Arch::ALL {
            let program = program(Profile::Default, caps, arch);
            for rule in RULES {
                for a in ARGUMENTS {
                    for b in ARGUMENTS {
                        let args = [a, b, a ^ b, 0, 0, 0];
                        let verdict = run(&program, &Call::new(arch, rule.call.number(arch).unwrap(), args));
                        assert_eq!(
                            verdict,
                            by_arguments(&policy, rule, args),
                            "{arch:?} {} {args:x?}",
                            rule.call.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_default_policy_says_what_the_documentation_says() {
    for arch in Arch::ALL {
        let default = program(Profile::Default, NONE, arch);
        let ask = |call, args: &[u64]| ask(&default, arch, call, args);
        for call in [Sys::read, Sys::execve, Sys::futex, Sys::exit_group, Sys::getrandom, Sys::statx, Sys::prctl] {
            assert_eq!(ask(call, &[]), Verdict::Allow, "{arch:?} {}", call.name());
        }
        for call in [
            Sys::mount,
            Sys::bpf,
            Sys::keyctl,
            Sys::ptrace,
            Sys::setns,
            Sys::reboot,
            Sys::init_module,
            Sys::finit_module,
            Sys::kexec_load,
            Sys::perf_event_open,
            Sys::userfaultfd,
            Sys::io_uring_setup,
            Sys::open_by_handle_at,
            Sys::chroot,
            Sys::move_mount,
            Sys::fsopen,
            Sys::process_vm_writev,
            Sys::pidfd_getfd,
            Sys::clock_settime,
            Sys::add_key,
            Sys::umount2,
            Sys::pivot_root,
            Sys::syslog,
            Sys::acct,
            Sys::swapon,
        ] {
            assert_eq!(ask(call, &[]), REFUSED, "{arch:?} {}", call.name());
        }
        assert_eq!(ask(Sys::clone3, &[]), UNKNOWN);
        assert_eq!(ask(Sys::clone, &[0x3d_0f00]), Verdict::Allow, "a thread as pthread_create makes it");
        assert_eq!(ask(Sys::clone, &[17]), Verdict::Allow, "a child as fork makes it");
        assert_eq!(ask(Sys::clone, &[0x1000_0011]), REFUSED, "a user namespace");
        assert_eq!(ask(Sys::clone, &[0xf_0000_0000 | 0x1000_0011]), REFUSED, "the kernel ignores the upper half");
        assert_eq!(ask(Sys::unshare, &[0x200]), Verdict::Allow);
        assert_eq!(ask(Sys::unshare, &[0x80]), REFUSED, "a time namespace");
        for family in [1, 2, 10] {
            assert_eq!(ask(Sys::socket, &[family, 1, 0]), Verdict::Allow, "family {family}");
        }
        for family in [0, 15, 17, 29, 31, 38, 40, 44, 0xffff_ffff] {
            assert_eq!(ask(Sys::socket, &[family, 1, 0]), REFUSED, "family {family}");
        }
        assert_eq!(ask(Sys::socket, &[1 << 32 | 38, 5, 0]), REFUSED, "AF_ALG with junk above");
        assert_eq!(ask(Sys::socket, &[16, 3, 0]), Verdict::Allow, "netlink route");
        assert_eq!(ask(Sys::socket, &[16, 3, 9]), REFUSED, "netlink audit");
        assert_eq!(ask(Sys::ioctl, &[0, 0x5401]), Verdict::Allow);
        assert_eq!(ask(Sys::ioctl, &[0, 0x5412]), REFUSED);
        assert_eq!(ask(Sys::ioctl, &[0, 7 << 32 | 0x5412]), REFUSED, "the kernel reads the lower half of the command");
        assert_eq!(ask(Sys::personality, &[0x040_0000]), REFUSED, "READ_IMPLIES_EXEC");
    }
}

#[test]
fn capabilities_open_their_calls_and_no_others() {
    let arch = Arch::NATIVE;
    let admin = program(Profile::Default, NONE.with(21), arch);
    assert_eq!(ask(&admin, arch, Sys::mount, &[]), Verdict::Allow);
    assert_eq!(ask(&admin, arch, Sys::clone3, &[]), Verdict::Allow);
    assert_eq!(ask(&admin, arch, Sys::clone, &[0x1000_0011]), Verdict::Allow);
    assert_eq!(ask(&admin, arch, Sys::kexec_load, &[]), REFUSED);
    assert_eq!(ask(&admin, arch, Sys::init_module, &[]), REFUSED);
    let time = program(Profile::Default, NONE.with(25), arch);
    assert_eq!(ask(&time, arch, Sys::clock_settime, &[]), Verdict::Allow);
    assert_eq!(ask(&time, arch, Sys::mount, &[]), REFUSED);
    let raw = program(Profile::Default, NONE.with(13), arch);
    assert_eq!(ask(&raw, arch, Sys::socket, &[17, 3, 0]), Verdict::Allow);
    assert_eq!(ask(&raw, arch, Sys::socket, &[38, 5, 0]), REFUSED);
}

#[test]
fn strict_refuses_what_a_server_does_not_need_and_log_refuses_nothing() {
    let arch = Arch::NATIVE;
    let strict = program(Profile::Strict, NONE, arch);
    assert_eq!(ask(&strict, arch, Sys::shmget, &[]), REFUSED);
    assert_eq!(ask(&strict, arch, Sys::accept4, &[]), Verdict::Allow);
    assert_eq!(ask(&strict, arch, Sys::execve, &[]), Verdict::Allow);
    let log = program(Profile::Log, NONE, arch);
    for number in numbers() {
        let verdict = run(&log, &Call::new(arch, number, [0; 6]));
        assert!(matches!(verdict, Verdict::Allow | Verdict::Log), "{number}: {verdict:?}");
    }
    assert_eq!(run(&log, &Call { arch: 1, number: 0, args: [0; 6] }), Verdict::Log);
    assert_eq!(ask(&log, arch, Sys::socket, &[38, 5, 0]), Verdict::Log);
}

#[test]
fn a_foreign_architecture_is_killed_or_held_to_the_same_policy() {
    for arch in Arch::ALL {
        let alone = program(Profile::Default, NONE, arch);
        for foreign in Arch::ALL.into_iter().filter(|other| *other != arch) {
            assert_eq!(run(&alone, &Call::new(foreign, 0, [0; 6])), Verdict::Kill);
        }
        let Some(partner) = arch.partner() else { continue };
        let policy = Policy::new(Profile::Default, NONE);
        let both = assemble::assemble(&policy, &[arch, partner]).instructions().to_vec();
        let theirs = program(Profile::Default, NONE, partner);
        for number in numbers() {
            for args in [[0; 6], [0x1000_0011; 6], [38; 6], [0x5412; 6]] {
                let (native, foreign) = (Call::new(arch, number, args), Call::new(partner, number, args));
                assert_eq!(run(&both, &native), run(&alone, &native));
                assert_eq!(run(&both, &foreign), run(&theirs, &foreign));
            }
        }
        assert_eq!(run(&both, &Call { arch: 0, number: 0, args: [0; 6] }), Verdict::Kill);
    }
}

#[test]
fn init_and_worker_can_start_nothing_and_reach_nothing() {
    for arch in Arch::ALL {
        for profile in [Profile::Init, Profile::Worker] {
            let program = program(profile, NONE, arch);
            for call in [Sys::execve, Sys::clone, Sys::socket, Sys::mount, Sys::ptrace, Sys::connect, Sys::bpf] {
                assert_eq!(ask(&program, arch, call, &[17]), REFUSED, "{profile:?} {}", call.name());
            }
        }
        let worker = program(Profile::Worker, NONE, arch);
        assert_eq!(ask(&worker, arch, Sys::mknodat, &[3, 0, 0o020000, 0]), Verdict::Allow, "a whiteout");
        assert_eq!(ask(&worker, arch, Sys::mknodat, &[3, 0, 0o060644, 0x800]), REFUSED, "a disk");
    }
    assert!(INIT.len() < 100 && WORKER.len() < 160);
}

#[test]
fn every_access_of_the_groups_is_named_in_the_documentation() {
    let page = include_str!("../../config/seccomp.md");
    for group in GROUPS {
        assert!(page.contains(&format!("| {} |", group.name)), "config/seccomp.md lacks the group {:?}", group.name);
        if let Access::With(caps) = group.access {
            for cap in caps.names() {
                assert!(page.contains(&format!("CAP_{cap}")), "config/seccomp.md lacks CAP_{cap}");
            }
        }
    }
}

#[test]
fn a_full_64_bit_condition_looks_at_both_halves() {
    static CASES: &[Case] = &[Case {
        when: &[Cond { arg: 2, width: Width::Full64, mask: u64::MAX, value: 0x1_0000_0005 }],
        with: None,
        then: Verdict::Allow,
    }];
    static ZERO: &[Case] = &[Case {
        when: &[Cond { arg: 2, width: Width::Full64, mask: 0xff_0000_00ff, value: 0x01_0000_0000 }],
        with: None,
        then: Verdict::Allow,
    }];
    let arch = Arch::X86_64;
    for (cases, good, bad) in [
        (CASES, 0x1_0000_0005, [5, 0x2_0000_0005, 0x1_0000_0006]),
        (ZERO, 0x01_0000_0100, [0, 0x101_0000_0001, 0x2_0000_0000]),
    ] {
        let rule = Box::leak(Box::new(Rule { call: Sys::read, cases, otherwise: REFUSED, lifted_by: NONE }));
        let policy = Policy::of_rules(core::slice::from_ref(rule));
        let program = assemble::assemble(&policy, &[arch]).instructions().to_vec();
        assert_eq!(ask(&program, arch, Sys::read, &[0, 0, good]), Verdict::Allow);
        for bad in bad {
            assert_eq!(ask(&program, arch, Sys::read, &[0, 0, bad]), REFUSED, "{bad:#x}");
        }
    }
}
