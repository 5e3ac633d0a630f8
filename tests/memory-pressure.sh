#!/usr/bin/env bash
# The VM that is idle for longest is given up when memory is short, and comes back with its next request: real pressure, made by a process that reads
# a file again and again in a memory control group that is too small for it. Needs KVM, curl and python3; ends with 75 where it is
# not root's, or the kernel has no PSI or no memory control groups.
#
#   tests/memory-pressure.sh [path/to/cloister]     a fresh build without the argument
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/node.sh

cloister=${1:-}
if [ -z "$cloister" ]; then
  cargo build --quiet --locked -p cloister
  cloister=target/debug/cloister
fi
work=$(mktemp -d -p "$PWD/target")
node=
group=

# Ends all that is in the group, and the group: the reader and its children, one of which may just be starting another one.
relieve() {
  [ -n "$group" ] || return 0
  local process
  for _ in $(seq 100); do
    for process in $(cat "$group/cgroup.procs"); do
      kill "$process" 2>/dev/null || true
    done
    rmdir "$group" 2>/dev/null && break
    sleep 0.1
  done
  group=
}

finish() {
  relieve
  [ -z "$node" ] || { kill "$node" && wait "$node"; } 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

[ -r /proc/pressure/memory ] || { echo "this kernel has no /proc/pressure/memory" >&2; exit 75; }
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  group=/sys/fs/cgroup/cloister-pressure.$$
  limit=memory.max
else
  group=/sys/fs/cgroup/memory/cloister-pressure.$$
  limit=memory.limit_in_bytes
fi
mkdir "$group" && echo $((24 << 20)) >"$group/$limit" || { group=; echo "no memory control group can be made: be root" >&2; exit 75; }

start_node "$cloister" "$work"
export CLOISTER_URL=$url CLOISTER_TOKEN=$token
ready() { "$cloister" status --json | python3 -c 'import json, sys; print(*sorted(vm["app"] for vm in json.load(sys.stdin)["vms"] if vm["state"] == "ready"))'; }
ask() { curl --silent --show-error --fail -H "host: $1.localhost" "http://$listen/"; }

for app in one two three; do
  "$cloister" deploy --app "$app" --idle 1h examples/rust-hello/rust-hello.wasm >/dev/null
  ask "$app" >/dev/null
done
[ "$(ready)" = "one three two" ] || { echo "three VMs should be ready" >&2; exit 1; }

# A file that does not fit, written and read by who may have 24 MiB: what it reads is thrown out before it comes to it again.
(
  echo "$BASHPID" >"$group/cgroup.procs"
  head -c $((256 << 20)) /dev/urandom >"$work/file"
  for _ in 1 2 3; do
    while :; do cat "$work/file" >/dev/null; done &
  done
  wait
) &
for _ in $(seq 300); do
  if grep -q "memory is short: idle VMs are given up" "$work/log" && [[ " $(ready) " != *" one "* ]]; then
    relieve
    for app in one two three; do
      ask "$app" >/dev/null
    done
    echo "the VM that was idle for longest was given up, and all apps answer"
    exit 0
  fi
  sleep 0.1
done
cat "$work/log" /proc/pressure/memory >&2
echo "memory was short, and idle VMs stayed" >&2
exit 1
