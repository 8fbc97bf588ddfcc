#!/bin/bash
# bare.sh [SUITE ...]: the folder of `make dist` where nothing else is: the smallest Debian 12 and Ubuntu 24.04 that
# debootstrap makes, without compiler, network or a package of ours: `make bare`. Needs root and debootstrap; a root is
# made once, under build/bare.
#
#     run-tests.sh    on the CPU
#     gpu.sh          where vgpu lies beside the clone, in its short form. vgpu translates kernels by a compiler, which a
#                     bare root has not: so the same runs outside first, and the root sees what was translated.
#
# A line a run, a count at the end; what each said is kept as build/bare/SUITE.*.txt. Exit code 1 when one failed.
set -u
cd "$(dirname "$0")/.."
vgpu=$(readlink -f ../shared/vgpu/bin/vgpu-run 2>/dev/null)
made=$(ls -t build/dist/*.tar.gz 2>/dev/null | head -1)
keep=$PWD/build/bare passed=0 failed=0
cache=${VGPU_CACHE:-$HOME/.cache/vgpu} libs=${VGPU_BUILD:-$HOME/.cache/vgpu/build}
[ -n "$made" ] || { echo "bare.sh: there is no build/dist/*.tar.gz: make dist" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "bare.sh: chroot is for root" >&2; exit 1; }
mkdir -p "$keep"
folder=$(basename "$made" .tar.gz)

# Scripts of suites that are younger than this debootstrap are those of the first of their family. MIRROR: another place to
# take packages from.
bootstrap() {                                                # suite, root
    local script=/usr/share/debootstrap/scripts/$1 check=() mirror=http://deb.debian.org/debian
    case $1 in
    bookworm | trixie) ;;
    *) [ -e "$script" ] || script=/usr/share/debootstrap/scripts/gutsy
       [ -e /usr/share/keyrings/ubuntu-archive-keyring.gpg ] || check=(--no-check-gpg)
       mirror=http://archive.ubuntu.com/ubuntu ;;
    esac
    debootstrap --variant=minbase "${check[@]}" "$1" "$2" "${MIRROR:-$mirror}" "$script" >"$keep/$1.debootstrap.txt" 2>&1 ||
        { rm -rf "$2"; echo "bare.sh: debootstrap failed, $keep/$1.debootstrap.txt says why" >&2; return 1; }
}

# Namespaces of its own: no network, and what is mounted is gone with the last process.
inside() {                                                   # root, command...
    local root=$1
    shift
    unshare --mount --net --pid --fork bash -c '
        root=$1; shift
        mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount -t tmpfs tmpfs "$root/tmp" || exit 1
        if [ -d "$root/vgpu" ]; then mount --bind "$LIBS" "$root/vgpu/lib" && mount --bind "$CACHE" "$root/vgpu/cache" || exit 1; fi
        exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root OMP_WAIT_POLICY=passive VGPU_THREADS="${VGPU_THREADS:-$(nproc)}" "$@"
    ' bash "$root" "$@"
}

ran() {                                                      # what, rc, file
    if [ "$2" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    printf '%s %-28s %5ds  %s\n' "$([ "$2" = 0 ] && echo '    ' || echo FAIL)" "$1" "$SECONDS" "$(grep -E 'skipped$|^====' "$3" | tail -1)"
}

suite() {
    local root=$keep/$1 said=$keep/$1
    [ -e "$root/etc/os-release" ] || bootstrap "$1" "$root" || return 1
    rm -rf "${root:?}/opt" && mkdir -p "$root/opt" "$root"/vgpu/{lib,cache} && tar -C "$root/opt" -xzf "$made" || return 1
    inside "$root" bash -c '. /etc/os-release; echo "$PRETTY_NAME, $(ldd --version | head -1), $(dpkg-query -W | wc -l) packages, \
compilers: $(command -v gcc cc clang nvcc make || echo none)"'
    SECONDS=0
    inside "$root" "/opt/$folder/run-tests.sh" >"$said.tests.txt" 2>&1
    ran "$1, run-tests.sh" $? "$said.tests.txt"
    [ -n "$vgpu" ] || return 0
    SECONDS=0
    inside "$root" env FAST=1 RUN="env LD_LIBRARY_PATH=/vgpu/lib VGPU_CACHE=/vgpu/cache" bash -c "cd /opt/$folder && tests/bench/gpu.sh" >"$said.gpu.txt" 2>&1
    ran "$1, gpu.sh" $? "$said.gpu.txt"
}

if [ -n "$vgpu" ]; then
    rm -rf "$keep/outside" && mkdir -p "$keep/outside" && tar -C "$keep/outside" -xzf "$made"
    SECONDS=0
    (cd "$keep/outside/$folder" && FAST=1 RUN=$vgpu tests/bench/gpu.sh) >"$keep/outside.gpu.txt" 2>&1
    ran "here, gpu.sh" $? "$keep/outside.gpu.txt"
fi
export CACHE=$cache LIBS=$libs
[ $# != 0 ] || set -- bookworm noble
for s in "$@"; do suite "$s" || failed=$((failed + 1)); done
echo "bare: $passed passed, $failed failed"
[ "$failed" = 0 ]
