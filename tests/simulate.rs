//! The supervisor's core in a random world with a virtual clock: months in a second. What must always hold is asserted at
//! every step. Worlds are numbered by their seeds: a failure names its own, and `SIMULATE_SEED=n` repeats that one
//! and prints all that happens in it.
//! `SIMULATE_EVENTS` sets how many events there are to be at least, `SIMULATE_FIRST` the first seed.

mod world;

use coracle::base::units::Millis;
use coracle::supervisor::core::{ABORT_TIME, KILL_TIME, SWEEP_TIME};
use world::World;
use world::tally::{Tally, What};

fn run(seed: u64, tells: bool) -> Tally {
    let mut world = World::new(seed);
    world.tells = tells;
    world.boot();
    for _ in 0..400 {
        match world.random.below(240) {
            0..40 => world.order(),
            40 => world.flood(),
            41..45 => world.clock(),
            45..48 => world.stall(),
            48..56 => world.doom(),
            _ => {}
        }
        world.advance();
        world.check();
    }
    // Each service in a row: its grace, its sweep, its kill. A grace of up to ten times its length for who asks for more,
    // or a watchdog's.
    let kills = SWEEP_TIME.0 + 2 * KILL_TIME.0;
    world.shut_down(Millis(8 * (10 * 10_000 + ABORT_TIME.0 + kills) + 1));
    world.tally
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

#[test]
fn a_random_world_never_breaks_a_promise() {
    if let Some(seed) = number("SIMULATE_SEED") {
        println!("{}", run(seed, true).line());
        return;
    }
    let first = number("SIMULATE_FIRST").unwrap_or(1);
    let events = number("SIMULATE_EVENTS").unwrap_or(if cfg!(debug_assertions) { 500_000 } else { 30_000_000 });
    let (mut all, mut seed) = (Tally::default(), first);
    while all.of(What::Events) < events {
        let tally = std::panic::catch_unwind(|| run(seed, false));
        all.add(&tally.unwrap_or_else(|_| panic!("repeat with SIMULATE_SEED={seed}")));
        seed += 1;
    }
    println!("measured: seeds {first} to {}: {}", seed - 1, all.line());
    assert!(events < 500_000 || all.never().is_empty(), "never tried: {:?}", all.never());
}
