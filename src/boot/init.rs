//! From the kernel's first call to reboot(2).
//!
//! Nothing here returns and nothing ends the process: the kernel panics when its first process ends. What fails is said;
//! what cannot go on becomes a rescue; what even a rescue cannot do is left to the watchdog.
#![forbid(unsafe_code)]

use super::choose::{self, Choice};
use super::cmdline::Cmdline;
use super::first::{First, asked};
use super::voice::Voice;
use super::watchdog::Watchdog;
use super::{clock, console, early, lifeline, mark, modules, mounts, root, seed, shutdown};
use crate::base::units::Millis;
use crate::plan::{Network, Plan, Rescue, Root, Service};
use crate::sandbox::cgroup::Known;
use crate::sandbox::sealed;
use crate::supervisor::config_file;
use crate::supervisor::handover::{Call, Inherited, Origin, Text};
use crate::supervisor::keeper::{End, Keeper as _, Say, Standing};
use crate::supervisor::run::{Refused, Supervisor, monotonic};
use crate::supervisor::rundir;
use crate::supervisor::upgrade;
use crate::sys::board::{Reboot, reboot};
use crate::sys::wait::wait_any;
use crate::sys::{Errno, fault, process, title};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// A failure of the first process so soon after one is another of the same kind: it does not go on, but is in rescue.
const CALM: Millis = Millis::from_secs(10);
/// Failures of the first process in a row after which the board is rebooted at once.
const FAULTS: u32 = 3;
/// Between two looks of a first process that can do nothing but wait.
const LOOK: Duration = Duration::from_millis(100);

/// Brings the board up, supervises, and ends the board. `words`: those that this process was started with; none is ever
/// an error, since the kernel hands on what it does not know.
pub fn run(words: &[OsString]) -> ! {
    let (faults, call) = (faults(words), Call::of(words));
    let ending = words.get(3).filter(|_| faults > 0).map(|word| End::of_word(word.to_str().unwrap_or_default()));
    // Without memory for a stack nothing can be done about a failure.
    let _ = fault::arm(faults.saturating_add(1));
    if let Some(end) = &ending {
        fault::ending(early::c_string(&end.to_word()));
    }
    let mut said = Vec::new();
    let (unsealed, cgroups) = begin(words, &mut |sentence| said.push(sentence));
    let line = early::read("/proc/cmdline");
    let cmdline = Cmdline::parse(&line);
    // On the way to an end every failure counts, however far apart they are: it is to come to one.
    let calm_at = (faults == 1 && ending.is_none()).then(|| monotonic().plus(CALM));
    let hurried = faults > 1 && ending.is_some();
    let mut first = First { places: cmdline.places, cgroups, calm_at, hurried, ..First::default() };
    let mut voice = Voice::new(first.places);
    said.iter().chain(&cmdline.problems).for_each(|sentence| voice.say(sentence));
    if faults > FAULTS {
        let end = ending.unwrap_or(End::Reboot("".into()));
        voice.say(format_args!("the first process fails whatever it does: {}", end.words()));
        if faults > FAULTS + 1 {
            leave(&end, &mut |sentence| voice.say(sentence));
        }
        finish(&mut first, None, &end, &mut voice);
    }
    let say: Say<'_> = &mut |sentence| voice.say(sentence);

    let path = cmdline.config.as_deref().unwrap_or(config_file::DEFAULT);
    let firmware = choose::firmware(Path::new(path), say);
    let boot = firmware.plan.device.boot.clone();
    let state = PathBuf::from(&*firmware.plan.device.state);
    let another = faults > 0 || call.is_some();
    first.watchdog = Watchdog::open(boot.watchdog.as_ref(), another, monotonic(), say);
    modules::load(&boot.modules, &line, say);
    if let Some(watchdog) = &mut first.watchdog {
        watchdog.look_again(monotonic(), say);
    }
    first.clock_is_guessed = clock::set(None, say);
    mounts::mount_all(&boot.mounts, &mut first, say);
    // What lies in memory no other boot will find.
    let kept = mark::outlives_boot(&state).then_some(&*state);
    if let Some(state) = kept {
        seed::load(state, say);
        first.clock_is_guessed |= clock::set(Some(state), say);
    }
    first.look_back(kept, say);

    let mut choice = choose::choose(firmware, say);
    let reason = match (unsealed, faults) {
        (Some(why), _) => Some(why),
        (_, 2..) => Some("the first process has failed again and again".into()),
        _ if cmdline.rescue => Some("the kernel's command line asks for it".into()),
        _ => None,
    };
    if let Some(reason) = reason {
        choice.rescue = true;
        first.degraded.push(format!("rescue: {reason}"));
    }
    first.degraded.extend(choice.degraded.take());
    first.unproven = choice.unproven.take().map(|bytes| (state.clone(), bytes));
    settle_board(&choice.plan, say);

    let end = match ending {
        Some(end) if first.hurried || choice.rescue => end,
        ending => {
            first.ending = ending;
            supervise(choice, &mut first, cmdline.rescue, &mut voice, call)
        }
    };
    let kept = mark::outlives_boot(&state).then_some(&*state);
    finish(&mut first, kept, &end, &mut voice)
}

/// How often in a row the first process has failed before. Pure.
fn faults(words: &[OsString]) -> u32 {
    let number = match words {
        [_, word, number, ..] if word.as_bytes() == fault::WORD.to_bytes() => {
            number.to_str().and_then(|number| number.parse().ok())
        }
        _ => None,
    };
    number.unwrap_or(0)
}

/// What a process needs before it can read, write and start others. Gives the reason where containers could write to
/// this program's file: then none is started; and what is known about the cgroups.
fn begin(words: &[OsString], say: Say<'_>) -> (Option<String>, Option<Known<'static>>) {
    process::umask(0);
    // A leader already, if it is not the kernel that started it.
    let _ = process::new_session();
    let _ = std::env::set_current_dir("/");
    let mut before = early::proc(say);
    if root::is_first(&before) {
        let made = early::make_dir("/sys", 0o755).map_err(Errno::from);
        match made.and_then(|()| root::move_over_itself()) {
            // Whatever else there was lies beneath.
            Ok(()) => before.clear(),
            Err(errno) => {
                say(format!("the initramfs cannot be mounted over itself, so no container will start: {errno}"));
            }
        }
    }
    // Comes back only where there is nothing to do or it cannot be done.
    let unsealed = sealed::ensure(words).err();
    early::rest(&before, say);
    let cgroups = early::cgroups(&before, say);
    process::umask(0o022);
    console::connect();
    title::rename(c"coracle");
    if let Err(errno) = reboot(Reboot::KeysAsSignal) {
        say(format!("Ctrl-Alt-Del resets the board at once: {errno}"));
    }
    (unsealed, cgroups)
}

/// What the chosen config says about the board beside its services.
fn settle_board(plan: &Plan, say: Say<'_>) {
    modules::set(&plan.device.boot.sysctls, say);
    if let Some(name) = &plan.device.hostname
        && let Err(errno) = process::set_hostname(&early::c_string(name))
    {
        say(format!("the host name cannot be {name}: {errno}"));
    }
}

/// Whether this program would find a config, on a board that runs already.
///
/// # Errors
/// A sentence: it would be in rescue.
pub fn check() -> Result<(), String> {
    let cmdline = Cmdline::parse(&early::read("/proc/cmdline"));
    let path = cmdline.config.as_deref().unwrap_or(config_file::DEFAULT);
    let mut said = Vec::new();
    let say: Say<'_> = &mut |sentence| said.push(sentence);
    let firmware = choose::firmware(Path::new(path), say);
    match choose::choose(firmware, say).rescue && !cmdline.rescue {
        true => Err(said.join("\n")),
        false => Ok(()),
    }
}

/// Supervises until someone asks for the board's end; `call`: what it goes on with in the place of another program.
fn supervise(choice: Choice, first: &mut First, asked_for: bool, voice: &mut Voice, call: Option<Call>) -> End {
    let Choice { mut plan, rescue, .. } = choice;
    first.max_resets = plan.device.max_resets;
    let lifelines = plan.services.iter().any(|service| service.lifeline && service.enabled);
    if let Some(why) = first.loop_of_resets(lifelines).filter(|_| !rescue) {
        voice.say(format_args!("LOOP OF RESETS: {why}"));
        first.degraded.push(why);
        first.unproven = None;
        if lifelines {
            plan = lifeline::only(plan, false);
        }
    }
    // It is needed once more if this fails.
    let plan = Rc::new(plan);
    let why = if rescue {
        let why = reasons(&first.degraded);
        call.iter().for_each(|call| call.go_back(&why));
        why
    } else {
        match attempt(plan.clone(), first, voice, call) {
            Ok(end) => return end,
            Err(why) => {
                first.degraded.push(format!("rescue: {why}"));
                why
            }
        }
    };
    // Nobody else has it any more.
    let plan = Rc::into_inner(plan).unwrap_or_default();
    let Rescue { shell, reboot_after } = plan.device.boot.rescue;
    first.begin_rescue(plan.device.boot.rescue);
    let then = match reboot_after.0 {
        0 => "until someone acts".to_owned(),
        _ => format!("for {reboot_after}, then the board reboots"),
    };
    voice.say(format_args!("RESCUE: {why}; only lifelines run, {then}"));
    match attempt(lifeline::only(plan, shell && asked_for).into(), first, voice, None) {
        Ok(end) => end,
        Err(why) => {
            voice.say(format_args!("not even a rescue can run: {why}"));
            wait_for_end(first, &mut |sentence| voice.say(sentence))
        }
    }
}

/// Why the board is in rescue, without the word that says that it is.
fn reasons(degraded: &[String]) -> String {
    let reasons: Vec<&str> = degraded.iter().map(|one| one.strip_prefix("rescue: ").unwrap_or(one)).collect();
    reasons.join("; ")
}

fn attempt(plan: Rc<Plan>, first: &mut First, voice: &mut Voice, call: Option<Call>) -> Result<End, String> {
    let inherited = call.as_ref().and_then(inherit);
    let outside = |service: &Service| {
        service.root == Root::Host || service.network != Network::None || !service.sockets.is_empty()
    };
    if plan.services.iter().any(outside) {
        first.prepare_host(&mut |sentence| voice.say(sentence));
    }
    let dir = Path::new(rundir::DEFAULT);
    let from = (Origin::default(), inherited);
    let supervisor = Supervisor::new(plan, dir, first, voice.rest(), from).map_err(|refused| {
        let why = match refused {
            Refused::Taken => format!("another supervisor has the run directory {}", dir.display()),
            Refused::Failed(sentence) => sentence,
        };
        call.iter().for_each(|call| call.go_back(&why));
        why
    })?;
    if let Some(call) = call {
        upgrade::arrived(dir, call.refused.as_deref());
        call.close();
    }
    supervisor.supervise()
}

/// What another program hands over. What cannot be read goes back, where there is a program to go back to; else what is
/// missing can be made anew.
fn inherit(call: &Call) -> Option<Inherited> {
    Text::of(&call.text).and_then(|text| text.take()).map_err(|why| call.go_back(&why)).ok()
}

/// All that is left to do without a loop: reap, feed the watchdog, and hear what someone wants.
fn wait_for_end(first: &mut First, say: Say<'_>) -> End {
    let mut set = SigSet::empty();
    let usual = [Signal::SIGTERM, Signal::SIGINT];
    usual.iter().chain(first.signals()).for_each(|signal| set.add(*signal));
    let _ = set.thread_block();
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).ok();
    loop {
        while let Ok(Some(_)) = wait_any() {}
        if let Some(end) = first.act(monotonic(), Standing::default(), say) {
            return end;
        }
        let heard = signals.as_ref().and_then(|signals| signals.read_signal().ok().flatten());
        let signal = heard.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok());
        if let Some(end) = signal.and_then(asked) {
            return end;
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends the board.
fn finish(first: &mut First, state: Option<&Path>, end: &End, voice: &mut Voice) -> ! {
    fault::ending(early::c_string(&end.to_word()));
    shutdown::end_processes(first, &mut |sentence| voice.say(sentence));
    let say: Say<'_> = &mut |sentence| voice.say(sentence);
    if let Some(state) = state {
        shutdown::save(state, say);
        first.mark_end(end, say);
    }
    shutdown::unmount(say);
    say(format!("everything is stopped: {}", end.words()));
    first.let_go(end, say);
    leave(end, say)
}

/// The end itself, again and again.
fn leave(end: &End, say: Say<'_>) -> ! {
    nix::unistd::sync();
    loop {
        say(shutdown::end(end));
        // Nobody feeds the watchdog any more: it is the way out, if there is one.
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(words: &[&str]) -> u32 {
        faults(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_rescue_is_called_one_once() {
        let degraded = ["rescue: the first process has failed", "/data is 2M of memory", "rescue: x; correct it"];
        let said = reasons(&degraded.map(str::to_owned));
        assert_eq!(said, "the first process has failed; /data is 2M of memory; x; correct it");
    }

    #[test]
    fn stray_words_of_the_kernel_mean_nothing() {
        for words in [
            vec![],
            vec!["/init"],
            vec!["/sbin/coracle", "single"],
            vec!["init", "--after-fault"],
            vec!["x", "2", "--after-fault"],
        ] {
            assert_eq!(count(&words), 0, "{words:?}");
        }
        assert_eq!(count(&["coracle", "--after-fault", "2"]), 2);
        assert_eq!(count(&["coracle", "--after-fault", "many"]), 0);
    }
}
