//! `coracle check` as a person at a build host meets it.

use coracle::base::json::{self, Quoted};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = r#"{
  "version": 1,
  "device": { "images": ["/images"], "memory": "64M", "memory_reserve": "16M" },
  "services": [
    { "name": "web", "image": "web#shop:2", "limits": { "memory": "24M", "cpu": "50%" }, "needs": ["db"] },
    { "name": "db", "image": "web#shop:2", "command": ["db"], "limits": { "memory": "16M" } },
    { "name": "spare", "image": "web#shop:2", "limits": { "memory": "1M" }, "enabled": false }
  ]
}"#;

/// Writes an OCI layout with one image for arm64 into `folder`; gives the name of its layer's file.
fn layout(folder: &Path, command: &str) -> String {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| -> String {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&hex), bytes).unwrap();
        hex
    };
    let layer = blob(b"not read by check");
    let config = format!(
        r#"{{"architecture":"arm64","os":"linux","config":{{{command}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
    );
    let config_hex = blob(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config_hex}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{layer}","size":17}}]}}"#,
        config.len()
    );
    let manifest_hex = blob(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest_hex}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"shop:2"}}}}]}}"#,
        manifest.len()
    );
    fs::write(folder.join("index.json"), index).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    format!("blobs/sha256/{layer}")
}

/// A board's root with the config and the image.
fn board(config: &str, command: &str) -> (tempfile::TempDir, String) {
    let root = tempfile::tempdir().unwrap();
    let layer = layout(&root.path().join("images/web"), command);
    fs::create_dir_all(root.path().join("etc/coracle")).unwrap();
    fs::write(root.path().join("etc/coracle/config.json"), config).unwrap();
    (root, layer)
}

fn check(root: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_coracle")).args(["check", "--root"]).arg(root).args(more).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&root.display().to_string(), "ROOT");
    (status.code(), text(stdout), text(stderr))
}

const CMD: &str = r#""Cmd":["/bin/shop"]"#;

#[test]
fn a_good_config_shows_the_plan_in_start_order() {
    let (root, _) = board(CONFIG, CMD);
    let (code, out, err) = check(root.path(), &["--arch", "arm64"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "START  SERVICE  TYPE    MEMORY  PIDS  CPU  NEEDS  IMAGE
    1  db       daemon     16M    64    -  -      ROOT/images/web
    2  web      daemon     24M    64  50%  db     ROOT/images/web
  off  spare    daemon      1M    64    -  -      ROOT/images/web
memory: 40M of limits and 64K of logs, of 48M (64M less a reserve of 16M)
ROOT/etc/coracle/config.json: good: 3 services
Devices and the kernel are not checked: give --board, a profile that `coracle doctor --json` wrote there.
"
    );
}

#[test]
fn an_image_for_another_architecture_is_named_with_both() {
    let (root, _) = board(CONFIG, CMD);
    let (code, _, err) = check(root.path(), &["--arch", "arm/v7"]);
    assert_eq!(code, Some(78));
    assert_eq!(
        err.lines().next().unwrap(),
        "web, db, spare: image ROOT/images/web: the image is for linux/arm64, wanted is linux/arm/v7; get the image for \
         linux/arm/v7"
    );
}

#[test]
fn a_layer_that_is_missing_or_cut_short_is_found() {
    let (root, layer) = board(CONFIG, CMD);
    let file = root.path().join("images/web").join(layer);
    fs::write(&file, "cut").unwrap();
    let (code, _, err) = check(root.path(), &["--arch", "arm64"]);
    assert_eq!(code, Some(78));
    assert!(err.contains("has 3 bytes, the manifest says otherwise"), "{err}");
    fs::remove_file(&file).unwrap();
    let (code, _, err) = check(root.path(), &["--arch", "arm64"]);
    assert_eq!(code, Some(78));
    assert!(err.contains("layer 1 of 1") && err.contains("is missing"), "{err}");
}

#[test]
fn an_image_without_a_program_needs_a_command() {
    let (root, _) = board(CONFIG, "");
    let (code, _, err) = check(root.path(), &["--arch", "arm64"]);
    assert_eq!(code, Some(78));
    assert!(err.starts_with("web, spare: image \"web#shop:2\" names no program\n     = add \"command\""), "{err}");
}

#[test]
fn a_missing_image_and_too_little_memory_are_board_problems() {
    let (root, _) = board(CONFIG, CMD);
    fs::remove_dir_all(root.path().join("images/web")).unwrap();
    let (code, _, err) = check(root.path(), &["--memory", "32M"]);
    assert_eq!(code, Some(78));
    assert_eq!(
        err,
        "web, db, spare: image \"web\" is missing (looked for ROOT/images/web)
     = put the archive there as ROOT/images/web
board: the services may take 40M of memory and 64K of logs, 24.0M more than the board has for them: 16M (32M less a reserve of 16M)
     = lower limits.memory of some, disable some, or lower device.memory_reserve

ROOT/etc/coracle/config.json: the file is good; the board has 4 problems
"
    );
}

#[test]
fn json_is_json_whatever_the_verdict() {
    let (root, _) = board(CONFIG, CMD);
    for (config, code, part) in [
        (CONFIG.to_owned(), 0, r#""name":"db","enabled":true"#),
        (
            CONFIG.replace("\"24M\", \"cpu\"", "\"240M\", \"cpu\""),
            78,
            r#""service":null,"message":"the services may take"#,
        ),
        (
            CONFIG.replace("\"needs\"", "\"neds\""),
            78,
            r#""line":5,"column":90,"message":"unknown key \"neds\" in a service""#,
        ),
    ] {
        fs::write(root.path().join("etc/coracle/config.json"), config).unwrap();
        let (status, out, _) = check(root.path(), &["--arch", "arm64", "--json"]);
        assert_eq!(json::check(out.trim_end().as_bytes(), 8), Ok(()), "{out}");
        assert_eq!(status, Some(code));
        assert!(out.contains(part), "{out}");
    }
    let (status, out, _) = check(root.path(), &["--json", "/nonexistent/\u{1b}.json"]);
    assert_eq!((status, json::check(out.trim_end().as_bytes(), 8)), (Some(78), Ok(())));
    assert!(out.contains(&Quoted("/nonexistent/\u{1b}.json").to_string()));
}

#[test]
fn a_config_that_is_no_file_is_refused_without_waiting() {
    let (root, _) = board(CONFIG, CMD);
    let fifo = root.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (code, _, err) = check(root.path(), &[fifo.to_str().unwrap()]);
    assert_eq!(code, Some(78));
    assert_eq!(err, "coracle: the config must be a regular file, and ROOT/fifo is a FIFO\n");
}

#[test]
fn wrong_options_say_what_is_right() {
    let (root, _) = board(CONFIG, CMD);
    for (options, part) in [
        (["--memory", "64MB"], "\"64MB\" is no size such as 128M"),
        (["--arch", "amd46"], "\"amd46\" is no architecture such as arm64"),
    ] {
        let (code, _, err) = check(root.path(), &options);
        assert_eq!(code, Some(2));
        assert!(err.contains(part), "{err}");
    }
}

#[test]
fn included_files_programs_of_the_board_and_oneshots_are_shown() {
    let main = CONFIG.replace("\"version\": 1,", "\"version\": 1, \"include\": [\"/etc/coracle/services.d/*.json\"],");
    let (root, _) = board(&main, CMD);
    let folder = root.path().join("etc/coracle/services.d");
    fs::create_dir(&folder).unwrap();
    let keygen = r#"{ "services": [ { "name": "keygen", "root": "host", "type": "oneshot", "command": ["/sbin/keygen"],
      "limits": { "memory": "2M" } } ], "overrides": [ { "name": "db", "needs": ["keygen"] } ] }"#;
    fs::write(folder.join("keygen.json"), keygen).unwrap();
    fs::create_dir(root.path().join("sbin")).unwrap();
    fs::write(root.path().join("sbin/keygen"), "").unwrap();
    let (code, out, err) = check(root.path(), &["--arch", "arm64"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.starts_with(
            "START  SERVICE  TYPE     MEMORY  PIDS  CPU  NEEDS        IMAGE
  off  spare    daemon       1M    64    -  -            ROOT/images/web
    1  keygen   oneshot      2M    64    -  -            host: /sbin/keygen
    2  db       daemon      16M    64    -  keygen:done  ROOT/images/web
"
        ),
        "{out}"
    );
    assert!(
        out.contains("\nmemory: 42M of limits (2M of it until the oneshots are done) and 96K of logs, of 48M"),
        "{out}"
    );
    assert!(out.contains(": good: 4 services from 2 files\n"), "{out}");

    fs::write(folder.join("later.json"), "{ \"services\": [ {} ] }").unwrap();
    let (code, _, err) = check(root.path(), &[]);
    assert_eq!(code, Some(78));
    assert!(err.starts_with("ROOT/etc/coracle/services.d/later.json:1:17: a service lacks the key"), "{err}");
    let (_, out, _) = check(root.path(), &["--json"]);
    assert!(out.contains("{\"file\":\"ROOT/etc/coracle/services.d/later.json\",\"line\":1,\"column\":17,"), "{out}");
}
