#!/bin/sh
# Builds every function here into udfs/target/components, what has not changed since the last time excepted.
# usage: udfs/build.sh PATH_OF_FOREBAY
#
# Rust is always built. The other languages' tools are installed into target/tools by pip and npm, at the versions of
# tools/requirements.txt and tools/package.json. A language whose tools cannot be had is left out, said here and in
# target/components/left_out, which the tests read; with FOREBAY_GUESTS=all (set by `make check`), or under CI, that is an
# error. FOREBAY_GUESTS=rust builds no others and leaves what is there.
set -eu

if [ $# -ne 1 ] || [ ! -x "$1" ]; then
    echo "usage: udfs/build.sh PATH_OF_FOREBAY (build it first: cargo build)" >&2
    exit 2
fi
forebay=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
cd -- "$(dirname -- "$0")"
here=$(pwd)
root=$(dirname -- "$here")
out=$here/target/components
tools=$root/target/tools
wanted=${FOREBAY_GUESTS:-${CI:+all}}
mkdir -p "$out" "$tools"

# --- Rust: a core module by cargo, then a component without imports

target=wasm32-unknown-unknown
sysroot=$(rustc --print sysroot)
if [ ! -d "$sysroot/lib/rustlib/$target" ]; then
    if ! command -v rustup >/dev/null || ! rustup target add "$target"; then
        echo "the Rust target $target is missing and rustup could not add it: install it (rustup target add $target, or your distribution's package) and run this again" >&2
        exit 1
    fi
fi
# the guests have their own target folder and none of the host's flags
(
    unset CARGO_TARGET_DIR CARGO_BUILD_TARGET RUSTFLAGS CARGO_ENCODED_RUSTFLAGS || true
    cargo build --locked --release --target "$target"
)
for crate in */Cargo.toml; do
    name=$(dirname -- "$crate")
    "$forebay" udf build "target/$target/release/$name.wasm" -o "$out/$name.wasm"
done

# --- the other languages

[ "$wanted" != rust ] || exit 0
left_out=$out/left_out
: >"$left_out.new"
leave_out() { # LANGUAGE GUEST HOW_TO_GET_IT
    echo "left out: $1, whose tools are missing; $3" >&2
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$left_out.new"
    rm -f "$out/$2.wasm" "$out/$2.digest"
}

# pip into a folder of its own, once for each content of requirements.txt
python_tools() {
    digest=$(sha256sum <tools/requirements.txt)
    [ "$(cat "$tools/venv/.filled" 2>/dev/null)" = "$digest" ] && return
    ${PYTHON:-python3} -m venv "$tools/venv" &&
        "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tools/requirements.txt &&
        echo "$digest" >"$tools/venv/.filled"
}

# npm install, not npm ci: the lock file need not name the optional parts for other systems
node_tools() {
    digest=$(cat tools/package.json tools/package-lock.json | sha256sum)
    [ "$(cat "$tools/node_modules/.filled" 2>/dev/null)" = "$digest" ] && return
    cp tools/package.json tools/package-lock.json "$tools" &&
        npm install --prefix "$tools" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 &&
        echo "$digest" >"$tools/node_modules/.filled"
}

zig() { (cd "$here/$1" && shift && "$tools/venv/bin/python" -m ziglang "$@"); }

build_c() {
    zig c cc --target=wasm32-freestanding -Os -nostdlib -Wall -Wextra -Wno-unused-parameter -Wl,--no-entry -Wl,--strip-all -o "$1.core" taxi.c
    "$forebay" udf build "$1.core" --wit wit --world c -o "$1" >/dev/null
}

build_zig() {
    zig zig build-exe taxi.zig -target wasm32-freestanding -O ReleaseSmall -fno-entry -rdynamic -fstrip "-femit-bin=$1.core"
    "$forebay" udf build "$1.core" --wit wit --world zig -o "$1" >/dev/null
}

build_python() {
    (cd python && PYTHONDONTWRITEBYTECODE=1 "$tools/venv/bin/componentize-py" -d ../wit -w python componentize taxi -o "$1" --stub-wasi >/dev/null)
}

build_go() {
    (cd go && GOOS=wasip1 GOARCH=wasm GOTOOLCHAIN=local GOFLAGS=-buildvcs=false "$tools/venv/bin/go" build -buildmode=c-shared -trimpath -ldflags='-s -w' -o "$1" .)
}

build_javascript() { FOREBAY_COMPONENTIZE_JS=$tools/node_modules/@bytecodealliance/componentize-js "$forebay" udf build javascript/taxi.js -o "$1" >/dev/null; }
build_time_weighted() { FOREBAY_COMPONENTIZE_JS=$tools/node_modules/@bytecodealliance/componentize-js "$forebay" udf build javascript/time_weighted.js -o "$1" >/dev/null; }

build_assemblyscript() { node "$tools/node_modules/assemblyscript/bin/asc.js" assemblyscript/taxi.ts -o "$1" --optimize; }

build_wat() { "$forebay" udf build wat/taxi.wat -o "$1" >/dev/null; }

# What a guest is made of: a digest of it lies beside the guest.
sources() { # FOLDER
    find "$1" wit -type f ! -path '*/__pycache__/*' -print | LC_ALL=C sort | xargs cat
    case $1 in
    javascript) cat tools/package.json tools/package-lock.json ../src/udf/build/javascript.rs ../src/udf/build/javascript/* ;;
    assemblyscript) cat tools/package.json tools/package-lock.json ;;
    wat) ;;
    *) cat tools/requirements.txt ;;
    esac
    cat build.sh ../src/udf/build.rs
}

guest() { # NAME FOLDER FUNCTION
    digest=$(sources "$2" | sha256sum)
    if [ -f "$out/$1.wasm" ] && [ "$(cat "$out/$1.digest" 2>/dev/null)" = "$digest" ]; then return; fi
    rm -f "$out/$1.digest"
    began=$(date +%s)
    # not as a condition: there a failure inside would be passed over
    (set -e; "$3" "$out/$1.new")
    mv "$out/$1.new" "$out/$1.wasm"
    rm -f "$out/$1.new.core"
    echo "$digest" >"$out/$1.digest"
    echo "$out/$1.wasm  $(wc -c <"$out/$1.wasm" | tr -d ' ') bytes, $(($(date +%s) - began)) s"
}

guest taxi_wat wat build_wat
if python_tools; then
    guest taxi_c c build_c
    guest taxi_zig zig build_zig
    guest taxi_go go build_go
    guest taxi_python python build_python
else
    how='install Python 3.10 or newer with venv and pip (Debian: apt-get install python3-venv), see the message of pip above, and run: make udfs'
    for language in C:c Zig:zig Go:go Python:python; do leave_out "${language%:*}" "taxi_${language#*:}" "$how"; done
fi
if command -v npm >/dev/null && node_tools; then
    guest taxi_assemblyscript assemblyscript build_assemblyscript
    guest taxi_javascript javascript build_javascript
    guest time_weighted javascript build_time_weighted
else
    how='install Node.js 20 or newer with npm (Debian: apt-get install nodejs npm), see the message of npm above, and run: make udfs'
    leave_out AssemblyScript taxi_assemblyscript "$how"
    leave_out JavaScript taxi_javascript "$how"
    leave_out 'JavaScript aggregates' time_weighted "$how"
fi
mv "$left_out.new" "$left_out"
if [ "$wanted" = all ] && [ -s "$left_out" ]; then
    echo "FOREBAY_GUESTS=all (or CI): no language may be left out; see above" >&2
    exit 1
fi
