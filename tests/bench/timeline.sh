#!/bin/bash
# A full-size training step as a timeline, predicted without a GPU: every kernel at every shape of the step as vgpu
# predicts it (VGPU_TIME), products by the model of product.h, launches and the host's time:
#
#     tests/bench/timeline.sh [h100|h200] [PAIRS] [VGPU-RUN] [BUILD]
#
# Runs each shape once, in a model of four layers (about 7 GB, some minutes), and multiplies by how often the step of
# twelve has it. A table an op and a product's shape, a total, a JSON line. KEEP=FILE keeps the times of the shapes.
gpu=${1:-h100} pairs=${2:-128} run=${3:-../shared/vgpu/bin/vgpu-run} build=${4:-build/release}
roofline=$build/bench/bench_roofline
[ -x "$roofline" ] || { echo "timeline: no $roofline: make it first"; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
VGPU_FILL=0 VGPU_MEM_MB=${VGPU_MEM_MB:-16384} VGPU_TIME=$gpu VGPU_TIME_JSON=$tmp/json "$run" "$roofline" "$pairs" shapes \
    >"$tmp/shapes" 2>"$tmp/log" || { tail -5 "$tmp/log"; exit 1; }
grep -q '"kind":"region"' "$tmp/json" 2>/dev/null || { echo "timeline: nothing is predicted here: $(tail -1 "$tmp/log")"; exit 1; }
sed -n 's/.*"kind":"region","region":"shape \([0-9]*\)",.*"launches":\([0-9]*\),.*"host_us":\([0-9.]*\),"device_us":\([0-9.]*\)}.*/\1|\2|\3|\4/p' \
    "$tmp/json" >"$tmp/regions"
awk -F'|' 'NR == FNR { n[$1] = $2; host[$1] = $3; us[$1] = $4; next }
           $1 == "SHAPE" { print $3 "|" $4 "|" $5 "|" us[$2] + 0 "|" host[$2] + 0 "|" n[$2] + 0 }' \
    "$tmp/regions" "$tmp/shapes" >"${KEEP:-$tmp/times}"
"$roofline" "$pairs" "$gpu" "${KEEP:-$tmp/times}"
