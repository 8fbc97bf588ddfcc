#!/bin/bash
# cross.sh: builds for aarch64 (Grace, Graviton) with Debian's cross compiler into build/aarch64, and runs the tests of kernels and
# fixtures there under qemu-user. Libraries of the foreign architecture are installed beside ours; of their -dev packages, which
# would replace ours, only the files are taken, into build/aarch64/root. Ends with the line of tests/run.sh.
set -eu
cd "$(dirname "$0")/.."
dir=build/aarch64 root=$PWD/build/aarch64/root
tests/packages.sh cross
mkdir -p "$root" "$dir/debs"
if [ ! -e "$root/usr/include/cmocka.h" ]; then
    (cd "$dir/debs" && apt-get download -qq $(../../../tests/packages.sh cross-dev) && for d in *.deb; do dpkg -x "$d" "$root"; done)
fi
lib=usr/lib/aarch64-linux-gnu
# Links of -dev packages name libraries that stand beside ours.
for l in $(find "$root/$lib" -type l ! -exec test -e {} \; -print); do
    [ -e "/$lib/$(basename "$(readlink "$l")")" ] && ln -sfn "/$lib/$(basename "$(readlink "$l")")" "$l"
done
cc="aarch64-linux-gnu-gcc -isystem $root/usr/include -isystem $root/usr/include/aarch64-linux-gnu -isystem $root/usr/include/hdf5/serial
    -L$root/$lib -L$root/$lib/hdf5/serial -L/$lib -Wl,-rpath-link,/$lib"
make CC="$(echo $cc)" MARCH=armv8-a AR=aarch64-linux-gnu-ar FLAVOUR=aarch64 B=$dir BIN=$dir/qformer CUDA=0 MPI=0 DNNL=0 CBLAS=0 WEBP=0 \
    -j"$(nproc)" all "$dir/golden" $(for t in ops beam metrics wordpiece options order; do echo "$dir/tests/test_$t"; done)
# An emulated processor takes its time: test_ops alone more than the ten minutes a program has elsewhere.
TEST_SECONDS=${TEST_SECONDS:-7200} RUNNER=qemu-aarch64 QFORMER_BIN=$dir/qformer tests/run.sh "$dir" test_ops test_beam test_metrics test_wordpiece test_options test_order golden
