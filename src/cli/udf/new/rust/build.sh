#!/bin/sh
# Builds {{snake}}.wasm. Needs forebay, and Rust with its target wasm32-unknown-unknown.
set -eu
case $0 in */*) cd -- "${0%/*}" ;; esac
forebay=${FOREBAY:-forebay}
missing() {
    echo "$1 is missing: $2" >&2
    exit 1
}
command -v "$forebay" >/dev/null || missing forebay 'put it on the PATH, or name it: FOREBAY=/path/to/forebay sh build.sh'
command -v cargo >/dev/null || missing cargo 'install Rust by rustup, see rustup.rs'
target=wasm32-unknown-unknown
[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target" || missing "the Rust target $target" "rustup target add $target"
"$forebay" udf build . -o {{snake}}.wasm
