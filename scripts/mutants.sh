#!/bin/bash
# Turns off the rules of the barrier-lock table's reader one by one (bpf/mutants.h), and runs the tests of the table against each such mutant until
# one fails, and fails again when it is run once more. Prints which test caught which mutant; exit status 1 when one survives. Not part of the
# test run: a minute or two for each that only the system tests can catch.
#   sudo scripts/mutants.sh [--system] [NAME...]     default: all. --system: without the unit tests, which are fast and catch most
# Each mutant is built, as far as the tests need it, in build-mutants/NAME; the folders of those that were caught are removed.
set -uo pipefail

source=$(cd "$(dirname "$0")/.." && pwd)
cd "$source" || exit 1
[ "$(id -u)" = 0 ] || {
	echo "mutants.sh: the system tests attach through BPF: run sudo $0" >&2
	exit 1
}
units="walk reconcile"
systems="table greenrt"
[ "${1:-}" != --system ] || {
	units=
	shift
}
mapfile -t all < <(sed -n 's/^\tX(\([a-z0-9_]*\), ".*/\1/p' bpf/mutants.h)
[ ${#all[@]} -gt 0 ] || {
	echo "mutants.sh: bpf/mutants.h lists none" >&2
	exit 1
}
names=("$@")
[ ${#names[@]} -gt 0 ] || names=("${all[@]}")
for name in "${names[@]}"; do
	[[ " ${all[*]} " == *" $name "* ]] || {
		echo "mutants.sh: no mutant $name in bpf/mutants.h" >&2
		exit 2
	}
done
what() { sed -n "s/^\tX($1, \"\(.*\)\").*/\1/p" bpf/mutants.h; }

build() { # FOLDER TARGET...
	local folder=$1
	shift
	cmake --build "$folder" --target "$@" >>"$folder/log" 2>&1
}
configure() { # FOLDER MUTANT
	mkdir -p "$1" && cmake --preset release -B "$1" -DSPROF_MUTANT="$2" >"$1/log" 2>&1
}
# The name of the first test that fails; nothing when all pass.
failed_unit() { # FOLDER CONCERN
	"$1/tests/unit/test_$2" 2>&1 | sed -n 's/^[^ ]*:[0-9]*:[FE]:[^:]*:\([^:]*\):.*/\1/p' | head -1
}
failed_system() { # FOLDER CONCERN [TEST]
	SPROF_BUILD=$1 SPROF_SOAK_SECONDS=12 timeout 900 python3 -B "tests/system/test_$2.py" -f ${3:+"$3"} 2>&1 |
		sed -n 's/^\(FAIL\|ERROR\): \([a-zA-Z0-9_]*\) (__main__\.\([A-Za-z0-9]*\).*/\3.\2/p' | head -1
}

# Prints the test that catches what is built in FOLDER; nothing when it survives; fails when it cannot be built.
catch() { # FOLDER
	local folder=$1 concern test
	for concern in $units; do
		build "$folder" "test_$concern" || return 1
		test=$(failed_unit "$folder" "$concern")
		[ -z "$test" ] || {
			echo "unit.test_$concern $test"
			return
		}
	done
	build "$folder" sprofd sprofctl sprofd-elf spin table_scenes greenrt || return 1
	for concern in $systems; do
		test=$(failed_system "$folder" "$concern")
		[ -n "$test" ] && [ -n "$(failed_system "$folder" "$concern" "$test")" ] || continue
		echo "system.$concern $test"
		return
	done
}

survivors=()
judge() { # NAME, or "none": the reader as it is, which no test may catch
	local folder=build-mutants/$1 mutant=$1 test
	[ "$1" != none ] || mutant=
	configure "$folder" "$mutant" && test=$(catch "$folder") || {
		echo "$1: cannot be built: see $folder/log"
		survivors+=("$1")
		return
	}
	if [ "$1" = none ]; then
		[ -z "$test" ] || {
			echo "nothing turned off, and yet $test fails: first things first"
			exit 1
		}
		echo "nothing turned off: all tests pass"
	elif [ -n "$test" ]; then
		echo "$1 ($(what "$1")): caught by $test"
	else
		echo "$1 ($(what "$1")): SURVIVES, in $folder"
		survivors+=("$1")
		return
	fi
	rm -rf "$folder"
}

judge none
for name in "${names[@]}"; do judge "$name"; done
echo "${#names[@]} mutants, ${#survivors[@]} survive"
[ ${#survivors[@]} -eq 0 ]
