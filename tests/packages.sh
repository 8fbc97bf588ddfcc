#!/bin/sh
# packages.sh build|test|fuzz|cross|dist|bare: makes sure the Debian packages for that are there. Installs what is missing when it may (root, or
# sudo that asks nothing), else names the one line to type and fails. On other systems it does nothing: `make` then says what it
# did not find. packages.sh cross-dev names the foreign -dev packages that cross.sh takes apart.
set -u
build="build-essential libhdf5-dev libyaml-dev libjansson-dev libutf8proc-dev libjpeg62-turbo-dev libpng-dev libwebp-dev zlib1g-dev libdnnl-dev"
test="$build libcmocka-dev libopenmpi-dev openmpi-bin iproute2"
[ -d ../shared/vgpu ] && test="$test libzstd-dev libopenblas0-pthread"
fuzz="$test clang libclang-rt-14-dev"
cross="$build gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
for p in libhdf5-103-1 libyaml-0-2 libjansson4 libutf8proc2 libjpeg62-turbo libpng16-16 zlib1g libcmocka0 libgomp1; do cross="$cross $p:arm64"; done
case "${1:-build}" in
build) want=$build ;;
test) want=$test ;;
fuzz) want=$fuzz ;;
cross) want=$cross ;;
dist) want="$test patchelf" ;;
bare) want="debootstrap" ;;
cross-dev)
    for p in libhdf5-dev libyaml-dev libjansson-dev libutf8proc-dev libjpeg62-turbo-dev libpng-dev zlib1g-dev libcmocka-dev; do echo "$p:arm64"; done
    exit ;;
*) echo "packages.sh build|test|fuzz|cross|dist|bare" >&2; exit 2 ;;
esac

command -v dpkg-query >/dev/null 2>&1 || exit 0
missing=
for p in $want; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo=sudo
    else
        echo "Some packages are missing. Type this, then the same command again:" >&2
        echo "    sudo apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
fi
echo "installing:$missing"
[ "${1:-}" = cross ] && $sudo dpkg --add-architecture arm64
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086
if ! { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -5 "$log" >&2
    echo "apt-get failed; the line was: apt-get install --no-install-recommends$missing" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
