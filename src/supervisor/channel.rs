//! What the inits say over their channels, taken in.
#![forbid(unsafe_code)]

use super::answer;
use super::event::{Index, InstanceEvent};
use super::instance::{self, Instance, Process};
use super::run::Supervisor;
use super::slot;
use super::wire::{FromInit, MESSAGE_BYTES};
use crate::plan::Root;
use crate::sys::Errno;
use crate::sys::datagram::receive;
use nix::libc;
use std::fs::File;
use std::os::fd::OwnedFd;

/// Messages taken from one init before the others get their turn. The rest waits: epoll(7) tells of it again.
const TURN: usize = 16;

impl Supervisor<'_> {
    /// Reads what an init says, as far as its turn goes.
    pub(super) fn hear(&mut self, index: Index) {
        for _ in 0..TURN {
            match self.receive(index) {
                Some(message) => self.heard(index, message),
                None => return,
            }
        }
    }

    /// Reads all that an init has said by now.
    pub(super) fn hear_out(&mut self, index: Index) {
        while let Some(message) = self.receive(index) {
            self.heard(index, message);
        }
    }

    /// The next message of an init; what this version does not know is passed over.
    fn receive(&mut self, index: Index) -> Option<FromInit> {
        let mut bytes = [0; MESSAGE_BYTES];
        loop {
            let slot = self.slots.get_mut(usize::from(index))?;
            let live = slot.live.as_mut()?;
            let channel = live.channel.as_ref()?;
            match receive(channel, &mut bytes) {
                Ok(mut datagram) if datagram.length > 0 => {
                    match (FromInit::decode(bytes.get(..datagram.length).unwrap_or(&[])), datagram.fds.pop()) {
                        (Some(FromInit::Socket(_)), Some(socket)) => {
                            // Beyond those of the config there is no room, and none is needed.
                            let _ = slot.sockets.push(socket);
                        }
                        (Some(message), _) => return Some(message),
                        (None, _) => {}
                    }
                }
                Err(Errno(libc::EAGAIN)) => return None,
                // Its end is closed; that it ended is told by SIGCHLD, or of an adopted one by its pidfd.
                Ok(_) | Err(_) => {
                    let _ = self.epoll.delete(channel);
                    live.channel = None;
                    live.gone_look = live.adopted.is_some().then_some(self.now);
                    return None;
                }
            }
        }
    }

    fn heard(&mut self, index: Index, message: FromInit) {
        let Some(live) = self.slots.get_mut(usize::from(index)).and_then(|slot| slot.live.as_mut()) else { return };
        let number = live.number;
        let event = match message {
            FromInit::Started { main } => {
                self.main_runs(index, main);
                InstanceEvent::MainStarted
            }
            FromInit::Failed(failure) => InstanceEvent::MainFailed(failure.to_string().into()),
            FromInit::Exited { status } => {
                let status = slot::status(status);
                live.ended = Some(status);
                self.memory_kills(index);
                InstanceEvent::MainExited(status)
            }
            FromInit::Notice(notice, counts) => {
                live.counts = counts;
                InstanceEvent::Notified(notice)
            }
            FromInit::Trouble(why) => InstanceEvent::Troubled(why.as_str().into()),
            FromInit::Status(status) => {
                live.status = status;
                return;
            }
            FromInit::PostStop(why) => {
                let name = answer::name(&self.plan, index);
                let sentence = format_args!("the post_stop of {name} failed: {why}");
                self.notes.note(format_args!("post-stop/failed"), name, sentence);
                return self.report.line(sentence);
            }
            // One that came without a socket.
            FromInit::Socket(_) => return,
        };
        self.happened(index, number, event);
    }

    /// An init has ended, and with it all of its service.
    pub(super) fn init_ended(&mut self, index: Index) {
        self.hear_out(index);
        self.look_for_unplugged(index);
        let Some(live) = self.slots.get(usize::from(index)).and_then(|slot| slot.live.as_ref()) else { return };
        let number = live.number;
        let record = match live.ended {
            // Whether the kernel had killed for memory was looked at when it told.
            Some(status) => Some(Ok(status)),
            None => {
                self.memory_kills(index);
                slot::exit_record(&instance::service_dir(self.run.path(), answer::name(&self.plan, index)))
            }
        };
        let status = match record {
            Some(Ok(status)) => Some(status),
            Some(Err(why)) => {
                self.happened(index, number, InstanceEvent::MainFailed(why.into()));
                None
            }
            None => None,
        };
        self.happened(index, number, InstanceEvent::InitGone(status));
    }

    /// Main is the process that its init knows as `main`.
    fn main_runs(&mut self, index: Index, main: i32) {
        let on_host = self.plan.services.get(usize::from(index)).is_some_and(|service| service.root == Root::Host);
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        let main = match &slot.group {
            _ if on_host => Process::find(main).unwrap_or_default(),
            Some(group) => slot::find_main(group, main),
            None => Process::default(),
        };
        let Some(live) = &mut slot.live else { return };
        live.main = main.pid;
        if live.launch.take().is_some_and(|launch| launch.new_net) {
            // Without it every instance has a new one, which only costs time.
            slot.net = File::open(format!("/proc/{}/ns/net", live.init)).ok().map(OwnedFd::from);
        }
        // Its record was written before it had processes, or names another main.
        let (number, init) = (live.number, Process::find(live.init).unwrap_or_default());
        match Instance::read(self.run.path(), answer::name(&self.plan, index)) {
            Ok(Some(record)) if record.number == number && (record.init, record.main) != (init, main) => {
                let record = Instance { init, main, ..record };
                self.write_record(&record);
            }
            _ => {}
        }
    }

    /// Writes the record of an instance, or tells that it cannot.
    pub(super) fn write_record(&mut self, record: &Instance) {
        if let Err(error) = record.write(self.run.path()) {
            self.report.line(format_args!("the record of {} cannot be written: {error}", record.service));
        }
    }
}
