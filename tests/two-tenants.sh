#!/usr/bin/env bash
# Runs the commands of docs/two-tenants.md as they stand there, and checks what they give: two tenants, each with a token, apps from a manifest, a secret and
# a domain with a certificate from a local authority; a request's logs and trace, the span of an outgoing call, metrics in a real Prometheus, and nothing of one
# tenant for the other.
# Needs KVM, curl, openssl, python3, and Debian's packages pebble and prometheus; ends with 75 where one of them is missing.
#
#   tests/two-tenants.sh [CLOISTER]      the executable [target/debug/cloister]
#
# A block of the document begins with ```sh NAME; one with ```sh each NAME is run for anna, and then with bert in her place. The ports that the
# document names are replaced by free ones. What each block prints goes through check_NAME below.
set -euo pipefail
src=$(cd "$(dirname "$0")/.." && pwd)
cloister=$(realpath "${1:-$src/target/debug/cloister}")
[ -x "$cloister" ] || { echo "there is no $cloister" >&2; exit 1; }
for tool in curl openssl python3 pebble pebble-challtestsrv prometheus promtool; do
  command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 75; }
done

folder=$(mktemp -d)
block='' out=/dev/null
# Where a signal comes while a block runs, standard error is that of the block: this one is the script's.
exec 3>&2
finish() {
  local status=$?
  trap - EXIT
  set +e
  exec 2>&3
  if [ $status != 0 ]; then
    echo "FAILED in the block $block of docs/two-tenants.md, which printed:" >&2
    cat "$out" >&2
    tail -n 5 "$folder"/work/*.log >&2
  fi
  kill $(jobs -p) 2>/dev/null
  wait
  rm -rf "$folder"
  exit $status
}
trap finish EXIT
trap 'exit 1' INT TERM
mkdir "$folder/bin" "$folder/blocks" "$folder/out" "$folder/work"
ln -s "$cloister" "$folder/bin/cloister"
ln -s "$cloister" "$folder/bin/cloisterd"
export PATH=$folder/bin:$PATH HOME=$folder/home
unset XDG_CONFIG_HOME "${!CLOISTER_@}" "${!OTEL_@}"

# The ports of the document, each with one that is free for TCP and UDP, below those that the kernel gives out by itself.
python3 - "$src/docs/two-tenants.md" "$folder/blocks" <<'PY'
import random, re, socket, sys

def free():
    while True:
        port = random.randrange(10000, 32000)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(type=kind) as socket_:
                    socket_.bind(("127.0.0.1", port))
            return port
        except OSError:
            pass

text = open(sys.argv[1]).read()
ports = set(re.findall(r"127\.0\.0\.1:(\d+)", text))
given = {}
while len(given) < len(ports):
    port = str(free())
    if port not in given.values():
        given[sorted(ports)[len(given)]] = port
text = re.sub(r"\b(%s)\b" % "|".join(ports), lambda found: given[found[0]], text)
blocks = re.findall(r"^```sh (each )?(\w+)\n(.*?)^```$", text, re.M | re.S)
if len(blocks) != len(re.findall(r"^```sh", text, re.M)):
    sys.exit("a block of docs/two-tenants.md has no name")
each = [block for block in blocks if block[0]]
first = blocks.index(each[0])
if blocks[first : first + len(each)] != each:
    sys.exit("the blocks of each tenant do not stand together")
steps = [(name, code) for _, name, code in blocks[:first]]
for tenant in ("anna", "bert"):
    steps += [(f"{name}.{tenant}", code.replace("anna", tenant)) for _, name, code in each]
steps += [(name, code) for _, name, code in blocks[first + len(each) :]]
for number, (name, code) in enumerate(steps):
    open(f"{sys.argv[2]}/{number:02}.{name}", "w").write(code)
PY

die() { echo "two-tenants.sh: $*" >&2; exit 1; }
# The block has printed a line that matches an extended regular expression; or so many.
has() { grep -Eq -- "$1" "$out" || die "nothing like this was printed: $1"; }
count() { [ "$(grep -Ec -- "$2" "$out")" = "$1" ] || die "not $1 lines like this were printed: $2"; }

check_whoami() { has "deploy for $tenant, until 20"; }
check_domain() { has "$tenant.example: it is proved"; }
check_deploy() {
  has "dice is deployed as number 1"
  has "relay is deployed as number 1"
}
check_https() {
  has 'certificate  until 20'
  has '^\{"dice":"200d6","rolls":\[([1-6],){199}[1-6]\],"total":[0-9]+\}$'
  count 1 '^HTTP/2$'
  rolled=$(grep -Eo '"total":[0-9]+' "$out" | cut -d: -f2)
}
check_trace() {
  count 2 ' ms  '
  has '^GET \(server\) .* cloister\.app=dice .*cloister\.request='"$(sed -n 's/^x-request-id: *//p' head | tr -d '\r') "
  has '^  guest \(internal\) .* cloister\.cpu_ns=[1-9]'
}
check_logs() {
  count 2 .
  count 2 " $id "
  has "rolled 200d6: $rolled\$"
  has 'GET /roll/200d6 200'
}
# Each span within the one that it belongs to: router, guest, outgoing call.
check_outgoing() {
  has '^hello from another server$'
  count 3 ' ms  '
  has '^GET \(server\) .* cloister\.app=relay .* url\.path=/files/hello\.txt'
  has '^  guest \(internal\) .* cloister\.cpu_ns=[1-9]'
  has '^    GET \(client\) .* http\.response\.status_code=200 server\.address=127\.0\.0\.1 .*url\.path=/hello\.txt$'
}
check_metrics() {
  local tenant
  has '^up\{.* => 1 '
  for tenant in anna bert; do
    has "requests_total\{.*class=\"2xx\".*tenant=\"$tenant\".* => [2-9] "
    has "duration_seconds_count\{.*tenant=\"$tenant\".* => [2-9] "
  done
}
# Her own app is hers. The others are not there, word for word but for the names that she said herself and the request's number.
check_strangers() {
  python3 - "$out" <<'PY' || die "the answers tell more than that there is nothing"
import json, sys
answers = [line.rsplit(" ", 1) for line in open(sys.argv[1]) if line.startswith("{")]
assert [status.strip() for _, status in answers] == ["200", "404", "404", "404"], answers
bodies = [json.loads(body) for body, _ in answers[1:]]
for body in bodies:
    del body["request_id"]
bodies[2]["detail"] = bodies[2]["detail"].replace("nobody", "bert")
assert bodies[0] == bodies[1] == bodies[2], bodies
PY
  count 2 '^exit code 3$'
  has '^dice +anna '
}
check_secrets() {
  count 2 '^DICE_MAX '
  count 0 '^grep: '
  has 'they are nowhere'
}
check_end() { has '^✓ [0-9]+ records, 2 components and 5 sealed values were looked at'; }

cd "$folder/work"
for file in "$folder"/blocks/*; do
  block=$(basename "$file")
  out=$folder/out/$block
  tenant=${block##*.}
  check=check_$(cut -d. -f2 <<<"$block")
  sed 's/^/$ /' "$file"
  . "$file" >"$out" 2>&1 </dev/null
  cat "$out"
  ! declare -F "$check" >/dev/null || "$check"
done

# Nothing that was printed has a value of a secret either. What is looked for can be found: it is where the tenants keep it.
for tenant in anna bert; do
  grep -qxE '[0-9]{10}' "$tenant/secret" || die "$tenant has no secret"
  found=$(grep -rlF -f "$tenant/secret" "$folder")
  [ "$found" = "$folder/work/$tenant/secret" ] || die "the value of a secret is in $found"
done
echo "two tenants: all of it holds"
