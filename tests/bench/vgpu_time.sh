#!/bin/bash
# Whether the kernels keep to the instructions that bind them, as vgpu predicts a launch on an H100 (VGPU_TIME):
#
#     tests/bench/vgpu_time.sh [VGPU-RUN] [BUILD]
#
#   instructions   warp instructions of a launch for each HMMA or wgmma, or for 32 elements: at most 5 % over what they were
#                  when this was written (they change with the compiler, not with the machine)
#   time           predicted microseconds of a launch: at most 15 % over
#   bytes          of products with an activation, to and from memory, all kernels of the op: at most 2 % over the promise
#                  (vgpu_bytes.sh counts what is asked for, and tiles ask L2 again and again; this counts what L2 lacks)
#
# Shapes: bench_cuda's, for 128 pairs (64 pictures of an encoder), where the grid does not depend on that as if for
# them; rows of norms and activations 8,192. A line for each check that fails (V=1: for each), a count at the end; exit
# code 1 when one failed. Nothing is checked where vgpu finds no nvdisasm.
run=${1:-../shared/vgpu/bin/vgpu-run} build=${2:-build/release}
passed=0 failed=0
[ -x "$build/bench/bench_cuda" ] || { echo "vgpu_time: no $build/bench/bench_cuda: make it first"; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# op | kernel | rows, pairs or numbers (0: as if for 128 pairs) | elements in a launch (0: for each HMMA) | instructions | microseconds
table='attention, cross|forward_mma|128|0|15.5|46.5
attention_bwd, cross|bwd_one|128|0|12.2|122.1
attention, joint|forward_mma|128|0|31.8|39.3
attention_bwd, joint|bwd_one|0|0|22.2|71.3
attention, CLIP-L|forward_wg|0|0|36.1|79.8
attention, EVA-g|forward_wg|0|0|24.9|121.2
attention, wide|forward_wg|0|0|24.3|79.0
attention, CLIP-L at 336|forward_ring|0|0|41.7|255.7
attention, EVA-g at 364|forward_ring|0|0|32.4|576.3
add_norm|add_norm_fast|8192|6291456|41.3|22.1
add_norm_bwd|add_norm_bwd_fast|8192|6291456|45.0|22.0
act|act_kernel|8192|25165824|23.3|34.4
act_bwd|act_bwd_kernel|8192|25165824|31.7|69.5
product, act|product_act_kernel|768|2359296|58.0|19.5
product, act_bwd|product_act_kernel|768|2359296|80.1|30.5
products, dW|product_group_kernel|256|7077888|10.8|19.9
adamw|adamw_kernel|4000000|4000000|55.5|45.9
adamw, beside|adamw_beside_kernel|4000000|4000000|52.5|64.0'

field() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" "$1" | head -1; }

check() {                                     # WHAT FOUND LIMIT
    if awk -v x="$2" -v y="$3" 'BEGIN { exit !(x > 0 && x <= y) }'; then
        passed=$((passed + 1))
        [ -z "$V" ] || echo "ok    $1: $2 of at most $3"
    else
        failed=$((failed + 1))
        echo "FAIL  $1: ${2:-nothing} of at most $3"
    fi
}

while IFS='|' read -r op kernel rows elements most us; do
    json=$tmp/${op// /_}.$rows scale=32
    [ "$rows" = 0 ] || scale=1
    if [ ! -e "$json" ]; then
        VGPU_TIME=h100 VGPU_TIME_SCALE=$scale VGPU_TIME_JSON=$json "$run" "$build/bench/bench_cuda" bytes "$op" \
            $([ "$rows" = 0 ] || echo "$rows") >"$tmp/log" 2>&1
    fi
    grep "\"kernel\":\"$kernel[<\"]" "$json" 2>/dev/null >"$tmp/line"
    if ! grep -q '"warp_instructions"' "$tmp/line"; then
        echo "-     nothing is predicted here: $(tail -1 "$tmp/log")"
        echo "vgpu_time: 0 passed, 0 failed, 1 not supported"
        exit 0
    fi
    unit=$(field "$tmp/line" hmma) name="$op, $kernel, warp instructions for each HMMA"
    [ -n "$unit" ] || unit=$(field "$tmp/line" wgmma)
    [ "$elements" = 0 ] || { unit=$((elements / 32)) name="$op, $kernel, warp instructions for 32 elements"; }
    each=$(awk -v n="$(field "$tmp/line" warp_instructions)" -v u="$unit" 'BEGIN { printf "%.2f", n / u }')
    check "$name" "$each" "$(awk -v m="$most" 'BEGIN { printf "%.2f", m * 1.05 }')"
    check "$op, $kernel, microseconds predicted" "$(field "$tmp/line" us)" \
          "$(awk -v m="$us" 'BEGIN { printf "%.1f", m * 1.15 }')"
    [[ $op = "product, act"* ]] || continue
    moved=$(sed -n 's/.*"hbm_read":\([0-9]*\),"hbm_write":\([0-9]*\),.*/\1 \2/p' "$json" |
        awk '{ n += $1 + $2 } END { print n }')
    check "$op, bytes to and from memory" "$moved" \
          "$(sed -n 's/^PROMISED \([0-9]*\) .*/\1/p' "$tmp/log" | awk '{ printf "%.0f", $1 * 1.02 }')"
done <<<"$table"
echo "vgpu_time: $passed passed, $failed failed"
[ $failed = 0 ]
