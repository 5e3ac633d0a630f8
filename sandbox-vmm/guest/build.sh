#!/usr/bin/env bash
# Builds the guest runtime with the stock toolchain: build.sh [TARGET_DIR [ARGUMENT...]]. sandbox-vmm/vmm/build.rs does the same.
# CMD=clippy looks at it instead.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:-../../target/guest}
mkdir -p "$target/std"
target=$(cd "$target" && pwd)
rustc --edition 2021 --crate-name std --crate-type rlib -O -Cpanic=abort -o "$target/std/libstd.rlib" stub/std/lib.rs
env -u CARGO_ENCODED_RUSTFLAGS RUSTFLAGS="-Ldependency=$target/std --extern=std=$target/std/libstd.rlib -Crelocation-model=static -Cforce-frame-pointers=yes -Clink-args=-nostartfiles -Clink-args=-nostdlib -Clink-args=-static -Clink-args=-no-pie -Clink-args=-Wl,--image-base=0x200000,--build-id=none,-z,noseparate-code,-z,max-page-size=0x200000" \
  cargo "${CMD:-build}" --release --target x86_64-unknown-linux-gnu --target-dir "$target" "${@:2}"
