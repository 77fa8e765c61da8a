//! What several files give together: includes, overrides, variables.

use super::*;

/// Loads files; the first is the main one.
fn load_files(files: &[(&str, &str)], values: &[(&str, &str)]) -> Result<(Plan, Vec<String>), String> {
    let sources: Vec<Source<'_>> = files.iter().map(|(name, text)| Source { name, bytes: text.as_bytes() }).collect();
    let value = |(file, text): &(&str, &str)| Value { file: (*file).into(), contents: Ok(text.as_bytes().to_vec()) };
    let values: Vec<Value> = values.iter().map(value).collect();
    match load_all(&Input { sources: &sources, values: &values, absent: &["/etc/one.json".into()] }) {
        Ok((plan, warnings)) => Ok((plan, warnings.iter().map(|warning| warning.message.clone()).collect())),
        Err(problems) => Err(problems.to_string()),
    }
}

const MAIN: &str = r#"{ "version": 1, "services": [
  { "name": "web", "image": "web.tar", "limits": { "memory": "8M", "pids": 9 }, "env": ["A=1", "B=2"],
    "restart": { "delay": "1s" } } ] }"#;

#[test]
fn included_files_add_services_in_their_order_and_override_those_of_any_file() {
    let ssh = r#"{ "services": [ { "name": "ssh", "image": "ssh.tar", "limits": { "memory": "4M" } } ],
      "overrides": [ { "name": "web", "limits": { "memory": "16M" }, "env": ["C=3"], "restart": { "tries": 3 } } ] }"#;
    let last = r#"{ "overrides": [ { "name": "ssh", "enabled": false }, { "name": "web", "env": [] } ] }"#;
    let (plan, _) = load_files(&[("main", MAIN), ("ssh", ssh), ("last", last)], &[]).unwrap();
    let [web, ssh] = plan.services.as_slice() else { panic!() };
    assert_eq!((web.limits.memory, web.limits.pids), (Memory::Max(Bytes(16 << 20)), 9));
    assert_eq!((web.restart.delay, web.restart.tries, web.env.len()), (Millis(1000), 3, 0));
    assert_eq!((ssh.name.as_str(), ssh.enabled), ("ssh", false));
}

#[test]
fn an_override_replaces_a_list_and_a_timer_as_a_whole() {
    let keys = r#"{ "services": [ { "name": "keys", "image": "k.tar", "type": "oneshot", "limits": { "memory": "4M" },
      "command": ["/bin/keys", "-a"], "timer": { "every": "1h", "jitter": "1m" } } ] }"#;
    let over = r#"{ "overrides": [ { "name": "keys", "command": ["/bin/new"], "timer": { "at": "03:00" } } ] }"#;
    let (plan, _) = load_files(&[("main", MAIN), ("keys", keys), ("over", over)], &[]).unwrap();
    let timer = plan.services[1].timer.unwrap();
    assert_eq!((timer.schedule, timer.jitter), (Schedule::At(Millis(10_800_000)), Millis(0)));
    assert_eq!(plan.services[1].command, [Box::from("/bin/new")]);
}

#[test]
fn a_problem_names_the_file_it_is_in_and_the_other_place() {
    let twice = "{ \"services\": [\n  { \"name\": \"web\", \"image\": \"a\", \"limits\": { \"memory\": \"1M\" } } ] }";
    let shown = load_files(&[("main.json", MAIN), ("d/web.json", twice)], &[]).unwrap_err();
    assert_eq!(
        shown,
        "d/web.json:2:13: a service called \"web\" is there twice
   2 |   { \"name\": \"web\", \"image\": \"a\", \"limits\": { \"memory\": \"1M\" } } ] }
     |             ^^^^^
     = the first is in main.json:2

d/web.json: 1 problem"
    );
    let shown = load_files(&[("a.json", "{\"version\": 2, \"services\": []}"), ("b.json", "{\"device\": {}}")], &[]);
    let shown = shown.unwrap_err();
    assert!(shown.contains("a.json:1:13: \"version\" must be 1") && shown.ends_with("2 files: 2 problems"), "{shown}");
    assert!(shown.contains("unknown key \"device\" in an included file"), "{shown}");
    assert!(shown.contains("only the main file may hold it"), "{shown}");
}

#[test]
fn files_end_where_they_end() {
    for text in ["", "{", "{ \"services\": [", "\"", "/*", "[]", "{} {"] {
        let shown = load_files(&[("a.json", MAIN), ("b.json", text), ("c.json", "{}")], &[]).unwrap_err();
        assert!(shown.starts_with("b.json:1:"), "{text}: {shown}");
        let shown = load_files(&[("a.json", text), ("b.json", "{}")], &[]).unwrap_err();
        assert!(shown.starts_with("a.json:1:"), "{text}: {shown}");
    }
}

#[test]
fn what_is_too_much_in_all_files_together_is_refused() {
    let services = |from: usize, to: usize| -> String {
        let one = |n: usize| format!(r#"{{"name":"s{n}","image":"a","limits":{{"memory":"1M"}}}}"#);
        (from..to).map(one).collect::<Vec<_>>().join(",")
    };
    let main = format!(r#"{{"version":1,"services":[{}]}}"#, services(0, 100));
    let more = format!(r#"{{"services":[{}]}}"#, services(100, 129));
    assert!(
        load_files(&[("a", &main), ("b", &more)], &[]).unwrap_err().contains("too many services in all files together")
    );
    let large = " ".repeat(CONFIG_BYTES - MAIN.len() + 1);
    let shown = load_files(&[("a", MAIN), ("b", &large)], &[]).unwrap_err();
    assert!(shown.starts_with("b:1:1: the file has") && shown.contains("of those before it"), "{shown}");
    let files: Vec<(&str, &str)> = std::iter::once(("a", MAIN)).chain((0..CONFIG_FILES).map(|_| ("b", "{}"))).collect();
    assert!(load_files(&files, &[]).unwrap_err().contains("one file more than the 64"));
}

/// A main file with one variable and a service that uses it.
fn with_serial(vars: &str, service: &str) -> String {
    format!(
        r#"{{ "version": 1, "vars": [{vars}], "device": {{ "hostname": "gw-${{serial}}" }},
  "services": [ {{ "name": "web", "image": "web.tar", "limits": {{ "memory": "8M" }}, {service} }} ] }}"#
    )
}

const SERIAL: &str = r#"{ "name": "serial", "file": "/sys/serial", "default": "none" }"#;

#[test]
fn variables_are_replaced_where_they_may_be() {
    let service = r#""env": ["S=${serial}-$${serial}$"], "command": ["a", "\u0024{serial}"], "hostname": "h${serial}",
        "mounts": [ { "type": "volume", "source": "v-${serial}", "target": "/v" } ]"#;
    let main = with_serial(SERIAL, service);
    for (values, is) in
        [(vec![], "none"), (vec![("/sys/serial", "ab12\0\n")], "ab12"), (vec![("/sys/other", "x")], "none")]
    {
        let (plan, warnings) = load_files(&[("main", &main)], &values).unwrap();
        let web = &plan.services[0];
        assert_eq!(plan.device.hostname.as_deref(), Some(&*format!("gw-{is}")));
        assert_eq!((&*web.env[0], &*web.command[1]), (&*format!("S={is}-${{serial}}$"), is));
        assert_eq!(web.hostname.as_deref(), Some(&*format!("h{is}")));
        assert!(matches!(&web.mounts[0].kind, MountKind::Volume(name) if name.as_str() == format!("v-{is}")));
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[test]
fn an_odd_value_of_a_file_gives_way_to_the_default_with_a_warning() {
    let main = with_serial(SERIAL, r#""env": ["S=${serial}"]"#);
    for (odd, env, told) in [
        ("AB CD", "S=AB CD", "so that this is \"gw-AB CD\""),
        ("", "S=none", "what /sys/serial holds is empty"),
        ("a\u{1b}[2J", "S=none", "holds the control character"),
        ("a\0b", "S=none", "holds a NUL"),
        (&"x".repeat(257), "S=none", "is longer than the 256 bytes"),
        ("${serial}", "S=${serial}", "so that this is"),
    ] {
        let (plan, warnings) = load_files(&[("main", &main)], &[("/sys/serial", odd)]).unwrap();
        assert_eq!(plan.device.hostname.as_deref(), Some("gw-none"), "{odd:?}");
        assert_eq!(&*plan.services[0].env[0], env);
        assert!(warnings.len() == 1 && warnings[0].contains(told), "{odd:?}: {warnings:?}");
    }
}

#[test]
fn the_verdict_on_a_config_does_not_depend_on_the_board() {
    let bad = with_serial(r#"{ "name": "serial", "file": "/sys/serial", "default": "a b" }"#, r#""env": []"#);
    for values in [vec![], vec![("/sys/serial", "good")]] {
        let shown = load_files(&[("main", &bad)], &values).unwrap_err();
        assert!(shown.contains("\"hostname\" is \"gw-a b\""), "{shown}");
    }
}

#[test]
fn an_included_file_that_is_not_there_is_warned_of() {
    let main = r#"{ "version": 1, "include": ["/etc/one.json", "/etc/two*.json"], "services": [] }"#;
    assert_eq!(load_files(&[("main", main)], &[]).unwrap().1, ["there is no such file"]);
}

#[test]
fn an_override_of_every_key_is_what_the_service_itself_would_say() {
    let whole = |service: &str, over: &str| {
        let others = r#"{ "name": "broker", "image": "b.tar", "limits": { "memory": "1M" } }"#;
        let text = format!(
            r#"{{ "version": 1, "services": [ {service}, {others} ], "overrides": [ {{ "name": "web", {over} }} ] }}"#
        );
        survive(text.as_bytes())
    };
    let (mut count, mut changed) = (0, 0);
    let mut check = |key: &str, example: &str| {
        let limits = |more: &str| format!(r#""limits": {{ "memory": "32M"{more} }}"#);
        let kind = if key == "timer" { r#""type": "oneshot", "# } else { "" };
        let named = format!(r#"{{ "name": "web", "image": "web.tar", {kind}{}"#, limits(""));
        let over = format!("{key:?}: {example}");
        let direct = match key {
            "image" => named.replace("\"web.tar\"", example),
            "limits" => named.replace(&limits(""), &over),
            _ => format!("{named}, {over}"),
        };
        let (Ok(direct), Ok(overridden)) =
            (whole(&format!("{direct} }}"), "\"x-a\": 1"), whole(&format!("{named} }}"), &over))
        else {
            panic!("{over}");
        };
        let plain = whole(&format!("{named} }}"), "\"x-a\": 1").unwrap();
        assert_eq!(direct.services[0], overridden.services[0], "{over}");
        changed += usize::from(plain.services[0] != overridden.services[0]);
        count += 1;
    };
    for key in SERVICE.keys.iter().filter(|key| !["name", "root"].contains(&key.name)) {
        check(key.name, key.example);
        if let keys::Kind::Object(inner) | keys::Kind::OneOrMore(inner, _) = key.kind {
            for key_of_it in inner.keys.iter().filter(|inner| !["memory", "jitter"].contains(&inner.name)) {
                let must = match key.name {
                    "limits" => "\"memory\": \"32M\", ",
                    "health" if !inner.either.contains(&key_of_it.name) => "\"http\": \"http://127.0.0.1/\", ",
                    _ => "",
                };
                check(key.name, &format!("{{ {must}{:?}: {} }}", key_of_it.name, key_of_it.example));
            }
        }
    }
    assert!(count > 40 && changed > 30, "{changed} of {count} examples differ from the defaults");
}
