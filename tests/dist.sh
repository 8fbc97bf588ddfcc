#!/bin/bash
# dist.sh BUILD_DIR VERSION: what `make dist` makes of a build: build/dist/qformer-VERSION-linux-x86_64/ and its tarball, which run on any
# x86-64-v3 machine (2013 and newer) with glibc 2.36 or newer, without compilers, packages or network:
#
#     bin/qformer       the program; lib/ holds its libraries, all but glibc's
#     ./run-tests.sh    its tests, with their fixtures; on a GPU when there is one
#     tests/bench/gpu.sh    on a GPU: tests, kernels and steps in one table
#
# Of CUDA only the runtime travels along (NVIDIA lists it as redistributable); cuBLASLt, NCCL and cuDNN are found at run time.
set -eu
cd "$(dirname "$0")/.."
export LD_LIBRARY_PATH=$1
from=$1 name=qformer-$2-linux-x86_64
to=build/dist/$name
rm -rf "$to"
mkdir -p "$to"/{bin,lib,programs/tests,programs/bench,tests/bench,share}

cp "$from/qformer" "$to/bin/"
cp "$from/golden" "$to/programs/"
cp "$from/flags.cuda" "$to/programs/"
for t in "$from"/tests/test_* "$from"/bench/bench_*; do
    [ -x "$t" ] && [[ $t != *.d ]] && cp "$t" "$to/programs/$(basename "$(dirname "$t")")/"
done
cp -r configs README.md LICENSE "$to/"
rm -f "$to"/configs/*.[ch] "$to"/configs/*.def
cp -r tests/golden tests/run.sh "$to/tests/"
cp tests/bench/gpu.sh "$to/tests/bench/"
"$from/qformer" --man >"$to/share/qformer.1"
for shell in bash zsh fish; do "$from/qformer" --completion $shell >"$to/share/completion.$shell"; done
cat >"$to/run-tests.sh" <<'END'
#!/bin/bash
# The tests of this folder's program: run-tests.sh [NAME...]. Ends with a line that counts them.
cd "$(dirname "$0")" && QFORMER_BIN=bin/qformer exec tests/run.sh programs "$@"
END
chmod +x "$to/run-tests.sh"

# Libraries: all that the program and its tests load, but those of glibc and of the GPU's driver.
cp "$from/libqformer.so" "$to/lib/"
for p in "$to/bin/qformer" "$to/programs/tests/test_options"; do ldd "$p"; done | awk '$3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libcuda|libqformer)\.so' | while read -r l; do cp -L "$l" "$to/lib/"; done
chmod u+w "$to"/lib/*
strip -g "$to"/bin/* "$to"/lib/* "$to"/programs/golden "$to"/programs/*/*
cuda=/usr/local/cuda/lib64
patchelf --set-rpath "\$ORIGIN/../lib:$cuda" "$to/bin/qformer" "$to/programs/golden"
patchelf --set-rpath "\$ORIGIN/../../lib:$cuda" "$to"/programs/tests/* "$to"/programs/bench/*
for l in "$to"/lib/*; do patchelf --set-rpath "\$ORIGIN:$cuda" "$l"; done

env -i "$to/bin/qformer" --version
tar -C build/dist -c "$name" | gzip -9 >"$to.tar.gz"              # what even the smallest Debian unpacks; xz is not in it
mib=$(($(stat -c %s "$to.tar.gz") / 1048576))
echo "$to.tar.gz: $mib MiB"
[ "$mib" -lt 64 ] || { echo "dist.sh: $mib MiB are more than the 64 that a folder may have" >&2; exit 1; }
