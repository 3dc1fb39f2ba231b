#!/usr/bin/env bash
# The RTL's second reader: slang elaborates every unit, and a warning is an error. (The first reader,
# Verilator with all warnings, is the test `lint` of cryptonic-rtl-bench; its exceptions are in rtl/lint.vlt.)
# Exit code 0: clean; 1: not; 3: slang is missing, and the line that installs it was printed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

venv=${CRYPTONIC_VENV:-target/venv}
if ! "$venv/bin/python" -c 'import pyslang' >/dev/null 2>&1; then
    echo "lint: pyslang is missing in $venv; this installs it:"
    echo "    python3 -m venv $venv && $venv/bin/pip install -r rtl-bench/requirements.txt"
    exit 3
fi
exec "$venv/bin/python" rtl-bench/lint/second_reader.py
