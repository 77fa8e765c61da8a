//! Start order and cycles of `needs`.

/// An edge: the service with the first index needs the one with the second.
pub type Edge = (usize, usize);

/// The order in which `count` services start: each after all that it needs, else as they are listed. What is in a cycle
/// comes out as cycles, each as the list of its members in the order of their needs.
pub fn order(count: usize, edges: &[Edge]) -> (Vec<u16>, Vec<Vec<usize>>) {
    let mut placed = vec![false; count];
    let mut order = Vec::with_capacity(count);
    let mut cycles = Vec::new();
    while order.len() < count {
        let open = |service: usize, placed: &[bool]| {
            edges.iter().find(|(from, to)| *from == service && !placed[*to]).map(|(_, to)| *to)
        };
        let next = (0..count).find(|service| !placed[*service] && open(*service, &placed).is_none());
        if let Some(next) = next {
            placed[next] = true;
            order.push(next as u16);
            continue;
        }
        // Everything left needs something left, so that walking along the needs comes back to where it was.
        let Some(mut at) = placed.iter().position(|placed| !placed) else { break };
        let mut path = Vec::new();
        while !path.contains(&at) {
            path.push(at);
            at = open(at, &placed).unwrap_or(at);
        }
        let start = path.iter().position(|service| *service == at).unwrap_or(0);
        let cycle = path.split_off(start);
        for service in &cycle {
            placed[*service] = true;
            order.push(*service as u16);
        }
        cycles.push(cycle);
    }
    (order, cycles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_follows_the_file_except_for_needs() {
        assert_eq!(order(3, &[]), (vec![0, 1, 2], vec![]));
        assert_eq!(order(4, &[(0, 2), (2, 3)]), (vec![1, 3, 2, 0], vec![]));
        assert_eq!(order(0, &[]), (vec![], vec![]));
    }

    #[test]
    fn every_cycle_is_found_and_named_from_its_first_member() {
        let (_, cycles) = order(6, &[(0, 1), (1, 2), (2, 1), (3, 3), (4, 0), (5, 4)]);
        assert_eq!(cycles, [vec![1, 2], vec![3]]);
    }

    #[test]
    fn the_largest_config_is_ordered() {
        let edges: Vec<Edge> = (0..127).map(|n| (n, n + 1)).collect();
        let (order, cycles) = order(128, &edges);
        assert_eq!(order, (0..128).rev().collect::<Vec<u16>>());
        assert!(cycles.is_empty());
    }
}
