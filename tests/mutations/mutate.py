"""Breaks each rule of the *.txt beside this file in turn and runs the tests that bear its id: they must fail. The id of a
rule of MQTT is that of its statement, and its tests are those of conformance. The others are words of names of tests.

All entries go into one copy of the tree, each behind a switch of its own, so that the broker is built once. With no
switch on, the same tests must pass: a test that fails anyway shows nothing. Run by `scripts/conformance --mutate`.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import planted

RULES = sorted(Path(__file__).parent.glob("*.txt"))
COPY = planted.TOP / "target/mutations/tree"
TARGET = planted.TOP / "target/mutations/build"
SWITCH = "RINGMQ_BROKEN_RULE"
# Files whose rules are tested elsewhere than in conformance.
ELSEWHERE = {"certificates.txt": "lib"}
HEAD = re.compile(r"^(\w+): ([^\n]+)$", re.M)


def run(binary, rule, number):
    """How many tests that bear the id passed and failed."""
    listed = subprocess.run([binary, "--list", "--format=terse"], capture_output=True, text=True, cwd=COPY).stdout
    bears = re.compile(rf"(?:::|_){rule}_(?!\d)")
    names = [line.removesuffix(": test") for line in listed.splitlines() if bears.search(line)]
    if not names:
        return 0, 0
    done = subprocess.run([binary, "--exact", "--test-threads=8", *names], cwd=COPY, capture_output=True, text=True,
                          env={**os.environ, SWITCH: str(number), "RUST_BACKTRACE": "0"}, timeout=600)
    counts = re.search(r"(\d+) passed; (\d+) failed", done.stdout)
    return tuple(map(int, counts.groups())) if counts else (0, 0)


def main(wanted):
    files = [(path.name, entry) for path in RULES for entry in planted.entries(path, HEAD)]
    rules = [entry for _, entry in files]
    heads = [(number, ELSEWHERE.get(name, "conformance"), rule, what)
             for number, (name, ((rule, what), _)) in enumerate(files, 1)]
    chosen = [head for head in heads if not wanted or any(part in head[2] for part in wanted)]
    if not chosen:
        sys.exit(f"no broken rule is called {' or '.join(wanted)}")
    planted.copy_with(COPY, [(rule, blocks) for (rule, _), blocks in rules], "broken", SWITCH)
    binaries = {test: planted.build(COPY, test, TARGET) for test in sorted({head[1] for head in chosen})}

    def judge(item):
        number, test, rule, what = item
        passed, failed = run(binaries[test], rule, 0)
        if failed or not passed:
            return f"FAIL {rule}: unbroken, {passed} pass and {failed} fail"
        _, failed = run(binaries[test], rule, number)
        if not failed:
            return f"FAIL {rule}: nothing fails when {what}"
        return f"PASS {rule}: {failed} of {passed} fail when {what}"

    with ThreadPoolExecutor(max_workers=4) as pool:
        verdicts = []
        for verdict in pool.map(judge, chosen):
            print(verdict, flush=True)
            verdicts.append(verdict)
    bad = sum(verdict.startswith("FAIL") for verdict in verdicts)
    print(f"{len(verdicts) - bad} broken rules noticed, {bad} not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
