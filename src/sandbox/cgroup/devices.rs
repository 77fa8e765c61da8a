//! The device allow-list as a cgroup v2 program (bpf(2) `BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).
//!
//! The kernel runs the program at every open and mknod of a device, with what is asked for in `struct bpf_cgroup_dev_ctx`;
//! 1 allows, 0 refuses with EPERM. Pure: rules in, instructions out; `sys::bpf` loads and attaches them.
#![forbid(unsafe_code)]

/// Character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `b` (`BPF_DEVCG_DEV_BLOCK`).
    Block = 1,
    /// `c` (`BPF_DEVCG_DEV_CHAR`).
    Char = 2,
}

/// What may be done with a device: bits of `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(pub u8);

impl Access {
    /// Making a node.
    pub const MKNOD: Access = Access(1);
    /// Opening for reading.
    pub const READ: Access = Access(2);
    /// Opening for writing.
    pub const WRITE: Access = Access(4);

    /// Both.
    pub const fn and(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }
}

/// One line of the allow-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Kind of device.
    pub kind: Kind,
    /// Major number.
    pub major: u32,
    /// Minor number; `None`: any.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: Access,
}

/// An eBPF instruction as the kernel takes it (Documentation/bpf/standardization/instruction-set.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the lower, source register in the upper half (little-endian).
    pub registers: u8,
    /// Jump distance or offset in memory.
    pub offset: i16,
    /// Constant.
    pub imm: i32,
}

impl Insn {
    /// The 8 bytes that the kernel reads, on a little-endian machine.
    pub fn word(self) -> u64 {
        let half = u64::from(self.code) | u64::from(self.registers) << 8 | u64::from(self.offset as u16) << 16;
        half | u64::from(self.imm as u32) << 32
    }
}

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// Registers: 0 is the answer, 1 the context on entry.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The most instructions that one rule takes; a kernel before 5.2 takes 4096 in all.
pub const RULE_INSNS: usize = 9;

/// The program that allows what `rules` allow and refuses everything else.
///
/// Kind and access are looked at once for neighbouring rules that agree in them: the kernel's verifier walks every path,
/// and most of what loading takes is its time.
pub fn program(rules: &[Rule]) -> Vec<Insn> {
    let mut program = Vec::with_capacity(8 + rules.len() * RULE_INSNS);
    // access_type: kind in the lower, access in the upper 16 bits; then major, minor.
    program.push(load(KIND, 0));
    program.push(insn(MOVE_REGISTER, ACCESS, KIND, 0, 0));
    program.push(insn(AND, KIND, 0, 0, 0xffff));
    program.push(insn(SHIFT_RIGHT, ACCESS, 0, 0, 16));
    program.push(load(MAJOR, 4));
    program.push(load(MINOR, 8));
    for group in rules.chunk_by(|one, next| one.kind == next.kind && one.access == next.access) {
        allow(&mut program, group);
    }
    program.push(insn(MOVE, ANSWER, 0, 0, 0));
    program.push(insn(EXIT, 0, 0, 0, 0));
    program
}

/// Answers 1 if one of `group`, which agree in kind and access, matches, else goes on behind.
fn allow(program: &mut Vec<Insn>, group: &[Rule]) {
    let Some(Rule { kind, access, .. }) = group.first() else { return };
    // Of one major number either all minor ones are allowed, or those that are named.
    let majors = || group.chunk_by(|one, next| one.major == next.major && one.minor.is_some() && next.minor.is_some());
    let size = |rules: &[Rule]| 1 + rules.iter().filter(|rule| rule.minor.is_some()).count();
    let numbers: usize = majors().map(size).sum();
    // From behind an instruction to the answer and behind it: what is left of the numbers, a jump, the answer.
    let mut left = numbers as i16 + 1;
    program.push(insn(JUMP_NOT_EQUAL, KIND, 0, 3 + left + 2, *kind as i32));
    program.push(insn(MOVE_REGISTER, ANSWER, ACCESS, 0, 0));
    program.push(insn(AND, ANSWER, 0, 0, i32::from(!access.0 & 7)));
    program.push(insn(JUMP_NOT_EQUAL, ANSWER, 0, left + 2, 0));
    for rules in majors() {
        left -= 1;
        let (minors, major) = (size(rules) as i16 - 1, rules.first().map_or(0, |rule| rule.major as i32));
        match minors {
            0 => program.push(insn(JUMP_EQUAL, MAJOR, 0, left, major)),
            _ => program.push(insn(JUMP_NOT_EQUAL, MAJOR, 0, minors, major)),
        }
        for minor in rules.iter().filter_map(|rule| rule.minor) {
            left -= 1;
            program.push(insn(JUMP_EQUAL, MINOR, 0, left, minor as i32));
        }
    }
    program.push(insn(JUMP, 0, 0, 2, 0));
    program.push(insn(MOVE, ANSWER, 0, 0, 1));
    program.push(insn(EXIT, 0, 0, 0, 0));
}

fn insn(code: u8, destination: u8, source: u8, offset: i16, imm: i32) -> Insn {
    Insn { code, registers: source << 4 | destination, offset, imm }
}

fn load(register: u8, offset: i16) -> Insn {
    insn(LOAD_WORD, register, CONTEXT, offset, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `program` as the kernel would for one request.
    fn allowed(program: &[Insn], kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let context = [u32::from(access.0) << 16 | kind as u32, major, minor];
        let mut registers = [0u64; 10];
        let mut at = 0;
        loop {
            let insn = program[at];
            at += 1;
            let (to, from) = ((insn.registers & 15) as usize, (insn.registers >> 4) as usize);
            match insn.code {
                LOAD_WORD => registers[to] = context[insn.offset as usize / 4].into(),
                MOVE => registers[to] = u64::from(insn.imm as u32),
                MOVE_REGISTER => registers[to] = registers[from] & 0xffff_ffff,
                AND => registers[to] &= u64::from(insn.imm as u32),
                SHIFT_RIGHT => registers[to] >>= insn.imm,
                JUMP => at += insn.offset as usize,
                JUMP_EQUAL if registers[to] == insn.imm as i64 as u64 => at += insn.offset as usize,
                JUMP_NOT_EQUAL if registers[to] != insn.imm as i64 as u64 => at += insn.offset as usize,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return registers[ANSWER as usize] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const RW: Access = Access::READ.and(Access::WRITE);

    #[test]
    fn what_a_rule_allows_is_allowed_and_nothing_else() {
        let rules = [
            Rule { kind: Kind::Char, major: 1, minor: Some(3), access: RW },
            Rule { kind: Kind::Char, major: 1, minor: Some(0), access: RW },
            Rule { kind: Kind::Char, major: 8, minor: None, access: RW },
            Rule { kind: Kind::Char, major: 8, minor: Some(3), access: RW },
            Rule { kind: Kind::Char, major: 0, minor: None, access: RW },
            Rule { kind: Kind::Char, major: 1, minor: Some(77), access: RW },
            Rule { kind: Kind::Char, major: 136, minor: None, access: RW.and(Access::MKNOD) },
            Rule { kind: Kind::Block, major: 8, minor: Some(1), access: Access::READ },
        ];
        let program = program(&rules);
        assert!(program.len() <= 8 + rules.len() * RULE_INSNS);
        for kind in [Kind::Char, Kind::Block] {
            for major in [0, 1, 8, 136, 259] {
                for minor in [0, 1, 3, 77, 0xfffff] {
                    for bits in 1..8 {
                        let wanted = rules.iter().any(|rule| {
                            rule.kind == kind
                                && rule.major == major
                                && rule.minor.is_none_or(|number| number == minor)
                                && bits & !rule.access.0 == 0
                        });
                        let access = Access(bits);
                        assert_eq!(
                            allowed(&program, kind, major, minor, access),
                            wanted,
                            "{kind:?} {major}:{minor} {bits}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn without_rules_nothing_is_allowed() {
        assert!(!allowed(&program(&[]), Kind::Char, 1, 3, Access::READ));
    }

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let jump = insn(JUMP_NOT_EQUAL, 2, 0, 7, -1);
        assert_eq!(jump.word().to_le_bytes(), [0x55, 0x02, 7, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(load(4, 4).word().to_le_bytes(), [0x61, 0x14, 4, 0, 0, 0, 0, 0]);
    }
}
