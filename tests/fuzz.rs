//! Bounded fuzzing of everything that reads hostile bytes: config, JSON, manifests, tar archives, control requests, log
//! rings, the wire between init and supervisor. Each target mutates good samples from a printed seed; a failure names
//! the seed and the round, and `FUZZ_SEED=N` runs it again. `FUZZ_ROUNDS` sets how many mutations a target gets.

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
    let mut samples = Vec::new();
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
        if let Ok(Some(mut reader)) = Reader::open(&file) {
            let _ = reader.read_new(&mut |entry| assert!(entry.text.len() <= bytes.len()));
        }
    });
}
