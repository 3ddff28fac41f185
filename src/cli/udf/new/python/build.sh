#!/bin/sh
# Builds {{snake}}.wasm. Needs forebay and componentize-py.
set -eu
case $0 in */*) cd -- "${0%/*}" ;; esac
forebay=${FOREBAY:-forebay}
missing() {
    echo "$1 is missing: $2" >&2
    exit 1
}
command -v "$forebay" >/dev/null || missing forebay 'put it on the PATH, or name it: FOREBAY=/path/to/forebay sh build.sh'
command -v componentize-py >/dev/null || missing componentize-py 'install it by pip (Python 3.10 or newer): python3 -m pip install componentize-py'
PYTHONDONTWRITEBYTECODE=1 componentize-py -d wit -w functions componentize app -o {{snake}}.wasm --stub-wasi
