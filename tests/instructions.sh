#!/usr/bin/env bash
# Counts instructions a packet and fails when they rise by more than 5 % over the figures kept here:
#
#   driver  send, completion, receive, buffer back; bursts of 32, every check on, device left out
#   path    64 and 1500 bytes through two drivers and two NICs, cipher and comparison included: the difference of two
#           lengths of `bench`, so that what happens once cancels out. The bare cipher, which is measured for a time and
#           not for a count, is left out.
#
# The counts are of one compiler, one libc and one valgrind, whose processor has AVX2 and no VAES (AWS-LC chooses its code
# by it); after a change of any of these, or one that is worth its instructions, put the new figures here and in
# docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."
driver_kept=177
path_64_kept=8492
path_1500_kept=18467
target="${CARGO_TARGET_DIR:-target}/release"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# count FUNCTION COMMAND...: instructions of a command within a function and what it calls.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no --toggle-collect="$1" \
        "${@:2}" >/dev/null 2>"$log" || { cat "$log" >&2; return 1; }
    local collected
    collected=$(sed -n 's/.*Collected : *\([0-9]*\).*/\1/p' "$log")
    [ "${collected:-0}" -gt 0 ] || { cat "$log" >&2; return 1; }
    echo "$collected"
}

# judge NAME FOUND KEPT REMARK
judge() {
    echo "$1: $2 instructions a packet (kept: $3$4)"
    [ $(($2 * 100)) -le $(($3 * 105)) ] || { echo "that is more than 5 % above $3" >&2; failed=1; }
}

# path BYTES: instructions a packet of the whole path.
path() {
    local short long
    short=$(count 'cryptonic::commands::traffic::Bench::run*' \
        "$target/cryptonic" bench --sizes "$1" --rounds 1 --packets 4000)
    long=$(count 'cryptonic::commands::traffic::Bench::run*' \
        "$target/cryptonic" bench --sizes "$1" --rounds 1 --packets 12000)
    echo $(((long - short) / 8000))
}

failed=0
cargo build --quiet --release -p cryptonic-driver --example instructions
cargo build --quiet --release --bin cryptonic
collected=$(count 'instructions::measured_*' "$target/examples/instructions" 1000)
judge driver $((collected / 32000)) "$driver_kept" ", goal: 127"
found=$(path 64)
judge "path, 64 B" "$found" "$path_64_kept" ""
found=$(path 1500)
judge "path, 1500 B" "$found" "$path_1500_kept" ""
exit "$failed"
