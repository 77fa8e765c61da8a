//! What runs in rescue. Pure.
#![forbid(unsafe_code)]

use crate::base::name::Name;
use crate::plan::{Limits, Memory, Need, Network, Plan, Root, Seccomp, Service};

/// The shell on the console, for whoever stands in front of the board.
const SHELL: &str = "/bin/sh";
const CONSOLE: &str = "/dev/console";

/// The plan with its lifelines, and what they need, alone; `shell`: and a shell on the console.
pub fn only(mut plan: Plan, shell: bool) -> Plan {
    let mut kept: Vec<bool> = plan.services.iter().map(|service| service.lifeline && service.enabled).collect();
    // From the last to the first: whatever needs a service comes before it here.
    for index in plan.start_order.iter().rev().map(|index| usize::from(*index)) {
        if kept.get(index) != Some(&true) {
            continue;
        }
        let Some(service) = plan.services.get(index) else { continue };
        for need in &service.needs {
            if let Some(needed) = kept.get_mut(usize::from(need.service())) {
                *needed = true;
            }
        }
    }
    let mut next = 0;
    let places: Vec<Option<u16>> = kept
        .iter()
        .map(|kept| {
            let place = kept.then_some(next);
            next += u16::from(*kept);
            place
        })
        .collect();
    let moved = |index: &mut u16| match places.get(usize::from(*index)) {
        Some(Some(place)) => {
            *index = *place;
            true
        }
        _ => false,
    };
    let mut kept = kept.iter();
    plan.services.retain(|_| kept.next() == Some(&true));
    for service in &mut plan.services {
        service.enabled = true;
        service.needs.retain_mut(|need| {
            let (Need::Started(index) | Need::Ready(index) | Need::Done(index) | Need::Soft(index)) = need;
            moved(index)
        });
    }
    plan.start_order.retain_mut(moved);
    if shell && let Some(shell) = console_shell() {
        plan.start_order.push(plan.services.len() as u16);
        plan.services.push(shell);
    }
    plan
}

fn console_shell() -> Option<Service> {
    let name = Name::new("rescue-shell").ok()?;
    let mut shell = Service::new(name, Root::Host, Limits::with_memory(Memory::Unlimited));
    shell.command = vec![SHELL.into(), "-l".into()];
    shell.tty = Some(CONSOLE.into());
    (shell.network, shell.seccomp) = (Network::Host, Seccomp::Off);
    Some(shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(services: &[(&str, bool, &[u16])], start_order: &[u16]) -> Plan {
        let services = services.iter().map(|(name, lifeline, needs)| {
            let limits = Limits::with_memory(Memory::Unlimited);
            let mut service = Service::new(Name::new(name).unwrap(), Root::Host, limits);
            service.lifeline = *lifeline;
            service.needs = needs.iter().map(|index| Need::Started(*index)).collect();
            service
        });
        Plan { services: services.collect(), start_order: start_order.to_vec(), ..Plan::default() }
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.services.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn lifelines_run_with_all_that_they_need_and_nothing_else() {
        let services: [(&str, bool, &[u16]); 5] =
            [("web", false, &[3]), ("ssh", true, &[2]), ("keys", false, &[4]), ("db", false, &[]), ("net", false, &[])];
        let kept = only(plan(&services, &[4, 3, 2, 1, 0]), false);
        assert_eq!(names(&kept), ["ssh", "keys", "net"]);
        assert_eq!(kept.services[0].needs, [Need::Started(1)]);
        assert_eq!(kept.services[1].needs, [Need::Started(2)]);
        assert_eq!(kept.start_order, [2, 1, 0]);
    }

    #[test]
    fn a_plan_without_lifelines_runs_nothing_but_the_shell_that_was_asked_for() {
        let services: [(&str, bool, &[u16]); 1] = [("web", false, &[])];
        assert_eq!(only(plan(&services, &[0]), false).services, []);
        let shell = only(plan(&services, &[0]), true);
        assert_eq!((names(&shell), &*shell.start_order), (vec!["rescue-shell"], [0].as_slice()));
    }
}
