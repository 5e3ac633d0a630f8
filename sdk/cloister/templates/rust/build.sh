#!/bin/sh
# Builds app.wasm: with rustup's target wasm32-wasip2, or else with Debian's packages rustc-web and rust-web-src and with wasm-tools.
set -eu
cd "$(dirname "$0")"
if rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip2; then
  cargo build --release --target wasm32-wasip2
  cp target/wasm32-wasip2/release/app.wasm app.wasm
elif [ -x /usr/bin/rustc ] && command -v wasm-tools >/dev/null; then
  linker=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
  PATH=$PATH:$linker:$linker/gcc-ld RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
    cargo build --release --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort
  wasm-tools component new target/wasm32-unknown-unknown/release/app.wasm -o app.wasm
else
  echo "there is no Rust for WebAssembly here: rustup target add wasm32-wasip2" >&2
  exit 1
fi
