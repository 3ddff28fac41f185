#!/bin/sh
# Builds {{snake}}.wasm. Needs Node.js 20 or newer, and assemblyscript (npm install).
set -eu
case $0 in */*) cd -- "${0%/*}" ;; esac
PATH=$PWD/node_modules/.bin:$PATH
command -v asc >/dev/null || {
    echo "asc is missing: install Node.js 20 or newer (Debian: apt-get install nodejs npm), then here: npm install" >&2
    exit 1
}
asc {{snake}}.ts -o {{snake}}.wasm --optimize
