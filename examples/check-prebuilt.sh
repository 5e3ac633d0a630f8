#!/usr/bin/env bash
# Checks that every committed component was built from the sources that lie beside it. Needs only coreutils.
set -euo pipefail
cd "$(dirname "$0")"
failed=0
for record in */PREBUILT.sha256; do
  name=$(dirname "$record")
  (cd "$name" && sha256sum --check --quiet PREBUILT.sha256) || failed=1
  # A file that the record does not know may be a source that the component lacks.
  while read -r file; do
    grep -qF "  $file" "$record" || { echo "$name/$file is not in $record"; failed=1; }
  done < <(cd "$name" && find . -type f ! -name PREBUILT.sha256 ! -name README.md -printf '%P\n')
  [ -s "$name/$name.wasm" ] || { echo "$name/$name.wasm is missing"; failed=1; }
done
if [ "$failed" = 0 ]; then echo "prebuilt components agree with their sources"; else echo "run examples/build.sh NAME and commit what it wrote"; fi
exit "$failed"
