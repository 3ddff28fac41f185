#!/bin/sh
# Builds every function here: Rust to a core module, then `forebay udf build` to a component without imports.
# usage: udfs/build.sh PATH_OF_FOREBAY      gives udfs/target/components/NAME.wasm
set -eu

if [ $# -ne 1 ] || [ ! -x "$1" ]; then
    echo "usage: udfs/build.sh PATH_OF_FOREBAY (build it first: cargo build)" >&2
    exit 2
fi
forebay=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
cd -- "$(dirname -- "$0")"

target=wasm32-unknown-unknown
sysroot=$(rustc --print sysroot)
if [ ! -d "$sysroot/lib/rustlib/$target" ]; then
    if ! command -v rustup >/dev/null || ! rustup target add "$target"; then
        echo "the Rust target $target is missing and rustup could not add it: install it (rustup target add $target, or your distribution's package) and run this again" >&2
        exit 1
    fi
fi

# the guests have their own target folder and none of the host's flags
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET RUSTFLAGS CARGO_ENCODED_RUSTFLAGS || true
cargo build --locked --release --target "$target"

mkdir -p target/components
for crate in */Cargo.toml; do
    name=$(dirname -- "$crate")
    "$forebay" udf build "target/$target/release/$name.wasm" -o "target/components/$name.wasm"
done
