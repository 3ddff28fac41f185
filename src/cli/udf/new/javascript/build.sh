#!/bin/sh
# Builds {{snake}}.wasm. Needs forebay, Node.js 20 or newer, and componentize-js (npm install).
set -eu
case $0 in */*) cd -- "${0%/*}" ;; esac
forebay=${FOREBAY:-forebay}
missing() {
    echo "$1 is missing: $2" >&2
    exit 1
}
command -v "$forebay" >/dev/null || missing forebay 'put it on the PATH, or name it: FOREBAY=/path/to/forebay sh build.sh'
command -v node >/dev/null || missing node 'install Node.js 20 or newer (Debian: apt-get install nodejs npm)'
# forebay looks for componentize-js in node_modules, here or in a folder above
"$forebay" udf build {{snake}}.js -o {{snake}}.wasm
