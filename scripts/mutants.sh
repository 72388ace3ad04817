#!/bin/bash
# Turns off the rules of the barrier-lock table's reader one by one (bpf/mutants.h), and runs the tests of the table against each such mutant until
# one fails, and fails again when it is run once more. Prints which test caught which mutant; exit status 1 when one survives. Not part of the
# test run: a minute or two for each that only the system tests can catch.
#   sudo scripts/mutants.sh [--system] [NAME...]     default: all. --system: without the unit tests, which are fast and catch most
# They are built in build-mutants, one after the other: only what knows of mutants is compiled anew.
set -uo pipefail

source=$(cd "$(dirname "$0")/.." && pwd)
cd "$source" || exit 1
[ "$(id -u)" = 0 ] || {
	echo "mutants.sh: the system tests attach through BPF: run sudo $0" >&2
	exit 1
}
units="walk reconcile store_build"
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

folder=build-mutants
build() { # TARGET...
	cmake --build $folder --target "$@" >>$folder/log 2>&1
}
configure() { # MUTANT
	mkdir -p $folder && cmake --preset release -B $folder -DSPROF_MUTANT="$1" >$folder/log 2>&1
}
# The name of the first test that fails; nothing when all pass.
failed_unit() { # CONCERN
	"$folder/tests/unit/test_$1" 2>&1 | sed -n 's/^[^ ]*:[0-9]*:[FE]:[^:]*:\([^:]*\):.*/\1/p' | head -1
}
failed_system() { # CONCERN [TEST]
	SPROF_BUILD=$folder SPROF_SOAK_SECONDS=12 timeout 900 python3 -B "tests/system/test_$1.py" -f ${2:+"$2"} 2>&1 |
		sed -n 's/^\(FAIL\|ERROR\): \([a-zA-Z0-9_]*\) (__main__\.\([A-Za-z0-9]*\).*/\3.\2/p' | head -1
}

# Prints the test that catches what is built; nothing when it survives; fails when it cannot be built.
catch() {
	local concern test
	for concern in $units; do
		build "test_$concern" || return 1
		test=$(failed_unit "$concern")
		[ -z "$test" ] || {
			echo "unit.test_$concern $test"
			return
		}
	done
	build sprofd sprofctl sprofd-elf spin table_scenes greenrt || return 1
	for concern in $systems; do
		test=$(failed_system "$concern")
		[ -n "$test" ] && [ -n "$(failed_system "$concern" "$test")" ] || continue
		echo "system.$concern $test"
		return
	done
}

survivors=()
judge() { # NAME, or "none": the reader as it is, which no test may catch
	local test
	configure "$1" && test=$(catch) || {
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
		echo "$1 ($(what "$1")): SURVIVES"
		survivors+=("$1")
	fi
}

judge none
for name in "${names[@]}"; do judge "$name"; done
echo "${#names[@]} mutants, ${#survivors[@]} survive"
[ ${#survivors[@]} -eq 0 ]
