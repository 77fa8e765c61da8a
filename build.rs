//! Links the released program, which aborts on panic, without tables for unwinding (190 KB of 1.4 MB) and with its
//! relocations packed.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=scripts/no-unwind-tables.ld");
    let is = |key: &str, value: &str| var(key).is_ok_and(|found| found == value);
    // CARGO_CFG_PANIC does not know the profile's `panic`.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_ENV", "musl") {
        let folder = var("CARGO_MANIFEST_DIR").unwrap_or_default();
        // Both are understood by compilers that link and by linkers. Relative relocations are packed, because an
        // address-independent program has thousands of them; musl reads them since 1.2.4, which Rust ships since 1.93.
        println!("cargo:rustc-link-arg-bins=-T{folder}/scripts/no-unwind-tables.ld");
        println!("cargo:rustc-link-arg-bins=-zpack-relative-relocs");
    }
}
