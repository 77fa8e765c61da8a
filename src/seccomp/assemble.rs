//! Policy to classic BPF (Documentation/userspace-api/seccomp_filter.rst, linux/bpf_common.h).
//!
//! The numbers of an architecture are sorted and neighbours with the same decision are joined to ranges; a binary tree of
//! comparisons finds the range in about seven steps. The program is built from its end to its start, because jumps go
//! forward only: what a jump leads to exists before the jump.

use super::arch::Arch;
use super::policy::{Cond, Decision, Policy, Rule, Verdict, Width};
use super::syscalls::Sys;
use seccompiler::{BpfProgram, sock_filter};

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// The farthest that a conditional jump goes, less the instructions that one jump may still put in between.
const NEAR: usize = 255 - 4;

/// A place in the program, counted from its end.
type Label = usize;

/// Compiles `policy` for `arches`; calls of any other architecture meet `policy.foreign`.
pub fn assemble(policy: &Policy, arches: impl DoubleEndedIterator<Item = Arch>) -> BpfProgram {
    let mut asm = Assembler { policy, reversed: Vec::with_capacity(512), returns: Vec::with_capacity(8) };
    let mut otherwise = asm.ret(policy.foreign);
    for arch in arches.rev() {
        let tree = asm.tree(arch, &ranges(policy, arch));
        asm.jump_unless_next(tree);
        let start = asm.push(LOAD_WORD, 0, 0, NUMBER);
        otherwise = asm.branch(JUMP_EQUAL, arch.audit(), start, otherwise);
    }
    asm.jump_unless_next(otherwise);
    asm.push(LOAD_WORD, 0, 0, ARCH);
    asm.reversed.reverse();
    asm.reversed
}

/// From this number to the next range's, this is the decision.
type Range = (u32, Decision);

/// The numbers of `arch` from 0 to the largest as ranges without gaps.
fn ranges(policy: &Policy, arch: Arch) -> Vec<Range> {
    let mut known: Vec<Range> =
        Sys::ALL.iter().filter_map(|call| Some((call.number(arch)?, policy.decision(*call)))).collect();
    crate::base::sort::sort_by(&mut known, |(a, _), (b, _)| a.cmp(b));
    let unknown = Decision::Fixed(policy.unknown);
    let mut ranges: Vec<Range> = Vec::with_capacity(128);
    let mut add = |start: u32, decision: Decision| match (ranges.last(), decision) {
        (Some((_, Decision::Fixed(before))), Decision::Fixed(verdict)) if *before == verdict => {}
        _ => ranges.push((start, decision)),
    };
    let mut next = 0;
    for (number, decision) in known {
        if number > next {
            add(next, unknown);
        }
        add(number, decision);
        next = number + 1;
    }
    add(next, unknown);
    ranges
}

struct Assembler<'a> {
    policy: &'a Policy,
    /// The program, last instruction first.
    reversed: Vec<sock_filter>,
    /// The latest return of each verdict.
    returns: Vec<(Verdict, Label)>,
}

impl Assembler<'_> {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// How many instructions a jump that comes next would skip to reach `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label
    }

    /// A return of `verdict` that the next jump can reach.
    fn ret(&mut self, verdict: Verdict) -> Label {
        let known = self.returns.iter().position(|(known, _)| *known == verdict);
        if let Some((_, label)) = known.and_then(|at| self.returns.get(at))
            && self.distance(*label) <= NEAR
        {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, return_value(verdict));
        match known.and_then(|at| self.returns.get_mut(at)) {
            Some(entry) => entry.1 = label,
            None => self.returns.push((verdict, label)),
        }
        label
    }

    /// `label`, or a jump to it if it is far.
    fn near(&mut self, label: Label) -> Label {
        match self.distance(label) {
            0..=NEAR => label,
            far => self.push(JUMP, 0, 0, far as u32),
        }
    }

    fn jump_unless_next(&mut self, label: Label) {
        let distance = self.distance(label);
        if distance != 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    /// A comparison of the accumulator with `k`.
    fn branch(&mut self, code: u16, k: u32, holds: Label, fails: Label) -> Label {
        let (holds, fails) = (self.near(holds), self.near(fails));
        let (jt, jf) = (self.distance(holds) as u8, self.distance(fails) as u8);
        self.push(code, jt, jf, k)
    }

    /// Finds the range of the number in the accumulator.
    fn tree(&mut self, arch: Arch, ranges: &[Range]) -> Label {
        match ranges {
            [] => self.ret(self.policy.unknown),
            [(_, Decision::Fixed(verdict))] => self.ret(*verdict),
            [(_, Decision::ByArguments(rule))] => self.rule(arch, rule),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let least = high.first().map_or(0, |(start, _)| *start);
                let (high, low) = (self.tree(arch, high), self.tree(arch, low));
                self.branch(JUMP_AT_LEAST, least, high, low)
            }
        }
    }

    fn rule(&mut self, arch: Arch, rule: &Rule) -> Label {
        let policy = self.policy;
        let mut next = self.ret(policy.shown(rule.otherwise));
        for case in rule.cases.iter().rev() {
            if case.with.is_some_and(|any| any.0 & policy.caps.0 == 0) {
                continue;
            }
            let mut holds = self.ret(policy.shown(case.then));
            for cond in case.when.iter().rev() {
                holds = self.cond(arch, cond, holds, next);
            }
            next = holds;
        }
        next
    }

    fn cond(&mut self, arch: Arch, cond: &Cond, holds: Label, fails: Label) -> Label {
        let low = ARGS + 8 * u32::from(cond.arg);
        let holds = self.half(low, cond.mask as u32, cond.value as u32, holds, fails);
        match cond.width {
            Width::Full64 if arch.is_64_bit() => {
                self.half(low + 4, (cond.mask >> 32) as u32, (cond.value >> 32) as u32, holds, fails)
            }
            _ => holds,
        }
    }

    /// Compares one half of an argument. All architectures are little-endian.
    fn half(&mut self, offset: u32, mask: u32, value: u32, holds: Label, fails: Label) -> Label {
        if mask == 0 {
            return holds;
        }
        if value == 0 {
            self.branch(JUMP_ANY_BIT, mask, fails, holds);
        } else {
            self.branch(JUMP_EQUAL, value, holds, fails);
            if mask != u32::MAX {
                self.push(AND, 0, 0, mask);
            }
        }
        self.push(LOAD_WORD, 0, 0, offset)
    }
}

/// What the kernel takes for `verdict` (seccomp(2)).
fn return_value(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Verdict::Log => libc::SECCOMP_RET_LOG,
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    }
}
