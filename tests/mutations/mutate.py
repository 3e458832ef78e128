"""Breaks each rule of the *.txt beside this file in turn and runs the tests that bear its id: they must fail.

All entries go into one copy of the tree, each behind a switch of its own, so that the broker is built once. With no
switch on, the same tests must pass: a test that fails anyway shows nothing. Run by `scripts/conformance --mutate`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
RULES = sorted(Path(__file__).parent.glob("*.txt"))
COPY = TOP / "target/mutations/tree"
TARGET = TOP / "target/mutations/build"
SWITCH = "RINGMQ_BROKEN_RULE"
MODULE = f"""
/// Whether the rule with this number is the one that is broken.
pub fn is_broken(rule: u32) -> bool {{
    static RULE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let read = || std::env::var("{SWITCH}").ok().and_then(|rule| rule.parse().ok()).unwrap_or(0);
    *RULE.get_or_init(read) == rule
}}
"""
ENTRY = re.compile(r"^(\w+): ([^\n]+)\n(src/\S+)\n<<<<\n(.*?)\n====\n(.*?)\n>>>>$", re.M | re.S)


def entries():
    found = []
    for path in RULES:
        text = path.read_text()
        own = [match.groups() for match in ENTRY.finditer(text)]
        marks = text.count("\n<<<<\n")
        if len(own) != marks:
            sys.exit(f"{path.name}: {marks} entries, {len(own)} understood")
        found += own
    return found


def copy_with(rules):
    """A copy of the tree with every rule behind its switch."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (TOP / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, COPY / name)
    problems = []
    for number, (rule, _, file, old, new) in enumerate(rules, 1):
        path = COPY / file
        text = path.read_text() if path.exists() else ""
        if text.count(old) != 1:
            problems.append(f"{rule}: the text to replace stands {text.count(old)} times in {file}")
            continue
        path.write_text(text.replace(old, new.replace("broken!()", f"crate::is_broken({number})")))
    library = COPY / "src/lib.rs"
    library.write_text(library.read_text() + MODULE)
    if problems:
        sys.exit("\n".join(problems))


def build():
    command = ["cargo", "test", "--test", "conformance", "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=COPY, env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)},
                          stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("the broken broker does not build")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("target", {}).get("name") == "conformance":
            return message["executable"]
    sys.exit("no test binary")


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
    rules = entries()
    copy_with(rules)
    binary = build()
    chosen = [(n, r) for n, r in enumerate(rules, 1) if not wanted or any(part in r[0] for part in wanted)]

    def judge(item):
        number, (rule, what, *_) = item
        passed, failed = run(binary, rule, 0)
        if failed or not passed:
            return f"FAIL {rule}: unbroken, {passed} pass and {failed} fail"
        _, failed = run(binary, rule, number)
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
