#!/bin/sh
# Builds {{snake}}.wasm. Needs forebay.
set -eu
case $0 in */*) cd -- "${0%/*}" ;; esac
forebay=${FOREBAY:-forebay}
missing() {
    echo "$1 is missing: $2" >&2
    exit 1
}
command -v "$forebay" >/dev/null || missing forebay 'put it on the PATH, or name it: FOREBAY=/path/to/forebay sh build.sh'
"$forebay" udf build {{snake}}.wat -o {{snake}}.wasm
