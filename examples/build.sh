#!/usr/bin/env bash
# Builds examples: build.sh [NAME...], all of them by default. Each component appears as NAME/NAME.wasm.
#
# Needs: Rust examples: Debian's rustc-web and rust-web-src (or another rustc 1.87+ with its rust-src and target
#        wasm32-unknown-unknown), rust-lld, wasm-tools. C: clang-19, lld-19, wasi-libc, libclang-rt-19-dev-wasm32,
#        wasm-tools, wit-bindgen. JavaScript: npm. Python: python3 -m venv.
# WASM_RUSTC names the compiler, /usr/bin/rustc without it.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
wit=$here/../sandbox-vmm/guest/wit/deps
work=$here/.build
prebuilt=(rust-hello rust-dice rust-relay c-hello)

# The interfaces beside an example's own world, in the version it wants: NAME VERSION.
make_wit() {
  rm -rf "$work/$1/wit" && mkdir -p "$work/$1/wit/deps"
  for file in "$wit"/*.wit; do
    sed -E "s/(@|@since\(version = )0\.2\.12/\1$2/g" "$file" >"$work/$1/wit/deps/$(basename "$file")"
  done
  cp "$here/$1/world.wit" "$work/$1/wit/"
}

build_rust() {
  local sysroot
  sysroot=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin
  # No path of the machine that builds stays in the component.
  local flags="--remap-path-prefix=$here=/examples --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  PATH=$PATH:$sysroot:$sysroot/gcc-ld RUSTC=${WASM_RUSTC:-/usr/bin/rustc} RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags \
    cargo build --release --locked --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort --target-dir "$work/rust" -p "$1"
  wasm-tools component new "$work/rust/wasm32-unknown-unknown/release/${1//-/_}.wasm" -o "$1/$1.wasm"
}

build_c() {
  make_wit "$1" 0.2.12
  wit-bindgen c "$work/$1/wit" --world app --out-dir "$work/$1/gen" >/dev/null
  (cd "$work/$1/gen" && clang-19 --target=wasm32-wasi -mexec-model=reactor -Os -flto -Wall -I. -Wl,--strip-all \
    -o core.wasm "$here/$1"/*.c app.c app_component_type.o)
  wasm-tools component new "$work/$1/gen/core.wasm" -o "$1/$1.wasm"
}

build_js() {
  make_wit "$1" 0.2.10 # the version that the engine is bound to
  if [ ! -d "$work/js/node_modules" ]; then
    mkdir -p "$work/js"
    (cd "$work/js" && npm init -y >/dev/null && npm install --silent @bytecodealliance/componentize-js@0.23.0)
  fi
  "$work/js/node_modules/.bin/componentize-js" --wit "$work/$1/wit" --world-name app -o "$1/$1.wasm" "$1/app.js"
}

build_python() {
  make_wit "$1" 0.2.12
  if [ ! -x "$work/python/bin/componentize-py" ]; then
    python3 -m venv "$work/python" && "$work/python/bin/pip" install --quiet componentize-py==0.25.1
  fi
  (cd "$1" && "$work/python/bin/componentize-py" -d "$work/$1/wit" -w app componentize -p . app -o "$1.wasm")
  rm -rf "$1/__pycache__"
}

# Writes down what a committed component was made of, and its own digest.
record() {
  local shared=(../build.sh)
  case $1 in
    rust-*) shared+=(../Cargo.toml ../Cargo.lock) ;;
    c-*) for file in "$wit"/*.wit; do shared+=("../../sandbox-vmm/guest/wit/deps/$(basename "$file")"); done ;;
  esac
  (cd "$1" && find . -type f ! -name PREBUILT.sha256 ! -name README.md -printf '%P\n' | LC_ALL=C sort | xargs sha256sum "${shared[@]}" >PREBUILT.sha256)
}

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(rust-hello rust-dice rust-relay c-hello js-hello python-hello)
for name in "${names[@]}"; do
  "build_${name%%-*}" "$name"
  case " ${prebuilt[*]} " in *" $name "*) record "$name" ;; esac
  printf '%9d %s\n' "$(stat -c %s "$name/$name.wasm")" "$name"
done
