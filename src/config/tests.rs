//! What a whole file gives.

use super::*;

#[test]
fn the_smallest_config_is_a_plan_of_defaults() {
    let (plan, warnings) = load("minimal.json", include_bytes!("../../config/minimal.json")).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(plan.services[0].name.as_str(), "web");
    assert_eq!(plan.services[0].limits.pids, 64);
    assert_eq!(plan.start_order, [0]);
}
