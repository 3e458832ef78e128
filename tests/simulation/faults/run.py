"""Plants each fault of faults.txt in turn and lets the simulator look for it: it must be caught within the number of runs
that its entry states. Run by `scripts/simulate --faults [NAME...]`.

All faults go into one copy of the tree, each behind a switch of its own, so that the broker is built once; then the tree
itself, without them, must pass the same seeds. With all faults planted, every checker must have caught one: what never
caught anything is not trusted.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent.parent
FAULTS = Path(__file__).parent / "faults.txt"
COPY = TOP / "target/faults/tree"
# Not the tree's own: Cargo takes a package at another place in the same directory for the same one.
TARGET = TOP / "target/faults/build"
SWITCH = "RINGMQ_PLANTED_FAULT"
MODULE = f"""
/// Whether the fault with this number is the one that is planted.
pub fn planted(fault: u32) -> bool {{
    static FAULT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let read = || std::env::var("{SWITCH}").ok().and_then(|fault| fault.parse().ok()).unwrap_or(0);
    *FAULT.get_or_init(read) == fault
}}
"""
HEAD = re.compile(r"^([a-z0-9-]+) \((\d+) runs\): (.+)$", re.M)
BLOCK = re.compile(r"^(src/\S+)\n<<<<\n(.*?)\n====\n(.*?)\n>>>>$", re.M | re.S)
CAUGHT = {10: "assertion", 12: "rest"}


def entries():
    text = FAULTS.read_text()
    heads = list(HEAD.finditer(text))
    found = []
    for head, after in zip(heads, heads[1:] + [None]):
        part = text[head.end():after.start() if after else len(text)]
        name, runs, title = head.groups()
        found.append((name, int(runs), title, BLOCK.findall(part)))
    marks, understood = text.count("\n<<<<\n"), sum(len(blocks) for *_, blocks in found)
    if marks != understood:
        sys.exit(f"{FAULTS.name}: {marks} blocks, {understood} understood")
    return found


def copy_with(faults):
    """A copy of the tree with every fault behind its switch."""
    shutil.rmtree(COPY, ignore_errors=True)
    skipped = shutil.ignore_patterns("target", ".git", "node_modules", ".venv")
    shutil.copytree(TOP, COPY, ignore=skipped, symlinks=True)
    # Otherwise the command is built as well.
    (COPY / "src/main.rs").unlink()
    problems = []
    for number, (name, _, _, blocks) in enumerate(faults, 1):
        for file, old, new in blocks:
            path = COPY / file
            text = path.read_text() if path.exists() else ""
            if text.count(old) != 1:
                problems.append(f"{name}: the text to replace stands {text.count(old)} times in {file}")
                continue
            path.write_text(text.replace(old, new.replace("planted!()", f"crate::planted({number})")))
    library = COPY / "src/lib.rs"
    library.write_text(library.read_text() + MODULE)
    if problems:
        sys.exit("\n".join(problems))


def build(tree, target):
    command = ["cargo", "test", "--quiet", "--test", "simulation", "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=tree, env={**os.environ, **target},
                          stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for message in found:
        if message.get("executable") and message.get("target", {}).get("name") == "simulation":
            return message["executable"]
    for message in found:
        if message.get("message", {}).get("level") == "error":
            print(message["message"]["rendered"])
    sys.exit(f"the simulator does not build in {tree}")


def simulate(binary, words, fault=0):
    """The exit code and what was printed."""
    done = subprocess.run([binary, "--exact", "a_fixed_set_of_seeds", "--nocapture"], cwd=TOP, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env={**os.environ, "RINGMQ_SIMULATE": words, SWITCH: str(fault)})
    return done.returncode, done.stdout


def main(words):
    arguments = argparse.ArgumentParser(prog="scripts/simulate --faults", description="Plants faults; each must be caught.")
    arguments.add_argument("--shards", type=int, metavar="N", help="all runs on so many shards, whatever the seeds draw")
    arguments.add_argument("wanted", nargs="*", metavar="NAME", help="only faults with this in their name")
    options = arguments.parse_args(words)
    shards, wanted = f"--shards {options.shards} " if options.shards else "", options.wanted
    started = time.monotonic()
    faults = entries()
    chosen = [(n, f) for n, f in enumerate(faults, 1) if not wanted or any(part in f[0] for part in wanted)]
    if not chosen:
        sys.exit(f"no fault is called {' or '.join(wanted)}")
    copy_with(faults)
    binary = build(COPY, {"CARGO_TARGET_DIR": str(TARGET)})
    unexpected, caught_by = 0, set()
    for number, (name, runs, *_) in chosen:
        code, printed = simulate(binary, f"{shards}--runs {runs} --from 0 --brief", number)
        found = re.search(r"^after (\d+) runs: (\w+): (.*)$", printed, re.M)
        if code in (10, 11, 12) and found:
            after, _, text = found.groups()
            checker, text = (CAUGHT[code], text) if code in CAUGHT else text.split(": ", 1)
            caught_by.add(checker)
            print(f"{name}: caught by {checker} after {after} runs, {runs} are allowed; seed {int(after) - 1}: "
                  f"{text[:110]}", flush=True)
        else:
            unexpected += 1
            print(f"{name}: MISSED in {runs} runs (code {code})", flush=True)
    most = max(runs for _, (_, runs, *_) in chosen)
    code, printed = simulate(build(TOP, {}), f"{shards}--runs {most} --from 0 --brief")
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
    print(f"{len(chosen)} faults, {unexpected} not as expected, {time.monotonic() - started:.0f} s")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
