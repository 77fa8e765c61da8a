//! What the core decides, done: sandboxes, signals, groups, records.
#![forbid(unsafe_code)]

use super::action::{Action, Verdict};
use super::answer;
use super::board;
use super::contact;
use super::core::LEFT;
use super::escalation::Rung;
use super::event::{Event, Index, InstanceEvent, Number, Token};
use super::events::Code;
use super::images::Standing;
use super::init;
use super::instance::{self, Instance, Process};
use super::keeper::{End, Moment};
use super::lookout;
use super::prober;
use super::run::{KEEPER, Supervisor};
use super::service::Phase;
use super::slot::{Launch, Left, Live};
use super::steps::{Material, notify_path};
use super::wire::ToInit;
use crate::control::wire::cut;
use crate::log::ring;
use crate::log::sink::Sink;
use crate::plan::{Network, Root, Seccomp, Service};
use crate::sandbox::cgroup::{Group, Killer, Options, RUN_PREFIX};
use crate::sandbox::child::Outlets;
use crate::sandbox::devices;
use crate::sandbox::prepare::prepare;
use crate::sandbox::sockets::{self, Sockets};
use crate::sandbox::spawn::{Spawned, spawn};
use crate::sandbox::spec::{Net, Place, Spec};
use crate::sys::heap::HEAP;
use crate::sys::meaning;
use crate::sys::wait::send_signal;
use nix::libc;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The stop signal of a service whose config and image name none.
const TERM: u8 = libc::SIGTERM as u8;

impl Supervisor<'_> {
    /// Does one thing. What comes of it is queued as an event.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare(index) => self.prepare(index),
            Action::Spawn(index, number) => match self.spawn(index, number) {
                Ok(()) => self.happened(index, number, InstanceEvent::Spawned),
                Err(why) => {
                    // Someone removed its group: the next start has a new one.
                    if let Some(slot) = self.slots.get_mut(usize::from(index)) {
                        slot.group.take_if(|group| !group.is_there());
                    }
                    self.happened(index, number, InstanceEvent::SpawnFailed(why.into()));
                }
            },
            Action::Signal(index, _, signal) => {
                if let Some(live) = self.live(index) {
                    live.tell(ToInit::Signal(i32::from(signal.unwrap_or(live.stop_signal))));
                }
            }
            Action::KillTree(index, _) => {
                let told = self.live(index).is_some_and(|live| live.tell(ToInit::Kill));
                let service = self.plan.services.get(usize::from(index));
                // From here the command that runs after main could be hit, which may have come into the group already.
                let by_init = told && service.is_some_and(|service| !service.post_stop.is_empty());
                // Also those that entered the group from outside. What fails here fails on the way to KillInit.
                let _ = self.group(index).filter(|_| !by_init).map(Group::kill);
            }
            Action::KillInit(index, _) => {
                match self.live(index).map(|live| (live.init, &live.adopted)) {
                    Some((_, Some(handle))) => drop(handle.signal(libc::SIGKILL)),
                    // It is our child and not waited for: the number is still its own.
                    Some((init, None)) => drop(send_signal(init, libc::SIGKILL)),
                    None => {}
                }
            }
            Action::Freeze(index, number, frozen) => {
                let done = self.group(index).map(|group| group.freeze(frozen));
                let result = match done {
                    Some(Ok(())) => Ok(frozen),
                    Some(Err(error)) => Err(error.to_string().into()),
                    None => Err("it has no group".into()),
                };
                self.happened(index, number, InstanceEvent::Frozen(result));
            }
            Action::Probe(index, number, role) => self.probe(index, number, role),
            Action::EndProbe(index, _) => self.end_probe(index),
            Action::Cleanup(index, number) => self.cleanup(index, number),
            Action::Changed(index, phase) => self.changed(index, phase),
            Action::GiveUp(index, number) => self.give_up(index, number),
            Action::Crashed(index) => self.crashed(index),
            Action::PutOff(index) => {
                let (name, most) = (answer::name(&self.plan, index), self.plan.device.restarts_per_minute);
                let sentence =
                    format_args!("restarts are put off, that of {name} first: there are more than {most} a minute");
                self.notes.note(format_args!("put-off/budget"), name, sentence);
                self.report.line(sentence);
            }
            Action::Climbed(index, rung) => self.climbed(index, rung),
            Action::OnHold(index, on) => {
                let name = answer::name(&self.plan, index);
                let (code, what) = if on { ("on-hold", "hands off") } else { ("off-hold", "no longer hands off") };
                self.notes.note(format_args!("{code}"), name, format_args!("{what} {name}"));
                self.report.line(format_args!("{what} {name}"));
                if !on {
                    self.look_for_unplugged(index);
                }
            }
            Action::Answer(token, verdict) => self.answer(token, verdict),
            Action::Complete => self.complete = true,
        }
    }

    pub(super) fn happened(&mut self, index: Index, number: Number, event: InstanceEvent) {
        self.events.push_back(Event::Instance(index, number, event));
    }

    fn live(&self, index: Index) -> Option<&Live> {
        self.slots.get(usize::from(index))?.live.as_ref()
    }

    fn group(&self, index: Index) -> Option<&Group> {
        self.slots.get(usize::from(index))?.group.as_ref()
    }

    /// Looks at the board, then for the image.
    pub(super) fn prepare(&mut self, index: Index) {
        let Some(service) = self.plan.services.get(usize::from(index)) else { return };
        // First of all: what comes may change what holds.
        if let Some(lack) = self.lookout.lack(service, &mut self.awaited) {
            return self.events.push_back(Event::Awaits(index, lookout::words(lack)));
        }
        if let Some(why) = board::skipped(service, &self.board.files) {
            return self.events.push_back(Event::Skipped(index, why.into()));
        }
        let mut lacks = board::service_problems(&self.plan, usize::from(index), &self.board);
        if !lacks.is_empty() {
            // Watched before the look that counts: what appears in between is not missed.
            board::awaited(service).iter().for_each(|path| self.awaited.watch(path));
            lacks = board::service_problems(&self.plan, usize::from(index), &self.board);
        }
        if !lacks.is_empty() {
            let mut sentences = String::new();
            for lack in &lacks {
                let stop = if sentences.is_empty() { "" } else { ". " };
                let _ = write!(sentences, "{stop}{}; {}", lack.message, lack.hint);
            }
            return self.events.push_back(Event::Held(index, sentences.into()));
        }
        if service.root == Root::Host {
            return self.events.push_back(Event::Ready(index));
        }
        match self.images.prepare(&self.plan.device, service, index) {
            Ok(Standing::Ready) => self.events.push_back(Event::Ready(index)),
            Ok(Standing::Begun(image)) => {
                self.report.line(format_args!("unpacking {image}"));
                self.watch_worker();
            }
            Ok(Standing::Queued) => {}
            Err(why) => self.events.push_back(Event::ImageFailed(index, why.into())),
        }
    }

    /// The group that the next instance of a service runs in.
    fn group_of_next(&mut self, index: Index, number: Number) -> Result<Group, String> {
        let (device, at) = (&self.plan.device, usize::from(index));
        let (Some(service), Some(slot)) = (self.plan.services.get(at), self.slots.get_mut(at)) else {
            return Err("it is not known".into());
        };
        Ok(match &slot.group {
            // What has not died since the last instance keeps its group to itself.
            Some(group) if group.pids().is_empty() || self.left.len() >= LEFT => group.clone(),
            kept => {
                let fresh = format!("{}+{number}", service.name);
                let used = kept.is_some() || self.left.iter().any(|left| left.index == index);
                let name = if used { fresh.as_str() } else { service.name.as_str() };
                slot.oom = None;
                if let Some(group) = slot.group.take() {
                    self.left.push(Left { index, number: number.saturating_sub(1), init: None, group: Some(group) });
                }
                let options = Options {
                    allow_missing: device.allow_missing,
                    measure: true,
                    all_devices: service.has_all_devices(),
                };
                let rules = devices::rules(service);
                let made = self.tree.create(name, &service.limits, &rules, &options);
                slot.group.insert(made?).clone()
            }
        })
    }

    fn spawn(&mut self, index: Index, number: Number) -> Result<(), String> {
        let outlets = self.assemble(index, number)?;
        let slot = self.slots.get_mut(usize::from(index)).ok_or("it has no slot")?;
        let spec = slot.live.as_ref().and_then(|live| live.launch.as_ref()?.spec.as_ref()).ok_or("it has no steps")?;
        match (spawn(spec, outlets, init::run), &mut slot.live) {
            (Ok(Spawned { pid, pidfd: _, channel }), Some(live)) => {
                (live.init, live.channel) = (pid, Some(channel));
            }
            (spawned, live) => {
                *live = None;
                return spawned.map(drop).map_err(|failure| failure.to_string());
            }
        }
        slot.outdated = false;
        self.watch_instance(index);
        Ok(())
    }

    /// All that comes before the clone: the instance is in its slot then, without its processes. Not inlined, because each page
    /// of the stack that lies between the clone and the loop is copied on the way back.
    #[inline(never)]
    fn assemble(&mut self, index: Index, number: Number) -> Result<Outlets, String> {
        let group = self.group_of_next(index, number)?;
        let Some(service) = self.plan.services.get(usize::from(index)) else { return Err("it is not known".into()) };
        let device = &self.plan.device;
        // Those of many starts at once would leave a heap of many times the size.
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.live.as_mut()?.launch.as_mut())
            .for_each(|other| other.spec = None);
        let gone = "its image was removed or replaced meanwhile; it is unpacked at the next start";
        let mut material = Material::find(device, service, &mut self.images, gone)?;
        let slot = self.slots.get_mut(usize::from(index)).ok_or("it has no slot")?;
        let probing = &mut slot.probing;
        if let Some(times) =
            prober::equip(probing, (device, service), material.image.health.as_deref(), &mut self.tree)?
        {
            self.events.push_back(Event::Instance(index, number, InstanceEvent::Probing(times)));
        }
        let join = group.join()?;
        if slot.sockets.len() < service.sockets.len() {
            slot.sockets.clear();
            slot.sockets = sockets::listen(&service.sockets)?;
        }
        let notify = notify_path(self.run.path(), service);
        let order = material.order(device, service, slot.net.as_ref(), Some((&group, join)), &notify);
        let mut spec = prepare(order)?;
        spec.closed = vec![self.run.lock_fd(), self.server.listener_fd()];
        if slot.oom.is_none() {
            slot.oom = group.oom_event()?;
        }
        let oom_before = group.oom_kills();
        let killer = match (spec.place, &spec.post_stop) {
            (Place::Container, None) => Killer::default(),
            // A kill of the whole namespace would take the command along that waits for main's end.
            (Place::Host, _) | (_, Some(_)) => group.killer()?,
        };
        let sockets = copies(&slot.sockets).map_err(|error| format!("its sockets cannot be handed on: {error}"))?;
        let mut outlets = outlets(&self.run, device, service)?;
        (outlets.pin, outlets.killer, outlets.sockets) = (material.pin, killer, sockets);
        let stop_signal = service.stop.signal.or(material.image.stop_signal).unwrap_or(TERM);
        let order = self.plan.start_order.iter().position(|i| *i == index).unwrap_or(0) as u16;
        let record = instance_record(service, &spec, &group, number, (order, stop_signal));
        // Written before there is an init, so that no instance is unknown to the next supervisor; the processes follow.
        if let Err(error) = record.write(self.run.path()) {
            self.report.line(format_args!("the record of {} cannot be written: {error}", service.name));
        }
        let launch = Some(Launch { new_net: spec.net == Net::New, spec: Some(spec) });
        slot.live = Some(Live { launch, oom_before, ..Live::new(number, 0, 0, stop_signal) });
        Ok(outlets)
    }

    /// The instance does not die: it is named and, unless its service stays stuck with it, set aside with its group.
    fn give_up(&mut self, index: Index, number: Number) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        let init = slot.live.as_ref().map_or(0, |live| live.init);
        let pids = slot.group.as_ref().map(Group::pids).unwrap_or_default();
        let name = answer::name(&self.plan, index);
        let sentence = format_args!("{name} does not die: init {init} and processes {pids:?} are stuck");
        self.notes.note(format_args!("given-up/stuck"), name, sentence);
        self.report.line(sentence);
        if self.state.services().get(usize::from(index)).is_some_and(|service| !service.is_stuck()) {
            slot.oom = None;
            let adopted = slot.live.take().and_then(|live| Some(live.adopted?.process));
            let group = slot.group.take();
            instance::put_aside(self.run.path(), name, number);
            self.leave_behind((index, number), adopted.or_else(|| Process::find(init)).unwrap_or_default(), group);
        }
    }

    /// The instance is dead; its group may hold strangers who came with `exec`.
    fn cleanup(&mut self, index: Index, number: Number) {
        self.left.retain(|left| {
            // Only what is empty goes at once: nothing here may wait.
            let empty = left.init.is_none() && left.group.as_ref().is_none_or(|group| group.pids().is_empty());
            let stays = !empty || left.group.as_ref().is_some_and(|group| group.remove().is_err());
            if !stays {
                instance::forget_aside(self.run.path(), answer::name(&self.plan, left.index), left.number);
            }
            stays
        });
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        if slot.live.as_ref().is_none_or(|live| live.number != number) {
            return;
        }
        slot.live = None;
        if let Some(probing) = &mut slot.probing {
            probing.forget();
        }
        if let Some(group) = slot.group.as_ref().filter(|group| !group.is_empty()) {
            // Those that do not die in time keep the group, and the next instance has a fresh one.
            let _ = group.kill();
        }
        let name = answer::name(&self.plan, index);
        let _ = fs::remove_file(instance::path(self.run.path(), name));
        let _ = self.run.service(name).map(|dir| contact::remove(&dir));
        self.run.forget_notify(name);
        if slot.outdated {
            slot.sockets.clear();
            self.remove_group(index);
        }
    }

    fn changed(&mut self, index: Index, phase: Phase) {
        let Some(service) = self.state.services().get(usize::from(index)) else { return };
        let quiet = self.state.is_shutting_down() && service.number == 0;
        if answer::is_told(phase) && !quiet {
            let change = answer::Change(&self.plan, index, service, phase, self.now);
            let code = Code(answer::word(phase, service).as_str(), service);
            self.notes.note(format_args!("{code}"), answer::name(&self.plan, index), format_args!("{change}"));
            self.report.line(change);
        }
        if matches!(phase, Phase::Stopped | Phase::Held | Phase::Failed | Phase::Done) {
            self.remove_group(index);
            self.close_sockets(index);
        }
    }

    /// Nobody listens for a service that is not to run.
    fn close_sockets(&mut self, index: Index) {
        let (Some(slot), Some(service)) =
            (self.slots.get_mut(usize::from(index)), self.plan.services.get(usize::from(index)))
        else {
            return;
        };
        if !slot.sockets.is_empty() {
            slot.sockets.clear();
            sockets::forget(&service.sockets);
        }
    }

    /// A service does not recover. The board is rebooted for it where the keeper says so.
    fn climbed(&mut self, index: Index, rung: Rung) {
        let name = answer::name(&self.plan, index);
        let mut refused = None;
        let what = match rung {
            Rung::Alone => return,
            Rung::Dependants => "those that need it are started again with it",
            Rung::Everything => "everything but lifelines is started again",
            Rung::Reboot => {
                refused = self.keeper.may_reset(name).err();
                refused.unwrap_or("the board reboots")
            }
        };
        let sentence = format_args!("{name} does not recover: {what}");
        self.notes.note(format_args!("escalation/{}", rung.code()), name, sentence);
        self.report.line(sentence);
        if rung == Rung::Reboot && refused.is_none() {
            let why = format!("{name} does not recover");
            self.stop_all(End::Reboot("".into()), why);
        }
    }

    fn remove_group(&mut self, index: Index) {
        let Some(slot) = self.slots.get_mut(usize::from(index)).filter(|slot| slot.live.is_none()) else { return };
        if let Some(error) = slot.remove_probe() {
            self.report.line(format_args!("{}: {error}", answer::name(&self.plan, index)));
        }
        slot.oom = None;
        let Some(group) = slot.group.take() else { return };
        if let Err(error) = group.remove() {
            self.report.line(format_args!("{}: {error}", answer::name(&self.plan, index)));
            slot.group = Some(group);
        }
    }

    fn answer(&mut self, token: Token, verdict: Verdict) {
        if token == KEEPER {
            // Now that nobody waits: those of a `coracle run` that was killed are empty, and nobody's any more.
            self.tree.flat(RUN_PREFIX).sweep();
            self.moment(Moment::Settled(verdict == Verdict::Settled));
            return HEAP.seal();
        }
        if verdict == Verdict::SettledWithout {
            for index in 0..self.plan.services.len() {
                if self.state.services().get(index).is_some_and(|service| service.is_missing()) {
                    self.send_service(token, index as Index);
                }
            }
        }
        let line = answer::done_line(token.id, &self.plan, self.state.services(), verdict);
        self.server.done(token.client, &line, self.now);
    }

    /// Sends the line of service `index`.
    pub(super) fn send_service(&mut self, token: Token, index: Index) {
        let Some(service) = self.state.services().get(usize::from(index)) else { return };
        let live = self.live(index);
        let pids = live.map_or((0, 0), |live| (live.main, live.init));
        let mut line = answer::service_line(token.id, &self.plan, index, service, pids, self.now);
        if line.reason.is_empty() {
            line.reason = cut(&live.map_or("", |live| &live.status));
        }
        self.server.send(token.client, &line);
    }
}

/// The sockets once more, for the init.
fn copies(sockets: &Sockets) -> std::io::Result<Sockets> {
    let mut copies = Sockets::new();
    for socket in sockets {
        // There is room for as many.
        let _ = copies.push(socket.try_clone()?);
    }
    Ok(copies)
}

/// What the init of an instance writes to.
fn outlets(run: &super::rundir::RunDir, device: &crate::plan::Device, service: &Service) -> Result<Outlets, String> {
    let name = service.name.as_str();
    let at = |what: &str, error: &dyn std::fmt::Display| {
        format!("cannot make its {what} in {}: {error}", run.path().display())
    };
    let dir = run.service(name).map_err(|error| at("directory", &error))?;
    let exit = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(instance::service_dir(run.path(), name).join("exit"))
        .map_err(|error| at("exit record", &error))?;
    let capacity = service.log.ring.unwrap_or(device.log_ring).0;
    let contact = contact::make(&dir).map_err(|errno| at("socket", &meaning(errno)))?;
    let ring = ring::prepare(&dir, "log", capacity).map_err(|errno| at("log ring", &meaning(errno)))?;
    let sink = match service.log.file.0 {
        0 => None,
        size => Some(sink(device, name, size, service.log.keep)?),
    };
    let note = service.tty.as_ref().map(|tty| format!("what it says goes to {tty}, not here").into());
    let notify = match (service.notify, &service.root) {
        (Some(_), Root::Host) => Some(run.notify(name).map_err(|error| at("notify socket", &error))?),
        // A container's is made inside.
        (Some(_), Root::Image(_)) | (None, _) => None,
    };
    Ok(Outlets {
        exit: Some(exit.into()),
        ring: Some(ring),
        sink,
        rate: service.log.rate,
        note,
        notify,
        contact: Some(contact),
        notify_access: service.notify.unwrap_or_default(),
        ..Outlets::default()
    })
}

/// The log file, in the folder `logs` of the state folder.
fn sink(device: &crate::plan::Device, name: &str, size: u64, keep: u8) -> Result<Sink, String> {
    let path = Path::new(&*device.state).join("logs");
    let failed = |why: &dyn std::fmt::Display| format!("cannot make its log file in {}: {why}", path.display());
    crate::sys::folder::make_all(&path, 0o777).map_err(|error| failed(&error))?;
    let dir = File::open(&path).map_err(|error| failed(&error))?;
    Sink::open(dir.into(), name, size, keep).map_err(|errno| failed(&meaning(errno)))
}

fn instance_record(
    service: &Service,
    spec: &Spec,
    group: &Group,
    number: Number,
    (order, stop_signal): (u16, u8),
) -> Instance {
    let credentials = &spec.main.credentials;
    let text = |string: &std::ffi::CStr| string.to_string_lossy().into_owned();
    Instance {
        service: service.name.to_string(),
        number,
        order,
        stop_signal,
        stop_ms: service.stop.timeout.plus(service.post_stop_time()).0,
        init: Process::default(),
        main: Process::default(),
        cgroup: group.record(),
        uid: credentials.uid,
        gid: credentials.gid,
        groups: credentials.groups.to_vec(),
        caps: credentials.caps.0,
        seccomp: match service.seccomp {
            Seccomp::Default => "default",
            Seccomp::Strict => "strict",
            Seccomp::Log => "log",
            Seccomp::Off => "off",
        }
        .to_owned(),
        cwd: text(&spec.main.working_dir),
        env: spec.main.env.strings().iter().map(|entry| text(entry)).collect(),
        host_network: service.network == Network::Host,
        host_root: service.root == Root::Host,
    }
}
