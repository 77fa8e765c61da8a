//! A layer whose marks are kept in memory is the layer that root unpacks: random archives, both ways.

mod archive;

use archive::{Item, Place, dir, file, hardlink, is_root, item, mode, symlink, tar, xattr};
use coracle::image::layer::{self, LayerOptions, LayerReport};
use coracle::image::tar::Kind;
use coracle::image::tree::{Sum, checksum, walk};
use std::fs::File;
use std::os::fd::AsFd;

/// Rounds of the random test; each is an archive of up to 14 entries.
const ROUNDS: u64 = 1500;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }

    fn path(&mut self) -> String {
        let parts = ["a", "b", "c", "l", ".wh.a", ".wh.b", ".wh..wh..opq"];
        let deep = self.roll(3);
        let above: String = (0..deep).map(|_| format!("{}/", self.one(&["a", "b", "c", "l"]))).collect();
        format!("{above}{}", self.one(&parts))
    }

    fn entry(&mut self) -> Item {
        let path = self.path();
        let Item(mut entry, data) = match self.roll(10) {
            0..=2 => file(&path, self.one(&["", "x", "longer content"])),
            3..=5 => dir(&path),
            6 => symlink(&path, self.one(&["a", "../b", "/a/b", "l", "none/x"])),
            7 => hardlink(&path, &self.path()),
            8 => item(&path, Kind::Fifo, 0o644),
            _ => xattr(file(&path, "y"), "user.test", b"value"),
        };
        if path.contains(".wh.") && self.roll(8) > 0 {
            (entry.kind, entry.size) = (Kind::File, 0);
            return Item(entry, Vec::new());
        }
        (entry.uid, entry.gid) = (self.roll(3) as u32 * 1000, self.roll(2) as u32 * 50);
        mode(Item(entry, data), [0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o000][self.roll(6) as usize])
    }
}

/// Both ways: the report and the checksum without times, or the error.
fn both(bytes: &[u8]) -> [Result<(LayerReport, u64), String>; 2] {
    let options = LayerOptions::default();
    let (marked, unmarked) = (Place::new(), Place::new());
    let open = |place: &Place| File::open(place.root()).unwrap();
    let on_files = layer::unpack(bytes, open(&marked).as_fd(), &options)
        .map(|report| (report, checksum(open(&marked).into(), false).unwrap()));
    let in_memory = layer::unpack_unmarked(bytes, open(&unmarked).as_fd(), &options).map(|(report, ledger)| {
        let mut sum = Sum::new(false);
        walk(open(&unmarked).into(), Some(&ledger), &mut sum).unwrap();
        (report, sum.finish())
    });
    [on_files, in_memory].map(|result| result.map_err(|error| error.to_string()))
}

#[test]
fn marks_in_memory_and_on_files_make_the_same_layer() {
    if !is_root("marks_in_memory_and_on_files_make_the_same_layer") {
        return;
    }
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut good = 0;
    for round in 0..ROUNDS {
        let items: Vec<Item> = (0..1 + dice.roll(14)).map(|_| dice.entry()).collect();
        let [on_files, in_memory] = both(&tar(&items));
        let shown = || items.iter().map(|Item(entry, _)| format!("{entry:?}\n")).collect::<String>();
        assert_eq!(on_files, in_memory, "round {round}:\n{}", shown());
        good += u64::from(on_files.is_ok());
    }
    assert!(good > ROUNDS / 4, "{good} of {ROUNDS} archives were good: too few to show anything");
}
