//! The tar reader against GNU tar and Python's `tarfile`: many archives, whole and damaged, from a fixed seed.
//!
//! What coracle accepts, at least one of them must accept too, and whichever accepts must list the same members with the
//! same contents. Coracle may refuse more, but then for a reason that stands in [`STRICTER`].

mod archive;

use archive::Random;
use coracle::image::tar::{Kind, Reader};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// Why coracle refuses what GNU tar or Python take: each stands for two readings of one archive.
const STRICTER: &[&str] = &[
    "given twice",
    "so that readers would differ",
    "is no number in range",
    "ends in '/'",
    "a pax record is malformed",
    "its sparse map is wrong",
    "it has a sparse map but is no regular file",
    "a global pax header sets",
    "is not one that a container image may hold",
    "the header's checksum is wrong",
    "it has no name",
    "the link has no target",
    "extension records need",
    "extension headers with no entry behind them",
    "ends in the middle",
    "the archive is empty",
];

/// Writes `count` archives and, beside each, what Python reads in it.
const PYTHON: &str = include_str!("tar_differential.py");

/// One member as all three describe it.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Member {
    kind: char,
    name: String,
    link: String,
    size: u64,
    mode: u32,
    mtime: i64,
    digest: String,
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ours(bytes: &[u8]) -> Result<Vec<Member>, String> {
    let mut reader = Reader::new(bytes, 1 << 20);
    let mut members = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(|error| error.to_string())? {
        let (kind, link) = match &entry.kind {
            Kind::File => ('f', &[][..]),
            Kind::Directory => ('d', &[][..]),
            Kind::Symlink(target) => ('s', &target[..]),
            Kind::HardLink(target) => ('h', &target[..]),
            Kind::CharDevice { .. } => ('c', &[][..]),
            Kind::BlockDevice { .. } => ('b', &[][..]),
            Kind::Fifo => ('p', &[][..]),
        };
        let mut digest = String::new();
        if kind == 'f' {
            if entry.size > 64 << 20 {
                return Err("larger than the test reads".into());
            }
            let mut data = Vec::new();
            reader.data().read_to_end(&mut data).map_err(|error| error.to_string())?;
            assert_eq!(data.len() as u64, entry.size);
            digest = hex(Sha256::digest(&data));
        }
        let mut name = &entry.path[..];
        while let [rest @ .., b'/'] = name {
            name = rest;
        }
        let (size, mode, mtime) = (entry.size, entry.mode, entry.mtime.seconds);
        members.push(Member { kind, name: escape(name), link: escape(link), size, mode, mtime, digest });
    }
    Ok(members)
}

/// The lines that the Python program writes for one archive: `error`, or one line for each member.
fn parse(text: &str) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [kind, name, link, size, mode, mtime, digest] = fields[..] else { return None };
        members.push(Member {
            kind: kind.chars().next()?,
            name: name.into(),
            link: link.into(),
            size: size.parse().ok()?,
            mode: mode.parse().ok()?,
            mtime: mtime.parse().ok()?,
            digest: digest.into(),
        });
    }
    Some(members)
}

/// What GNU tar lists: `None` unless it is wholly content.
fn gnu(path: &Path) -> Option<Vec<Member>> {
    let listing = Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--utc", "--absolute-names"])
        .args(["--quoting-style=c", "--file"])
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    if !listing.status.success() || !listing.stderr.is_empty() {
        return None;
    }
    let members: Option<Vec<Member>> =
        listing.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty() && l[0] != b'V').map(gnu_line).collect();
    members.filter(|_| gnu_extracts(path))
}

/// Whether GNU tar reads the contents without complaint; it notices a damaged sparse map only then.
fn gnu_extracts(path: &Path) -> bool {
    let run = Command::new("tar")
        .args(["--extract", "--to-stdout", "--absolute-names", "--file"])
        .arg(path)
        .output()
        .unwrap();
    run.status.success() && run.stderr.is_empty()
}

/// `-rw-r--r-- 0/0 5 2001-09-09 01:46:40 "name" -> "target"`.
fn gnu_line(line: &[u8]) -> Option<Member> {
    let text = String::from_utf8_lossy(line);
    let quote = text.find('"')?;
    let words: Vec<&str> = text[..quote].split_whitespace().collect();
    let (name, rest) = unquote(&line[quote..])?;
    let rest_text = String::from_utf8_lossy(rest).into_owned();
    let link = match rest_text.find('"') {
        Some(at) => unquote(&rest[at..])?.0,
        None => Vec::new(),
    };
    let bits = words.first()?;
    let kind = match bits.chars().next()? {
        '-' | 'C' => 'f',
        'l' => 's',
        other => other,
    };
    let size = if matches!(kind, 'f') { words.get(2)?.parse().ok()? } else { 0 };
    let (day, hour) = (words.get(words.len() - 2)?, words.last()?);
    let mut name = &name[..];
    while let [rest @ .., b'/'] = name {
        name = rest;
    }
    Some(Member {
        kind,
        name: escape(name),
        link: escape(&link),
        size,
        mode: permissions(bits),
        mtime: seconds(day, hour)?,
        digest: String::new(),
    })
}

/// Undoes GNU tar's C quoting; the text and what follows it.
fn unquote(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut at = 1;
    loop {
        match *quoted.get(at)? {
            b'"' => return Some((text, &quoted[at + 1..])),
            b'\\' => {
                at += 1;
                let escaped = *quoted.get(at)?;
                let simple = b"abfnrtv".iter().position(|known| *known == escaped);
                match (escaped, simple) {
                    (b'0'..=b'7', _) => {
                        let digits = std::str::from_utf8(quoted.get(at..at + 3)?).ok()?;
                        text.push(u8::from_str_radix(digits, 8).ok()?);
                        at += 2;
                    }
                    (_, Some(index)) => text.push(b"\x07\x08\x0c\n\r\t\x0b"[index]),
                    (other, None) => text.push(other),
                }
            }
            byte => text.push(byte),
        }
        at += 1;
    }
}

/// `rwsr-xr-t` as bits.
fn permissions(text: &str) -> u32 {
    let letters: Vec<u8> = text.bytes().skip(1).take(9).collect();
    letters.iter().enumerate().fold(0, |mode, (index, letter)| {
        let bit = 1 << (8 - index);
        let special = 0o4000 >> (index / 3);
        match letter {
            b'-' => mode,
            b's' | b't' => mode | bit | special,
            b'S' | b'T' => mode | special,
            _ => mode | bit,
        }
    })
}

/// `2001-09-09 01:46:40` as seconds since the epoch.
fn seconds(day: &str, hour: &str) -> Option<i64> {
    let numbers =
        |text: &str, by: char| text.split(by).map(|part| part.parse::<i64>().ok()).collect::<Option<Vec<_>>>();
    let [year, month, day] = numbers(day, '-')?[..] else { return None };
    let hour = hour.split('.').next()?;
    let [hour, minute, second] = numbers(hour, ':')?[..] else { return None };
    // Days from civil (proleptic Gregorian calendar), years beginning in March.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The members without what GNU tar's listing does not show.
fn listed(members: &[Member]) -> Vec<Member> {
    members.iter().map(|member| Member { digest: String::new(), ..member.clone() }).collect()
}

#[test]
fn members_are_those_of_gnu_tar_and_python() {
    // Another seed looks for more: CORACLE_SEED=7 cargo test --test tar_differential
    let seed: u64 = std::env::var("CORACLE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_214);
    const ARCHIVES: usize = 60;
    const DAMAGED: usize = 10;
    println!("seed {seed}");
    let folder = tempfile::Builder::new().prefix("coracle-tar-").tempdir().unwrap();
    let python = |args: &[&str]| {
        let run = Command::new("python3").arg("-c").arg(PYTHON).args(args).arg(folder.path()).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    };
    python(&["write", &seed.to_string(), &ARCHIVES.to_string()]);
    let mut random = Random(seed);
    for index in 0..ARCHIVES {
        let whole = fs::read(folder.path().join(format!("{index}.tar"))).unwrap();
        for damage in 0..DAMAGED {
            let path = folder.path().join(format!("{index}-{damage}.tar"));
            fs::write(path, damaged(&whole, &mut random)).unwrap();
        }
    }
    python(&["read"]);
    let mut counts = [0usize; 3];
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "tar") {
            let whole = !path.file_stem().unwrap().to_string_lossy().contains('-');
            compare(&path, whole, &mut counts);
        }
    }
    println!("{} accepted, {} refused, {} refused though another reader accepts", counts[0], counts[1], counts[2]);
    assert!(counts[0] > ARCHIVES, "too few archives are accepted to compare anything: {counts:?}");
}

fn compare(path: &Path, whole: bool, counts: &mut [usize; 3]) {
    let ours = ours(&fs::read(path).unwrap());
    let python = parse(&fs::read_to_string(path.with_extension("txt")).unwrap());
    let gnu = gnu(path);
    let fault = match &ours {
        Ok(members) => {
            counts[0] += 1;
            if python.as_ref().is_some_and(|python| members != python) {
                Some(format!("Python reads {python:?}"))
            } else if gnu.as_ref().is_some_and(|gnu| listed(members) != *gnu) {
                Some(format!("GNU tar reads {gnu:?}"))
            } else {
                (python.is_none() && gnu.is_none()).then(|| "the others refuse it".to_string())
            }
        }
        Err(why) => {
            counts[1] += 1;
            let alone = python.is_some() || gnu.is_some();
            counts[2] += usize::from(alone);
            let listed = STRICTER.iter().any(|reason| why.contains(reason));
            (whole || (alone && !listed)).then(|| "another reader takes it".to_string())
        }
    };
    if let Some(fault) = fault {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tar_differential-failed.tar");
        fs::copy(path, &kept).unwrap();
        panic!("{} (kept as {}): coracle reads {ours:?}, but {fault}", path.display(), kept.display());
    }
}

/// An archive with a few fields changed, most of the time with checksums that fit again.
fn damaged(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let mut headers: Vec<usize> =
        (0..bytes.len() / 512).map(|i| i * 512).filter(|at| bytes[at + 257..at + 262] == *b"ustar").collect();
    if headers.is_empty() {
        headers.push(0); // a v7 archive has no magic
    }
    for _ in 0..=random.below(2) {
        let header = headers[random.below(headers.len())];
        // Name, mode, size, time, type, link, magic, prefix, sparse fields, or the data behind the header.
        let fields = [
            (0, 100),
            (100, 8),
            (124, 12),
            (136, 12),
            (156, 1),
            (157, 100),
            (257, 8),
            (345, 155),
            (386, 126),
            (512, 200),
        ];
        let (start, length) = fields[random.below(fields.len())];
        let at = header + start + random.below(length);
        let Some(byte) = bytes.get_mut(at) else { continue };
        *byte = match random.below(4) {
            0 => b'0' + random.below(10) as u8,
            1 => *b"/ \0\n=.-x012345670S5LKgxV".get(random.below(25)).unwrap_or(&0),
            2 => *byte ^ (1 << random.below(8)),
            _ => random.below(256) as u8,
        };
    }
    if random.below(6) > 0 {
        for at in headers {
            bytes[at + 148..at + 156].copy_from_slice(b"        ");
            let sum: u32 = bytes[at..at + 512].iter().map(|byte| u32::from(*byte)).sum();
            bytes[at + 148..at + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => bytes.extend_from_slice(&[0; 512]),
        _ => {}
    }
    bytes
}
