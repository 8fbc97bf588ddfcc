#!/bin/bash
# An image encoder part by part, predicted without a GPU: each op of a block as vgpu predicts it (VGPU_TIME), a pass as
# the sum of them, no gaps and no overlap:
#
#     tests/bench/encoder.sh [clip-l|eva-g|so400m] [PICTURES] [h100|h200] [VGPU-RUN] [BUILD]
#
# Products of our own kernel (product_act.cu) twice: as VGPU_TIME says, which lets no wait for tensor cores or barriers
# count, and no faster than 790 TFLOP/s, at which product.h has the main loop of cuBLASLt's; the sums are of the latter.
# Takes minutes: the block is computed.
model=${1:-clip-l} pictures=${2:-64} gpu=${3:-h100} run=${4:-../shared/vgpu/bin/vgpu-run} build=${5:-build/release}
bench=$build/bench/bench_vit
[ -x "$bench" ] || { echo "encoder: no $bench: make it first"; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
VGPU_FILL=0 VGPU_MEM_MB=${VGPU_MEM_MB:-8192} VGPU_TIME=$gpu VGPU_TIME_JSON=$tmp/json "$run" "$bench" "$model" bf16 "$pictures" 0 cuda \
    >"$tmp/parts" 2>"$tmp/log" || { tail -5 "$tmp/log"; exit 1; }
grep -q '"kind":"region"' "$tmp/json" 2>/dev/null || { echo "encoder: nothing is predicted here: $(tail -1 "$tmp/log")"; exit 1; }
sed -n 's/.*"kind":"region","region":"\([^"]*\)","entered":\([0-9]*\),.*"launches":\([0-9]*\),.*"host_us":\([0-9.]*\),"device_us":\([0-9.]*\)}.*/\1|\2|\3|\4|\5/p' \
    "$tmp/json" >"$tmp/regions"
awk -F'|' -v model="$model" -v gpu="$gpu" '
    NR == FNR { us[$1] = $5 / $2; host[$1] = $4 / $2; next }
    $1 == "WORK" { pictures = $2; blocks = $3; flops = $4; bytes = $5
                   printf "%-46s %6s %6s %10s %10s %8s\n", "part", "block", "beside", "us", "bounded", "ms" }
    $1 == "PART" {
        split($2, s, /, | x /); work = $2 ~ /^product/ ? 2 * s[2] * s[3] * s[4] : 0
        bounded = us[$2]; least = work / 790e6 + 3.5
        if (bounded < least) bounded = least
        n = $4 + blocks * $3; total += n * bounded; plain += n * us[$2]; busy += n * host[$2]
        printf "%-46s %6d %6d %10.1f %10.1f %8.2f%s\n", $2, $3, $4, us[$2], bounded, n * bounded / 1000,
               work ? sprintf("  %4.0f TFLOP/s", work / bounded / 1e6) : "" }
    END { printf "%s, %d pictures on an %s: %.2f ms predicted (%.2f as VGPU_TIME says), %.0f pictures a second, %.0f TFLOP/s, %.0f %% of 989; the host works %.1f ms; %.2f GB\n",
                 model, pictures, toupper(gpu), total / 1000, plain / 1000, pictures / total * 1e6, flops / total / 1e6,
                 flops / total / 9.89e6, busy / 1000, bytes / 1e9 }' "$tmp/regions" "$tmp/parts"
