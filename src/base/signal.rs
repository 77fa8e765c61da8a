//! Signals by name (signal(7)).

/// Names without `SIG`, with the running architecture's numbers.
pub const NAMES: [(&str, u8); 31] = [
    ("HUP", libc::SIGHUP as u8),
    ("INT", libc::SIGINT as u8),
    ("QUIT", libc::SIGQUIT as u8),
    ("ILL", libc::SIGILL as u8),
    ("TRAP", libc::SIGTRAP as u8),
    ("ABRT", libc::SIGABRT as u8),
    ("BUS", libc::SIGBUS as u8),
    ("FPE", libc::SIGFPE as u8),
    ("KILL", libc::SIGKILL as u8),
    ("USR1", libc::SIGUSR1 as u8),
    ("SEGV", libc::SIGSEGV as u8),
    ("USR2", libc::SIGUSR2 as u8),
    ("PIPE", libc::SIGPIPE as u8),
    ("ALRM", libc::SIGALRM as u8),
    ("TERM", libc::SIGTERM as u8),
    ("STKFLT", 16),
    ("CHLD", libc::SIGCHLD as u8),
    ("CONT", libc::SIGCONT as u8),
    ("STOP", libc::SIGSTOP as u8),
    ("TSTP", libc::SIGTSTP as u8),
    ("TTIN", libc::SIGTTIN as u8),
    ("TTOU", libc::SIGTTOU as u8),
    ("URG", libc::SIGURG as u8),
    ("XCPU", libc::SIGXCPU as u8),
    ("XFSZ", libc::SIGXFSZ as u8),
    ("VTALRM", libc::SIGVTALRM as u8),
    ("PROF", libc::SIGPROF as u8),
    ("WINCH", libc::SIGWINCH as u8),
    ("IO", libc::SIGIO as u8),
    ("PWR", libc::SIGPWR as u8),
    ("SYS", libc::SIGSYS as u8),
];

/// The kernel's first real-time signal; C libraries keep the first few to themselves.
const RTMIN: u8 = 34;
/// The last signal.
pub const MAX: u8 = 64;

/// The number of a signal: `TERM`, `SIGTERM`, `term`, `RTMIN+3`, `RTMAX-1` or a decimal number from 1 to [`MAX`].
pub fn number(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| if text.is_empty() { Some(0) } else { decimal(text.get(1..)?) };
    let number = if let Some(rest) = bare.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+'))
    {
        RTMIN.checked_add(offset(rest)?)?
    } else if let Some(rest) = bare.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-')) {
        MAX.checked_sub(offset(rest)?).filter(|number| *number >= RTMIN)?
    } else if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == bare) {
        *number
    } else {
        decimal(name)?
    };
    (1..=MAX).contains(&number).then_some(number)
}

/// The name of a signal without `SIG`, `None` for a number without one.
pub fn name(number: u8) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

fn decimal(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(number(text), Some(15), "{text}");
        }
        assert_eq!(number("SIGRTMIN+3"), Some(37));
        assert_eq!(number("RTMAX"), Some(64));
        assert_eq!(number("RTMAX-1"), Some(63));
        assert_eq!(name(15), Some("TERM"));
        for text in ["", "SIG", "TREM", "0", "65", "-1", "+15", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMIN+é", "SIG15"]
        {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
