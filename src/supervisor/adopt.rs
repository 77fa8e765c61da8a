//! The services of a supervisor that died, or that gave way to this one: found, verified, taken over. And what the next
//! one will have to know of each, kept as it changes.
//!
//! An instance is the one that its record names if its init still has that number and that start time, and answers at its
//! own socket ([`super::contact`]), which nobody else has. From then on its end is told by a pidfd, or where the kernel has
//! none (before 5.3) by the end of the connection and a look at the number.
#![forbid(unsafe_code)]

use super::answer;
use super::contact;
use super::core::{Found, KILL_TIME};
use super::event::{Event, Index, InstanceEvent, Number};
use super::inspect;
use super::instance::{self, Instance, Process, service_dir};
use super::keeper::Moment;
use super::leftover::{self, Handle};
use super::prober;
use super::run::{KEEPER, Supervisor};
use super::saved::{self, Saved};
use super::service::Phase;
use super::slot::{self, Left, Live};
use super::source::Source;
use super::steps::Material;
use super::wire::ToInit;
use crate::base::units::Millis;
use crate::plan::Network;
use crate::sandbox::cgroup::Group;
use crate::sandbox::sockets;
use crate::sys::process::{self, Forked};
use crate::sys::wait::is_child;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

/// Between two looks at an init of which the kernel does not tell that it ended.
pub(super) const GONE_LOOK: Millis = Millis(20);

impl Supervisor<'_> {
    /// Starts what is to run; or stops everything, where this process has failed on the way to an end.
    pub(super) fn begin(&mut self) {
        self.moment(Moment::Supervising);
        self.keep();
        if self.end.is_none() {
            self.events.push_back(Event::Clock(self.lookout.wall(self.now)));
            self.events.push_back(Event::Boot);
            self.events.push_back(Event::WaitSettled(KEEPER));
        }
    }

    /// Takes over what an earlier supervisor left in the run directory, and removes what nobody wants any more.
    pub(super) fn adopt(&mut self) {
        self.run.outdated().iter().for_each(|sentence| self.report.line(sentence));
        let (records, unreadable) = self.run.leftovers();
        unreadable.iter().for_each(|why| self.report.line(why));
        let mut found = vec![Found::Nothing; self.plan.services.len()];
        let mut unwanted = Vec::new();
        for record in records {
            match self.plan.find(&record.service) {
                Some(at) => found[at] = self.take_over(at, record),
                None => unwanted.push(record),
            }
        }
        let mut actions = std::mem::take(&mut self.actions);
        // Where no supervisor has been before, there is nothing to look for.
        let earlier = if self.run.is_new() { Vec::new() } else { found };
        for (at, found) in earlier.into_iter().enumerate() {
            let index = at as Index;
            if found == Found::Nothing {
                self.end_unrecorded(index);
            }
            let saved = self.read_state(index);
            let words = self.config_words(at);
            let same = |saved: &Saved| (0..2).any(|word| saved.config[word] != 0 && saved.config[word] == words[word]);
            let same = saved.as_ref().is_some_and(same);
            let kills = saved.as_ref().map(|saved| saved.oom_kills);
            let [booked, recorded] = saved.as_ref().map_or([0; 2], |saved| saved.spent);
            self.state.adopt_booked(Millis(booked));
            self.records.go_on(recorded);
            let service = saved.map(|saved| (saved.service, same));
            self.state.adopt(&self.plan, index, service, found, self.now, &mut actions);
            self.settle_in(index, found, same, kills);
        }
        actions.drain().for_each(|action| self.perform(action));
        self.actions = actions;
        self.adopt_left();
        // Children that ended before there was a signal for it.
        self.reap();
        // Of all groups those are kept that an instance is in, or a next one will be.
        let mut held: Vec<String> = unwanted.iter().map(|record| record.cgroup.clone()).collect();
        let left = self.left.iter().filter_map(|left| left.group.as_ref());
        for group in self.slots.iter().filter_map(|slot| slot.group.as_ref()).chain(left) {
            held.push(group.record());
        }
        let kept = |name: &str| {
            let is = |dir: &str| dir.rsplit_once('/').is_some_and(|(_, last)| last == name);
            held.iter().any(|record| record.split('\t').any(is))
        };
        let report = &mut self.report;
        if !leftover::sweep(&self.tree, kept, &mut |sentence| report.line(sentence)) {
            self.report.line("not everything that an earlier supervisor left could be removed");
        }
        // Where no supervisor has been before, no service has a folder.
        let folders = if self.run.is_new() { Vec::new() } else { self.run.services() };
        for name in folders {
            if self.plan.find(&name).is_none() && unwanted.iter().all(|record| record.service != name) {
                self.run.forget(&name);
            }
        }
        (0..self.slots.len()).for_each(|at| self.equip_check(at as Index));
        self.end_apart(unwanted);
        self.handed.clear();
        if !self.run.is_new() {
            (0..self.slots.len()).for_each(|at| self.save(at as Index));
        }
    }

    /// Takes over the instances that do not die.
    fn adopt_left(&mut self) {
        for at in 0..self.slots.len() as Index {
            for record in instance::set_aside(self.run.path(), answer::name(&self.plan, at)) {
                let group = Group::open(&record.cgroup).ok().filter(Group::is_there);
                if record.init.is_alive() {
                    self.state.adopt_left(at, record.number);
                }
                self.leave_behind((at, record.number), record.init, group);
            }
        }
        self.look_for_left();
    }

    /// An instance is waited for no longer. That its init has ended after all is told by SIGCHLD, by a pidfd where it is not
    /// our child, or where the kernel has none by the looks of every deadline.
    pub(super) fn leave_behind(&mut self, (index, number): (Index, Number), init: Process, group: Option<Group>) {
        let init = Handle::of(init);
        if let Some(pidfd) = &init.pidfd {
            let _ = self.epoll.add(pidfd, EpollEvent::new(EpollFlags::EPOLLIN, Source::Left.mark()));
        }
        self.left.push(Left { index, number, init: Some(init), group });
    }

    /// Tells the core whose init has ended of the instances that are left behind.
    pub(super) fn look_for_left(&mut self) {
        for left in &mut self.left {
            let Some(gone) = left.init.take_if(|init| !init.process.is_alive()) else { continue };
            // Told to the set itself: a copy of the descriptor may be on its way through a fork.
            let _ = gone.pidfd.map(|pidfd| self.epoll.delete(pidfd));
            self.events.push_back(Event::Instance(left.index, left.number, InstanceEvent::InitGone(None)));
        }
    }

    /// Verifies what a record tells of, and connects to it.
    fn take_over(&mut self, at: usize, mut record: Instance) -> Found {
        let (Some(slot), Some(service)) = (self.slots.get_mut(at), self.plan.services.get(at)) else {
            return Found::Nothing;
        };
        let Ok(group) = Group::open(&record.cgroup) else { return Found::Nothing };
        let channel = self.run.service(&record.service).ok().and_then(|dir| contact::find(&dir).ok());
        if record.init.pid == 0 {
            // Its supervisor died before it wrote down who the init is, or before there was one.
            record.init = channel.as_ref().and_then(contact::process).unwrap_or_default();
            let exit = slot::exit_record(&service_dir(self.run.path(), &record.service));
            if record.init.pid == 0 && exit.is_none() {
                let _ = std::fs::remove_file(instance::path(self.run.path(), &record.service));
                return Found::Nothing;
            }
        }
        let (number, handle) = (record.number, Handle::of(record.init));
        let frozen = group.frozen();
        slot.group = Some(group);
        let mut live = Live::new(number, record.init.pid, record.main.pid, record.stop_signal);
        // Looked at after the descriptor was made, and after the connection.
        let running = record.init.is_alive();
        if running && channel.is_none() {
            let name = &record.service;
            self.report.line(format_args!("{name} runs on, but its init does not answer; it is being stopped"));
            if let Err(why) = leftover::end(&self.run, &record) {
                self.report.line(format_args!("{name}: {why}"));
            }
            slot.group = None;
        }
        let running = running && channel.is_some();
        if running {
            slot.oom = slot.group.as_ref().and_then(|group| group.oom_event().ok()?);
            live.channel = channel;
            if service.network == Network::None {
                slot.net = File::open(format!("/proc/{}/ns/net", record.init.pid)).ok().map(OwnedFd::from);
                // If it is gone by now, that may have been a stranger's.
                slot.net = slot.net.take().filter(|_| record.init.is_alive());
            }
        }
        live.adopted = (!is_child(record.init.pid)).then_some(handle);
        slot.live = Some(live);
        if running { Found::Running(number, frozen) } else { Found::Ended(number) }
    }

    /// Makes what the checks of an instance that runs on needs, as its start did for the supervisor before.
    fn equip_check(&mut self, index: Index) {
        let (device, at) = (&self.plan.device, usize::from(index));
        let (Some(service), Some(slot)) = (self.plan.services.get(at), self.slots.get_mut(at)) else { return };
        let number = match &slot.live {
            Some(live) if service.health.iter().any(|check| check.probe.is_command()) => live.number,
            _ => return,
        };
        let times = Material::find(device, service, &mut self.images, "its image was removed or replaced meanwhile")
            .and_then(|found| {
                prober::equip(&mut slot.probing, (device, service), found.image.health.as_deref(), &mut self.tree)
            });
        match times {
            Ok(Some(times)) => self.happened(index, number, InstanceEvent::Probing(times)),
            Ok(None) => {}
            Err(why) => self.report.line(format_args!("{} cannot be asked whether it works: {why}", service.name)),
        }
    }

    /// Makes the slot fit the state that the core has come to.
    fn settle_in(&mut self, index: Index, found: Found, same: bool, kills: Option<u64>) {
        let Some(service) = self.state.services().get(usize::from(index)) else { return };
        let (had, number) = (service.has_instance(), service.number);
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        slot.outdated = !same;
        let Some(configured) = self.plan.services.get(usize::from(index)) else { return };
        if same && !matches!(found, Found::Running(..)) {
            // Those of what runs come from its init.
            while let Some(at) = self.handed.iter().position(|(name, _)| *name == configured.name.as_str()) {
                // Beyond those of the config there is no room, and none is needed.
                let _ = slot.sockets.push(self.handed.remove(at).1);
            }
            slot.sockets.truncate(configured.sockets.len());
        }
        if !had {
            if service.phase == Phase::Backoff && slot.sockets.len() < configured.sockets.len() {
                // What fails here is tried again, and said, at its start.
                slot.sockets.clear();
                slot.sockets = sockets::listen(&configured.sockets).unwrap_or_default();
            }
            return;
        }
        let live = slot.live.get_or_insert_with(|| Live::new(number, 0, 0, 0));
        // A service that is new here had none before.
        live.oom_before = kills.unwrap_or(0);
        match found {
            Found::Running(..) => {
                let name = answer::name(&self.plan, index);
                let init = live.init;
                let sentence = format_args!("{name} runs on and is supervised again (init {init})");
                self.report.line(sentence);
                self.notes.note(format_args!("adopted"), name, sentence);
                self.watch_instance(index);
                self.memory_kills(index);
            }
            Found::Ended(_) | Found::Nothing => self.init_ended(index),
        }
    }

    /// An init whose supervisor died before it wrote that there is one: it is told to end, and gets the time for it.
    fn end_unrecorded(&mut self, index: Index) {
        let name = answer::name(&self.plan, index);
        if !service_dir(self.run.path(), name).exists() {
            return;
        }
        let Ok(channel) = self.run.service(name).map_err(drop).and_then(|dir| contact::find(&dir).map_err(drop)) else {
            return;
        };
        self.report.line(format_args!("{name} was just being started when its supervisor died; it is started anew"));
        let mut live = Live::new(0, 0, 0, 0);
        live.channel = Some(channel);
        live.tell(ToInit::Kill);
        let Some(channel) = live.channel else { return };
        let timeout = PollTimeout::try_from(KILL_TIME.0).unwrap_or(PollTimeout::MAX);
        let mut set = [PollFd::new(channel.as_fd(), PollFlags::empty())];
        let _ = poll(&mut set, timeout);
    }

    /// Ends what the config no longer has in a process apart, which takes the time that each has to stop.
    fn end_apart(&mut self, unwanted: Vec<Instance>) {
        if unwanted.is_empty() {
            return;
        }
        for record in &unwanted {
            let name = &record.service;
            self.report.line(format_args!("{name} is no longer in the config; what runs of it is being stopped"));
        }
        match process::clone(0, None) {
            Ok(Forked::Parent(pid)) => self.ending = Some(pid),
            Ok(Forked::Child) => {
                // Whoever waits for the end of the supervisor must not wait for this process.
                for fd in [self.run.lock_fd(), self.server.listener_fd()] {
                    let _ = nix::unistd::close(fd);
                }
                let clean = unwanted.iter().filter(|record| leftover::end(&self.run, record).is_err()).count() == 0;
                unwanted.iter().for_each(|record| self.run.forget(&record.service));
                process::exit_now(i32::from(!clean))
            }
            Err(errno) => self.report.line(format_args!("what the config no longer has cannot be stopped: {errno}")),
        }
    }

    /// What was last written of a service.
    fn read_state(&mut self, index: Index) -> Option<Saved> {
        let name = answer::name(&self.plan, index);
        let mut bytes = [0; saved::MOST_BYTES];
        let file = File::open(service_dir(self.run.path(), name).join(saved::NAME)).ok()?;
        let mut read = 0;
        while let Ok(count @ 1..) = (&file).read(bytes.get_mut(read..)?) {
            read += count;
        }
        let saved = saved::decode(bytes.get(..read)?);
        if saved.is_none() {
            self.report.line(format_args!("what was written of the state of {name} cannot be read; it begins anew"));
        }
        saved
    }

    /// Something happens to service `index`: what is known of it may change.
    pub(super) fn touch(&mut self, index: Option<Index>) {
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(usize::from(index))) {
            slot.touched = true;
        }
    }

    /// Writes down what has become of the services that something happened to.
    pub(super) fn save_touched(&mut self) {
        for index in 0..self.slots.len() {
            if self.slots.get_mut(index).is_some_and(|slot| std::mem::take(&mut slot.touched)) {
                self.save(index as Index);
            }
        }
    }

    /// Writes what the next supervisor has to know of service `index`, if that has changed.
    pub(super) fn save(&mut self, index: Index) {
        let at = usize::from(index);
        let words = self.config_words(at);
        let (Some(service), Some(slot)) = (self.state.services().get(at), self.slots.get_mut(at)) else { return };
        let kills = slot.live.as_ref().map_or(0, |live| live.oom_before);
        let bytes = saved::encode(service, kills, words, [self.state.booked().0, self.records.number()]);
        let sum = saved::checksum(&bytes);
        if slot.state.is_none() {
            let name = answer::name(&self.plan, index);
            let path = service_dir(self.run.path(), name).join(saved::NAME);
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_CLOEXEC);
            match self.run.service(name).and_then(|_| options.open(path)) {
                Ok(file) => slot.state = Some((file, !sum)),
                Err(error) => self.report.line(format_args!("the state of {name} cannot be kept: {error}")),
            }
        }
        if let Some((file, last)) = &mut slot.state
            && *last != sum
            && file.write_all_at(&bytes, 0).is_ok()
        {
            *last = sum;
        }
    }

    /// The checksums of the config of a service.
    fn config_words(&self, at: usize) -> [u64; 2] {
        [self.plan.digest, self.prints.get(at).copied().unwrap_or(0)]
    }
}

/// The checksums of what the instances of `plan` are made of, for [`Saved::config`].
pub(super) fn prints(plan: &crate::plan::Plan) -> Vec<u64> {
    plan.services.iter().map(inspect::print).collect()
}

impl Live {
    /// Whether only a look can tell that its init is gone.
    pub(super) fn looks_needed(&self) -> bool {
        self.adopted.as_ref().is_some_and(|handle| handle.pidfd.is_none())
    }

    /// Whether its init is gone, as far as a look can tell.
    pub(super) fn is_gone(&self) -> bool {
        self.looks_needed() && self.adopted.as_ref().is_some_and(|handle| !handle.process.is_alive())
    }
}
