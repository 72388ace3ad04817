#!/bin/bash
# Fuzzes every parser in turn, each from its corpus, with ASan and UBSan. Not part of the test run, which only replays the corpora.
#   scripts/fuzz.sh [SECONDS] [NAME...]     60 seconds for each; NAME as in tests/fuzz/fuzz_NAME.c; default: all
# New inputs and crashes are left in build-fuzz/found/NAME. Exit status 1 when anything crashed.
set -uo pipefail

source=$(cd "$(dirname "$0")/.." && pwd)
cd "$source" || exit 1
seconds=${1:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || {
	echo "usage: $0 [SECONDS] [NAME...]" >&2
	exit 2
}
shift || true
scripts/deps.sh --test || exit 1
names=("$@")
[ ${#names[@]} -gt 0 ] || for path in tests/fuzz/fuzz_*.c; do
	names+=("$(basename "$path" .c | sed 's/^fuzz_//')")
done
cmake --preset fuzz >/dev/null && cmake --build build-fuzz --target "${names[@]/#/fuzz_}" || exit 1

failed=0
for name in "${names[@]}"; do
	found=build-fuzz/found/$name
	mkdir -p "$found"
	echo "== $name, $seconds s"
	build-fuzz/tests/fuzz/fuzz_"$name" -max_total_time="$seconds" -artifact_prefix="$found/" -print_final_stats=1 -verbosity=0 \
		"$found" "tests/fuzz/corpus/$name" 2>"$found.log" || {
		failed=1
		tail -30 "$found.log"
	}
	grep -E "stat::number_of_executed_units" "$found.log"
done
exit $failed
