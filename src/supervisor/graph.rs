//! Who waits for whom.
//!
//! A need concerns the start: a service starts, and starts again, only while all that it needs runs or has run to a good
//! end. A soft one is about the order alone: it waits only as long as the other service is on its way. When a needed service goes down, those that need it run on; when everything is stopped, a service is stopped
//! before what it needs.
#![forbid(unsafe_code)]

use super::event::Index;
use super::service::{Phase, Reason, Service};
use crate::base::limits::SERVICES;
use crate::base::units::Millis;
use crate::plan::{Kind, Need, Plan};

/// One bit per service.
pub type Marks = [bool; SERVICES];

/// What service `index` needs.
pub fn needs(plan: &Plan, index: Index) -> &[Need] {
    plan.services.get(usize::from(index)).map_or(&[], |service| &service.needs)
}

/// The first need of service `index` that is not met.
pub fn unmet(plan: &Plan, services: &[Service], index: Index) -> Option<Need> {
    needs(plan, index).iter().copied().find(|need| !met(plan, services, *need))
}

/// Service `index` and, as long as they are not met, all that it needs, and what those need.
pub fn with_unmet(plan: &Plan, services: &[Service], index: Index) -> Marks {
    let mut marks = [false; SERVICES];
    mark(&mut marks, index);
    for dependant in plan.start_order.iter().rev().filter(|i| **i == index || !met(plan, services, Need::Started(**i)))
    {
        if marked(&marks, *dependant) {
            for need in needs(plan, *dependant) {
                if !matches!(need, Need::Soft(_)) && !met(plan, services, *need) {
                    mark(&mut marks, need.service());
                }
            }
        }
    }
    marks
}

/// The services that need `index`, and those that need them.
pub fn dependants(plan: &Plan, index: Index) -> Marks {
    let mut marks = [false; SERVICES];
    for dependant in &plan.start_order {
        if needs(plan, *dependant).iter().any(|need| need.service() == index || marked(&marks, need.service())) {
            mark(&mut marks, *dependant);
        }
    }
    marks
}

/// How long it takes at most until everything is stopped: the longest chain of stops, one after the other, each with the
/// time that it takes to `kill` what does not stop. `None`: it cannot be told, since a service may ask for more time.
pub fn stop_time(plan: &Plan, kill: Millis) -> Option<Millis> {
    let mut chains = [Millis(0); SERVICES];
    // From the last to the first: whatever needs a service has its time by then.
    for index in plan.start_order.iter().rev() {
        let service = plan.services.get(usize::from(*index))?;
        if service.notify.is_some() {
            return None;
        }
        let whole =
            chains.get(usize::from(*index))?.plus(service.stop.timeout).plus(service.post_stop_time()).plus(kill);
        *chains.get_mut(usize::from(*index))? = whole;
        for need in needs(plan, *index) {
            let below = chains.get_mut(usize::from(need.service()))?;
            *below = (*below).max(whole);
        }
    }
    chains.into_iter().max().map(|longest| longest.max(kill))
}

/// The lifelines, and all that they need.
pub fn lifelines(plan: &Plan) -> Marks {
    let mut marks = [false; SERVICES];
    // From the last to the first: whatever needs a service comes before it here.
    for index in plan.start_order.iter().rev() {
        let lifeline = plan.services.get(usize::from(*index)).is_some_and(|service| service.lifeline);
        if lifeline || marked(&marks, *index) {
            mark(&mut marks, *index);
            needs(plan, *index).iter().for_each(|need| mark(&mut marks, need.service()));
        }
    }
    marks
}

/// The services that wait and go on waiting, because something that they need does not come by itself.
pub fn blocked(plan: &Plan, services: &[Service]) -> Marks {
    let mut marks = [false; SERVICES];
    for index in &plan.start_order {
        let phase = |i: Index| services.get(usize::from(i)).map(|service| service.phase);
        let hopeless = |need: &Need| {
            let needed = need.service();
            let down = [Phase::Stopped, Phase::Held, Phase::Failed, Phase::Backoff];
            let never = marked(&marks, needed) || phase(needed).is_some_and(|phase| down.contains(&phase));
            never && !matches!(need, Need::Soft(_))
        };
        let own = |service: &Service| service.waits_for_board() || service.waits_for_its_time();
        let own = services.get(usize::from(*index)).is_some_and(own);
        let waits = phase(*index) == Some(Phase::Waiting);
        if waits && (own || needs(plan, *index).iter().any(hopeless)) {
            mark(&mut marks, *index);
        }
    }
    marks
}

/// Whether everything that needs service `index` is down, or cannot be brought down.
pub fn dependants_down(plan: &Plan, services: &[Service], index: Index) -> bool {
    plan.start_order.iter().all(|dependant| {
        let service = services.get(usize::from(*dependant));
        let down = service.is_none_or(|service| !service.has_instance() || service.is_stuck());
        down || !needs(plan, *dependant).iter().any(|need| need.service() == index)
    })
}

/// Whether `index` is marked.
pub fn marked(marks: &Marks, index: Index) -> bool {
    marks.get(usize::from(index)).copied().unwrap_or(false)
}

fn mark(marks: &mut Marks, index: Index) {
    if let Some(mark) = marks.get_mut(usize::from(index)) {
        *mark = true;
    }
}

fn met(plan: &Plan, services: &[Service], need: Need) -> bool {
    services.get(usize::from(need.service())).is_some_and(|service| match need {
        Need::Soft(index) => !is_coming(plan, services, index),
        Need::Started(_) => service.is_up() || service.phase == Phase::Started,
        Need::Ready(_) => service.is_up() && service.reason != Reason::NotReady,
        Need::Done(_) => service.phase == Phase::Done,
    })
}

/// Whether service `index` is on its way to where a plain need for it would be met. One that waits is if what it waits for
/// is, which its reason names.
fn is_coming(plan: &Plan, services: &[Service], mut index: Index) -> bool {
    let is_oneshot = |i: Index| plan.services.get(usize::from(i)).is_some_and(|service| service.kind == Kind::Oneshot);
    // Needs do not go in circles.
    for _ in 0..SERVICES {
        let Some(service) = services.get(usize::from(index)) else { return false };
        match (service.phase, service.reason) {
            (Phase::Preparing | Phase::Starting, _) => return true,
            (Phase::Started | Phase::Running, _) => return is_oneshot(index),
            (Phase::Waiting, Reason::Needs(need)) => index = need.service(),
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(services: &str) -> Option<u64> {
        let text = format!("{{ \"version\": 1, \"services\": [ {services} ] }}");
        let (plan, _) = crate::config::load("c.json", text.as_bytes()).unwrap_or_else(|bad| panic!("{bad}"));
        stop_time(&plan, Millis(1)).map(|time| time.0)
    }

    fn service(name: &str, stop: &str, more: &str) -> String {
        format!(
            r#"{{ "name": "{name}", "image": "/x", "limits": {{ "memory": "1M" }}, "stop": {{ "timeout": "{stop}" }} {more} }},"#
        )
    }

    #[test]
    fn a_shutdown_has_the_time_of_its_services_and_not_always_ninety_seconds() {
        let base = service("base", "2s", "");
        let above = service("above", "3s", r#", "needs": ["base"]"#);
        assert_eq!(time(""), Some(1));
        assert_eq!(time(&base), Some(2001));
        assert_eq!(time(&[&*above, &*base, &service("other", "4s", "")].concat()), Some(5002), "one after the other");
        assert_eq!(time(&service("asks", "1s", r#", "ready": "notify""#)), None, "it may ask for more");
    }
}
