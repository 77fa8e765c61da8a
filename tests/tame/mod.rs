//! A device on a virtual clock whose services do just what a test says, in the pure core: what happens is kept in a list.

use coracle::base::name::Name;
use coracle::base::units::{Bytes, Millis};
use coracle::plan::{Limits, Memory, Plan, Root, Service};
use coracle::supervisor::action::{Action, Actions};
use coracle::supervisor::core::{State, step};
use coracle::supervisor::escalation::Rung;
use coracle::supervisor::event::{Event, Index, InstanceEvent, Number, Status};
use coracle::supervisor::service::Phase;
use std::collections::BTreeMap;

/// What a service does each time that it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It runs until it is stopped, and says nothing.
    Runs,
    /// It ends by itself after so long with this exit code.
    Ends(Millis, u8),
    /// Its sandbox cannot be made.
    CannotStart,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    Spawned(Index),
    /// Asked to end, or aborted, or killed.
    Stopped(Index),
    Gone(Index),
    Climbed(Index, Rung),
    Crashed(Index),
    Entered(Index, Phase),
}

pub struct Tame {
    pub plan: Plan,
    pub state: State,
    pub now: Millis,
    pub behaviours: Vec<Behaviour>,
    pub notes: Vec<(Millis, Note)>,
    pub complete: bool,
    actions: Actions,
    alive: BTreeMap<Index, Number>,
    agenda: BTreeMap<(Millis, u64), Event>,
    serial: u64,
}

/// A service that needs nothing.
pub fn service(index: usize) -> Service {
    let limits = Limits::with_memory(Memory::Max(Bytes(1 << 20)));
    Service::new(Name::new(&format!("s{index}")).unwrap(), Root::Image("x.tar".into()), limits)
}

impl Tame {
    /// Services that need only earlier ones.
    pub fn new(services: Vec<Service>, behaviours: Vec<Behaviour>) -> Tame {
        let plan = Plan { start_order: (0..services.len() as Index).collect(), services, ..Plan::default() };
        Tame {
            state: State::new(&plan, 1),
            plan,
            now: Millis(1),
            behaviours,
            notes: Vec::new(),
            complete: false,
            actions: Actions::default(),
            alive: BTreeMap::new(),
            agenda: BTreeMap::new(),
            serial: 0,
        }
    }

    pub fn feed(&mut self, event: Event) {
        if let Event::Instance(index, number, InstanceEvent::InitGone(_)) = event {
            if self.alive.get(&index) != Some(&number) {
                return;
            }
            self.alive.remove(&index);
            self.note(Note::Gone(index));
        }
        step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
        let actions: Vec<Action> = self.actions.drain().collect();
        actions.into_iter().for_each(|action| self.perform(action));
    }

    fn note(&mut self, note: Note) {
        self.notes.push((self.now, note));
    }

    fn after(&mut self, time: Millis, event: Event) {
        self.serial += 1;
        self.agenda.insert((self.now.plus(time), self.serial), event);
    }

    fn ends(&mut self, index: Index, number: Number, time: Millis, status: Status) {
        for event in [InstanceEvent::MainExited(status), InstanceEvent::InitGone(Some(status))] {
            self.after(time, Event::Instance(index, number, event));
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare(index) => self.after(Millis(0), Event::Ready(index)),
            Action::Spawn(index, number) => {
                self.note(Note::Spawned(index));
                let behaviour = self.behaviours[usize::from(index)];
                if behaviour == Behaviour::CannotStart {
                    let failed = InstanceEvent::SpawnFailed("no memory".into());
                    return self.after(Millis(0), Event::Instance(index, number, failed));
                }
                assert_eq!(self.alive.insert(index, number), None, "{index} is started beside itself");
                self.after(Millis(0), Event::Instance(index, number, InstanceEvent::MainStarted));
                if let Behaviour::Ends(time, code) = behaviour {
                    self.ends(index, number, time, Status::Code(code));
                }
            }
            Action::Signal(index, number, signal) => {
                self.note(Note::Stopped(index));
                self.ends(index, number, Millis(0), signal.map_or(Status::Code(0), Status::Signal));
            }
            Action::KillTree(index, number) => {
                self.note(Note::Stopped(index));
                self.ends(index, number, Millis(0), Status::Signal(9));
            }
            Action::Climbed(index, rung) => self.note(Note::Climbed(index, rung)),
            Action::Crashed(index) => self.note(Note::Crashed(index)),
            Action::Changed(index, phase) => self.note(Note::Entered(index, phase)),
            Action::Complete => self.complete = true,
            _ => {}
        }
    }

    /// Lets everything happen until `end`.
    pub fn run(&mut self, end: Millis) {
        loop {
            let planned = self.agenda.keys().next().copied();
            let deadline = self.state.next_deadline().filter(|at| planned.is_none_or(|(planned, _)| *at < planned));
            let at = deadline.or(planned.map(|(at, _)| at)).filter(|at| *at <= end);
            let Some(at) = at else { break };
            assert!(at >= self.now, "a deadline that has passed: {at:?} at {:?}", self.now);
            self.now = at;
            match planned.filter(|_| deadline.is_none()) {
                Some(key) => self.agenda.remove(&key).into_iter().for_each(|event| self.feed(event)),
                None => self.feed(Event::Timer),
            }
        }
        self.now = end;
    }

    pub fn phase(&self, index: usize) -> Phase {
        self.state.services()[index].phase
    }
}
