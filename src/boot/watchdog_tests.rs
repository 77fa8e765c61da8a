//! The watchdog against devices that exist on boards, each with what its driver lacks.

use super::*;
use nix::libc::{EIO, ENOTTY, EOPNOTSUPP};
use std::cell::RefCell;
use std::rc::Rc;

/// A driver: what it can do, and what happened to it.
#[derive(Clone)]
struct Driver {
    options: u32,
    /// Least and most seconds that it takes, and the step that it rounds down to.
    bounds: (u32, u32, u32),
    timeout: Option<u32>,
    pretimeout: u32,
    no_way_out: Option<bool>,
    write_fails: bool,
    written: Vec<u8>,
    closed: bool,
    /// Whether it stays open through execve(2).
    stays: bool,
}

const ABLE: Driver = Driver {
    options: SET_TIMEOUT | MAGIC_CLOSE,
    bounds: (1, 65_535, 1),
    timeout: Some(60),
    pretimeout: 0,
    no_way_out: Some(false),
    write_fails: false,
    written: Vec::new(),
    closed: false,
    stays: false,
};

struct Fake(Rc<RefCell<Driver>>);

impl Card for Fake {
    fn support(&self) -> Result<Support> {
        let mut identity = [0; 32];
        identity[..4].copy_from_slice(b"fake");
        Ok(Support { options: self.0.borrow().options, firmware_version: 0, identity })
    }
    fn boot_status(&self) -> Result<u32> {
        Ok(0x20)
    }
    fn set_timeout(&self, seconds: u32) -> Result<u32> {
        let mut driver = self.0.borrow_mut();
        assert_ne!(driver.options & SET_TIMEOUT, 0, "only where the driver says that it can");
        let (least, most, step) = driver.bounds;
        if !(least..=most).contains(&seconds) {
            return Err(Errno(EINVAL));
        }
        driver.timeout = Some(seconds / step * step);
        driver.timeout.ok_or(Errno(EINVAL))
    }
    fn timeout(&self) -> Result<u32> {
        self.0.borrow().timeout.ok_or(Errno(EOPNOTSUPP))
    }
    fn pretimeout(&self) -> Result<u32> {
        Ok(self.0.borrow().pretimeout)
    }
    fn set_pretimeout(&self, seconds: u32) -> Result<()> {
        let mut driver = self.0.borrow_mut();
        assert_ne!(driver.options & PRETIMEOUT, 0, "only where the driver says that it can");
        if driver.timeout.is_none_or(|timeout| seconds >= timeout) {
            return Err(Errno(EINVAL));
        }
        driver.pretimeout = seconds;
        Ok(())
    }
    fn write(&self, byte: u8) -> Result<()> {
        let mut driver = self.0.borrow_mut();
        driver.written.push(byte);
        if driver.write_fails { Err(Errno(EIO)) } else { Ok(()) }
    }
    fn no_way_out(&self) -> Option<bool> {
        self.0.borrow().no_way_out
    }
    fn keep_open(&self, open: bool) -> Result<()> {
        self.0.borrow_mut().stays = open;
        Ok(())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

/// What every path under /dev leads to.
type Device = std::result::Result<Rc<RefCell<Driver>>, i32>;

thread_local! {
    static DEVICE: RefCell<Device> = const { RefCell::new(Err(ENOENT)) };
    static OPENED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn open_fake(path: &str) -> Result<Box<dyn Card>> {
    OPENED.with_borrow_mut(|opened| opened.push(path.to_owned()));
    DEVICE.with_borrow(|device| match device {
        Ok(driver) => Ok(Box::new(Fake(driver.clone())) as Box<dyn Card>),
        Err(errno) => Err(Errno(*errno)),
    })
}

fn plug(driver: Driver) -> Rc<RefCell<Driver>> {
    let driver = Rc::new(RefCell::new(driver));
    DEVICE.set(Ok(driver.clone()));
    driver
}

/// Opens the watchdog at time 0 with a timeout; and what was said.
fn open(timeout: Millis, device: Option<&str>) -> (Watchdog, Vec<String>) {
    let config = Configured { device: device.map(Into::into), timeout };
    let mut said = Vec::new();
    let mut watchdog = Watchdog::new(&config, open_fake, Millis(0));
    watchdog.look(Millis(0), &mut |line| said.push(line));
    (watchdog, said)
}

fn tend(watchdog: &mut Watchdog, now: u64) -> Vec<String> {
    let mut said = Vec::new();
    watchdog.tend(Millis(now), true, &mut |line| said.push(line));
    said
}

#[test]
fn it_is_fed_at_once_and_then_at_a_third_of_its_timeout() {
    let driver = plug(ABLE);
    let (mut watchdog, said) = open(Millis(30_000), None);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("/dev/watchdog0 (fake): resets the board 30s after"), "{said:?}");
    assert_eq!(driver.borrow().written, [0]);
    for now in [1, 5000, 9999] {
        tend(&mut watchdog, now);
        assert_eq!(driver.borrow().written.len(), 1, "not before it is due, at {now}");
    }
    assert_eq!(watchdog.next(), Some(Millis(10_000)));
    tend(&mut watchdog, 10_000);
    assert_eq!(driver.borrow().written, [0, 0]);
    // A turn that came late is not made up for: the next period counts from it.
    tend(&mut watchdog, 27_000);
    assert_eq!(watchdog.next(), Some(Millis(37_000)));
}

#[test]
fn the_kernel_acts_before_the_timeout_where_the_driver_can_and_the_board_says_nothing() {
    let able = Driver { options: ABLE.options | PRETIMEOUT, ..ABLE };
    for (driver, timeout, before) in [
        (able.clone(), 30, 7),
        // As the board has it.
        (Driver { pretimeout: 3, ..able.clone() }, 30, 3),
        // No whole second is left for it.
        (able.clone(), 3, 0),
        (Driver { timeout: None, bounds: (1, 0, 1), ..able }, 30, 0),
        (ABLE, 30, 0),
    ] {
        let driver = plug(driver);
        let (watchdog, said) = open(Millis::from_secs(timeout), None);
        assert_eq!(driver.borrow().pretimeout, before);
        let told = format!("the kernel acts {before}s before");
        assert_eq!(said[0].contains(&told), before > 0, "{said:?}");
        let fact = if before > 0 { format!("{before}s") } else { "none".to_owned() };
        assert!(watchdog.facts().contains(&("pretimeout", fact)) && watchdog.next() < Some(Millis(timeout * 750)));
    }
}

#[test]
fn a_timeout_of_a_second_is_fed_three_times_a_second() {
    let driver = plug(ABLE);
    let (mut watchdog, _) = open(Millis(1000), None);
    for _ in 0..30 {
        let next = watchdog.next().unwrap();
        tend(&mut watchdog, next.0);
    }
    assert_eq!(watchdog.next(), Some(Millis(31 * 333)));
    assert_eq!(driver.borrow().written.len(), 31);
}

#[test]
fn the_drivers_nearest_timeout_is_taken_and_shown() {
    // sd#38289: the driver rounds, and the rounded one is what the hardware counts.
    plug(Driver { bounds: (1, 65_535, 16), ..ABLE });
    let (watchdog, said) = open(Millis(30_000), None);
    assert!(said[0].contains("board 16s after") && said[0].contains("30s was asked for"), "{said:?}");
    assert_eq!(watchdog.next(), Some(Millis(5333)));
    let driver = plug(Driver { bounds: (1, 12, 1), ..ABLE });
    let (_, said) = open(Millis(30_000), None);
    assert!(said[0].contains("board 12s after"), "{said:?}");
    assert_eq!(driver.borrow().timeout, Some(12));
}

#[test]
fn a_fixed_timeout_is_read_and_never_set() {
    plug(Driver { options: MAGIC_CLOSE, timeout: Some(6), ..ABLE });
    let (watchdog, said) = open(Millis(30_000), None);
    assert_eq!(watchdog.next(), Some(Millis(2000)));
    assert!(said[0].contains("it cannot be set"), "{said:?}");
}

#[test]
fn a_driver_that_can_neither_set_nor_read_is_fed_at_a_safe_period() {
    // systemd never fed one (PR #30861).
    for timeout in [None, Some(0)] {
        plug(Driver { options: 0, timeout, ..ABLE });
        let (watchdog, said) = open(Millis(30_000), None);
        assert_eq!(watchdog.next(), Some(super::super::pace::UNKNOWN));
        assert!(said[0].contains("neither set nor read"), "{said:?}");
    }
}

#[test]
fn a_driver_that_refuses_every_timeout_is_fed_by_the_one_it_has() {
    plug(Driver { bounds: (1, 0, 1), timeout: Some(9), ..ABLE });
    let (watchdog, said) = open(Millis(30_000), None);
    assert_eq!(watchdog.next(), Some(Millis(3000)));
    assert!(said[0].contains("the driver sets no timeout"), "{said:?}");
}

#[test]
fn auto_takes_the_first_and_a_path_only_that_one() {
    DEVICE.set(Err(ENOENT));
    OPENED.take();
    let (mut watchdog, said) = open(Millis(30_000), None);
    assert_eq!(OPENED.take(), AUTO);
    assert_eq!(said, [""; 0], "the modules are not loaded yet");
    let mut said = Vec::new();
    watchdog.look_again(Millis(10), &mut |line| said.push(line));
    assert_eq!(OPENED.take(), AUTO);
    assert!(said[0].starts_with("NO HARDWARE WATCHDOG") && said[0].contains("device.modules"), "{said:?}");
    open(Millis(30_000), Some("/dev/watchdog3"));
    assert_eq!(OPENED.take(), ["/dev/watchdog3"]);
}

#[test]
fn a_driver_that_loads_later_is_found() {
    // sd#17838.
    DEVICE.set(Err(ENOENT));
    let (mut watchdog, _) = open(Millis(30_000), None);
    assert_eq!(watchdog.next(), Some(Millis(1000)));
    assert!(tend(&mut watchdog, 1000)[0].starts_with("NO HARDWARE WATCHDOG"));
    assert_eq!(tend(&mut watchdog, 2000), [""; 0], "the same is not said again");
    let driver = plug(ABLE);
    assert_eq!(tend(&mut watchdog, 2500), [""; 0], "not due");
    assert!(tend(&mut watchdog, 4000)[0].contains("resets the board 30s"));
    assert_eq!(driver.borrow().written, [0]);
    DEVICE.set(Err(ENOENT));
    let (mut watchdog, _) = open(Millis(30_000), None);
    let driver = plug(ABLE);
    watchdog.look_again(Millis(10), &mut |_| {});
    assert_eq!(driver.borrow().written, [0], "at once when modules were loaded");
}

#[test]
fn a_missing_device_is_looked_for_a_while_and_not_for_ever() {
    DEVICE.set(Err(ENODEV));
    let (mut watchdog, mut said) = open(Millis(30_000), None);
    let mut looks = 0;
    while let Some(next) = watchdog.next() {
        said.extend(tend(&mut watchdog, next.0));
        looks += 1;
        assert!(looks < 100);
    }
    assert_eq!((looks, said.len()), (LOOKS.len(), 2), "{said:?}");
    assert!(said[1].contains("no longer"));
    assert_eq!(watchdog.boot_status(), 0);
    assert!(watchdog.facts().iter().any(|(name, _)| *name == "missing"));
}

#[test]
fn a_device_that_another_process_has_is_loud_and_taken_when_it_is_free() {
    DEVICE.set(Err(EBUSY));
    OPENED.take();
    let (mut watchdog, said) = open(Millis(30_000), None);
    assert_eq!(OPENED.take(), ["/dev/watchdog0"], "the other name is the same device");
    assert!(said[0].contains("another process has /dev/watchdog0 open"), "{said:?}");
    plug(ABLE);
    assert!(tend(&mut watchdog, 1000)[0].contains("resets the board"));
}

#[test]
fn a_file_that_is_no_watchdog_is_said_and_not_fed() {
    struct Terminal;
    impl Card for Terminal {
        fn support(&self) -> Result<Support> {
            Err(Errno(ENOTTY))
        }
        fn boot_status(&self) -> Result<u32> {
            Err(Errno(ENOTTY))
        }
        fn set_timeout(&self, _: u32) -> Result<u32> {
            Err(Errno(ENOTTY))
        }
        fn timeout(&self) -> Result<u32> {
            Err(Errno(ENOTTY))
        }
        fn pretimeout(&self) -> Result<u32> {
            Err(Errno(ENOTTY))
        }
        fn set_pretimeout(&self, _: u32) -> Result<()> {
            Err(Errno(ENOTTY))
        }
        fn write(&self, _: u8) -> Result<()> {
            panic!("written to");
        }
        fn no_way_out(&self) -> Option<bool> {
            None
        }
        fn keep_open(&self, _: bool) -> Result<()> {
            Err(Errno(ENOTTY))
        }
    }
    let config = Configured { device: Some("/dev/ttyS0".into()), timeout: Millis(30_000) };
    let mut watchdog = Watchdog::new(&config, |_| Ok(Box::new(Terminal)), Millis(0));
    let mut said = Vec::new();
    watchdog.look(Millis(0), &mut |line| said.push(line));
    assert!(said[0].contains("/dev/ttyS0 is no watchdog"), "{said:?}");
    assert_eq!(watchdog.next(), None);
}

#[test]
fn a_power_off_stops_it_by_the_magic_byte_and_nothing_else_does() {
    let driver = plug(ABLE);
    let (watchdog, _) = open(Millis(30_000), None);
    drop(watchdog);
    assert_eq!(driver.borrow().written, [0], "a crash of the supervisor leaves it running");
    let driver = plug(ABLE);
    let (mut watchdog, _) = open(Millis(30_000), None);
    let mut said = Vec::new();
    watchdog.last_sign(Millis(5), &mut |line| said.push(line));
    assert_eq!((driver.borrow().written.as_slice(), driver.borrow().closed), (&[0, 0][..], false), "a reboot");
    watchdog.stop(&mut |line| said.push(line));
    assert_eq!((driver.borrow().written.as_slice(), driver.borrow().closed), (&[0, 0, MAGIC][..], true));
    assert_eq!(said, [""; 0]);
}

#[test]
fn a_watchdog_that_cannot_be_stopped_says_when_it_resets() {
    // troglobit/watchdogd#16.
    for driver in [Driver { no_way_out: Some(true), ..ABLE }, Driver { options: SET_TIMEOUT, ..ABLE }] {
        let driver = plug(driver);
        let (watchdog, _) = open(Millis(30_000), None);
        let mut said = Vec::new();
        watchdog.stop(&mut |line| said.push(line));
        assert!(
            said[0].contains("cannot be stopped") && said[0].ends_with("resets the board 30s from now"),
            "{said:?}"
        );
        assert_eq!(driver.borrow().written, [0, 0], "fed a last time, without the magic byte");
    }
}

#[test]
fn a_device_that_refuses_to_be_fed_is_said_once() {
    let driver = plug(ABLE);
    let (mut watchdog, _) = open(Millis(30_000), None);
    driver.borrow_mut().write_fails = true;
    assert!(tend(&mut watchdog, 10_000)[0].contains("cannot be fed"));
    assert_eq!(tend(&mut watchdog, 20_000), [""; 0]);
    driver.borrow_mut().write_fails = false;
    tend(&mut watchdog, 30_000);
    driver.borrow_mut().write_fails = true;
    assert_eq!(tend(&mut watchdog, 40_000).len(), 1, "and again after it went well");
}

#[test]
fn what_is_handed_over_is_fed_before_and_stays_open_only_if_it_is_taken() {
    let driver = plug(ABLE);
    let (mut watchdog, _) = open(Millis(30_000), None);
    watchdog.keep_open(true, Millis(5), &mut |_| {});
    assert!(driver.borrow().written == [0, 0] && driver.borrow().stays);
    watchdog.keep_open(false, Millis(6), &mut |_| {});
    assert!(!driver.borrow().stays, "no service gets it");
}

#[test]
fn what_is_no_open_watchdog_is_not_taken() {
    let null = fs::File::open("/dev/null").unwrap();
    sys::bequeath();
    assert!(sys::inherit().is_none());
    let flags = nix::fcntl::fcntl(&null, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, nix::libc::FD_CLOEXEC, "it stays as it is");
}

#[test]
fn it_says_what_it_is() {
    plug(ABLE);
    let (watchdog, _) = open(Millis(30_000), None);
    let facts = watchdog.facts();
    let of = |name: &str| facts.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    assert_eq!(of("device"), Some("/dev/watchdog0"));
    assert_eq!((of("driver"), of("timeout"), of("fed_every")), (Some("fake"), Some("30s"), Some("10s")));
    assert_eq!(watchdog.boot_status(), 0x20);
}
