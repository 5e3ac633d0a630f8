#!/bin/sh
# Builds what `cloister new` makes with each of its ways that this host has, deploys it on a node and asks it. Needs KVM and curl,
# and Rust for WebAssembly: rustup's target wasm32-wasip2; or, in its place, Debian's rustc-web, rust-web-src and wasi-libc with
# wasm-tools and wasm-component-ld, as for the examples. Ends with 75 where there is neither.
#
#   tests/template.sh [CLOISTER]      the executable [target/debug/cloister]
set -eu
cd "$(dirname "$0")/.."
cloister=$(realpath "${1:-target/debug/cloister}")
folder=$(mktemp -d)
node=
trap '[ -z "$node" ] || kill "$node"; rm -rf "$folder"' EXIT
mkdir "$folder/bin"
ln -s "$cloister" "$folder/bin/cloister"
ln -s "$cloister" "$folder/bin/cloisterd"

host_tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
real_rustup=$(command -v rustup || true)
PATH=$folder/bin:$PATH
export PATH

# The node.
cloisterd --data "$folder/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 2>"$folder/log" &
node=$!
tries=0
until [ -s "$folder/data/endpoints.json" ]; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] && kill -0 $node || { cat "$folder/log" >&2; exit 1; }
  sleep 0.1
done
address() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$folder/data/endpoints.json"; }
port=$(address listen | sed 's/.*://')
CLOISTER_URL=http://$(address admin)
CLOISTER_TOKEN=$(cat "$folder/data/admin-token")
export CLOISTER_URL CLOISTER_TOKEN

# Deploys the template as an app of this name and asks it.
check() {
  (cd "$folder" && cloister new "$1" && cd "$1" && cloister deploy)
  answer=$(curl -fsS "http://$1.localhost:$port/there")
  [ "$answer" = 'Hello! You asked for /there' ] || { echo "$1: $answer" >&2; exit 1; }
  echo "ok: $1"
}

done=0
if [ -n "$real_rustup" ] && "$real_rustup" target list --installed | grep -qx wasm32-wasip2; then
  check wasip2
  done=1
elif [ -x /usr/bin/rustc ] && [ -d /usr/lib/wasm32-wasi ] && command -v wasm-component-ld >/dev/null; then
  # The target's library is built from its sources, with Debian's libc: what the script does is the same.
  printf '#!/bin/sh\necho wasm32-wasip2\n' >"$folder/bin/rustup"
  chmod +x "$folder/bin/rustup"
  (
    PATH=$PATH:$host_tools:$host_tools/gcc-ld
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_abort RUSTFLAGS="-L native=/usr/lib/wasm32-wasi"
    export PATH RUSTC RUSTC_BOOTSTRAP CARGO_UNSTABLE_BUILD_STD RUSTFLAGS
    check wasip2
  )
  done=1
fi
if [ -x /usr/bin/rustc ] && command -v wasm-tools >/dev/null; then
  printf '#!/bin/sh\nexit 0\n' >"$folder/bin/rustup"
  chmod +x "$folder/bin/rustup"
  check debian
  done=1
fi
[ $done = 1 ] || { echo "there is no Rust for WebAssembly here" >&2; exit 75; }
