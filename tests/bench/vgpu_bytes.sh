#!/bin/bash
# What each kernel really moves against what the head of its file promises, counted by vgpu.
#
#     tests/bench/vgpu_bytes.sh VGPU-RUN BENCH_CUDA        prints a line an op; exit code 1 when one moves over 1.1 times its promise
#
# Sectors: 32-byte sectors touched against the fewest possible, loads and stores together.
run=${1:?vgpu-run} bench=${2:?bench_cuda} bad=0
names=$("$run" "$bench" bytes | sed -n 's/^PROMISED [0-9]* //p')
printf '%-24s %12s %12s %7s %9s %9s %10s\n' op promised moved ratio 'ld eff' 'st eff' conflicts
while IFS= read -r name; do
    out=$(VGPU_STATS=1 "$run" "$bench" bytes "$name" 2>&1)
    # of the kernels that ran: all but those that only prepare
    line=$(awk -v name="$name" '
        /^PROMISED/ { promised = $2 }
        /atomics/ { table = 1; next }
        table && NF > 12 && !/^(PROMISED|vgpu)/ {
            delete v
            n = substr($0, 1, 44); split(substr($0, 45), f, /[ ]+/)
            for (i in f) if (f[i] == "") delete f[i]
            k = 0; for (i = 1; i <= 20; i++) if (i in f) v[++k] = f[i]
            prepares = name ~ /bwd/ && (n ~ /forward_mma/ || n ~ /add_norm_fast/ || n ~ /embed_fast/ || n ~ /simmax_kernel/)
            if (!prepares) {
                bytes += v[5] + v[7]
                sub("%", "", v[6]); sub("%", "", v[8])
                ld += v[5]; lds += v[6] > 0 ? v[5] * 100 / v[6] : 0
                st += v[7]; sts += v[8] > 0 ? v[7] * 100 / v[8] : 0
                shared += v[9]; conflicts += v[10]
            }
        }
        END { printf "%-24s %12d %12d %7.2f %8.1f%% %8.1f%% %9.2f%%\n", name, promised, bytes, bytes / promised, lds ? 100 * ld / lds : 100,
                     sts ? 100 * st / sts : 100, shared ? 100 * conflicts / (shared / 128) : 0 }' <<<"$out")
    echo "$line"
    awk -v l="$line" 'BEGIN { split(l, f, /[ ]+/); n = split(l, f); exit !(f[n-3] > 1.1) }' && bad=1
done <<<"$names"
exit $bad
