#!/bin/bash
# Everything a first run on a real GPU should show, in one command from the project's root:
#
#     tests/bench/gpu.sh [results file]
#
#   1  builds
#   2  tests: every op against its mathematics, attention of every head size, streams, two ranks; the reference's numbers
#   3  each kernel against its roofline, cuDNN's attention beside ours
#   4  a full-size training step: pairs a second against the goal of 4,000 on an H100 at B = 128
#
# Also under vgpu-run, for the script's own sake: RUN=".../vgpu-run" FAST=1 leaves 3 and 4 out. Exit code 1 when a test failed.
out=${1:-gpu-results.txt} B=${B:-build/release} run=${RUN:-} failed=0
say() { printf '\n==== %s\n' "$*"; }
part() {                                                     # name, command...
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@"; then echo "-- $name: ok, $((SECONDS - start)) s"; else echo "-- $name: FAILED"; failed=1; fi
}
{
    say "machine"
    date -u +%FT%TZ
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv 2>/dev/null || echo "no nvidia-smi"
    git describe --always --dirty 2>/dev/null
    part "build" make -s "$B/tests/test_ops" "$B/tests/test_cuda" "$B/golden" "$B/bench/bench_cuda" "$B/bench/bench_step"
    part "test_ops" $run "$B/tests/test_ops" device=cuda
    part "test_cuda" $run "$B/tests/test_cuda"
    if [ -d "${GOLDEN:-../shared/golden}/stage1" ]; then part "reference, f32" $run "$B/golden" "${GOLDEN:-../shared/golden}/stage1" device=cuda precision=f32; fi
    if [ -z "$FAST" ]; then
        part "kernels against their rooflines (of an H100)" "$B/bench/bench_cuda" time
        for pairs in 128 64; do part "training step, full size, bf16, B = $pairs" "$B/bench/bench_step" full bf16 $pairs 20 cuda; done
    fi
    say "$([ $failed = 0 ] && echo 'all well' || echo 'something failed')"
    exit $failed
} 2>&1 | tee "$out"
exit "${PIPESTATUS[0]}"
