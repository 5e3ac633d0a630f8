# A node of its own for a script that sources this:
#
#   start_node CLOISTER FOLDER [OPTION...]     its data in FOLDER/data, what it says in FOLDER/log
#
# Sets `node`, its process, which the script ends; `url` of its admin API; `listen`, the address of its apps; `token`.
start_node() {
  local cloister=$1 folder=$2
  local data=$folder/data
  shift 2
  "$cloister" __node --data "$data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 "$@" 2>"$folder/log" &
  node=$!
  for _ in $(seq 300); do
    [ -s "$data/endpoints.json" ] && break
    sleep 0.1
  done
  endpoint() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$data/endpoints.json" "$1"; }
  url=http://$(endpoint admin) && listen=$(endpoint listen) && token=$(cat "$data/admin-token") ||
    { cat "$folder/log" >&2; return 1; }
}
