"""A copy of the tree with many small changes in it, each behind a switch of its own, so that it is built once.

Used for broken rules (`mutate.py`, beside this file) and for planted faults (`tests/simulation/faults/run.py`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
# A file, the text that stands there once, and what it becomes. tests/tidy.rs reads them too.
BLOCK = re.compile(r"^(src/\S+)\n<<<<\n(.*?)\n====\n(.*?)\n>>>>$", re.M | re.S)
MODULE = """
/// Whether the change with this number is switched on.
pub fn %(word)s(change: u32) -> bool {
    static CHANGE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let read = || std::env::var("%(switch)s").ok().and_then(|change| change.parse().ok()).unwrap_or(0);
    *CHANGE.get_or_init(read) == change
}
"""


def entries(path, head):
    """What stands in a file: the groups of each head, and the blocks that follow it."""
    text = path.read_text()
    heads = list(head.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    found = [(head.groups(), BLOCK.findall(text[head.end():end])) for head, end in zip(heads, ends)]
    marks, understood = text.count("\n<<<<\n"), sum(len(blocks) for _, blocks in found)
    if marks != understood or not all(blocks for _, blocks in found):
        sys.exit(f"{path.name}: {marks} blocks, {understood} understood, of {len(found)} entries")
    return found


def copy_with(copy, changes, word, switch):
    """Makes `copy`. The changes are (name, blocks), numbered from 1; `word!()` in a block is true where the environment
    variable `switch` has the number of its change."""
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TOP,
                            capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (TOP / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, copy / name)
    problems = []
    for number, (change, blocks) in enumerate(changes, 1):
        for file, old, new in blocks:
            path = copy / file
            text = path.read_text() if path.exists() else ""
            if text.count(old) != 1:
                problems.append(f"{change}: the text to replace stands {text.count(old)} times in {file}")
                continue
            path.write_text(text.replace(old, new.replace(f"{word}!()", f"crate::{word}({number})")))
    library = copy / "src/lib.rs"
    library.write_text(library.read_text() + MODULE % {"word": word, "switch": switch})
    if problems:
        sys.exit("\n".join(problems))


def build(tree, test, target=None):
    """The binary of that test of the tree; `lib` is for those of the library. `target` is a directory of its own: Cargo
    takes a package at another place for the same one in the same directory."""
    own = {"CARGO_TARGET_DIR": str(target)} if target else {}
    which = ["--lib"] if test == "lib" else ["--test", test]
    command = ["cargo", "test", "--quiet", *which, "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=tree, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for message in found:
        target = message.get("target", {})
        if message.get("executable") and test in (target.get("name"), *target.get("kind", [])):
            return message["executable"]
    for message in found:
        if message.get("message", {}).get("level") == "error":
            print(message["message"]["rendered"])
    sys.exit(f"{test} does not build in {tree}")
