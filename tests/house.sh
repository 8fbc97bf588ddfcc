#!/bin/bash
# house.sh [BUILD_DIR [-v]]: what the house looks like, counted, and the rules it must keep: `make count`. The last line counts
# the rules.
#
#     lines       of each floor against its ceiling
#     direction   an include goes down: kernels < configs < data < checkpoints < eval < train < qformer.c
#     circles     no object file needs itself by way of others (asked of a build, when there is one)
#     sizes       of functions and files; columns; the share of comment lines in bodies
#
# Only what git knows is counted. -v names what each figure is made of.
set -u
cd "$(dirname "$0")/.."
dir=${1:-build/release} verbose=${2:-}
passed=0 failed=0
FLOORS="kernels configs data checkpoints eval train"
# The plan was 42,000 lines. What people bring (tars, tables, one array a picture, anything an index splits) and the
# tokenizers of four kinds took twice the room that data/ was given, questions and answers and pictures in place of sets
# took some of eval/, a language model that learns, one walk back over both waves, attention by tensor cores, the
# weights of other tools and the reasons in bodies some of the rest. What stands, and a hundredth: who adds more than
# that looks first for what it replaces.
CEILINGS="kernels-without-model:15900 kernels/cuda:8160 model+train:9740 data:18804 checkpoints:5102 eval:12603 configs:1568 all:64200"

sources() { git ls-files "$@" | grep -E '\.(c|h|cu|cuh|def)$' | while read -r f; do [ -f "$f" ] && echo "$f"; done; }
files=$(sources $FLOORS qformer.c)

rule() {     # NAME OK? FOUND: a line, counted
    if [ "$2" = 1 ]; then passed=$((passed + 1)); printf '  %-24s %s\n' "$1" "$3"
    else failed=$((failed + 1)); printf 'FAIL %-22s %s\n' "$1" "$3"; fi
}
at_most() { rule "$1" "$(($2 <= $3))" "$2 of at most $3$([ -n "${4:-}" ] && echo " ($4)")"; }

lines_of() { local of; of=$(sources "$@"); [ -z "$of" ] && echo 0 || cat $of | wc -l; }
echo "lines"
for c in $CEILINGS; do
    name=${c%:*} most=${c#*:}
    case $name in
    kernels-without-model) n=$(($(lines_of kernels) - $(lines_of kernels/model))) ;;
    model+train) n=$(($(lines_of kernels/model) + $(lines_of train))) ;;
    all) n=$(lines_of $FLOORS qformer.c) ;;
    *) n=$(lines_of "$name") ;;
    esac
    at_most "$name" "$n" "$most"
done

echo "includes"
up=$(awk -v floors="$FLOORS" '
    BEGIN { n = split(floors, f, " "); for (i = 1; i <= n; i++) level[f[i]] = i }
    /^#include "/ {
        split(FILENAME, from, "/"); split($2, to, "/"); t = substr(to[1], 2)
        if (from[1] in level && (!(t in level) || level[t] > level[from[1]])) print FILENAME " -> " $2
    }' $files)
rule "against the grain" "$([ -z "$up" ] && echo 1 || echo 0)" "${up:-none}"
gone=$(grep -ohE '\b(kernels|configs|data|checkpoints|eval|train|tests)/[A-Za-z0-9_./*-]*[A-Za-z0-9_*/]|\b[a-z0-9_*]+\.(c|h|cu|cuh|def)\b' README.md |
    sort -u | while read -r f; do [ -n "$(git ls-files "$f" "*/$f" | head -1)" ] || echo "$f"; done | tr '\n' ' ')
rule "README names what is" "$([ -z "$gone" ] && echo 1 || echo 0)" "${gone:-and nothing else}"
# Who defines what another object file needs; element types are one file compiled twice, so one of them speaks for both.
needs() {
    find "$dir"/{kernels,configs,data,checkpoints,eval,train} -name '*.o' ! -name '*.bf16.o' | while read -r o; do
        from=${o#"$dir"/} from=${from%.o}
        [ -e "${from%.f32}.c" ] || [ -f "$from" ] || continue            # what a former build left of a file that is gone
        nm "$o" | awk -v o="${o#"$dir"/}" '$2 ~ /^[TDBRV]$/ { print "has", $3, o } $1 == "U" { print "wants", $2, o }'
    done | awk '$1 == "has" { home[$2] = $3 } { what[NR] = $0 }
        END { for (i = 1; i <= NR; i++) { split(what[i], w, " ")
              if (w[1] == "wants" && (w[2] in home) && home[w[2]] != w[3]) print w[3], home[w[2]] } }'
}
if [ -e "$dir/libqformer.a" ]; then
    circle=$(needs | sort -u | tsort 2>&1 >/dev/null | grep '\.o$' | sed 's/^tsort: //' | tr '\n' ' ')
    rule "circles" "$([ -z "$circle" ] && echo 1 || echo 0)" "${circle:-none}"
fi

# A function begins with a line in column 0 that ends with "{" and has a "(", and ends with "}" in column 0.
echo "sizes"
functions=$(awk '
    FNR == 1 { inside = 0; head = 0 }
    inside { if (/^\}/) { print FNR - inside + 1, FILENAME ":" inside; inside = 0 } next }
    /^(typedef|struct|enum|union|extern|#|\/\*| \*)/ { head = 0; next }
    /^[A-Za-z].*\(/ && !/ = \{/ { head = FNR }
    head && /;$/ { head = 0; next }
    head && /\}$/ { print FNR - head + 1, FILENAME ":" head; head = 0; next }
    head && /\{( *\/\*.*)?$/ { inside = head; head = 0 }' $files | sort -n)
count=$(echo "$functions" | wc -l)
nth() { echo "$functions" | sed -n "$((count * $1 / 100))p" | cut -d' ' -f1; }
printf '  %-24s %s\n' functions "$count, median $(nth 50) lines, 90 % under $(($(nth 90) + 1)), longest $(echo "$functions" | tail -1)"
at_most "median of functions" "$(nth 50)" 8
at_most "functions over 60 lines" "$(echo "$functions" | awk '$1 > 60' | wc -l)" 0
long=$(for f in $files; do n=$(wc -l <"$f"); [ "$n" -gt 500 ] && echo "$f:$n"; done | tr '\n' ' ')
at_most "files over 500 lines" "$(echo "$long" | wc -w)" 0 "${long:-none}"
wide=$(awk 'length > 120 { print FILENAME ":" FNR }' $(echo "$files" | grep -v '\.def$'))
at_most "lines over 120 columns" "$(printf '%s' "$wide" | grep -c .)" 0
crowd=$(for f in $files; do dirname "$f"; done | sort | uniq -c | awk '$1 > 50 { print $2 ":" $1 }' | tr '\n' ' ')
rule "folders over 50 files" "$([ -z "$crowd" ] && echo 1 || echo 0)" "${crowd:-none}"
share=$(awk '
    FNR == 1 { inside = 0 }
    /^[A-Za-z ].*\{$/ && !inside && !/^(typedef|struct|enum|union|static const)/ { inside = 1; next }
    /^\}/ { inside = 0 }
    inside { body++; if (/\/\*|\/\//) comment++ }
    END { printf "%.1f", 100 * comment / body }' $(echo "$files" | grep -E '\.(c|cu)$'))
printf '  %-24s %s\n' "comments in bodies" "$share % of lines"
if [ "$verbose" = -v ]; then echo "$wide"; echo "$functions" | tail -20; fi
echo "house: $passed passed, $failed failed"
[ "$failed" = 0 ]
