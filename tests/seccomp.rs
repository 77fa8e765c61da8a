//! The compiled filters in the running kernel: each system call number is made by a program under the filter, with
//! arguments that do no harm, and its answer is compared with the policy.

mod probe;

use coracle::plan::CapSet;
use coracle::seccomp::policy::{Decision, REFUSED, UNKNOWN};
use coracle::seccomp::syscalls::Sys;
use coracle::seccomp::{Arch, Policy, Profile, Verdict, compile, load};
use probe::{confined, value};

const NONE: CapSet = CapSet::EMPTY;

fn under(profile: Profile, compat: bool, words: &[&str]) -> String {
    let program = compile(profile, NONE, compat);
    confined(move || load(&program).expect("the kernel takes the filter"), words)
}

fn answers(profile: Profile) -> Vec<(u32, String)> {
    let text = under(profile, false, &["try", "syscalls 0 600"]);
    let list = value(&text, "syscalls 0 600").strip_prefix("ok ").expect("the probe made the calls");
    list.split(' ')
        .map(|entry| {
            let (number, answer) = entry.split_once('=').unwrap();
            (number.parse().unwrap(), answer.to_owned())
        })
        .collect()
}

/// uretprobe and uprobe of x86_64: the kernel lets them past every filter (kernel/seccomp.c of newer kernels), and they
/// do nothing unless a tracer with privileges placed a probe.
const PAST_FILTERS: [u32; 2] = [335, 336];

/// The answer of an allowed call without any filter.
fn unconfined(number: u32) -> String {
    let attempt = format!("syscalls {number} {number}");
    let text = confined(|| {}, &["try", &attempt]);
    value(&text, &attempt).rsplit('=').next().unwrap_or_default().to_owned()
}

#[test]
fn every_number_is_answered_as_the_policy_says() {
    for profile in [Profile::Default, Profile::Strict] {
        let policy = Policy::new(profile, NONE);
        let mut allowed = 0;
        for (number, answer) in answers(profile) {
            let known = Sys::ALL.iter().find(|call| call.number(Arch::NATIVE) == Some(number));
            let Some(call) = known else {
                if PAST_FILTERS.contains(&number) {
                    continue;
                }
                assert_eq!(answer, "exit:38", "{number} is unknown");
                continue;
            };
            let name = call.name();
            match policy.decision(*call) {
                Decision::Fixed(REFUSED) => assert_eq!(answer, "exit:1", "{profile:?} {name}"),
                Decision::Fixed(UNKNOWN) => assert_eq!(answer, "exit:38", "{profile:?} {name}"),
                // What the kernel itself refuses or lacks it refuses without a filter too.
                Decision::Fixed(Verdict::Allow) if ["exit:1", "exit:38"].contains(&answer.as_str()) => {
                    assert_eq!(answer, unconfined(number), "{profile:?} {name}");
                }
                Decision::Fixed(Verdict::Allow) => {
                    allowed += 1;
                    assert_ne!(answer, "signal:31", "{profile:?} {name}");
                }
                _ => {}
            }
        }
        assert!(allowed > 200, "{allowed} calls were allowed");
    }
}

#[test]
fn arguments_are_judged_by_the_bits_that_the_kernel_reads() {
    let tries = [
        ("socket 1 1 0", "ok"),
        ("socket 2 1 0", "ok"),
        ("socket 16 3 0", "ok"),
        ("socket 16 3 9", "EPERM"),
        ("socket 38 5 0", "EPERM"),
        ("socket 40 1 0", "EPERM"),
        ("socket 17 3 0", "EPERM"),
        ("socket 15 3 2", "EPERM"),
        ("unshare 0x10000000", "EPERM"),
        ("unshare 0x200", "ok"),
    ];
    let mut words = vec!["try"];
    words.extend(tries.iter().map(|(attempt, _)| *attempt));
    let text = under(Profile::Default, false, &words);
    for (attempt, wanted) in tries {
        assert_eq!(value(&text, attempt).split(' ').next(), Some(wanted), "{attempt}");
    }
    let number = |call: Sys| call.number(Arch::NATIVE).unwrap();
    let alg = format!("syscall {} 0x100000026 5 0", number(Sys::socket));
    let sti = format!("syscall {} 0 0x700005412 0", number(Sys::ioctl));
    let clone3 = format!("syscall {} 0 0", number(Sys::clone3));
    let text = under(Profile::Default, false, &["try", &alg, &sti, &clone3]);
    assert_eq!(value(&text, &alg), "EPERM", "AF_ALG with a bit above the int");
    assert_eq!(value(&text, &sti), "EPERM", "TIOCSTI with bits above the command");
    assert_eq!(value(&text, &clone3), "ENOSYS");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn calls_of_the_other_abis_do_not_get_past_the_filter() {
    let getpid_x32 = "syscall 0x40000027";
    let text = under(Profile::Default, false, &["try", getpid_x32, "in-child int80 20"]);
    assert_eq!(value(&text, getpid_x32), "ENOSYS", "x32");
    assert_eq!(value(&text, "in-child int80 20"), "ok signal 31", "getpid as i386");
    let text = under(Profile::Default, true, &["try", "int80 20", "int80 21 0 0 0", "int80 999"]);
    if value(&text, "int80 20") == "ENOSYS" {
        println!("skip: seccomp compat: the kernel has no 32-bit entry");
        return;
    }
    assert!(value(&text, "int80 20").starts_with("ok"), "getpid as i386 under the same policy");
    assert_eq!(value(&text, "int80 21 0 0 0"), "EPERM", "mount as i386");
    assert_eq!(value(&text, "int80 999"), "ENOSYS");
}

#[test]
fn log_lets_everything_run() {
    let text = under(Profile::Log, false, &["try", "socket 16 3 9", "unshare 0x400"]);
    assert!(value(&text, "socket 16 3 9").starts_with("ok"), "{text}");
    assert_eq!(value(&text, "unshare 0x400"), "ok 0");
}

#[test]
fn the_filter_stays_and_cannot_be_loosened() {
    let text = under(Profile::Default, false, &["status"]);
    assert_eq!(value(&text, "Seccomp"), "2");
    assert_eq!(value(&text, "NoNewPrivs"), "1");
    let number = |call: Sys| call.number(Arch::NATIVE).unwrap();
    let dumpable = format!("syscall {} 38 0 0 0 0", number(Sys::prctl));
    let mm = format!("syscall {} 35 0 0 0 0", number(Sys::prctl));
    let text = under(Profile::Default, false, &["try", &dumpable, &mm, "in-child syscall 101 0 0 0 0"]);
    assert_eq!(value(&text, &dumpable), "EINVAL", "PR_SET_NO_NEW_PRIVS 0");
    assert_eq!(value(&text, &mm), "EPERM", "PR_SET_MM");
}
