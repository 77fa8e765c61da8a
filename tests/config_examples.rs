//! The example configs of `config/`.

use coracle::config::{Input, Source, include, load_all};
use std::fs;
use std::path::{Path, PathBuf};

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn every_example_config_is_a_plan_without_warnings_that_fits_its_board() {
    let included = fs::read(config("services.d/ssh.json")).unwrap();
    let ssh = Source { name: "services.d/ssh.json", bytes: &included };
    let names = ["minimal.json", "sensor-gateway.json", "kiosk.json", "router.json", "board.json"];
    for name in names {
        let bytes = fs::read(config(name)).unwrap();
        let alone = [Source { name, bytes: &bytes }];
        let both = [Source { name, bytes: &bytes }, ssh];
        let includes = !include::named(alone[0], false).include.is_empty();
        for sources in [&alone[..], &both[..if includes { 2 } else { 1 }]] {
            let (plan, warnings) =
                load_all(&Input { sources, values: &[], absent: &[] }).unwrap_or_else(|problems| panic!("{problems}"));
            assert!(warnings.is_empty(), "{}", warnings[0]);
            let board = coracle::supervisor::board::Board::beneath(Path::new("/nonexistent"));
            assert_eq!(coracle::supervisor::board::memory_problem(&plan, &board), None, "{name}");
            assert_eq!(plan.device.memory.is_some(), name != "minimal.json", "{name} names its board's memory");
        }
    }
    let found = |folder: &str| -> Vec<String> {
        fs::read_dir(config(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(found("services.d"), ["ssh.json"], "each is parsed here");
    for name in found("").iter().filter(|name| name.ends_with(".json")) {
        let known = names.contains(&name.as_str()) || name.ends_with(".schema.json") || name == "size-budget.json";
        assert!(known, "config/{name} is parsed by no test");
    }
}
