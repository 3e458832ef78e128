"""Plants each fault of faults.txt in turn and lets the simulator look for it: it must be caught within the number of runs
that its entry states. Run by `scripts/simulate --faults [--record] [NAME...]`.

All faults go into one copy of the tree, each behind a switch of its own, so that the broker is built once; then the tree
itself, without them, must pass the same seeds. With all faults planted, every checker must have caught one: what never
caught anything is not trusted.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(TOP / "tests/mutations"))
import planted  # noqa: E402: it stands there

FAULTS = Path(__file__).parent / "faults.txt"
PAGE = TOP / "docs/TESTING.md"
TABLE = re.compile(r"(?<=\n)\| fault \|.*\n\|[-|]+\n((?:\|.*\n)+)")
REAL = " (was a real bug)"
COPY = TOP / "target/faults/tree"
TARGET = TOP / "target/faults/build"
SWITCH = "RINGMQ_PLANTED_FAULT"
HEAD = re.compile(r"^([a-z0-9-]+) \((\d+) runs\): (.+)$", re.M)
CAUGHT = {10: "assertion", 12: "rest"}


def simulate(binary, words, fault=0):
    """The exit code and what was printed."""
    done = subprocess.run([binary, "--exact", "a_fixed_set_of_seeds", "--nocapture"], cwd=TOP, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env={**os.environ, "RINGMQ_SIMULATE": words, SWITCH: str(fault)})
    return done.returncode, done.stdout


def record(faults, found):
    """Writes the table of the page: what each fault was caught by and after how many runs. A fault that was not looked for
    keeps what the table has."""
    text = PAGE.read_text()
    table = TABLE.search(text)
    for row in table[1].splitlines():
        name, _, checker, after = [cell.strip(" `") for cell in row.split("|")[1:5]]
        found.setdefault(name, (checker, after))
    rows = ["| fault | what is wrong | caught by | after runs | allowed | real |\n", "|---|---|---|---|---|---|\n"]
    for (name, runs, title), _ in faults:
        checker, after = found.get(name, ("nothing", "–"))
        real = "real" if title.endswith(REAL) else ""
        rows.append(f"| `{name}` | {title.removesuffix(REAL)} | `{checker}` | {after} | {runs} | {real} |\n")
    PAGE.write_text(text[:table.start()] + "".join(rows) + text[table.end():])


def main(words):
    arguments = argparse.ArgumentParser(prog="scripts/simulate --faults", description="Plants faults; each must be caught.")
    arguments.add_argument("--shards", type=int, metavar="N", help="all runs on so many shards, whatever the seeds draw")
    arguments.add_argument("--record", action="store_true", help="the table in docs/TESTING.md gets what was found")
    arguments.add_argument("wanted", nargs="*", metavar="NAME", help="only faults with this in their name")
    options = arguments.parse_args(words)
    if options.record and options.shards:
        arguments.error("the table is about the shards that the seeds draw: --record goes without --shards")
    shards, wanted = f"--shards {options.shards} " if options.shards else "", options.wanted
    started = time.monotonic()
    faults = planted.entries(FAULTS, HEAD)
    heads = [(number, name, int(runs)) for number, ((name, runs, _), _) in enumerate(faults, 1)]
    chosen = [head for head in heads if not wanted or any(part in head[1] for part in wanted)]
    if not chosen:
        sys.exit(f"no fault is called {' or '.join(wanted)}")
    planted.copy_with(COPY, [(name, blocks) for (name, *_), blocks in faults], "planted", SWITCH)
    (COPY / "src/main.rs").unlink()  # otherwise the command is built as well
    binary = planted.build(COPY, "simulation", TARGET)
    unexpected, caught_by, recorded = 0, set(), {}
    for number, name, runs in chosen:
        code, printed = simulate(binary, f"{shards}--runs {runs} --from 0 --brief", number)
        found = re.search(r"^after (\d+) runs: (\w+): (.*)$", printed, re.M)
        if code in (10, 11, 12) and found:
            after, _, text = found.groups()
            checker, text = (CAUGHT[code], text) if code in CAUGHT else text.split(": ", 1)
            caught_by.add(checker)
            recorded[name] = (checker, after)
            print(f"{name}: caught by {checker} after {after} runs, {runs} are allowed; seed {int(after) - 1}: "
                  f"{text[:110]}", flush=True)
        else:
            unexpected += 1
            print(f"{name}: MISSED in {runs} runs (code {code})", flush=True)
    most = max(runs for *_, runs in chosen)
    code, printed = simulate(planted.build(TOP, "simulation"), f"{shards}--runs {most} --from 0 --brief")
    if code == 0:
        print(f"without a fault: {most} runs pass")
    else:
        unexpected += 1
        print(f"without a fault: FAILED: {printed}")
    if not wanted:
        names = re.search(r"^checkers: (.*)$", simulate(binary, "--checkers")[1], re.M).group(1).split()
        for checker in names:
            if checker not in caught_by:
                unexpected += 1
                print(f"the checker {checker} caught NOTHING")
    if options.record:
        record(faults, recorded)
    print(f"{len(chosen)} faults, {unexpected} not as expected, {time.monotonic() - started:.0f} s")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
