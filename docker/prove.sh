#!/bin/bash
# Builds docker/Dockerfile.cpu without a Docker engine, from a bare Debian, and has the server inside answer a try-on.
#
#   sudo docker/prove.sh [REPOSITORY [EXTRAS]]      (debootstrap, buildah, unshare, nsenter; 3 minutes, 3 GB)
#
# Debian's own root and Python stand in for the image python:3.11-slim; everything after FROM is the Dockerfile's own.
# REPOSITORY is what dressform-export wrote (default: a tiny random pipeline, exported by this checkout's .venv); it
# must be able to do `tryon`. EXTRAS is the build argument (default: the file's own). The image's file system is then
# mounted read-only, and its entry point run there as its user, with /tmp and /dev/shm of its own, as the line in the
# Dockerfile's header does. Last, the target `tools` is built with EXTRAS=app, and its page asked for.
# The package sources, certificates and proxies of this machine are handed into the root. Nothing is left behind.
set -euo pipefail

source_folder=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/dressform-prove.XXXXXX")
export STORAGE_DRIVER=vfs
storage=(--root "$work/storage" --runroot "$work/run")
groups=()

clear_up() {
    for group in "${groups[@]}"; do kill -KILL -- "-$group" && wait "$group" || true; done >/dev/null 2>&1
    buildah "${storage[@]}" umount --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}
trap clear_up EXIT

began=$SECONDS
told() { printf '%-28s %s\n' "$1" "$2" ; }
lap() { took=$((SECONDS - began)); began=$SECONDS; }

# -- a bare Debian with its Python, in place of python:3.11-slim

mirror=$(awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}' \
    $(ls /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null))
debootstrap --variant=minbase --include=ca-certificates,python3.11,python3-pip,python3-venv,libpython3.11 \
    bookworm "$work/debian" "$mirror" >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log"; exit 1; }
ln -s python3.11 "$work/debian/usr/bin/python"
cp -f /etc/ssl/certs/ca-certificates.crt "$work/debian/etc/ssl/certs/"
for file in /etc/pip.conf /etc/uv/uv.toml /etc/resolv.conf; do
    [ ! -e "$file" ] || install -D -m 644 "$file" "$work/debian$file"
done
lap
told "Debian root" "$(du -sh --apparent-size "$work/debian" | cut -f1), $took s"

settings=(--env PIP_BREAK_SYSTEM_PACKAGES=1) # Debian's own Python is managed by apt
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CERT PIP_TRUSTED_HOST UV_INDEX_URL UV_DEFAULT_INDEX SSL_CERT_FILE \
    HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    [ -z "${!name:-}" ] || settings+=(--env "$name=${!name}")
done
base=$(buildah "${storage[@]}" from scratch)
buildah "${storage[@]}" add --quiet "$base" "$work/debian" / >/dev/null
buildah "${storage[@]}" config "${settings[@]}" "$base"
buildah "${storage[@]}" commit --quiet --rm "$base" localhost/base >/dev/null
rm -rf --one-file-system "$work/debian"
lap

# -- the image, by its own Dockerfile

build() { # TAG [MORE ARGUMENTS]
    local tag=$1
    shift
    buildah "${storage[@]}" bud --isolation chroot --build-arg BASE=localhost/base --format docker "$@" \
        -f "$source_folder/docker/Dockerfile.cpu" -t "localhost/$tag" "$source_folder" >"$work/build.log" 2>&1 ||
        { tail -30 "$work/build.log"; exit 1; }
}
build dressform:cpu ${2:+--build-arg "EXTRAS=$2"}
lap
told "image built" "$took s, $(grep -c 'STEP ' "$work/build.log") steps of the Dockerfile"
container=$(buildah "${storage[@]}" from localhost/dressform:cpu)
root=$(buildah "${storage[@]}" mount "$container")
told "image with that Debian" "$(du -sh --apparent-size "$root" | cut -f1)"
told "of which ours" "$(du -sh --apparent-size "$root/opt/dressform" | cut -f1) in /opt/dressform"
weights=$(find "$root" -xdev -size +100k \( -name '*.safetensors' -o -name '*.onnx' \) | wc -l)
told "weight files inside" "$weights"
[ "$weights" = 0 ]
user=$(buildah "${storage[@]}" inspect --format '{{.Docker.Config.User}}' "$container")
mapfile -t entry < <(buildah "${storage[@]}" inspect --format '{{range .Docker.Config.Entrypoint}}{{println .}}{{end}}' \
    "$container" | grep .)
mapfile -t health < <(buildah "${storage[@]}" inspect --format \
    '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' "$container" | grep . | tail -n +2)
told "user, entry point" "$user, ${entry[*]}"

# -- what it serves

repository=${1:-}
if [ -z "$repository" ]; then
    repository=$work/repository
    "$source_folder/.venv/bin/python" - "$work" >"$work/export.log" 2>&1 <<'PYTHON' || { tail "$work/export.log"; exit 1; }
import sys
from pathlib import Path

from dressform_export import build_random_pipeline, export_pipeline

work = Path(sys.argv[1])
export_pipeline(build_random_pipeline("tiny", work / "source", tryon="concat"), work / "repository")
PYTHON
fi
chmod -R a+rX "$repository"
chmod a+x "$work"
lap

# -- the server, as `docker run --read-only --tmpfs /tmp:exec --shm-size=2g --user 10001` would have it

cat >"$work/inside.sh" <<'INSIDE'
set -euo pipefail
root=$1 repository=$2 user=$3; shift 3
mount --bind "$root" "$root"
mkdir -p "$root/models" && mount --bind "$repository" "$root/models"
mount -t tmpfs -o exec,mode=1777 tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=2g,mode=1777 tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root/models"
mount -o remount,bind,ro "$root"
exec env -i PATH=/opt/dressform/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    /usr/sbin/chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs "$@"
INSIDE

ports=$(python3 - <<'PYTHON'
import socket

held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(one.getsockname()[1] for one in held))
PYTHON
)
read -r http grpc metrics page <<<"$ports"
run() { # ROOT LOG WORDS…
    setsid unshare --mount --pid --fork --kill-child --propagation private \
        bash "$work/inside.sh" "$1" "$repository" "$user" "${@:3}" >"$2" 2>&1 &
    groups+=($!)
}
run "$root" "$work/server.log" "${entry[@]}" --host 127.0.0.1 \
    --http-port "$http" --grpc-port "$grpc" --metrics-port "$metrics"
server=${groups[0]}
ready=
for _ in $(seq 300); do
    curl -sf "http://127.0.0.1:$http/v2/health/ready" && ready=yes && break
    kill -0 "$server" 2>/dev/null || break
    sleep 1
done
[ -n "$ready" ] || { cat "$work/server.log"; exit 1; }
lap
told "ready after" "$took s"
inside=$(pgrep -f "model-repository=/models.*http-port=$http" | head -1)
within() { nsenter --target "$inside" --mount --root="/proc/$inside/root" --setuid "$user" --setgid "$user" "$@"; }
status() { awk -v name="$1:" '$1 == name {print $2}' "/proc/$inside/status"; }
told "Triton runs as" "uid $(status Uid), capabilities $(status CapEff), no new privileges: $(status NoNewPrivs)"
told "its root is" "$(nsenter --target "$inside" --mount touch "/proc/$inside/root/written" 2>"$work/refusal" &&
    echo "written to, even if by root" || echo "not written, even by root: $(sed 's/.*: //' "$work/refusal")")"
told "the image's health check" "$(within "/opt/dressform/bin/${health[0]}" -c "${health[2]//8000/$http}" && echo healthy)"

# -- a try-on, by the image's own client

within /opt/dressform/bin/python - "$grpc" "$http" >"$work/answer" 2>&1 <<'PYTHON' || { cat "$work/answer" "$work/server.log"; exit 1; }
import sys
import time

import numpy as np
from PIL import Image

from dressform import Client

person = Image.fromarray(np.linspace((0, 40, 90), (200, 160, 90), 128 * 96).reshape(128, 96, 3).astype(np.uint8))
garment = Image.new("RGB", (96, 128), "firebrick")
mask = Image.new("L", (96, 128), 0)
mask.paste(255, (24, 40, 72, 110))
for url in (f"grpc://127.0.0.1:{sys.argv[1]}", f"http://127.0.0.1:{sys.argv[2]}"):
    began = time.monotonic()
    with Client(url) as client:
        result = client.tryon(person, garment, mask=mask, num_inference_steps=8, seed=7)
    picture = np.asarray(result.image)
    assert picture.shape == (128, 96, 3), picture.shape
    changed = np.abs(picture.astype(int) - np.asarray(person)).max(axis=2) > 8
    inside = np.asarray(mask) > 0
    assert changed[inside].mean() > 0.5, "nothing was painted"
    assert not changed[:16].any(), "something was painted outside the mask"
    print(f"{url.split(':')[0]}: {picture.shape[1]} × {picture.shape[0]} pixels, {result.info['steps']} steps, "
          f"{changed[inside].mean():.0%} of the masked pixels repainted, {time.monotonic() - began:.1f} s")
PYTHON
while read -r line; do told "tryon by ${line%%:*}" "${line#*: }"; done <"$work/answer"

# -- the page

build dressform:app --target tools --build-arg EXTRAS=app
lap
told "target tools, EXTRAS=app" "built in $took s"
run "$(buildah "${storage[@]}" mount "$(buildah "${storage[@]}" from localhost/dressform:app)")" "$work/page.log" \
    dressform app --port "$page" --server "grpc://127.0.0.1:$grpc"
for _ in $(seq 60); do
    said=$(curl -sf "http://127.0.0.1:$page/_stcore/health") && break
    sleep 1
done
[ "${said:-}" = ok ] || { cat "$work/page.log"; exit 1; }
lap
told "its page says" "$said, after $took s"

kill -TERM "$(pgrep -g "$server" -f '/opt/dressform/bin/dressform serve' | head -1)"
wait "$server" && status=$? || status=$?
lap
told "stopped by SIGTERM" "status $status, $took s: $(tail -1 "$work/server.log")"
[ "$status" = 0 ]
