#!/bin/bash
# Shows sprofd at work on a real program, and leaves nothing but the profile: installs what is needed, builds, starts a private sprofd
# on a temporary socket, attaches to a busy python3, pulls five seconds, prints what `go tool pprof -top` says of them.
#   sudo scripts/demo.sh [FILE]     where the profile goes; by default sprofd.PID.TIME.pb.gz in the current directory
set -euo pipefail

say() { printf '\n== %s\n' "$*"; }
die() {
	echo "demo.sh: $*" >&2
	exit 1
}
if [ $# -gt 1 ] || [[ ${1:-} == -* ]]; then
	echo "usage: sudo $0 [FILE]" >&2
	exit 2
fi
[ "$(id -u)" = 0 ] || die "sprofd needs root to sample: run sudo $0"
export HOME=${HOME:-/root}
source=$(cd "$(dirname "$0")/.." && pwd)
build=$source/build-demo
paranoid_file=/proc/sys/kernel/perf_event_paranoid
work='' daemon='' target='' job='' paranoid=''

# Ends a child by its number: TERM first, so that it can end in order.
end() {
	[ -n "$1" ] && kill -TERM "$1" 2>/dev/null || return 0
	for _ in $(seq 50); do
		kill -0 "$1" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}
cleanup() {
	local status=$?
	trap - EXIT
	trap '' INT TERM HUP # a second Ctrl-C does not leave half of it behind
	end "$job"
	end "$target"
	end "$daemon"
	[ -z "$paranoid" ] || echo "$paranoid" >$paranoid_file
	[ -z "$work" ] || rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Runs a command so that a signal to us ends it at once.
run() {
	"$@" &
	job=$!
	local status=0
	wait "$job" || status=$?
	job=''
	return $status
}

work=$(mktemp -d "${TMPDIR:-/tmp}/sprofd-demo.XXXXXX")
export SPROFD_SOCKET=$work/sprofd.sock PPROF_TMPDIR=$work

say "installing what is needed (scripts/deps.sh --demo)"
"$source/scripts/deps.sh" --demo

say "building in $build"
build_it() {
	cmake -S "$source" -B "$build" -G Ninja -DSPROF_TESTS=OFF && exec cmake --build "$build"
}
run build_it >"$work/build.log" 2>&1 || {
	tail -n 40 "$work/build.log" >&2
	die "the build failed"
}

if [ "$(cat $paranoid_file)" -gt 2 ]; then # Debian's kernels: CAP_PERFMON does not suffice
	paranoid=$(cat $paranoid_file)
	say "kernel.perf_event_paranoid is $paranoid: setting it to 2 while the demo runs"
	echo 2 >$paranoid_file
fi

say "starting a private sprofd on $SPROFD_SOCKET"
: >"$work/sprofd.conf"
"$build/bin/sprofd" --config="$work/sprofd.conf" &
daemon=$!
for _ in $(seq 100); do
	"$build/bin/sprofctl" status >/dev/null 2>&1 && break
	kill -0 "$daemon" 2>/dev/null || die "sprofd did not start: see its words above"
	sleep 0.1
done

say "a busy program of Debian's: python3"
python3 -c '
import json, time
rows, end = [{"number": i, "text": str(i)} for i in range(10000)], time.monotonic() + 120
while time.monotonic() < end:  # it ends by itself, should all else fail
    sorted(json.loads(json.dumps(rows)), key=lambda row: row["text"])
' &
target=$!
"$build/bin/sprofctl" attach "$target" --frequency=999

say "pulling five seconds"
if [ -n "${1:-}" ]; then
	file=$(realpath -m -- "$1")
	run "$build/bin/sprofctl" pull "$target" --seconds=5 --output="$file"
else
	run "$build/bin/sprofctl" pull "$target" --seconds=5 >"$work/name"
	file=$PWD/$(cat "$work/name")
fi
[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$file"
"$build/bin/sprofctl" status

say "go tool pprof -top $file"
run go tool pprof -top "$file" 2>&1

say "the profile is $file"
