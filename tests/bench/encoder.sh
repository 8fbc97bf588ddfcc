#!/bin/bash
# An image encoder part by part, predicted without a GPU: each op of a block as vgpu predicts it (VGPU_TIME), a pass as
# the sum of them, no gaps and no overlap:
#
#     tests/bench/encoder.sh [clip-l|eva-g|so400m] [PICTURES] [h100|h200] [VGPU-RUN] [BUILD]
#
# The block is computed, for a quarter of the pictures and predicted as if for all. Products by product_act.cu stay on
# the GPU's SMs, so theirs is the time of the quarter as often as its waves go into the whole. They stand twice: as
# VGPU_TIME says, which lets no wait for tensor cores or barriers count, and no faster than whole waves of tiles at 790
# TFLOP/s, at which product.h has the main loop of cuBLASLt's; the sums are of the latter. Takes minutes.
model=${1:-clip-l} pictures=${2:-64} gpu=${3:-h100} run=${4:-../shared/vgpu/bin/vgpu-run} build=${5:-build/release}
bench=$build/bench/bench_vit
[ -x "$bench" ] || { echo "encoder: no $bench: make it first"; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export VGPU_FILL=0 VGPU_MEM_MB=${VGPU_MEM_MB:-8192} VGPU_TIME=$gpu VGPU_TIME_SCALE=4 VGPU_TIME_JSON=$tmp/json
"$run" "$bench" "$model" bf16 $((pictures / 4)) 0 cuda >"$tmp/parts" 2>"$tmp/log" || { tail -5 "$tmp/log"; exit 1; }
grep -q '"kind":"region"' "$tmp/json" 2>/dev/null ||
    { echo "encoder: nothing is predicted here: $(tail -1 "$tmp/log")"; exit 1; }
field() { printf '.*"%s":\\([0-9.]*\\)' "$1"; }
sed -n "s/.*\"kind\":\"region\",\"region\":\"\\([^\"]*\\)\"$(field entered)$(field library)$(field host_us)$(field device_us).*/\\1|\\2|\\3|\\4|\\5/p" \
    "$tmp/json" >"$tmp/regions"
awk -F'|' -v model="$model" -v gpu="$gpu" '
    function up(x) { return x == int(x) ? x : int(x) + 1 }
    function waves(m, n) { return up(up(m / 256) * up(n / 256) / 66) }
    NR == FNR { ours[$1] = !$3; host[$1] = $4 / $2; us[$1] = $5 / $2; next }
    $1 == "WORK" { pictures = 4 * $2; blocks = $3; flops = 4 * $4
                   printf "%-44s %6s %6s %9s %9s %8s\n", "part", "block", "beside", "us", "bounded", "ms" }
    $1 == "PART" {
        split($2, s, /, | x /)
        name = $2; t = us[$2]; work = 0
        if (name ~ /^product/) {
            m = 4 * s[2]; work = 2 * m * s[3] * s[4]; name = s[1] ", " m " x " s[3] " x " s[4]
            least = work / 790e6
            if (ours[$2]) {
                t *= waves(m, s[3]) / waves(s[2], s[3]) / 4
                least = waves(m, s[3]) * 66 * 2 * 256 * 256 * s[4] / 790e6
            } else t *= 4
        }
        bounded = work && t < least + 3.5 ? least + 3.5 : t
        n = $4 + blocks * $3; total += n * bounded; plain += n * t; busy += n * host[$2]
        printf "%-44s %6d %6d %9.1f %9.1f %8.2f%s\n", name, $3, $4, t, bounded, n * bounded / 1000,
               work ? sprintf("  %4.0f TFLOP/s", work / bounded / 1e6) : "" }
    END { printf "%s, %d pictures on an %s: %.2f ms predicted (%.2f as VGPU_TIME says), %.0f pictures a second, ",
                 model, pictures, toupper(gpu), total / 1000, plain / 1000, pictures / total * 1e6
          printf "%.0f TFLOP/s, %.0f %% of 989; the host works %.1f ms\n", flops / total / 1e6, flops / total / 9.89e6,
                 busy / 1000 }' "$tmp/regions" "$tmp/parts"
