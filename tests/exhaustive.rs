//! Every dependency graph of five services, in the pure core: start order, stop order, and the failure of each one. Every
//! graph with or without a circle of four services, in the config.

mod tame;

use coracle::base::units::Millis;
use coracle::plan::{Need, Restart, RestartPolicy, Service, Then};
use coracle::supervisor::event::Event;
use coracle::supervisor::service::Phase;
use tame::{Behaviour, Note, Tame, service};

const COUNT: usize = 5;
/// Pairs of a later service and an earlier one, one bit of a graph each.
const EDGES: usize = COUNT * (COUNT - 1) / 2;

/// Whether `later` needs `earlier` in graph number `graph`. Every graph without a circle is one of these but for the names.
fn needs(graph: usize, later: usize, earlier: usize) -> bool {
    earlier < later && graph >> (later * (later - 1) / 2 + earlier) & 1 == 1
}

fn depends(graph: usize, later: usize, earlier: usize) -> bool {
    (0..later).any(|between| needs(graph, later, between) && (between == earlier || depends(graph, between, earlier)))
}

fn services(graph: usize, restart: Restart) -> Vec<Service> {
    let of =
        |later| (0..later).filter(move |earlier| needs(graph, later, *earlier)).map(|need| Need::Started(need as u16));
    (0..COUNT).map(|at| Service { needs: of(at).collect(), restart, ..service(at) }).collect()
}

fn booted(graph: usize, restart: Restart, behave: impl FnOnce(&mut Vec<Behaviour>)) -> Tame {
    let mut behaviours = vec![Behaviour::Runs; COUNT];
    behave(&mut behaviours);
    let mut device = Tame::new(services(graph, restart), behaviours);
    device.feed(Event::Boot);
    device.run(Millis(1000));
    device
}

/// What `pick` picks of the notes, in order.
fn order(device: &Tame, pick: impl Fn(&Note) -> Option<u16>) -> Vec<usize> {
    device.notes.iter().filter_map(|(_, note)| pick(note)).map(usize::from).collect()
}

fn spawned(note: &Note) -> Option<u16> {
    if let Note::Spawned(index) = note { Some(*index) } else { None }
}

/// Asserts that of each pair of which the later one needs the earlier one, `first` picks the one that comes first.
fn assert_order(graph: usize, order: &[usize], earlier_first: bool) {
    for later in 0..COUNT {
        for earlier in (0..later).filter(|earlier| depends(graph, later, *earlier)) {
            let place = |wanted| order.iter().position(|at| *at == wanted);
            if let (Some(before), Some(after)) = (place(earlier), place(later)) {
                assert_eq!(before < after, earlier_first, "graph {graph:#b}: {order:?}");
            }
        }
    }
}

#[test]
fn every_graph_of_five_services_starts_and_stops_in_order() {
    for graph in 0..1 << EDGES {
        let mut device = booted(graph, Restart::default(), |_| {});
        let started = order(&device, spawned);
        assert_order(graph, &started, true);
        assert!(started.len() == COUNT && (0..COUNT).all(|at| device.phase(at) == Phase::Running), "{graph:#b}");
        device.notes.clear();
        device.feed(Event::Shutdown(None));
        device.run(Millis(2000));
        let gone = |note: &Note| if let Note::Gone(index) = note { Some(*index) } else { None };
        let stopped = |note: &Note| if let Note::Stopped(index) = note { Some(*index) } else { None };
        // Nobody is even asked before who needs it is gone.
        let both: Vec<(bool, usize)> = device
            .notes
            .iter()
            .filter_map(|(_, note)| stopped(note).map(|at| (false, at)).or(gone(note).map(|at| (true, at))))
            .map(|(is_gone, at)| (is_gone, usize::from(at)))
            .collect();
        for (place, (_, at)) in both.iter().enumerate().filter(|(_, (is_gone, _))| !is_gone) {
            for later in (0..COUNT).filter(|later| needs(graph, *later, *at)) {
                assert!(both[..place].contains(&(true, later)), "graph {graph:#b}: {both:?}");
            }
        }
        assert!(device.complete && both.len() == 2 * COUNT, "graph {graph:#b}: {both:?}");
    }
}

#[test]
fn in_every_graph_what_does_not_start_keeps_down_just_those_who_need_it() {
    let never = Restart { policy: RestartPolicy::No, ..Restart::default() };
    for graph in 0..1 << EDGES {
        for bad in 0..COUNT {
            let device = booted(graph, never, |behaviours| behaviours[bad] = Behaviour::CannotStart);
            for at in 0..COUNT {
                let expected = match at {
                    _ if at == bad => Phase::Failed,
                    _ if depends(graph, at, bad) => Phase::Waiting,
                    _ => Phase::Running,
                };
                assert_eq!(device.phase(at), expected, "graph {graph:#b}, {bad} does not start: {at}");
            }
            let kept = order(&device, spawned).iter().all(|at| !depends(graph, *at, bad));
            assert!(kept, "graph {graph:#b}: {bad} does not start, and who needs it does");
        }
    }
}

#[test]
fn in_every_graph_the_end_of_one_ends_no_other_and_it_comes_back() {
    for graph in 0..1 << EDGES {
        for bad in 0..COUNT {
            let ends = Behaviour::Ends(Millis(5000), 1);
            let mut device = booted(graph, Restart::default(), |behaviours| behaviours[bad] = ends);
            device.notes.clear();
            device.behaviours[bad] = Behaviour::Runs;
            device.run(Millis(10_000));
            let touched = |(_, note): &(Millis, Note)| match note {
                Note::Spawned(at) | Note::Stopped(at) | Note::Gone(at) => usize::from(*at) != bad,
                _ => false,
            };
            assert!(!device.notes.iter().any(touched), "graph {graph:#b}, {bad} ends: {:?}", device.notes);
            assert!((0..COUNT).all(|at| device.phase(at) == Phase::Running), "graph {graph:#b}: {bad}");
        }
    }
}

#[test]
fn in_every_graph_recovery_takes_just_the_dependants_along_and_in_order() {
    let policy = Restart { tries: 1, then: Then::Dependants, ..Restart::default() };
    for graph in 0..1 << EDGES {
        for bad in 0..COUNT {
            let ends = Behaviour::Ends(Millis(2000), 1);
            let mut device = booted(graph, policy, |behaviours| behaviours[bad] = ends);
            device.notes.clear();
            // The second end uses up the tries; what is started after it runs.
            device.run(Millis(4000));
            device.behaviours[bad] = Behaviour::Runs;
            device.run(Millis(20_000));
            let again: Vec<usize> = order(&device, spawned).into_iter().skip_while(|at| *at == bad).collect();
            let mut with: Vec<usize> = order(&device, spawned).into_iter().filter(|at| *at != bad).collect();
            with.sort_unstable();
            let expected: Vec<usize> = (0..COUNT).filter(|at| depends(graph, *at, bad)).collect();
            assert_eq!(with, expected, "graph {graph:#b}: {bad} does not recover");
            assert_order(graph, &again, true);
            assert!((0..COUNT).all(|at| device.phase(at) == Phase::Running), "graph {graph:#b}: {bad}");
        }
    }
}

/// Whether the graph of `edges`, one bit for each ordered pair of four services, has a circle.
fn has_circle(edges: u32) -> bool {
    let mut reach = [[false; 4]; 4];
    for (bit, (from, to)) in pairs().enumerate() {
        reach[from][to] = edges >> bit & 1 == 1;
    }
    for between in 0..4 {
        for from in 0..4 {
            for to in 0..4 {
                reach[from][to] |= reach[from][between] && reach[between][to];
            }
        }
    }
    (0..4).any(|at| reach[at][at])
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..4).flat_map(|from| (0..4).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[test]
fn of_every_graph_of_four_services_the_config_refuses_just_the_circles() {
    let mut refused = 0;
    for edges in 0u32..1 << 12 {
        let mut text = String::from("{ \"version\": 1, \"services\": [");
        for at in 0..4 {
            let needs = pairs().enumerate().filter(|(bit, (from, _))| *from == at && edges >> bit & 1 == 1);
            let needs: Vec<String> = needs.map(|(_, (_, to))| format!("\"s{to}\"")).collect();
            let needs = needs.join(", ");
            let more = if needs.is_empty() { String::new() } else { format!(", \"needs\": [{needs}]") };
            let memory = "\"limits\": { \"memory\": \"1M\" }";
            text += &format!("{{ \"name\": \"s{at}\", \"image\": \"/x\", {memory}{more} }},\n");
        }
        text += "] }";
        match coracle::config::load("c.json", text.as_bytes()) {
            Err(problems) => {
                refused += 1;
                assert!(has_circle(edges), "{text}\n{problems}");
            }
            Ok((plan, _)) => {
                assert!(!has_circle(edges), "a circle is let through: {text}");
                let place = |at: u16| plan.start_order.iter().position(|index| *index == at).unwrap();
                for (at, service) in plan.services.iter().enumerate() {
                    assert!(service.needs.iter().all(|need| place(need.service()) < place(at as u16)), "{text}");
                }
            }
        }
    }
    // 543 graphs of four have no circle.
    assert_eq!(refused, (1 << 12) - 543);
}
