//! Damaged and hostile archives and compressed streams: a clear error, never a panic, nothing outside the root touched.

mod archive;

use archive::{Place, Random, block, dir, file, hardlink, padded, pax, record, symlink, tar, xattr};
use coracle::base::units::Bytes;
use coracle::image::decompress::{Compression, Decoder, Summary, Wanted};
use coracle::image::layer::{LayerOptions, Mode};
use coracle::image::tar::Reader;
use coracle::plan::device::ImageCaps;
use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};

const BOTH: Wanted = Wanted { stored: true, content: true };

fn options() -> LayerOptions {
    LayerOptions { mode: Mode::Rootfs, owners: nix::unistd::geteuid().is_root(), ..LayerOptions::default() }
}

/// An archive with one of most things in it.
fn sample() -> Vec<u8> {
    let map = "1\n512\n4\n";
    let sparse = [
        pax(&[
            record("GNU.sparse.major", "1"),
            record("GNU.sparse.minor", "0"),
            record("GNU.sparse.name", "holes"),
            record("GNU.sparse.realsize", "4096"),
        ]
        .concat()),
        block("GNUSparseFile.0/holes", b'0', 516, |_| {}),
        padded(map.as_bytes()),
        padded(b"data"),
    ]
    .concat();
    let long = [
        block("././@LongLink", b'L', 151, |block| block[257..265].copy_from_slice(b"ustar  \0")),
        padded(&[b"n".repeat(150), vec![0]].concat()),
        block("nnn", b'0', 3, |block| block[257..265].copy_from_slice(b"ustar  \0")),
        padded(b"abc"),
    ]
    .concat();
    let rest = tar(&[
        dir("a"),
        xattr(file("a/f", &"0123456789".repeat(100)), "user.x", b"y"),
        symlink("a/l", "../f"),
        hardlink("b", "a/f"),
        file("a/.wh.gone", ""),
        file(&format!("{}p", "pp/".repeat(50)), "deep"),
    ]);
    [sparse, long, rest].concat()
}

/// Unpacks `archive` beside a canary; the canary must live. Gives the error, if there is one.
fn survive(archive: &[u8], what: &str) -> Option<String> {
    let place = Place::new();
    let before = place.surroundings();
    let result = place.unpack(archive, &options());
    assert_eq!(place.surroundings(), before, "{what}: something outside the root changed");
    result.err().map(|error| error.to_string())
}

#[test]
fn an_archive_cut_anywhere_is_an_error_or_ends_at_an_entry() {
    let whole = sample();
    assert_eq!(survive(&whole, "whole"), None);
    // Where an entry ends, an archive without its end marker is complete, as it is for GNU tar.
    let mut ends = Vec::new();
    let mut reader = Reader::new(&whole[..], 1 << 16);
    while let Some(entry) = reader.next_entry().unwrap() {
        ends.push(entry.offset as usize);
    }
    let marker = reader.offset() as usize - 512;
    ends.push(marker);
    for length in (0..marker).step_by(64) {
        let error = survive(&whole[..length], "cut");
        match error {
            None => assert!(ends.contains(&length), "cut at {length} went unnoticed"),
            Some(error) if length == 0 => assert!(error.contains("archive is empty"), "{error}"),
            Some(error) => {
                assert!(error.contains("ends in the middle") || error.contains("no entry behind"), "{error}")
            }
        }
    }
    for length in [marker, marker + 512, marker + 1024] {
        assert_eq!(survive(&whole[..length], "end"), None, "without all of the end marker");
    }
}

#[test]
fn flipped_bits_never_get_out() {
    const SEED: u64 = 0x0c0f_fee0_0b0a_71e5;
    println!("seed {SEED:#x}");
    let whole = sample();
    let mut random = Random(SEED);
    for round in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        if random.below(4) > 0 {
            mend_checksums(&mut bytes);
        }
        survive(&bytes, &format!("round {round}"));
    }
}

/// Gives every block that looks like a header its right checksum, so that damage reaches the fields behind it.
fn mend_checksums(bytes: &mut [u8]) {
    for block in bytes.as_chunks_mut::<512>().0 {
        if block[257..262] == *b"ustar" {
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}

#[test]
fn what_readers_would_understand_differently_is_refused() {
    let sized =
        |size: u64, records: String| [pax(&records), block("f", b'0', size, |_| {}), padded(&[b'x'; 600])].concat();
    let gnu_prefix = block("f", b'0', 0, |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[345..348].copy_from_slice(b"/et");
    });
    let number = |at: usize, text: &'static [u8]| {
        block("f", b'0', 0, move |block| block[at..at + text.len()].copy_from_slice(text))
    };
    let sparse_v7 = [
        pax(&(record("GNU.sparse.size", "9") + &record("GNU.sparse.map", "0,4"))),
        block("f", b'0', 4, |block| block[257..265].fill(0)),
        padded(b"data"),
    ]
    .concat();
    for (name, bytes, why) in [
        ("pax size above ustar size", sized(5, record("size", "600")), "pax header says 600 bytes, its ustar header 5"),
        ("pax size below ustar size", sized(600, record("size", "5")), "pax header says 5 bytes, its ustar header 600"),
        ("size twice", sized(0, record("size", "5") + &record("size", "6")), "size is given twice"),
        ("path twice", sized(5, record("path", "a") + &record("path", "b")), "name is given twice"),
        ("negative size", sized(5, record("size", "-5")), "size is no number in range"),
        (
            "two pax headers",
            [pax(&record("path", "a")), sized(5, record("path", "b"))].concat(),
            "pax header is given twice",
        ),
        ("pax without an entry", pax(&record("path", "a")), "no entry behind"),
        ("data behind a directory", block("d", b'5', 512, |_| {}), "no regular file but claims 512 bytes"),
        ("data behind a link", block("d", b'1', 512, |block| block[157] = b'x'), "claims 512 bytes"),
        ("file with a slash", block("d/", b'0', 0, |_| {}), "ends in '/'"),
        ("prefix of another dialect", gnu_prefix, "not POSIX but has a name prefix"),
        ("unknown type", block("d", b'Z', 0, |_| {}), "entry type 'Z'"),
        ("multi-volume", block("d", b'M', 0, |_| {}), "entry type 'M'"),
        ("no name", block("", b'0', 0, |_| {}), "has no name"),
        ("no target", block("l", b'2', 0, |_| {}), "has no target"),
        ("octal overflow", number(124, b"99999999999"), "size is no number"),
        ("base 256 overflow", number(124, b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "size is no number"),
        ("negative base 256", number(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0"), "size is no number"),
        ("uid above 32 bits", number(108, b"\x80\x00\x00\x01\x00\x00\x00\x00"), "owner (uid) is no number"),
        ("uid -1", number(108, b"\x80\x00\x00\x00\xff\xff\xff\xff"), "owner (uid) is no number"),
        (
            "global path",
            [block("g", b'g', 9, |_| {}), padded(b"9 path=x\n")].concat(),
            "global pax header sets \"path\"",
        ),
        ("sparse overlap", sized(8, record("GNU.sparse.size", "99") + &record("GNU.sparse.map", "0,4,2,4")), "overlap"),
        (
            "sparse beyond",
            sized(4, record("GNU.sparse.size", "5") + &record("GNU.sparse.map", "4,4")),
            "behind the end",
        ),
        (
            "long name without NUL",
            [block("L", b'L', 3, |_| {}), padded(b"abcdef"), sized(5, record("mtime", "1"))].concat(),
            "no NUL",
        ),
        ("sparse in another dialect", sparse_v7, "not POSIX"),
        (
            "sparse sum",
            sized(9, record("GNU.sparse.size", "50") + &record("GNU.sparse.map", "4,4")),
            "differ in length",
        ),
    ] {
        let error = survive(&bytes, name).unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(error.contains(why), "{name}: {error}");
    }
}

#[test]
fn errors_name_entry_and_place_without_control_characters() {
    let bytes = [tar(&[file("good", "x")])[..1024].to_vec(), block("b\x1b[31mad\n", b'Z', 0, |_| {})].concat();
    let error = survive(&bytes, "name").unwrap();
    assert!(error.contains("ad") && error.contains("at byte 1024"), "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
}

/// `bytes` through a program such as `gzip`.
fn through(program: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program[0]));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    output
}

fn decode(bytes: &[u8], caps: &ImageCaps) -> Result<(Vec<u8>, Summary), String> {
    let mut decoder = Decoder::new(bytes, caps, 0, BOTH).map_err(|error| error.to_string())?;
    let mut output = Vec::new();
    decoder.read_to_end(&mut output).map_err(|error| error.to_string())?;
    Ok((output, decoder.finish().map_err(|error| error.to_string())?))
}

/// Text that compresses well but not absurdly.
fn text() -> Vec<u8> {
    let mut random = Random(7);
    (0..400_000).flat_map(|_| [b"layer"[random.below(5)], b' ', b'a' + random.below(26) as u8]).collect()
}

#[test]
fn streams_decode_to_what_was_compressed_with_the_digests_of_both() {
    use sha2::{Digest, Sha256};
    let text = text();
    let gzip = through(&["gzip", "-6"], &text);
    let zstd = through(&["zstd", "-q", "-3"], &text);
    let named = [&gzip[..3], &[8], &gzip[4..10], b"layer.tar\0", &gzip[10..]].concat();
    let skippable = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd].concat();
    for (name, bytes, kind, times) in [
        ("plain", text.clone(), Compression::Plain, 1),
        ("gzip", gzip.clone(), Compression::Gzip, 1),
        ("gzip of two members", [&gzip[..], &gzip].concat(), Compression::Gzip, 2),
        ("gzip with zeros behind", [&gzip[..], &[0; 1000]].concat(), Compression::Gzip, 1),
        ("gzip with a name", named, Compression::Gzip, 1),
        ("zstd", zstd.clone(), Compression::Zstd, 1),
        ("zstd -19", through(&["zstd", "-q", "-19"], &text), Compression::Zstd, 1),
        ("zstd of two frames", [&zstd[..], &zstd].concat(), Compression::Zstd, 2),
        ("zstd behind a skippable frame", skippable, Compression::Zstd, 1),
    ] {
        let (output, summary) = decode(&bytes, &ImageCaps::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(output, text.repeat(times), "{name}");
        assert_eq!(summary.compression, kind, "{name}");
        assert_eq!((summary.stored_bytes, summary.content_bytes), (bytes.len() as u64, output.len() as u64), "{name}");
        assert_eq!(summary.stored, Some(Sha256::digest(&bytes).into()), "{name}");
        assert_eq!(summary.content, Some(Sha256::digest(&output).into()), "{name}");
    }
    for empty in [Vec::new(), through(&["gzip"], b""), through(&["zstd", "-q"], b"")] {
        assert_eq!(decode(&empty, &ImageCaps::default()).unwrap().0, b"");
    }
}

#[test]
fn damaged_streams_are_errors() {
    const SEED: u64 = 0x5eed_0f5e_eded_5eed;
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let text = &text()[..200_000];
    let caps = ImageCaps::default();
    for stream in [through(&["gzip", "-6"], text), through(&["zstd", "-q", "-3", "--check"], text)] {
        for _ in 0..60 {
            let length = random.below(stream.len() - 11) + 10;
            let error = decode(&stream[..length], &caps).expect_err("cut short");
            assert!(error.contains("ends too early"), "cut at {length}: {error}");
        }
        for _ in 0..150 {
            let mut damaged = stream.clone();
            // Behind the first bytes, where time and name of a gzip header may be anything.
            let at = 10 + random.below(stream.len() - 10);
            damaged[at] ^= 1 << random.below(8);
            if let Ok((output, _)) = decode(&damaged, &caps) {
                assert_eq!(output, text, "a flipped bit at {at} changed the data unnoticed");
            }
        }
        let error = decode(&[&stream[..], b"more"].concat(), &caps).expect_err("bytes behind");
        assert!(error.contains("copy the file again"), "{error}");
    }
}

#[test]
fn bombs_meet_their_caps() {
    let caps = ImageCaps::default();
    let zeros = vec![0; 12 << 20];
    for program in [&["gzip", "-9"][..], &["zstd", "-q", "-19"]] {
        let bomb = through(program, &zeros);
        let error = decode(&bomb, &caps).unwrap_err();
        assert!(error.contains("200 times its size (ratio)"), "{error}");
        let error = decode(&bomb, &ImageCaps { ratio: u32::MAX, bytes: Bytes(5 << 20), ..caps }).unwrap_err();
        assert!(error.contains("more than the cap of 5M (bytes)"), "{error}");
        assert_eq!(decode(&bomb, &ImageCaps { ratio: u32::MAX, ..caps }).unwrap().0.len(), zeros.len());
    }
    let error = decode(&zeros, &ImageCaps { bytes: Bytes(1 << 20), ..caps }).unwrap_err();
    assert!(error.contains("more than the cap of 1M (bytes)"), "{error}");
    let wide = through(&["zstd", "-q", "-3", "--long=27"], &zeros);
    let error = decode(&wide, &caps).unwrap_err();
    assert!(error.contains("window of 128M is above the cap of 8M (zstd_window)"), "{error}");
}

#[test]
fn other_compressions_are_named() {
    let caps = ImageCaps::default();
    for (bytes, name) in
        [(&b"\xfd7zXZ\0\0\0\0\0\0\0"[..], "xz"), (b"BZh91AY&SY\0\0", "bzip2"), (b"\x04\x22\x4d\x18\0\0\0\0\0\0", "lz4")]
    {
        let error = decode(bytes, &caps).unwrap_err();
        assert!(error.contains(&format!("compressed with {name}; use gzip or zstd")), "{error}");
    }
}

#[test]
fn a_stream_that_fails_below_the_tar_reader_says_why() {
    let stream = through(&["gzip"], &tar(&[file("f", &"x".repeat(5000))]));
    let cut = &stream[..stream.len() - 20];
    let decoder = Decoder::new(cut, &ImageCaps::default(), 0, BOTH).unwrap();
    let mut reader = Reader::new(BufReader::new(decoder), 1 << 16);
    let error = loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the cut went unnoticed"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("gzip data ends too early"), "{error}");
}
