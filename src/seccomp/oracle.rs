//! The policies through the compiler of the crate `seccompiler`, on the architectures that it knows, against ours.
//!
//! It takes one list of allowed calls with conditions and one answer to all else, so what is compared is: does the call
//! run? Cases of refusal inside an allowing rule become conditions of "not equal".

use super::interpret::{Call, run};
use super::policy::{Cond, Decision, Rule, Width};
use super::syscalls::Sys;
use super::*;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

fn condition(cond: &Cond, refuse: bool) -> SeccompCondition {
    let (length, whole) = match cond.width {
        Width::Low32 => (Len::Dword, 0xffff_ffff),
        Width::Full64 => (Len::Qword, u64::MAX),
    };
    let op = match (refuse, cond.mask == whole) {
        (true, true) => Op::Ne,
        (false, true) => Op::Eq,
        (false, false) => Op::MaskedEq(cond.mask),
        (true, false) => panic!("a refusal by mask has no equivalent"),
    };
    SeccompCondition::new(cond.arg, length, op, cond.value).unwrap()
}

/// The alternatives under which `rule` lets its call run; `None`: never.
fn alternatives(policy: &Policy, rule: &Rule) -> Option<Vec<SeccompRule>> {
    let cases = rule.cases.iter().filter(|case| case.with.is_none_or(|any| any.0 & policy.caps.0 != 0));
    if rule.otherwise == Verdict::Allow {
        let all: Vec<_> = cases.map(|case| condition(&case.when[0], true)).collect();
        return Some(vec![SeccompRule::new(all).unwrap()]);
    }
    let any: Vec<_> = cases
        .map(|case| SeccompRule::new(case.when.iter().map(|cond| condition(cond, false)).collect()).unwrap())
        .collect();
    (!any.is_empty()).then_some(any)
}

fn theirs(policy: &Policy, arch: Arch, target: TargetArch) -> seccompiler::BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in Sys::ALL {
        let Some(number) = call.number(arch) else { continue };
        match policy.decision(*call) {
            Decision::Fixed(Verdict::Allow) => drop(rules.insert(number.into(), Vec::new())),
            Decision::Fixed(_) => {}
            Decision::ByArguments(rule) => {
                if let Some(any) = alternatives(policy, rule) {
                    rules.insert(number.into(), any);
                }
            }
        }
    }
    SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, target).unwrap().try_into().unwrap()
}

#[test]
fn our_filters_and_those_of_seccompiler_let_the_same_calls_run() {
    let values = [0, 1, 2, 10, 16, 17, 29, 35, 38, 0x80, 0x2_0008, 0x1000_0011, 0x5412, 0x541c, 1 << 32, u64::MAX];
    for (arch, target) in
        [(Arch::X86_64, TargetArch::x86_64), (Arch::Aarch64, TargetArch::aarch64), (Arch::Riscv64, TargetArch::riscv64)]
    {
        for (profile, caps) in [
            (Profile::Default, CapSet::EMPTY),
            (Profile::Default, CapSet(1 << 12 | 1 << 13)),
            (Profile::Default, CapSet(1 << 21)),
            (Profile::Strict, CapSet::EMPTY),
            (Profile::Init, CapSet::EMPTY),
            (Profile::Worker, CapSet::EMPTY),
        ] {
            let policy = Policy::new(profile, caps);
            let ours = assemble::assemble(&policy, &[arch]).instructions().to_vec();
            let theirs = theirs(&policy, arch, target);
            assert!(ours.len() * 4 < theirs.len() || theirs.len() < 500, "{} {}", ours.len(), theirs.len());
            let decided_by_arguments = |number: u32| {
                let call = Sys::ALL.iter().find(|call| call.number(arch) == Some(number));
                call.is_some_and(|call| matches!(policy.decision(*call), Decision::ByArguments(_)))
            };
            for number in 0..600 {
                let values = if decided_by_arguments(number) { &values[..] } else { &values[..1] };
                for a in values.iter().copied() {
                    for b in values.iter().copied() {
                        let call = Call::new(arch, number, [a, b, a ^ b, b, 0, 0]);
                        let runs = |program| run(program, &call) == Verdict::Allow;
                        assert_eq!(runs(&ours), runs(&theirs), "{arch:?} {profile:?} {call:x?}");
                    }
                }
            }
        }
    }
}
