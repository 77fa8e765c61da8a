//! Randomness carried over a reboot, so that keys made early are not the same on every board.
//!
//! The file `random-seed` in the state folder holds a byte and a seed. It is used once: mixed in, replaced by a new seed
//! that is on the disk before the old one counts, and only then counted as randomness (random(4), RNDADDENTROPY). A seed
//! counts only if the byte says that the kernel's pool was full when it was made; a file of another size, which someone put
//! into the firmware for every board, is mixed in and never counts.
#![forbid(unsafe_code)]

use crate::base::read::read_up_to;
use crate::supervisor::keeper::Say;
use crate::sys::board::{self, SEED_BYTES};
use crate::sys::folder;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Its name in the state folder.
const NAME: &str = "random-seed";
/// The first byte of one that counts.
const COUNTS: u8 = b'1';
/// The first byte of one that does not.
const NO_COUNT: u8 = b'0';
/// More than any file with a seed has.
const LARGEST: u64 = 4096;

type Seed = [u8; SEED_BYTES];

/// The seed in the file, if it is one of ours and counts. Pure.
fn counting(file: &[u8]) -> Option<Seed> {
    let (first, seed) = file.split_first()?;
    Seed::try_from(seed).ok().filter(|_| *first == COUNTS)
}

/// A new seed from fresh randomness and the old file, as good as the better of both. Pure.
fn derive(old: &[u8], fresh: &Seed) -> Seed {
    let mut seed = [0; SEED_BYTES];
    for (number, half) in seed.chunks_mut(SEED_BYTES / 2).enumerate() {
        let mut sum = Sha256::new();
        sum.update([number as u8]);
        sum.update((old.len() as u64).to_le_bytes());
        sum.update(old);
        sum.update(fresh);
        half.copy_from_slice(&sum.finalize());
    }
    seed
}

/// Mixes in the seed in `state`, replaces it, and counts it where that is right.
pub fn load(state: &Path, say: Say<'_>) {
    // Without it, what follows says so.
    let _ = folder::make_all(state, 0o700);
    let old = match File::open(state.join(NAME)).and_then(|mut file| read_up_to(&mut file, LARGEST)) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return say(format!("{NAME} in {} cannot be read: {error}", state.display())),
    };
    let Ok(mut pool) = OpenOptions::new().read(true).write(true).open("/dev/urandom") else { return };
    // Mixed in whatever it is worth.
    let _ = pool.write_all(&old);
    let seed = counting(&old);
    if let Err(error) = replace(state, &old, seed.is_some()) {
        return say(format!(
            "{NAME} in {} cannot be replaced, so the old one does not count: {error}",
            state.display()
        ));
    }
    if let Some(seed) = seed
        && let Err(errno) = board::add_entropy(pool.as_fd(), &seed, 8 * SEED_BYTES as i32 / 2)
    {
        say(format!("the kernel does not count the seed in {}: {errno}", state.display()));
    }
}

/// Writes a new seed for the next boot.
///
/// # Errors
/// What the file system says.
pub fn save(state: &Path) -> std::io::Result<()> {
    replace(state, &[], false)
}

/// Puts a seed made of fresh randomness and `old` in place of the one that is there: whole, or not at all.
fn replace(state: &Path, old: &[u8], old_counts: bool) -> std::io::Result<()> {
    let mut fresh = [0; SEED_BYTES];
    let full = board::random(&mut fresh).is_ok();
    if !full && board::any_random(&mut fresh).is_err() {
        File::open("/dev/urandom")?.read_exact(&mut fresh)?;
    }
    let first = if full || old_counts { COUNTS } else { NO_COUNT };
    let temporary = state.join(format!(".{NAME}"));
    // What an interrupted boot left may belong to anyone.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&[first])?;
    file.write_all(&derive(old, &fresh))?;
    file.sync_all()?;
    fs::rename(&temporary, state.join(NAME))?;
    File::open(state)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_seed_of_ours_from_a_full_pool_counts() {
        let file = |first: u8, bytes: usize| [vec![first], vec![7; bytes]].concat();
        assert_eq!(counting(&file(COUNTS, SEED_BYTES)), Some([7; SEED_BYTES]));
        for other in [file(NO_COUNT, SEED_BYTES), file(COUNTS, 511), file(COUNTS, 0), Vec::new()] {
            assert_eq!(counting(&other), None);
        }
    }

    #[test]
    fn a_new_seed_depends_on_the_old_one_and_on_fresh_bytes() {
        let base = derive(b"old", &[1; SEED_BYTES]);
        assert_ne!(base, derive(b"odd", &[1; SEED_BYTES]));
        assert_ne!(base, derive(b"old", &[2; SEED_BYTES]));
        assert_ne!(base[..SEED_BYTES / 2], base[SEED_BYTES / 2..]);
    }

    #[test]
    fn a_seed_is_replaced_before_it_is_used_and_is_nobody_elses() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(format!(".{NAME}")), "left by a boot that was cut off").unwrap();
        save(state.path()).unwrap();
        let first = fs::read(state.path().join(NAME)).unwrap();
        assert_eq!((first.len(), first[0]), (1 + SEED_BYTES, COUNTS));
        replace(state.path(), &first, true).unwrap();
        assert_ne!(fs::read(state.path().join(NAME)).unwrap(), first);
        let mode = fs::metadata(state.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
    }
}
