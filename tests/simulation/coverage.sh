# Sourced by scripts/simulate: the same runs with the sources counted, then which parts of `shard/` and `session/` were
# reached. A region is a stretch of code that is run as a whole, so each arm of a branch is one.
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[ -x "$tools/llvm-cov" ] || { echo "llvm-cov is missing: rustup component add llvm-tools" >&2; exit 1; }
counts=$PWD/target/coverage
rm -rf "$counts"
mkdir -p "$counts"
# Only what is ours is compiled anew, beside what is there already.
cat >"$counts/rustc" <<'WRAPPER'
#!/bin/sh
exec "$@" -C instrument-coverage
WRAPPER
chmod +x "$counts/rustc"
export RUSTC_WORKSPACE_WRAPPER=$counts/rustc LLVM_PROFILE_FILE=$counts/%p.profraw
binary=$(build .)
[ -x "$binary" ] || { echo "the simulator does not build" >&2; exit 1; }
simulate "$binary" "$@"
code=$?
"$tools/llvm-profdata" merge -sparse "$counts"/*.profraw -o "$counts/all.profdata" || exit 1
"$tools/llvm-cov" export "$binary" -instr-profile="$counts/all.profdata" -summary-only >"$counts/summary.json" || exit 1
python3 - "$PWD" "$counts/summary.json" <<'PYTHON'
import json, sys
root, path = sys.argv[1:]
for directory in ("src/shard", "src/session"):
    print(f"{directory}: regions, functions and lines reached")
    total = {}
    for entry in json.load(open(path))["data"][0]["files"]:
        if not entry["filename"].startswith(f"{root}/{directory}/"):
            continue
        cells = []
        for kind in ("regions", "functions", "lines"):
            covered, count = (entry["summary"][kind][key] for key in ("covered", "count"))
            sums = total.setdefault(kind, [0, 0])
            sums[0] += covered
            sums[1] += count
            cells.append(f"{covered:5}/{count:<5}")
        print(f"  {entry['filename'].rsplit('/', 1)[1]:16}", *cells)
    cells = [f"{covered:5}/{count:<5} {100 * covered / max(count, 1):5.1f} %" for covered, count in total.values()]
    print(f"  {'all':16}", *cells)
PYTHON
exit "$code"
