#!/bin/bash
# Everything a first run on a real GPU should show, in one command from the project's root:
#
#     tests/bench/gpu.sh [results file]
#
#   1  builds
#   2  tests: every op against its mathematics, attention of every head size, streams, ranks; the reference's numbers
#      and how near each op's worst case came to its bound
#   3  each kernel against its roofline, cuDNN's attention beside ours; each product of a step under four rules of joining split sums
#   4  a full-size training step of 128, 256 and 512 pairs, beside what bench_roofline predicts of it: pairs a second against the goal
#      of 4,000; a step of stage 2, and image encoders
#
# All of it is one file to keep, and its last table has a line a part. In the folder that `make dist` made, which has no sources, it
# takes what is there. B: the build's directory; BIN: the program. Also under vgpu-run, for the script's own sake:
# RUN=".../vgpu-run" FAST=1 runs less of 2, and one op, two products, a tiny step and a tiny encoder for 3 and 4. Exit code 1 when a test failed.
set -o pipefail
out=${1:-gpu-results.txt} run=${RUN:-} failed=0 sizes=(128 256 512) table=()
if [ -e Makefile ]; then B=${B:-build/release} BIN=${BIN:-build/qformer} fixtures=${GOLDEN:-../shared/golden}/stage1
else B=programs BIN=bin/qformer fixtures=tests/golden; fi
export QFORMER_BIN=$BIN
steps=$(mktemp) && trap 'rm -f "$steps"' EXIT               # a line a number of pairs: what was measured, as JSON
say() { printf '\n==== %s\n' "$*"; }
part() {                                                     # name, command...
    local name=$1 start=$SECONDS
    shift
    say "$name"
    local how=ok
    "$@" || how=FAILED failed=1
    echo "-- $name: $how, $((SECONDS - start)) s"
    table+=("$(printf '%-66s %6s %4d s' "$name" "$how" "$((SECONDS - start))")")
}
products() {                                                 # times, awk's condition on a line: count, m, n, k ...
    "$B/bench/bench_roofline" 128 products | sort -rn | awk "$2" | $run "$B/bench/bench_products" "$1"
}
step() { $run "$B/bench/bench_step" "$1" bf16 "$2" "$3" cuda | tee -a "$steps"; }       # size, pairs, steps
value() { sed -n "s/.*\"B\":$1,.*\"$2\":\([0-9.]*\).*/\1/p"; }                            # pairs, key
compare() {                                                  # pairs...
    local pairs told
    printf '%6s %10s %18s %10s %9s %9s %11s\n' \
        pairs 'bound, ms' 'products at 65 %' measured pairs/s 'of bound' 'of goal'
    for pairs in "$@"; do
        told=$("$B/bench/bench_roofline" "$pairs") || return 1
        awk -v B="$pairs" -v bound="$(value "$pairs" bound_ms <<<"$told")" \
            -v likely="$(value "$pairs" likely_ms <<<"$told")" -v ms="$(value "$pairs" best_ms <"$steps")" \
            -v peak="$(value "$pairs" gemm_peak <"$steps")" 'BEGIN {
                printf "%6d %10.2f %18.2f ", B, bound, likely
                if (ms == "") { printf "%10s\n", "-"; exit }
                printf "%10.2f %9.0f %7.0f %% %9.0f %%\n", ms, B / ms * 1e3, 100 * bound / ms, 100 * B / ms / 4
                printf "%6s large products reached %.0f TFLOP/s, %.0f %% of 989\n", "", peak / 1e3, peak / 9890
            }'
    done
}
{
    say "machine"
    date -u +%FT%TZ
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv 2>/dev/null ||
        echo "no nvidia-smi"
    git describe --always --dirty 2>/dev/null
    cuda=(test_cuda)
    if [ -z "$FAST" ]; then cuda=(tests/test_cuda*.c); [ -e Makefile ] || cuda=("$B"/tests/test_cuda*); fi
    cuda=("${cuda[@]##*/}") && cuda=("${cuda[@]%.c}")
    benches=("$B"/bench/bench_{cuda,step,roofline,products,stage2,vit})
    [ ! -e Makefile ] || part "build" make -s B="$B" BIN="$QFORMER_BIN" "$QFORMER_BIN" "$B/tests/test_ops" "${cuda[@]/#/$B/tests/}" \
        "$B/golden" "${benches[@]}"
    part "test_ops" env TEST_ERRORS=1 $run "$B/tests/test_ops" device=cuda
    for t in "${cuda[@]}"; do part "$t" $run "$B/tests/$t"; done
    if [ -d "$fixtures" ]; then part "reference, f32" $run "$B/golden" "$fixtures" device=cuda precision=f32; fi
    if [ -z "$FAST" ]; then
        part "kernels against their rooflines (of an H100)" "$B/bench/bench_cuda" time
        part "products of a step, each rule's fastest, us" products 20 1
        for n in "${sizes[@]}"; do part "training step, full size, bf16, B = $n" step full "$n" 20; done
        part "a step of stage 2, OPT-2.7B" $run "$B/bench/bench_stage2" opt-2.7b bf16 64 1 13 10 cuda
        for m in clip-l eva-g; do part "image encoder, $m" $run "$B/bench/bench_vit" $m bf16 64 5 cuda; done
    else
        part "two products" products 1 '$2 == 2'
        part "image encoder, small" $run "$B/bench/bench_vit" small bf16 1 1 cuda
        part "a kernel" $run "$B/bench/bench_cuda" bytes add_norm
        part "training step, tiny" step demo 8 1
    fi
    part "a step op by op, predicted" "$B/bench/bench_roofline" 128
    part "a step, predicted and measured" compare "${sizes[@]}"
    say "parts"
    printf '%s\n' "${table[@]}"
    say "$([ $failed = 0 ] && echo 'all well' || echo 'something failed')"
    exit $failed
} 2>&1 | tee "$out"
exit "${PIPESTATUS[0]}"
