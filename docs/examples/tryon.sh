#!/usr/bin/env bash
# A try-on by curl: tryon.sh PERSON GARMENT RESULT [MASK]
set -euo pipefail
server=${DRESSFORM_URL:-http://127.0.0.1:8000}
person=$1 garment=$2 result=$3 mask=${4:-}

picture() { printf 'data:image/png;base64,%s' "$(base64 -w0 "$1")"; } # the server looks at the bytes, whatever it says

answer=$({
  printf '{"person": "%s", "garment": "%s", ' "$(picture "$person")" "$(picture "$garment")"
  if [ -n "$mask" ]; then printf '"mask": "%s", ' "$(picture "$mask")"; fi
  printf '"num_inference_steps": 10, "seed": 7}'
} | curl -sS -H 'Content-Type: application/json' -d @- "$server/v2/models/tryon/generate")

case $answer in
'{"error"'*) echo "$answer" >&2 && exit 1 ;;
esac
sed 's/.*"images":"data:[^,]*,\([^"]*\)".*/\1/' <<<"$answer" | base64 -d >"$result"
echo "seed $(sed 's/.*"seeds":\([0-9]*\).*/\1/' <<<"$answer")"
