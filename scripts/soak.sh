#!/bin/bash
# The barrier-lock table for an hour: greenrt with a barrier in every frame, each of its stacks judged by its names (tests/system/test_greenrt.py), and
# then tables that lie beside an innocent process (test_table_hostile.py), for as long; 1,000 random stops of each program beside gdb's backtrace
# (test_gdb.py); and all fuzzers, an hour in all. Not part of the test run, which has a minute and seconds of them.
#   sudo scripts/soak.sh [SECONDS] [FOLDER]     of greenrt, of the tables, and of all fuzzers together; default 3600, and the release build in build/
# Exit status 1 when anything was wrong; the figures of the soak are printed either way.
set -uo pipefail

source=$(cd "$(dirname "$0")/.." && pwd)
cd "$source" || exit 1
seconds=${1:-3600}
folder=${2:-build}
[[ $seconds =~ ^[1-9][0-9]*$ && $seconds -ge 60 ]] || {
	echo "usage: $0 [SECONDS, 60 or more] [FOLDER]" >&2
	exit 2
}
[ "$(id -u)" = 0 ] || {
	echo "soak.sh: it attaches through BPF: run sudo $0" >&2
	exit 1
}
[ -x "$folder/bin/sprofd" ] || {
	echo "soak.sh: no $folder/bin/sprofd: build first" >&2
	exit 1
}
failed=0
export SPROF_BUILD=$folder
echo "== greenrt, $seconds s"
SPROF_SOAK_SECONDS=$seconds python3 -B tests/system/test_greenrt.py Greenrt.test_soak || failed=1
# Six ways to lie, 10 s each with one seed.
seeds=$(((seconds + 59) / 60))
echo "== tables that lie, $seeds seeds"
SPROF_HOSTILE_SECONDS=10 SPROF_HOSTILE_SEEDS=$seeds python3 -B tests/system/test_table_hostile.py || failed=1
echo "== gdb at 1,000 stops of each program"
SPROF_GDB_STOPS=1000 python3 -B tests/system/test_gdb.py || failed=1
fuzzers=(tests/fuzz/fuzz_*.c)
echo "== ${#fuzzers[@]} fuzzers"
scripts/fuzz.sh $(((seconds + ${#fuzzers[@]} - 1) / ${#fuzzers[@]})) || failed=1
exit $failed
