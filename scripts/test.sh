#!/bin/bash
# Everything that CI runs: installs, checks the format, builds with and without sanitizers, runs clang-tidy and every test of both
# builds, and ends with the line "N passed, N failed". A check that is no test of ctest (format, build, clang-tidy) counts as one.
#   sudo scripts/test.sh [PATTERN]     only the tests whose names match (ctest -R)
set -uo pipefail

source=$(cd "$(dirname "$0")/.." && pwd)
cd "$source" || exit 1
[ "$(id -u)" = 0 ] || {
	echo "test.sh: BPF, perf events and the systemd in a box need root: run sudo $0" >&2
	exit 1
}
# In a chroot on a plain directory no mount namespace can be made, since its root is no mount: go on in a root that is one.
if [ -z "${SPROF_TEST_ROOT:-}" ] && ! unshare -m true 2>/dev/null; then
	root=$(mktemp -d /tmp/sprofd-root.XXXXXX)
	if mount --rbind / "$root" && mount --make-rslave "$root"; then
		trap 'umount -R -l "$root"; rmdir "$root"' EXIT
		SPROF_TEST_ROOT=1 chroot "$root" "$source/scripts/test.sh" "$@"
		exit $?
	fi
fi
export HOME=${HOME:-/root}
paranoid_file=/proc/sys/kernel/perf_event_paranoid
paranoid=$(cat $paranoid_file)
logs=$(mktemp -d "${TMPDIR:-/tmp}/sprofd-test.XXXXXX")
passed=0 failed=0 skipped=0 failures=()
declare -A groups=() # of processes, that run

cleanup() {
	local status=$?
	trap - EXIT
	for group in "${!groups[@]}"; do kill -TERM -- "-$group" 2>/dev/null; done
	rm -rf "$logs"
	[ "$(cat $paranoid_file)" = "$paranoid" ] || echo "$paranoid" >$paranoid_file
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '\n== %s\n' "$*"; }
fail() {
	failed=$((failed + 1))
	failures+=("$1")
}
# start COMMAND...: as a group of processes of its own, which ends with us; its number is $group.
start() {
	set -m
	"$@" </dev/null &
	group=$!
	set +m
	groups[$group]=1
}
# finish GROUP: waits for it; a signal to us is heeded at once. Its status.
finish() {
	wait "$1"
	set -- "$1" $?
	unset "groups[$1]"
	return "$2"
}
run() {
	start "$@"
	finish "$group"
}
# count NAME STATUS SECONDS: a check that has ended.
count() {
	say "$1: $3 s"
	if [ "$2" = 0 ]; then passed=$((passed + 1)); else fail "$1"; fi
}
# check NAME COMMAND...: counts as one.
check() {
	local name=$1 begin=$SECONDS
	shift
	say "$name"
	run "$@"
	count "$name" $? $((SECONDS - begin))
}
# What is built and looked through beside the tests gets only the time that they leave: any process of theirs takes the processor from it at once.
idly() { # LOG COMMAND...
	local log=$1 begin=$SECONDS status
	shift
	chrt --idle --pid 0 "$BASHPID" 2>/dev/null || renice -n 19 "$BASHPID" >/dev/null
	"$@" >"$log" 2>&1
	status=$?
	echo $((SECONDS - begin)) >"$log.seconds"
	return $status
}
# collect NAME GROUP LOG: waits for what idly() runs, now that nothing runs beside it, and counts it.
collect() {
	local status process
	say "$1"
	for process in $(pgrep -g "$2"); do
		chrt --other --pid 0 "$process" 2>/dev/null
	done
	finish "$2"
	status=$?
	cat "$3"
	count "$1, beside the tests" $status "$(cat "$3.seconds")"
}

sources() { git ls-files --cached --others --exclude-standard -- "$@" 2>/dev/null || find bpf client daemon tests -name '*.[ch]'; }
check_format() { # names the files; what clang-format would change is for `clang-format -i` to show
	local wrong
	wrong=$(sources '*.c' '*.h' | xargs -r clang-format --dry-run 2>&1 | sed -n 's/^\([^:]*\):[0-9]*:[0-9]*: .*/\1/p' | sort -u)
	[ -z "$wrong" ] || printf '%s\n' "run clang-format -i on:" "$wrong"
	[ -z "$wrong" ]
}
# With lines alone as debug information, which takes a tenth off the time.
build() { # PRESET FOLDER
	cmake --preset "$1" -B "$2" -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O2 -g1 -DNDEBUG" -DCMAKE_C_FLAGS_DEBUG="-g1" >"$logs/configure-$1" 2>&1 || {
		cat "$logs/configure-$1"
		return 1
	}
	cmake --build "$2" 2>&1 | { grep -vE '^\[[0-9]+/[0-9]+\] ' || true; }
	return "${PIPESTATUS[0]}"
}
# Our own sources that this build compiles, in as many processes as there are processors.
check_tidy() { # FOLDER
	python3 - "$1" <<-'END' | xargs -r -0 -n 4 -P "$(nproc)" clang-tidy -p "$1" --quiet 2>/dev/null
		import json, os, sys
		files = {os.path.realpath(os.path.join(c["directory"], c["file"])) for c in json.load(open(sys.argv[1] + "/compile_commands.json"))}
		ours = sorted(f for f in files if f.endswith(".c") and any(f.startswith(os.path.realpath(d) + "/") for d in ("bpf", "client", "daemon")))
		print("\0".join(ours), end="")
	END
}
# Tests that are run again (twice at the most) when they fail: of what no daemon can do on a machine that does not let it run (a client is answered within half a second
# whatever others do; nothing is lost at 10 kHz, where the ring buffer is full in a second), and those of whole stacks, names and tables, which attach to programs at their start
# and have not been shown to hold on every crowded machine; and test_greenrt_stacks, whose own reader goes by frame pointers. All others judge by what the target was really given, and have to pass at once.
may_fail_once='^(system\.(server|conservation|greenrt|names|programs|sources|stacks|table)|unit\.test_greenrt_stacks)$'
# The tests that failed are run again if they may be.
again() { # NAME FOLDER TEST...
	local name=$1 folder=$2 test
	shift 2
	for test; do
		if [[ $test =~ $may_fail_once ]] && run ctest --test-dir "$folder" --output-on-failure --repeat until-pass:2 -R "^${test//./\\.}\$"; then
			echo "$test failed, and passed when it was run again"
			passed=$((passed + 1))
		else
			fail "$name: $test"
		fi
	done
}
# Runs ctest and counts from its report, so that a crash of ctest itself is a failure as well.
run_ctest() { # NAME FOLDER PATTERN CTEST-OPTIONS...
	local name=$1 folder=$2 pattern=$3 begin=$SECONDS counts
	shift 3
	say "tests of the $name build"
	run ctest --test-dir "$folder" --output-on-failure "$@" ${pattern:+-R "$pattern"} --output-junit "$logs/$name.xml"
	if counts=$(python3 - "$logs/$name.xml" <<-'END'
		import sys, xml.etree.ElementTree as tree
		cases = list(tree.parse(sys.argv[1]).getroot().iter("testcase"))
		bad = [c.get("name") for c in cases if c.get("status") == "fail"]
		skipped = [c.get("name") for c in cases if c.get("status") in ("notrun", "disabled")]
		print(len(cases) - len(bad) - len(skipped), len(skipped), *bad)
	END
	); then
		local -a words
		read -r -a words <<<"$counts"
		passed=$((passed + words[0]))
		skipped=$((skipped + words[1]))
		again "$name" "$folder" "${words[@]:2}"
	else
		fail "$name: ctest"
	fi
	say "tests of the $name build: $((SECONDS - begin)) s"
}
# What the label "timed" has runs alone, but for what runs idly; the rest, much of which waits, beside one another.
run_timed() { run_ctest "$1-timed" "$2" "$3" -L timed; }                       # NAME FOLDER PATTERN
run_untimed() { run_ctest "$1" "$2" "$3" -LE timed -j "$((2 * $(nproc)))"; }

scripts/deps.sh --test || exit 1
[ "$paranoid" -le 2 ] || echo 2 >$paranoid_file # as systemd/sysctl.d does

release=build-test-release debug=build-test-debug pattern=${1:-}
check "format (clang-format)" check_format
check "build release" build release $release
start idly "$logs/build-debug" build debug $debug
build_debug=$group
run_timed release $release "$pattern"
collect "build debug" "$build_debug" "$logs/build-debug"
start idly "$logs/tidy" check_tidy $release
tidy=$group
run_timed debug $debug "$pattern"
run_untimed release $release "$pattern"
run_untimed debug $debug "$pattern"
collect "clang-tidy" "$tidy" "$logs/tidy"

say "result"
for name in ${failures[@]+"${failures[@]}"}; do echo "failed: $name"; done
[ "$skipped" = 0 ] || echo "$skipped skipped"
echo "$SECONDS s in all"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
