# Sourced by scripts/simulate: plants one fault after the other in a copy of the tree and lets the simulator look for it.
# Each must be caught within the number of runs that its patch states; the copy without a fault must pass as many.
here=$PWD/tests/simulation/faults
copy=$PWD/target/faults/tree
export CARGO_TARGET_DIR=$PWD/target/faults/target
# Git would take the copy for a part of this repository, and apply patches relative to its root.
export GIT_CEILING_DIRECTORIES=$PWD/target/faults
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- 2>/dev/null | tar -x -C "$copy"

# `look RUNS`: prints what was found; the exit code of the simulator.
look() {
  local binary
  binary=$(build "$copy")
  [ -x "$binary" ] || return 1
  simulate "$binary" --runs "$1" --from 0 --brief | grep '^after '
  return "${PIPESTATUS[0]}"
}

missed=0
patches=("$here"/${1:-*}.patch)
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  runs=$(sed -n 's/^runs: //p' "$patch")
  (cd "$copy" && git apply -C1 "$patch") || { echo "$name: DOES NOT APPLY"; missed=$((missed + 1)); continue; }
  found=$(look "$runs")
  case $? in
    10 | 11 | 12) echo "$name: caught $found" ;;
    0) echo "$name: MISSED in $runs runs"; missed=$((missed + 1)) ;;
    *) echo "$name: DOES NOT BUILD"; missed=$((missed + 1)) ;;
  esac
  (cd "$copy" && git apply -C1 -R "$patch")
done
most=$(sed -n 's/^runs: //p' "${patches[@]}" | sort -n | tail -n 1)
if found=$(look "$most"); then
  echo "without a fault: $most runs pass"
else
  echo "without a fault: FAILED $found"
  missed=$((missed + 1))
fi
echo "${#patches[@]} faults, $missed not as expected"
[ "$missed" = 0 ]
