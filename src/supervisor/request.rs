//! What comes in over the control socket, turned into events or answered at once.
#![forbid(unsafe_code)]

use super::core::is_well;
use super::escalation::Rung;
use super::event::{Event, Index, Order, Token};
use super::inspect;
use super::keeper::End;
use super::run::Supervisor;
use crate::base::exit;
use crate::base::suggest::did_you_mean;
use crate::base::units::Millis;
use crate::control::server::Received;
use crate::control::wire::{DoneLine, Verb, inspect_line};
use crate::image::text::quote;

impl Supervisor<'_> {
    pub(super) fn request(&mut self, request: &Received) {
        let token = Token { client: request.client, id: request.id };
        if let Some(end) = ending(request) {
            return self.end(request, token, end);
        }
        let index = self.plan.find(&request.service);
        let named = !request.service.is_empty();
        if request.verb == Verb::Inspect && index.is_none() && request.service == "device" {
            self.server.send_text(request.client, &inspect_line(request.id, &inspect::device(self)));
            return self.server.done(request.client, &DoneLine::ok(request.id, &""), self.now);
        }
        let Some(index) = index.map(|index| index as Index).or((!named).then_some(Index::MAX)) else {
            let near =
                did_you_mean(&request.service, &mut self.plan.services.iter().map(|service| service.name.as_str()));
            let hint = near.map_or(String::new(), |near| format!(": did you mean {near:?}?"));
            let sentence = format_args!("there is no service {:?} in the config{hint}", request.service.as_str());
            let line = DoneLine::failed(request.id, exit::NO_SUCH_SERVICE, &sentence);
            return self.server.done(request.client, &line, self.now);
        };
        let order = match request.verb {
            Verb::List => {
                let all = 0..self.plan.services.len() as Index;
                all.filter(|i| !named || *i == index).for_each(|i| self.send_service(token, i));
                let mut degraded = self.keeper.degraded().join("; ");
                for (service, configured) in self.state.services().iter().zip(&self.plan.services) {
                    let more = match service.hold {
                        Some(until) => format!("hands off {} for {}", configured.name, until.since(self.now)),
                        None if service.backoff.rung() == Rung::Reboot && !is_well(configured, service, self.now) => {
                            format!("{} does not recover, and the board is not rebooted for it", configured.name)
                        }
                        None => continue,
                    };
                    degraded += if degraded.is_empty() { "" } else { "; " };
                    degraded += &more;
                }
                return self.server.done(request.client, &DoneLine::ok(request.id, &degraded), self.now);
            }
            Verb::Upgrade => return self.upgrade(token),
            Verb::Wait => return self.events.push_back(Event::WaitSettled(token)),
            _ if !named => {
                let line = DoneLine::failed(request.id, exit::USAGE, &"this request names no service");
                return self.server.done(request.client, &line, self.now);
            }
            Verb::Inspect => {
                let body = inspect::body(self, index);
                self.server.send_text(request.client, &inspect_line(request.id, &body));
                return self.server.done(request.client, &DoneLine::ok(request.id, &""), self.now);
            }
            Verb::Steps => {
                let line = match self.steps(index) {
                    Ok(steps) => {
                        let mut body = String::new();
                        quote(&mut body, &steps);
                        self.server.send_text(request.client, &inspect_line(request.id, &body));
                        DoneLine::ok(request.id, &"")
                    }
                    Err(why) => DoneLine::failed(request.id, exit::FAILED, &why),
                };
                return self.server.done(request.client, &line, self.now);
            }
            Verb::Kill if !(1..=64).contains(&request.signal) => {
                let line = DoneLine::failed(request.id, exit::USAGE, &"a signal is a number from 1 to 64");
                return self.server.done(request.client, &line, self.now);
            }
            Verb::Start => Order::Start,
            Verb::Stop => Order::Stop,
            Verb::Restart => Order::Restart,
            Verb::Kill => Order::Kill(request.signal),
            Verb::Pause => Order::Pause,
            Verb::Unpause => Order::Unpause,
            Verb::Hold => Order::Hold(Millis::from_secs(u64::from(request.seconds))),
            // They name no service and were answered above.
            Verb::Shutdown | Verb::Reboot | Verb::Poweroff | Verb::Halt => return,
        };
        self.events.push_back(Event::Request(token, index, order));
    }

    /// Someone asks for the end of everything.
    fn end(&mut self, request: &Received, token: Token, end: End) {
        if !self.keeper.may(&end) {
            let sentence = match end {
                End::Exit => {
                    "this supervisor is the board's first process and cannot end: use `coracle reboot` or `coracle poweroff`"
                }
                _ => "this supervisor is not the board's first process: ask that one",
            };
            let line = DoneLine::failed(request.id, exit::FAILED, &sentence);
            return self.server.done(request.client, &line, self.now);
        }
        match end {
            // Whoever waits hears when nothing is left.
            End::Exit => self.events.push_back(Event::Shutdown(Some(token))),
            _ => self.server.done(request.client, &DoneLine::ok(request.id, &end.words()), self.now),
        }
        self.stop_all(end, "on request");
    }
}

/// The end that a request asks for, if it does.
fn ending(request: &Received) -> Option<End> {
    Some(match request.verb {
        Verb::Shutdown => End::Exit,
        Verb::Reboot => End::Reboot(request.service.as_str().into()),
        Verb::Poweroff => End::PowerOff,
        Verb::Halt => End::Halt,
        _ => return None,
    })
}
