#!/bin/bash
# Registers, shared memory, spills and occupancy of every kernel, by ptxas for one architecture.
#
#     tests/bench/cuda_report.sh [sm_90] [nvcc]         exit code 1 when a kernel spills
#
# warps/SM: what 64 K registers and 228 KB of static shared memory a multiprocessor allow, at the largest block the
# kernel is launched with. The attention kernels (mma) take their tiles as dynamic shared memory: see the heads of their
# files.
arch=${1:-sm_90} nvcc=${2:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
threads() {                                                  # of the larger kernels; the others take 256 at most
    case $1 in
    *dkv_mma*) echo 192 ;;
    simmax_image*) echo 64 ;;
    *_mma*|forward_simple*|d*_simple*|add_norm*|affine*|embed*|normalize*|gelu*|simmax*|fold*|unfold*) echo 128 ;;
    mean_kernel*|l2norm*) echo 128 ;;
    xent_fast*) echo 768 ;;
    adamw_beside*) echo 1024 ;;
    *) echo 256 ;;
    esac
}
bad=0
printf '%-58s %5s %8s %6s %8s\n' kernel regs 'shared' spills warps/SM
while IFS='|' read -r name regs shared spill; do
    t=$(threads "$name")
    per=$(( (regs + 7) / 8 * 8 * t )) blocks=$(( 65536 / per ))
    (( blocks * t > 2048 )) && blocks=$(( 2048 / t ))
    (( blocks > 32 )) && blocks=32
    (( shared && blocks > 233472 / (shared + 1024) )) && blocks=$(( 233472 / (shared + 1024) ))
    printf '%-58s %5d %8d %6d %8d\n' "${name:0:58}" "$regs" "$shared" "$spill" $(( blocks * t / 32 ))
    (( spill )) && bad=1
done < <(for f in kernels/cuda/*.cu; do
    "$nvcc" -O3 -std=c++17 -I. -Xptxas -v -gencode arch="compute_${arch#sm_}",code="$arch" -c "$f" -o /dev/null 2>&1 ||
        echo "$f does not compile" >&2
done | awk '
    /Compiling entry/ { name = $0; sub(/.*function ./, "", name); sub(/. for.*/, "", name); spill = 0 }
    /spill stores/ { for (i = 1; i <= NF; i++) if ($i == "spill" && $(i + 1) ~ /stores/) spill = $(i - 2) }
    /Used/ { regs = $0; sub(/.*Used /, "", regs); sub(/ registers.*/, "", regs); shared = 0
             if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
             print name "|" regs "|" shared "|" spill }' |
    c++filt | sed 's/(.*)|/|/; s/^void //; s/unsigned short/bf16/g' | sort)
exit $bad
