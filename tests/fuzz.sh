#!/bin/bash
# fuzz.sh BIN_DIR SECONDS_EACH|smoke [NAME...]: runs the fuzzers of a build, each for so long, and ends with a line that counts them.
# What one found stays in BIN_DIR/../found, its corpus in BIN_DIR/../corpus, from where the next run goes on. `smoke` is what the tests
# do: the same inputs every time (a fixed seed, nothing kept; at most two seconds each), so that no run of them is red by chance.
set -u
bin=$1 seconds=$2; shift 2
found=$bin/../found corpus=$bin/../corpus
passed=0 failed=0
mkdir -p "$found"
how=(-max_total_time="$seconds")
if [ "$seconds" = smoke ]; then
    corpus=$(mktemp -d) how=(-seed=1 -runs=20000 -max_total_time=2)
    trap 'rm -rf "$corpus"' EXIT
fi
names=("$@")
[ ${#names[@]} = 0 ] && for f in "$bin"/fuzz_*; do [ -x "$f" ] && [[ $f != *.d ]] && names+=("$(basename "$f")"); done
for n in "${names[@]}"; do
    mkdir -p "$corpus/$n"
    if "$bin/$n" "${how[@]}" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$found/$n-" "$corpus/$n" >"$found/$n.log" 2>&1; then
        passed=$((passed + 1))
        printf '%-28s %s runs\n' "$n" "$(sed -n 's/.*number_of_executed_units: *//p' "$found/$n.log")"
        rm -f "$found/$n.log"
    else
        failed=$((failed + 1))
        printf 'FAIL %s: %s\n' "$n" "$(grep -m1 -E 'ERROR|SUMMARY|runtime error' "$found/$n.log")"
    fi
done
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ]
