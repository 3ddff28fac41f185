#!/bin/sh
# Builds {{snake}}.wasm. Needs Go 1.24 or newer.
set -eu
case $0 in */*) cd -- "${0%/*}" ;; esac
command -v go >/dev/null || {
    echo "go is missing: install Go 1.24 or newer from go.dev/dl" >&2
    exit 1
}
GOOS=wasip1 GOARCH=wasm GOFLAGS=-buildvcs=false go build -buildmode=c-shared -trimpath -ldflags='-s -w' -o {{snake}}.wasm .
