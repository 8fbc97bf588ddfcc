#!/bin/bash
# Whether the kernels move what the heads of their files promise, counted by vgpu:
#
#     tests/bench/vgpu_bytes.sh [VGPU-RUN] [BUILD]
#
#   bytes      each op of bench_cuda, at the shapes of a training step: at most 1.1 times its promise
#   sectors    each kernel of those ops and of one step of a small model in bf16 (bench_step): 32-byte sectors touched,
#              loads and stores apart, at most 1.1 times the fewest possible
#   conflicts  the same kernels: bank conflicts cost at most 2 % of shared-memory wavefronts (exceptions: limits)
#
# A line for each check that fails (V=1: for each), a count at the end; exit code 1 when one failed. The f32 kernels of
# attention are for checking and are not held against anything here.
run=${1:-../shared/vgpu/bin/vgpu-run} build=${2:-build/release}
passed=0 failed=0
for p in bench_cuda bench_step; do
    [ -x "$build/bench/$p" ] || { echo "vgpu_bytes: no $build/bench/$p: make it first"; exit 1; }
done
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# What an op is made of; what else runs in its process only prepares it.
ops='add_norm: add_norm_fast
add_norm_bwd: add_norm_bwd_fast add_partials
act: act_kernel
act_bwd: act_bwd_kernel add_partials
colsum: colsum_kernel add_partials
products, dW: product_group_kernel
act, gated: act_kernel
act_bwd, gated: act_bwd_kernel
norm, wide: add_norm_wide
norm_bwd, wide: add_norm_bwd_wide
rotary: rotary_fast
head_norm: head_norm_fast
lookup: lookup_kernel
attention, row: row_kernel row_parts_kernel
xent, long: xent_fast
embed: embed_fast
embed_bwd: embed_bwd_fast add_partials sum_rows_kernel
attention, cross: forward_mma
attention_bwd, cross: bwd_one
attention, joint: forward_mma
attention_bwd, joint: bwd_one
attention, CLIP-L: forward_wg
attention, EVA-g: forward_wg
attention, wide: forward_wg
attention, CLIP-L at 336: forward_ring
attention, EVA-g at 364: forward_ring
attention, SigLIP at 384: forward_ring
attention, wide, long: forward_ring
normalize: normalize_fast
normalize, packed: normalize_fast
fold: fold_kernel
unfold: unfold_kernel add_partials
simmax: simmax_kernel
simmax_bwd_image: simmax_image_kernel
simmax_bwd_text: simmax_text_kernel
xent: xent_fast
adamw: adamw_kernel
adamw, beside: adamw_beside_kernel
sumsq: sumsq_pieces sumsq_total'

# Least share of ideal sectors, loads and stores in per cent, where 1 / 1.1 cannot be; most bank conflicts, where 2 cannot.
limits() {
    case $1 in
    "simmax_kernel step") echo 90.9 20 ;;     # texts by images go down the columns of S: a sector for each 4 bytes
    "act_bwd_kernel step") echo 90.9 88 ;;      # h is kept, so sums of a strip weigh more: half a sector a request
    # every other head of 176 or 144 bytes begins amid a sector: its 64 bytes a request touch three
    forward_*" attention, EVA-g"*) echo 82 77 ;;
    forward_*" attention, SigLIP"*) echo 80 73 ;;
    row_kernel*) echo 90.9 75 ;;              # 8 bytes a head and stretch: largest score and sum
    *) echo 90.9 90.9 ;;
    esac
}

check() {                                     # WHAT CONDITION-HOLDS
    if [ "$2" = 1 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    if [ "$2" != 1 ]; then echo "FAIL  $1"; elif [ -n "$V" ]; then echo "ok    $1"; fi
}

# vgpu's table as lines: kernel, bytes loaded, % ideal, bytes stored, % ideal, % conflicts; a template's instances as
# one.
kernels() {
    awk '/ld eff/ { table = 1; next }
         table && substr($0, 45) ~ /^ *[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ +[0-9.]+%/ {
             k = $0; sub(/^void /, "", k); sub(/[<(].*/, "", k)
             split(substr($0, 45), v, /[ %]+/); b = v[1] == ""
             ld[k] += v[5 + b]; lds[k] += v[6 + b] > 0 ? v[5 + b] * 100 / v[6 + b] : 0
             st[k] += v[7 + b]; sts[k] += v[8 + b] > 0 ? v[7 + b] * 100 / v[8 + b] : 0
             shared[k] += v[9 + b]; more[k] += v[10 + b]
         }
         END { for (k in ld) print k, ld[k], lds[k] ? 100 * ld[k] / lds[k] : 100,
                                   st[k], sts[k] ? 100 * st[k] / sts[k] : 100,
                                   shared[k] ? 100 * more[k] / (shared[k] / 128) : 0 }' "$1" | sort
}

access() {                                    # WHERE, and a line of kernels()
    local where=$1 l s most
    set -- $2
    read -r l s most < <(limits "$1 $where")
    check "$(printf '%-20s in %-21s loads %5.1f %% ideal (least %s), stores %5.1f %% (%s), bank conflicts %.2f %% (most %s)' \
                    "$1" "$where" "$3" "$l" "$5" "$s" "$6" "${most:-2}")" \
          "$(awk -v ld="$3" -v st="$5" -v l="$l" -v s="$s" -v c="$6" -v most="${most:-2}" \
                 'BEGIN { print (ld >= l && st >= s && c <= most) }')"
}

VGPU_STATS=1 "$run" "$build/bench/bench_step" small bf16 8 0 cuda >"$tmp/step" 2>&1 &
while IFS=: read -r op made; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    VGPU_STATS=1 "$run" "$build/bench/bench_cuda" bytes "$op" >"$tmp/$op" 2>&1 &
done <<<"$ops"
wait

while IFS=: read -r op made; do
    promised=$(sed -n 's/^PROMISED \([0-9]*\) .*/\1/p' "$tmp/$op") moved=0 parts=
    while read -r line; do
        set -- $line
        case " $made " in *" $1 "*) ;; *) continue ;; esac
        moved=$((moved + $2 + $4)) parts+=" $1 $(($2 + $4))"
        access "$op" "$line"
    done < <(kernels "$tmp/$op")
    check "$(printf '%-20s %9d bytes for %9d promised:%s' "$op" "$moved" "${promised:-0}" "$parts")" \
          $((moved > 0 && moved * 10 <= ${promised:-0} * 11))
done <<<"$ops"
n=0
while read -r line; do
    access step "$line"
    n=$((n + 1))
done < <(kernels "$tmp/step")
check "a step of the small model launched $n kernels" $((n > 20))
[ $n -gt 20 ] || tail -5 "$tmp/step"

echo "vgpu_bytes: $passed passed, $failed failed"
[ $failed = 0 ]
