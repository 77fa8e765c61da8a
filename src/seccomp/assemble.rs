//! Policy to classic BPF (Documentation/userspace-api/seccomp_filter.rst, linux/bpf_common.h).
//!
//! The numbers of an architecture are sorted and neighbours with the same decision are joined to ranges; a binary tree of
//! comparisons finds the range in about seven steps. The program is built from its end to its start, because jumps go
//! forward only: what a jump leads to exists before the jump.
//!
//! All of it can be evaluated while coracle is compiled: the filters that nearly every service gets cost no start
//! anything. Hence loops with indices: a `const fn` knows no iterators.

use super::arch::Arch;
use super::policy::{Cond, Decision, Policy, Rule, Verdict, Width};
use super::syscalls::{COUNT, Sys};
use seccompiler::sock_filter;

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

/// Most instructions of a program: twice what the longest one for two architectures has.
const CAPACITY: usize = 1024;
/// Most ranges of one architecture, likewise.
const RANGES: usize = 256;
/// Most verdicts of one policy: allow, log, kill, and two error numbers.
const VERDICTS: usize = 8;

/// A program. It grows from the end of its space to the start.
pub struct Program {
    space: [sock_filter; CAPACITY],
    length: usize,
}

impl Program {
    /// Its instructions.
    pub const fn instructions(&self) -> &[sock_filter] {
        self.space.split_at(CAPACITY - self.length).1
    }
}

/// Compiles `policy` for `arches`; calls of any other architecture meet `policy.foreign`.
pub const fn assemble(policy: &Policy, arches: &[Arch]) -> Program {
    let space = [const { sock_filter { code: 0, jt: 0, jf: 0, k: 0 } }; CAPACITY];
    let mut asm = Assembler {
        policy,
        program: Program { space, length: 0 },
        returns: [(Verdict::Allow, 0); VERDICTS],
        verdicts: 0,
    };
    let mut otherwise = asm.ret(policy.foreign);
    let mut left = arches.len();
    while left > 0 {
        left -= 1;
        let arch = arches[left];
        let ranges = ranges(policy, arch);
        let tree = asm.tree(arch, &ranges, 0, ranges.count);
        asm.jump_unless_next(tree);
        let start = asm.push(LOAD_WORD, 0, 0, NUMBER);
        otherwise = asm.branch(JUMP_EQUAL, arch.audit(), start, otherwise);
    }
    asm.jump_unless_next(otherwise);
    asm.push(LOAD_WORD, 0, 0, ARCH);
    asm.program
}

/// From this number to the next range's, this is the decision.
#[derive(Clone, Copy)]
struct Range {
    start: u32,
    decision: Decision,
}

struct Ranges {
    list: [Range; RANGES],
    count: usize,
}

impl Ranges {
    /// Appends a range, unless it goes on with the decision of the one before.
    const fn add(&mut self, start: u32, decision: Decision) {
        if self.count > 0
            && let Decision::Fixed(verdict) = decision
            && let Decision::Fixed(before) = self.list[self.count - 1].decision
            && return_value(verdict) == return_value(before)
        {
            return;
        }
        self.list[self.count] = Range { start, decision };
        self.count += 1;
    }
}

/// The numbers of `arch` from 0 to the largest as ranges without gaps.
const fn ranges(policy: &Policy, arch: Arch) -> Ranges {
    let unknown = Decision::Fixed(policy.unknown);
    let mut ranges = Ranges { list: [Range { start: 0, decision: unknown }; RANGES], count: 0 };
    let (sorted, count) = sorted(arch);
    let (mut next, mut at) = (0, 0);
    while at < count {
        let (number, call) = sorted[at];
        if number > next {
            ranges.add(next, unknown);
        }
        ranges.add(number, policy.decision(call));
        next = number + 1;
        at += 1;
    }
    ranges.add(next, unknown);
    ranges
}

/// The calls that `arch` has, by their numbers, and how many they are. Sorted by insertion: the table is in order of
/// names, and the numbers of many neighbours are in order too.
const fn sorted(arch: Arch) -> ([(u32, Sys); COUNT], usize) {
    let mut list = [(0, Sys::ALL[0]); COUNT];
    let (mut count, mut at) = (0, 0);
    while at < COUNT {
        let call = Sys::ALL[at];
        at += 1;
        let Some(number) = call.number(arch) else { continue };
        let mut place = count;
        while place > 0 && list[place - 1].0 > number {
            list[place] = list[place - 1];
            place -= 1;
        }
        list[place] = (number, call);
        count += 1;
    }
    (list, count)
}

struct Assembler<'a> {
    policy: &'a Policy,
    program: Program,
    /// The latest return of each verdict.
    returns: [(Verdict, Label); VERDICTS],
    verdicts: usize,
}

impl Assembler<'_> {
    const fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        let label = self.program.length;
        self.program.space[CAPACITY - 1 - label] = sock_filter { code, jt, jf, k };
        self.program.length += 1;
        label
    }

    /// How many instructions a jump that comes next would skip to reach `label`.
    const fn distance(&self, label: Label) -> usize {
        self.program.length - 1 - label
    }

    /// A return of `verdict` that the next jump can reach.
    const fn ret(&mut self, verdict: Verdict) -> Label {
        let mut known = 0;
        while known < self.verdicts && return_value(self.returns[known].0) != return_value(verdict) {
            known += 1;
        }
        if known < self.verdicts && self.distance(self.returns[known].1) <= NEAR {
            return self.returns[known].1;
        }
        let label = self.push(RETURN, 0, 0, return_value(verdict));
        self.returns[known] = (verdict, label);
        if known == self.verdicts {
            self.verdicts += 1;
        }
        label
    }

    /// `label`, or a jump to it if it is far.
    const fn near(&mut self, label: Label) -> Label {
        match self.distance(label) {
            0..=NEAR => label,
            far => self.push(JUMP, 0, 0, far as u32),
        }
    }

    const fn jump_unless_next(&mut self, label: Label) {
        let distance = self.distance(label);
        if distance != 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    /// A comparison of the accumulator with `k`.
    const fn branch(&mut self, code: u16, k: u32, holds: Label, fails: Label) -> Label {
        let (holds, fails) = (self.near(holds), self.near(fails));
        let (jt, jf) = (self.distance(holds) as u8, self.distance(fails) as u8);
        self.push(code, jt, jf, k)
    }

    /// Finds the range of the number in the accumulator among those from `first` to before `end`.
    const fn tree(&mut self, arch: Arch, ranges: &Ranges, first: usize, end: usize) -> Label {
        if end - first == 1 {
            return match ranges.list[first].decision {
                Decision::Fixed(verdict) => self.ret(verdict),
                Decision::ByArguments(rule) => self.rule(arch, rule),
            };
        }
        let middle = first + (end - first) / 2;
        let (high, low) = (self.tree(arch, ranges, middle, end), self.tree(arch, ranges, first, middle));
        self.branch(JUMP_AT_LEAST, ranges.list[middle].start, high, low)
    }

    const fn rule(&mut self, arch: Arch, rule: &Rule) -> Label {
        let policy = self.policy;
        let mut next = self.ret(policy.shown(rule.otherwise));
        let mut cases = rule.cases.len();
        while cases > 0 {
            cases -= 1;
            let case = &rule.cases[cases];
            if let Some(any) = case.with
                && any.0 & policy.caps.0 == 0
            {
                continue;
            }
            let mut holds = self.ret(policy.shown(case.then));
            let mut conds = case.when.len();
            while conds > 0 {
                conds -= 1;
                holds = self.cond(arch, &case.when[conds], holds, next);
            }
            next = holds;
        }
        next
    }

    const fn cond(&mut self, arch: Arch, cond: &Cond, holds: Label, fails: Label) -> Label {
        let low = ARGS + 8 * cond.arg as u32;
        let holds = self.half(low, cond.mask as u32, cond.value as u32, holds, fails);
        match cond.width {
            Width::Full64 if arch.is_64_bit() => {
                self.half(low + 4, (cond.mask >> 32) as u32, (cond.value >> 32) as u32, holds, fails)
            }
            _ => holds,
        }
    }

    /// Compares one half of an argument. All architectures are little-endian.
    const fn half(&mut self, offset: u32, mask: u32, value: u32, holds: Label, fails: Label) -> Label {
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
const fn return_value(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        Verdict::Log => libc::SECCOMP_RET_LOG,
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    }
}
