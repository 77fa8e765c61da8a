//! Bounded fuzzing of everything that reads hostile bytes: config, JSON, manifests, tar archives, control requests, log
//! rings, the wire between init and supervisor, what services say of themselves. Each target mutates good samples from a
//! printed seed; a failure names the seed and the round, and `FUZZ_SEED=N` runs it again. `FUZZ_ROUNDS` sets how many
//! mutations a target gets.

use std::fmt::Write as _;

/// A small generator with a full period (xorshift64), so that a seed is all that a failure needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Words that parsers stumble over.
const TOKENS: [&[u8]; 22] = [
    b"\0",
    b"\xff\xfe",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"//",
    b"/*",
    b"\\u0000",
    b"\\ud800",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"../",
    b"\n",
    b"\r",
    b"\x1b[2J",
    b"null",
    b"7777777777777",
];

fn mutate(sample: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 if at < bytes.len() => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
            5 => {
                let end = (at + random.below(128)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            6 => {
                let count = random.below(2000);
                let byte = TOKENS[random.below(TOKENS.len())][0];
                bytes.splice(at..at, std::iter::repeat_n(byte, count));
            }
            _ => {
                let other = random.below(bytes.len() + 1);
                let (from, to) = (at.min(other), at.max(other));
                bytes[from..to].reverse();
            }
        }
    }
    bytes
}

/// Runs `target` on mutations of `samples`; a panic inside names seed and round.
fn fuzz(name: &str, samples: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15u64);
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000u32);
    println!("fuzz {name}: seed {seed}, {rounds} rounds");
    let mut random = Random(seed);
    for round in 0..rounds {
        let sample = &samples[random.below(samples.len())];
        let bytes = mutate(sample, &mut random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&bytes)));
        if outcome.is_err() {
            let mut shown = String::new();
            bytes.iter().take(400).for_each(|byte| write!(shown, "{}", byte.escape_ascii()).unwrap());
            panic!("fuzz {name}: seed {seed}, round {round}: {} bytes: {shown}", bytes.len());
        }
    }
}

fn configs() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let mut samples = vec![include_bytes!("../src/config/tests/full.json").to_vec()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.contains("schema") && !name.contains("budget") {
            samples.push(std::fs::read(path).unwrap());
        }
    }
    assert!(samples.len() >= 3, "the example configs are the samples");
    samples
}

#[test]
fn config() {
    fuzz("config", &configs(), |bytes| match coracle::config::load("fuzz.json", bytes) {
        Ok((plan, _)) => assert_eq!(plan.services.len(), plan.start_order.len()),
        Err(problems) => assert!(!problems.to_string().is_empty(), "a refusal says why"),
    });
}

#[test]
fn config_of_several_files() {
    use coracle::config::{Input, Source, Value, include};
    let main = br#"{ "version": 1, "include": ["/etc/d/*.json"], "device": { "hostname": "gw-${serial}" },
        "vars": [ { "name": "serial", "file": "/sys/serial", "default": "none" }, { "name": "site", "value": "north" } ],
        "services": [ { "name": "web", "image": "w", "limits": { "memory": "1M" }, "env": ["A=${serial}-$${x}"] } ],
        "overrides": [ { "name": "web", "command": ["${site}"], "limits": { "pids": 3 } } ] }"#;
    let one = br#"{ "services": [ { "name": "ssh", "root": "host", "command": ["/sbin/${site}"], "limits": { "memory": "1M" },
        "needs": ["web"] } ], "overrides": [ { "name": "ssh", "env": ["B=${serial}"] } ], "vars": [] }"#;
    // All three in one, with marks between them, so that a mutation can reach each of them.
    const MARK: &[u8] = b"=#=";
    let sample = [&main[..], one, b"0017\0"].join(MARK);
    fuzz("config files", &[sample], |bytes| {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
            parts.push(&rest[..at]);
            rest = &rest[at + MARK.len()..];
        }
        let values = [Value { file: "/sys/serial".into(), contents: Ok(rest.to_vec()) }];
        let sources: Vec<Source<'_>> = parts.iter().map(|bytes| Source { name: "fuzz.json", bytes }).collect();
        for (number, source) in sources.iter().enumerate() {
            for pattern in include::named(*source, number > 0).include {
                assert!(pattern.starts_with('/') && number == 0, "only the main file names others, by absolute paths");
            }
        }
        let input = Input { sources: &sources, values: &values, absent: &[] };
        let rescued = coracle::config::salvage(&input);
        assert_eq!(rescued.services.len(), rescued.start_order.len());
        match coracle::config::load_all(&input) {
            Ok((plan, _)) => {
                assert_eq!(plan.services.len(), plan.start_order.len());
                let names = plan.services.iter().filter_map(|service| service.hostname.as_deref());
                let mut names = names.chain(plan.device.hostname.as_deref());
                assert!(names.all(|name| !name.contains(|c: char| c.is_control() || c == '$')));
            }
            Err(problems) => assert!(!problems.to_string().is_empty(), "a refusal says why"),
        }
    });
}

#[test]
fn control_requests() {
    let samples = [
        br#"{"v":1,"id":7,"verb":"restart","service":"web","signal":0}"#.to_vec(),
        br#"{"v":1,"id":4294967295,"verb":"list"}"#.to_vec(),
    ];
    fuzz("control", &samples, |bytes| {
        if let Err(why) = coracle::control::wire::parse_request(bytes) {
            assert!(!why.is_empty());
        }
        let _ = coracle::control::wire::parse_answer::<coracle::control::wire::DoneLine>(bytes);
    });
}

#[test]
fn image_manifests() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let descriptor = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7,"platform":{{"architecture":"arm","os":"linux","variant":"v7"}}}}"#
    );
    let samples = [
        format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}],"annotations":{{"a":"b"}}}}"#).into_bytes(),
        format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":3}},"layers":[{descriptor}]}}"#).into_bytes(),
        format!(r#"[{{"Config":"a.json","RepoTags":["a:b"],"Layers":["{digest}/layer.tar"]}}]"#).into_bytes(),
        format!(r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=\u0026"],"Cmd":["sh"],"Labels":{{"x":"y"}},"StopSignal":"SIGTERM"}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#).into_bytes(),
    ];
    fuzz("manifest", &samples, |bytes| {
        let _ = coracle::image::manifest::parse_index(bytes);
        let _ = coracle::image::manifest::parse_manifest(bytes);
        let _ = coracle::image::manifest::parse_docker_manifest(bytes);
        let _ = coracle::image::config::parse_config(bytes);
        let _ = coracle::image::record::ImageRecord::from_json(bytes);
    });
}

#[test]
fn records_and_wire_of_a_service() {
    use coracle::supervisor::{instance::Instance, record::ExitRecord, wire};
    let instance = Instance { service: "web".into(), number: 3, env: vec!["A=b\\n".into()], ..Instance::default() };
    let samples = [instance.to_text().into_bytes(), vec![1; 64], vec![0; 128]];
    fuzz("records", &samples, |bytes| {
        let _ = Instance::parse(&String::from_utf8_lossy(bytes));
        let _ = ExitRecord::decode(bytes);
        let _ = wire::FromInit::decode(bytes);
        let _ = wire::ToInit::decode(bytes);
    });
}

#[test]
fn what_services_say_of_themselves() {
    use coracle::supervisor::notify::{Counts, Said};
    use coracle::supervisor::wire::FromInit;
    let samples = [
        "READY=1\nSTATUS=up \u{e4}\nMAINPID=77\nWATCHDOG_USEC=1000000\n",
        "RELOADING=1\nMONOTONIC_USEC=18446744073709551615",
        "ERRNO=2\nBUSERROR=org.example\nEXIT_STATUS=255\nEXTEND_TIMEOUT_USEC=5",
        "BARRIER=1",
        "WATCHDOG=trigger\nX_OWN=1\nFDSTORE=1",
    ];
    fuzz("notify", &samples.map(|sample| sample.as_bytes().to_vec()), |bytes| {
        let mut said = Said::default();
        said.hear(bytes, 1);
        for line in said.status.iter().chain(&said.failure) {
            assert!(!line.chars().any(char::is_control), "{line:?} is not safe to show");
        }
        // What was read is passed on as it was read.
        for message in [
            FromInit::Notice(said.notice, Counts::default()),
            FromInit::Status(said.status.unwrap_or_default()),
            FromInit::Trouble(said.failure.unwrap_or_default()),
        ] {
            assert_eq!(FromInit::decode(&message.encode()), Some(message));
        }
    });
}

#[test]
fn log_rings() {
    use coracle::log::{entry::Stream, reader::Reader, ring};
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let dir = std::fs::File::open(folder.path()).unwrap();
    let mut writer = ring::Writer::open(ring::prepare(&dir, "log", 8192).unwrap()).unwrap();
    for number in 0..200 {
        writer.append(Default::default(), Stream::Out, false, format!("line {number}").as_bytes());
    }
    writer.flush();
    let sample = std::fs::read(folder.path().join("log")).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(folder.path().join("log")).unwrap();
    fuzz("ring", &[sample], |bytes| {
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        if let Ok(Some(mut reader)) = Reader::open(file.try_clone().unwrap()) {
            let _ = reader.read_new(&mut |entry| assert!(entry.text.len() <= bytes.len()));
        }
    });
}

/// A small archive with every kind of entry that a layer has.
fn archive(format: &str) -> Vec<u8> {
    let script = "import io, sys, tarfile
out = io.BytesIO()
kinds = {'pax': tarfile.PAX_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'ustar': tarfile.USTAR_FORMAT}
with tarfile.open(fileobj=out, mode='w', format=kinds[sys.argv[1]]) as tar:
    def add(name, kind=tarfile.REGTYPE, data=b'', **fields):
        entry = tarfile.TarInfo(name)
        entry.type, entry.size = kind, len(data)
        for key, value in fields.items(): setattr(entry, key, value)
        tar.addfile(entry, io.BytesIO(data))
    add('etc', tarfile.DIRTYPE, mode=0o755)
    add('etc/passwd', data=b'root:x:0:0::/:/bin/sh')
    add('etc/.wh.shadow')
    add('bin', tarfile.SYMTYPE, linkname='usr/bin')
    add('etc/link', tarfile.LNKTYPE, linkname='etc/passwd')
    add('dev/null', tarfile.CHRTYPE, devmajor=1, devminor=3)
    add('run/pipe', tarfile.FIFOTYPE)
    if sys.argv[1] != 'ustar': add('a/' * 60 + 'b' * 150, data=b'x' * 700)
    add('opq/.wh..wh..opq')
    add('tool', data=b'y' * 513, mode=0o4755)
sys.stdout.buffer.write(out.getvalue())";
    let out = std::process::Command::new("python3").args(["-c", script, format]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn tar_archives() {
    use coracle::image::tar::Reader;
    let samples = ["pax", "gnu", "ustar"].map(archive);
    fuzz("tar", &samples, |bytes| {
        let mut reader = Reader::new(bytes, 64 << 10);
        let mut stored = 0usize;
        while let Ok(Some(_)) = reader.next_entry() {
            while let Ok(Some(chunk)) = reader.chunk() {
                stored += chunk.bytes.len();
            }
        }
        assert!(stored <= bytes.len(), "more contents than there are bytes");
    });
}

#[test]
fn compressed_streams() {
    use coracle::image::decompress::{Decoder, Wanted};
    use std::io::Read;
    let plain = archive("gnu");
    let packed = |program: &str| {
        let mut child = std::process::Command::new(program)
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &plain).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let caps = coracle::plan::device::ImageCaps { bytes: coracle::base::units::Bytes(1 << 20), ..Default::default() };
    fuzz("decompress", &[packed("gzip"), packed("zstd")], |bytes| {
        let wanted = Wanted { stored: true, content: true };
        if let Ok(mut decoder) = Decoder::new(bytes, &caps, 0, wanted) {
            let mut sink = Vec::new();
            let whole = decoder.read_to_end(&mut sink).is_ok();
            assert!(sink.len() <= 1 << 20, "the cap holds");
            if whole && let Ok(summary) = decoder.finish() {
                assert_eq!(summary.content_bytes, sink.len() as u64);
            }
        }
    });
}
