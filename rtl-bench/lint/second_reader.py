"""Reads the RTL with slang: every unit as top, every warning an error but those below. See ../lint.sh."""

import pathlib
import re
import sys

from pyslang import driver

RTL = pathlib.Path(__file__).resolve().parent.parent / "rtl"

# Warnings that are off, and why.
OFF = {
    "unused-package-parameter": "the packages are generated, with the constants of all units and of the registers",
    "case-redundant-default": "a default in a `unique case` says what happens where a bit is unknown, as lowRISC's style wants",
    "case-enum-explicit": "the same default",
    "unused-but-set-variable": "a variable `unused` is how Verilator is told that bits are left unread on purpose",
}


def is_clean(top, files):
    reader = driver.Driver()
    reader.addStandardArgs()
    # Everything slang can warn of, not only what it warns of by itself.
    options = ["-Wextra", "-Wconversion", "-Weverything", "-Werror", "--error-limit=0", *(f"-Wno-{name}" for name in OFF)]
    line = " ".join(["slang", "--top", top, *options, *map(str, files)])
    if not reader.parseCommandLine(line) or not reader.processOptions() or not reader.parseAllSources():
        return False
    return reader.runFullCompilation(False)


def needed(top, text, files):
    """The files of a unit, packages first: each is named in one that is needed."""
    names, todo = set(), [top]
    while todo:
        name = todo.pop()
        if name not in names:
            names.add(name)
            todo += [other for other in text if re.search(rf"\b{other}\b", text[name])]
    return [file for file in files if file.stem in names]


def main():
    packages = sorted(RTL.glob("*_pkg.sv"), key=lambda file: (not file.name.startswith("cryptonic_"), file.name))
    files = packages + sorted(set(RTL.glob("*.sv")) - set(packages))
    # A unit is a module of which the packages' names say so, or that no other module is made of.
    text = {file.stem: re.sub("//.*", "", file.read_text()) for file in files}
    modules = [name for name in text if not name.endswith("_pkg")]
    tops = [m for m in modules if not any(f"{m} #(" in t or f"{m} u_" in t for n, t in text.items() if n != m)]
    clean = True
    for top in tops:
        good = is_clean(top, needed(top, text, files))
        clean = clean and good
        print(f"{'PASS' if good else 'FAIL'}  {top}: slang reads it", flush=True)
    if not tops:
        print("lint: there is no unit to read")
    return 0 if clean and tops else 1


if __name__ == "__main__":
    sys.exit(main())
