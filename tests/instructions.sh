#!/usr/bin/env bash
# Counts the instructions that the driver spends on a packet (send, completion, receive, buffer back; bursts of
# 32, every check on, device left out) and fails when they rise by more than 5 % over the figure kept here.
#
# The count is of one compiler and one libc; after a change of either, or one that is worth its instructions,
# put the new figure here and in docs/status.md.
set -euo pipefail
cd "$(dirname "$0")/.."
kept=173
packets=32000

cargo build --quiet --release -p cryptonic-driver --example instructions
log=$(mktemp)
trap 'rm -f "$log"' EXIT
valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
    --toggle-collect='instructions::measured_*' "${CARGO_TARGET_DIR:-target}/release/examples/instructions" 1000 2>"$log" >/dev/null
collected=$(sed -n 's/.*Collected : *\([0-9]*\).*/\1/p' "$log")
[ -n "$collected" ] || { cat "$log" >&2; exit 1; }
found=$((collected / packets))
echo "driver: $found instructions a packet (kept: $kept, goal: 127)"
[ $((found * 100)) -le $((kept * 105)) ] || { echo "that is more than 5 % above $kept" >&2; exit 1; }
