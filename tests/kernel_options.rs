//! The kernel config fragments name what the doctor names, and what only a kernel made small by hand lacks; each option says
//! what is lost without it.

use coracle::supervisor::board::features::FEATURES;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Options that the doctor does not look for: most of them can be left out with CONFIG_EXPERT alone. What is lost without them
/// is said where it is lost.
const BESIDES: [(&str, &str); 11] = [
    ("CONFIG_FILE_LOCKING", "coracle-required.cfg"),
    ("CONFIG_TMPFS_XATTR", "coracle-recommended.cfg"),
    ("CONFIG_INET", "coracle-recommended.cfg"),
    ("CONFIG_MEMFD_CREATE", "coracle-recommended.cfg"),
    ("CONFIG_EVENTFD", "coracle-required.cfg"),
    ("CONFIG_PROC_SYSCTL", "coracle-recommended.cfg"),
    ("CONFIG_ADVISE_SYSCALLS", "coracle-recommended.cfg"),
    ("CONFIG_POSIX_TIMERS", "coracle-recommended.cfg"),
    ("CONFIG_RTC_INTF_DEV", "coracle-recommended.cfg"),
    ("CONFIG_WATCHDOG_SYSFS", "coracle-recommended.cfg"),
    ("CONFIG_WATCHDOG_PRETIMEOUT_GOV", "coracle-recommended.cfg"),
];

/// The options of a fragment; each is `=y`, beneath a comment of its own.
fn fragment(name: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/kernel").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeSet::new();
    for (number, line) in lines.iter().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let option = line.strip_suffix("=y").unwrap_or_else(|| panic!("{name}:{}: {line}", number + 1));
        let comment = number.checked_sub(1).and_then(|above| lines[above].strip_prefix("# "));
        assert!(comment.is_some_and(|text| text.len() > 10), "{name}:{}: {option} does not say why", number + 1);
        assert!(found.insert(option.to_owned()), "{name}:{}: {option} is there twice", number + 1);
    }
    found
}

#[test]
fn the_fragments_and_the_doctor_name_the_same_options() {
    let options = |required: bool| -> BTreeSet<String> {
        let features = FEATURES.iter().filter(|feature| feature.required == required);
        features.flat_map(|feature| feature.options).map(|option| (*option).to_owned()).collect()
    };
    let required = options(true);
    let recommended = options(false).difference(&required).cloned().collect::<BTreeSet<_>>();
    for (name, mut wanted) in [("coracle-required.cfg", required), ("coracle-recommended.cfg", recommended)] {
        for (option, _) in BESIDES.iter().filter(|(_, fragment)| *fragment == name) {
            assert!(wanted.insert((*option).to_owned()), "the doctor looks for {option}");
        }
        assert_eq!(fragment(name), wanted);
    }
}
