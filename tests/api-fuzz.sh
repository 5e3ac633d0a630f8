#!/usr/bin/env bash
# Fuzzes the API of a node of its own from the node's own OpenAPI document with schemathesis, for so many minutes (1).
# Fails where an answer is a server error or is not documented; ends with 75 where schemathesis cannot be had. Needs KVM, curl, python3 with venv, and PyPI.
#
#   tests/api-fuzz.sh [--minutes N]     CLOISTER=path/to/cloister uses that executable rather than a fresh build
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/node.sh

minutes=1
if [ $# != 0 ]; then
  [[ $# = 2 && $1 = --minutes && $2 =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 [--minutes N]" >&2; exit 2; }
  minutes=$2
fi
version=4.32.5
venv=$PWD/target/api-fuzz
work=$(mktemp -d)
node=

finish() {
  [ -z "$node" ] || kill "$node" 2>/dev/null || true
  [ -z "$node" ] || wait "$node" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

if [ -z "${CLOISTER:-}" ]; then
  cargo build --quiet --locked -p cloister
  CLOISTER=target/debug/cloister
fi
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --timeout 20 --retries 1 "schemathesis==$version" || { echo "schemathesis cannot be installed" >&2; exit 75; }

# Requests come faster than any client is allowed to send them; no name server is asked for what they make up.
start_node "$CLOISTER" "$work" --api-rate 0 --domain-resolver 127.0.0.1:1
api() { curl --silent --show-error --fail -H "authorization: Bearer $token" -H "content-type: application/json" "$@"; }

# Something to find: a tenant, an app, a deployment, a secret, a token.
digest=$(api --data-binary @examples/rust-hello/rust-hello.wasm "$url/v1/tenants/default/components" |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])')
api -X POST -d "{\"digest\": \"$digest\"}" "$url/v1/tenants/default/apps/shop/deployments" >/dev/null
api -X PUT -d '{"value": "v"}' "$url/v1/tenants/default/apps/shop/secrets/PASSWORD" >/dev/null
api -X PUT -d '{}' "$url/v1/tenants/default/domains/shop.example" >/dev/null
api -X POST -d '{"role": "read"}' "$url/v1/tenants/default/tokens" >/dev/null

# A log that is followed has no end, and a key that is rotated all the time tells nothing.
cat >"$work/names.toml" <<TOML
[auth.openapi.token]
bearer = "$token"

[[operations]]
include-operation-id = "read_logs"
[operations.parameters]
"query.follow" = "false"
TOML
cat "$work/names.toml" - >"$work/app.toml" <<TOML
[parameters]
"path.tenant" = "default"
"path.app" = "shop"
"path.deployment" = "1"
"path.secret" = "PASSWORD"
TOML

checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks=$checks,response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth

cat >"$work/hooks.py" <<'PY'
import schemathesis

@schemathesis.serializer("application/wasm")
def wasm(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
PY
export SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$work

# Half of the time with names of any kind, half with names that are there.
seconds=$((minutes * 30))
status=0
for names in names app; do
  echo "== $names: $seconds s"
  # In that folder, as it keeps notes where it runs.
  (cd "$work" && "$venv/bin/schemathesis" --config-file "$work/$names.toml" run "$url/v1/openapi.json" \
    --checks "$checks" --max-time "$seconds" --continue-on-failure \
    --request-timeout 30 --generation-database none --warnings off) || status=1
done

kill -0 "$node" 2>/dev/null || { echo "the node has ended"; status=1; }
# A run whose requests are all refused would show nothing.
api "$url/v1/audit?limit=1000" | python3 -c '
import collections, json, sys
outcomes = collections.Counter(line["outcome"] for line in json.load(sys.stdin)["items"])
print("changes, of the last 1,000:", dict(outcomes))
sys.exit(not (outcomes["done"] >= 100 and outcomes["failed"] == 0))' || status=1
if grep -E "a bug of the node|panicked" "$work/log"; then status=1; fi
exit $status
