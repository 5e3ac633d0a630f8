#!/usr/bin/env bash
# A real Prometheus scrapes a node, and is asked what it has. Needs prometheus, promtool, curl and python3.
#
#   tests/prometheus.sh --node CLOISTER                      a node of its own, with an app and some requests to it
#   tests/prometheus.sh --url URL [--token-file F] QUERY...  a node that runs: URL is its admin address, or that of --metrics
#
# Prints what each query gives. Fails when the node is not scraped, a query gives nothing, or promtool dislikes the page.
set -euo pipefail
. "$(dirname "$0")/node.sh"

die() { echo "prometheus.sh: $*" >&2; exit 1; }
for tool in prometheus promtool curl python3; do command -v "$tool" >/dev/null || die "$tool is needed"; done

folder=$(mktemp -d)
started=() node=
stop() {
  for pid in "${started[@]}" $node; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap stop EXIT

url='' token='' cloister='' queries=()
while [ $# -gt 0 ]; do
  case "$1" in
    --node) cloister=$2; shift 2 ;;
    --url) url=$2; shift 2 ;;
    --token-file) token=$2; shift 2 ;;
    --*) die "unknown option $1" ;;
    *) queries+=("$1"); shift ;;
  esac
done

# Waits until a command succeeds.
until_it() {
  local what=$1; shift
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  die "waited 30 s in vain for $what"
}

if [ -n "$cloister" ]; then
  start_node "$cloister" "$folder"
  export CLOISTER_URL=$url CLOISTER_TOKEN=$token
  # From here on it is the file that holds it.
  token=$folder/data/admin-token
  "$cloister" deploy "$(dirname "$0")/../examples/rust-hello/rust-hello.wasm" --app hello --json >/dev/null
  for _ in 1 2 3 4 5; do
    curl -sf -o /dev/null -H 'host: hello.localhost' "http://$listen/"
  done
  queries+=(
    'cloister_app_requests_total{app="hello",class="2xx"} == 5'
    'cloister_app_request_duration_seconds_count{app="hello"} == 5'
    'histogram_quantile(0.5, cloister_app_request_duration_seconds_bucket{app="hello"}) > 0'
    'cloister_app_cpu_seconds_total{app="hello"} > 0'
    'cloister_app_vm_resident_bytes{app="hello"} > 0'
    'cloister_worker_up == 1'
    'cloister_vms{state="ready"} == 1'
    'cloister_build_info == 1'
  )
fi
[ -n "$url" ] || die "give --node or --url"

# The page itself, as promtool sees it.
auth=(); [ -z "$token" ] || auth=(-H "authorization: Bearer $(cat "$token")")
curl -sf "${auth[@]}" "$url/metrics" | promtool check metrics

cat > "$folder/prometheus.yml" <<EOF
global: { scrape_interval: 1s, scrape_timeout: 1s }
scrape_configs:
  - job_name: cloister
    $([ -z "$token" ] || echo "authorization: { credentials_file: '$(realpath "$token")' }")
    static_configs: [{ targets: ['${url#http://}'] }]
EOF
promtool check config "$folder/prometheus.yml" >/dev/null

# A port of its own: one that was free a moment ago, or another.
for try in 1 2 3 4 5; do
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/tsdb" \
    --web.listen-address="127.0.0.1:$port" --log.level=warn 2>"$folder/prometheus.log" &
  prometheus=$!
  started+=("$prometheus")
  api=http://127.0.0.1:$port/api/v1
  for _ in $(seq 100); do
    kill -0 "$prometheus" 2>/dev/null || continue 2
    curl -sf "http://127.0.0.1:$port/-/ready" >/dev/null 2>&1 && break 2
    sleep 0.1
  done
  [ "$try" -lt 5 ] || die "Prometheus does not start: $(tail -3 "$folder/prometheus.log")"
done

# The values of a query, a line each; fails where there is none.
ask() {
  curl -sf -G "$api/query" --data-urlencode "query=$1" | python3 -c '
import json, sys
result = json.load(sys.stdin)["data"]["result"]
for series in result:
    labels = ",".join(f"{k}={v}" for k, v in sorted(series["metric"].items()) if k not in ("job", "instance"))
    print("  {" + labels + "} " + series["value"][1])
sys.exit(not result)'
}
until_it "the node to be scraped" ask 'up{job="cloister"} == 1'
for query in "${queries[@]}"; do
  # A request is counted a moment after its client has the answer.
  until_it "$query" ask "$query"
  echo "$query"
  ask "$query"
done
echo "Prometheus $(prometheus --version 2>&1 | head -1 | cut -d' ' -f3) has scraped the node"
