# Chooses what scripts/cross builds with; sourced from the project's folder. Each function sets variables and says with
# *_said what it took; on failure it says what is missing and returns 1.

# choose_compiler PROFILE RUST_TARGET: cargo, rustc, sysroot, compiler_said.
choose_compiler() {
    if [ "${CROSS_COMPILER:-}" != debian ] && command -v cargo > /dev/null && [ "$(command -v cargo)" != /usr/bin/cargo ]; then
        cargo=cargo rustc=rustc
        sysroot=$(rustc --print sysroot)
        compiler_said="rustup's $(rustc -V | cut -d' ' -f2)"
        if [ "$1" = stock ]; then
            [ -d "$sysroot/lib/rustlib/$2/lib" ] || rustup target add "$2" > /dev/null 2>&1 || true
            [ -d "$sysroot/lib/rustlib/$2/lib" ] && return 0
        else
            [ -d "$sysroot/lib/rustlib/src/rust/library" ] || rustup component add rust-src > /dev/null 2>&1 || true
            [ -d "$sysroot/lib/rustlib/src/rust/library" ] && return 0
        fi
    fi
    if [ "$1" = tiny ] && [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ]; then
        cargo=/usr/bin/cargo rustc=/usr/bin/rustc sysroot=/usr
        compiler_said="Debian's $(/usr/bin/rustc -V | cut -d' ' -f2)"
        return 0
    fi
    [ "$1" = stock ] || echo "cross: no compiler with std's source: rustup component add rust-src, or scripts/packages cross-rust" >&2
    return 1
}

# find_zig: sets ZIG to the command, from PATH, Python's module ziglang, or where scripts/packages cross puts it.
find_zig() {
    [ -z "${ZIG:-}" ] || return 0
    if command -v zig > /dev/null; then ZIG=zig
    elif python3 -m ziglang version > /dev/null 2>&1; then ZIG="python3 -m ziglang"
    elif [ -x target/cross/zig/ziglang/zig ]; then ZIG=$PWD/target/cross/zig/ziglang/zig
    else echo "cross: no zig, which this target's C library comes from: scripts/packages cross" >&2; return 1
    fi
    export ZIG
}

# choose_libc NAME RUST_TARGET ZIG_TARGET ZIG_CPU: libc_folder with rcrt1.o, libc.a and libunwind.a; libc_said. The
# folder is made once; remove it to choose anew.
choose_libc() {
    libc_folder=target/cross/libc/$1
    if [ ! -f "$libc_folder/from" ]; then
        own=$(rustc --print sysroot 2> /dev/null)/lib/rustlib/$2/lib/self-contained
        [ "${CROSS_LIBC:-}" = zig ] || [ -d "$own" ] || rustup target add "$2" > /dev/null 2>&1 || true
        rm -rf "$libc_folder"
        mkdir -p "$libc_folder"
        if [ "${CROSS_LIBC:-}" != zig ] && [ -f "$own/rcrt1.o" ]; then
            cp "$own/rcrt1.o" "$own/libc.a" "$own/libunwind.a" "$libc_folder/"
            echo "rustup's musl" > "$libc_folder/from"
        else
            find_zig && libc_of_zig "$3" "$4" || return 1
        fi
    fi
    libc_said=$(cat "$libc_folder/from")
}

# libc_of_zig ZIG_TARGET ZIG_CPU: musl as zig builds it from its sources. It is spread over three archives there.
libc_of_zig() {
    cache=$PWD/$libc_folder/cache
    mkdir -p "$cache"
    echo 'int main(void) { return 0; }' > "$cache/main.c"
    # The link is only the means; what is wanted stays in the cache.
    ZIG_GLOBAL_CACHE_DIR=$cache ZIG_LOCAL_CACHE_DIR=$cache $ZIG cc -target "$1" -mcpu="$2" -static -pie -Os -g0 "$cache/main.c" -o "$cache/main" || return 1
    {
        echo "CREATE $libc_folder/libc.a"
        for part in libc libzigc libcompiler_rt; do
            part=$(find "$cache/o" -name "$part.a" | head -1)
            [ -z "$part" ] || echo "ADDLIB ${part#"$PWD/"}"
        done
        printf 'SAVE\nEND\n'
    } | $ZIG ar -M || return 1
    cp "$(find "$cache/o" -name rcrt1.o | head -1)" "$libc_folder/rcrt1.o" || return 1
    rm -rf "$cache"
    # An archive of nothing: the program brings its own unwinder (src/sys/unwind.rs), or, as tiny, needs none.
    printf '!<arch>\n' > "$libc_folder/libunwind.a"
    echo "musl of zig $($ZIG version)" > "$libc_folder/from"
}

# choose_linker: linker, linker_said.
choose_linker() {
    linker=$(find "$sysroot/lib/rustlib" -path '*/bin/rust-lld' 2> /dev/null | head -1)
    if [ -n "$linker" ]; then linker=rust-lld linker_said="the compiler's lld"; return 0; fi
    find_zig || return 1
    linker=target/cross/ld.lld linker_said="lld of zig $($ZIG version)"
    # rustc tells rust-lld, which is every linker in one, to be GNU's.
    printf '#!/bin/sh\n[ "$1" != -flavor ] || shift 2\nexec %s ld.lld "$@"\n' "$ZIG" > "$linker.new" && chmod +x "$linker.new" && mv "$linker.new" "$linker"
}

# strip_symbols FROM TO: without symbols, for any architecture.
strip_symbols() {
    tool=$(find "$sysroot/lib/rustlib" -path '*/bin/rust-objcopy' 2> /dev/null | head -1)
    [ -n "$tool" ] || { echo "cross: no rust-objcopy beside the compiler: scripts/packages cross-rust" >&2; return 1; }
    LD_LIBRARY_PATH=$sysroot/lib "$tool" --strip-all "$1" "$2"
}
