#!/bin/sh
# Builds {{snake}}.wasm. Needs forebay and zig, whose C compiler makes WebAssembly.
set -eu
case $0 in */*) cd -- "${0%/*}" ;; esac
forebay=${FOREBAY:-forebay}
missing() {
    echo "$1 is missing: $2" >&2
    exit 1
}
command -v "$forebay" >/dev/null || missing forebay 'put it on the PATH, or name it: FOREBAY=/path/to/forebay sh build.sh'
if command -v zig >/dev/null; then
    zig() { command zig "$@"; }
elif python3 -c 'import ziglang' 2>/dev/null; then
    zig() { python3 -m ziglang "$@"; }
else
    missing zig 'install it from ziglang.org, or by pip: python3 -m pip install ziglang'
fi
zig cc --target=wasm32-freestanding -Os -nostdlib -Wall -Wextra -Wno-unused-parameter -Wl,--no-entry -Wl,--strip-all -o {{snake}}.core {{snake}}.c
"$forebay" udf build {{snake}}.core --wit wit -o {{snake}}.wasm
rm {{snake}}.core
