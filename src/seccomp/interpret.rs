//! A classic BPF interpreter for the tests: the kernel's reading of a filter, without the kernel.

use super::{Arch, Verdict};
use seccompiler::sock_filter;

/// What a filter sees of a call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub arch: u32,
    pub number: u32,
    pub args: [u64; 6],
}

impl Call {
    pub fn new(arch: Arch, number: u32, args: [u64; 6]) -> Call {
        Call { arch: arch.audit(), number, args }
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset % 8 == 4 { (arg >> 32) as u32 } else { arg as u32 }
            }
            other => panic!("load at {other}"),
        }
    }
}

/// Runs `program` on `call`. Panics on what the kernel's verifier refuses.
pub fn run(program: &[sock_filter], call: &Call) -> Verdict {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let insn = &program[at];
        at += 1;
        let skip = |holds: bool| usize::from(if holds { insn.jt } else { insn.jf });
        match insn.code {
            0x20 => accumulator = call.word(insn.k),
            0x54 => accumulator &= insn.k,
            0x05 => at += insn.k as usize,
            0x15 => at += skip(accumulator == insn.k),
            0x25 => at += skip(accumulator > insn.k),
            0x35 => at += skip(accumulator >= insn.k),
            0x45 => at += skip(accumulator & insn.k != 0),
            0x06 => return verdict(insn.k),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn verdict(value: u32) -> Verdict {
    match value & 0xffff_0000 {
        libc::SECCOMP_RET_ALLOW => Verdict::Allow,
        libc::SECCOMP_RET_ERRNO => Verdict::Errno(value as u16),
        libc::SECCOMP_RET_LOG => Verdict::Log,
        libc::SECCOMP_RET_KILL_PROCESS => Verdict::Kill,
        other => panic!("verdict {other:#x}"),
    }
}
