#!/bin/bash
# sprofd as a service of a real systemd: units and drop-ins as installed, start, attach, pull, restart, kill -9, watchdog, stop, socket
# activation, privileges.   Usage: SPROF_BUILD=build tests/system/test_systemd.sh
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/systemd_box.sh"

missing=$(box_missing)
if [ -n "$missing" ]; then
	echo "skipped: this test needs $missing" >&2
	exit 77
fi
build=$(realpath "${SPROF_BUILD:-build}")
export SPROF_BUILD=$build HOME=${HOME:-/root}
box_isolate "$@"

work=$(mktemp -d "${TMPDIR:-/tmp}/sprof-test.XXXXXX")
cleanup() {
	status=$?
	trap - EXIT
	trap '' INT TERM
	box_down
	rm -rf --one-file-system "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failures=0
# expect TEXT COMMAND...: the command must succeed.
expect() { # what it says is in $work/said afterwards
	local text=$1
	shift
	if "$@" >"$work/says" 2>&1; then
		echo "ok: $text"
	else
		echo "FAILED: $text ($*)"
		sed 's/^/    /' "$work/says"
		failures=$((failures + 1))
	fi
	mv "$work/says" "$work/said"
}
# refuse TEXT PATTERN COMMAND...: the command must exit with 1 and one line that matches.
refuse() {
	local text=$1 pattern=$2 status=0
	shift 2
	"$@" >"$work/refusal" 2>&1 || status=$?
	expect "$text" sh -c 'cat "$1"; echo "exit $2"; [ "$2" = 1 ] && [ "$(wc -l <"$1")" = 1 ] && grep -qE "$3" "$1"' - \
		"$work/refusal" "$status" "$pattern"
}
within() { # SECONDS COMMAND...
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < deadline)) || return 1
		sleep 0.1
	done
}
property() { box_run systemctl show --value -p "$2" "$1"; }
state() { property "$1" ActiveState; }
is_state() { [ "$(state "$1")" = "$2" ]; }
main_pid() { property sprofd MainPID; }
ctl() { box_run sprofctl "$@"; }
field() { box_run sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
restarted() { is_state sprofd active && [ "$(main_pid)" != "$1" ] && ctl status >/dev/null 2>&1; }

# --- the installation ---
box_prepare "$work"
DESTDIR=$box_root cmake --install "$build" >"$work/install" 2>&1 || {
	cat "$work/install" >&2
	exit 1
}
box_up || exit 1
# Shorter than the 30 s of the unit, so that we can wait for it; a sanitized build cannot look for leaks under this sandbox.
box_run mkdir -p /run/systemd/system/sprofd.service.d
box_run tee /run/systemd/system/sprofd.service.d/test.conf >/dev/null <<-'END'
	[Service]
	WatchdogSec=3s
	Environment=ASAN_OPTIONS=detect_leaks=0
END
expect "systemd-sysusers takes our drop-in" box_run systemd-sysusers
expect "there is a user sprofd, in group sprof" test "$(box_run id -gn sprofd)" = sprof
expect "systemd-tmpfiles takes our drop-in" box_run systemd-tmpfiles --create --prefix=/run/sprofd
expect "the socket's directory is the daemon's" test "$(box_run stat -c %U:%G:%a /run/sprofd)" = sprofd:sprof:755
expect "sysctl.d is read" sh -c 'printf "%s" "$1" | grep -q "^kernel.perf_event_paranoid = 2"' - \
	"$(box_run /lib/systemd/systemd-sysctl --cat-config)"
box_run systemctl daemon-reload
box_run systemd-analyze verify --man=no sprofd.service sprofd.socket sprofd-fetch.service sprofd-fetch.socket >"$work/verify" 2>&1
expect "systemd-analyze verify finds nothing" sh -c '! grep . "$1"' - "$work/verify"
score=$(box_run systemd-analyze security --no-pager sprofd.service | sed -n 's/.*exposure level for sprofd.service: \([0-9.]*\).*/\1/p')
echo "systemd-analyze security: $score"
expect "exposure is at most 2.5" awk -v score="${score:-10}" 'BEGIN { exit !(score <= 2.5) }'

score=$(box_run systemd-analyze security --no-pager sprofd-fetch.service | sed -n 's/.*exposure level for sprofd-fetch.service: \([0-9.]*\).*/\1/p')
echo "systemd-analyze security of sprofd-fetch: $score"
expect "its exposure is at most 2.5" awk -v score="${score:-10}" 'BEGIN { exit !(score <= 2.5) }'

# --- the service, on a socket of its own ---
refuse "sprofctl says how to start the daemon" "systemctl start sprofd" ctl list
expect "systemctl start sprofd" box_run systemctl start sprofd
expect "it runs as its own user" test "$(box_run stat -c %U "/proc/$(main_pid)")" = sprofd
expect "with six capabilities and no more" test "$(field "$(main_pid)" CapEff)" = 000001c400080004
expect "which its children do not inherit" test "$(field "$(main_pid)" CapAmb)" = 0000000000000000
expect "under seccomp, without new privileges" test "$(field "$(main_pid)" Seccomp)$(field "$(main_pid)" NoNewPrivs)" = 21
expect "its socket is for group sprof" test "$(box_run stat -c %G:%a /run/sprofd/sprofd.sock)" = sprof:660

# Busy in the interpreter and in the kernel, as somebody else.
box_run systemd-run --quiet --unit=busy -p User=nobody python3 -c \
	$'import os\nwhile True:\n  sum(i * i for i in range(20000))\n  for i in range(2000): os.stat("/")'
expect "a busy program runs" within 5 is_state busy active
busy=$(property busy MainPID)

# pull_and_look TEXT: it is a profile, with the names that it must have.
pull_and_look() {
	expect "$1: pull" ctl pull "$busy" --output=/var/tmp/profile.pb.gz
	cp "$box_root/var/tmp/profile.pb.gz" "$work/profile.pb.gz"
	expect "$1: go tool pprof -top" go tool pprof -top -cum -nodecount=200 "$work/profile.pb.gz"
	cp "$work/said" "$work/top"
	expect "$1: the interpreter has names" grep -q _PyEval_EvalFrameDefault "$work/top"
	expect "$1: the kernel has names" grep -qE 'do_syscall_64|entry_SYSCALL_64|vfs_statx' "$work/top"
}
expect "attach" ctl attach "$busy" --frequency=999
expect "attach says what it armed" grep -qE "^attached $busy \(python3(\.[0-9]+)?\): 1 thread at 999 Hz$" "$work/said"
sleep 2
pull_and_look "service"
samples=$(go tool pprof -raw -sample_index=samples "$work/profile.pb.gz" 2>/dev/null | awk '/^Locations/ { exit } /^ +[0-9]+ +[0-9]+:/ { n += $1 } END { print n }')
echo "samples in about two seconds at 999 Hz: ${samples:-none}"
expect "there are samples" test "${samples:-0}" -gt 300
reader=$(box_run pgrep -x sprofd-elf)
expect "the ELF reader runs, without any capability" test "$(field "${reader:-0}" CapEff)$(field "${reader:-0}" CapPrm)" = 00000000000000000000000000000000

# --- who may ---
box_run useradd --no-create-home --groups sprof member
expect "a member of group sprof may ask" box_run setpriv --reuid=member --regid=member --init-groups sprofctl list
refuse "others may not, and are told who may" "permission denied.*group sprof" box_run setpriv --reuid=nobody --regid=nogroup --clear-groups sprofctl list

# --- restart, kill, hang, stop ---
before=$(main_pid)
expect "systemctl restart" box_run systemctl restart sprofd
expect "it is another process, and answers" within 5 restarted "$before"
expect "attach after the restart" ctl attach "$busy"
before=$(main_pid)
expect "kill -9" box_run systemctl kill -s KILL sprofd
expect "systemd starts it again, and it replaces the stale socket" within 10 restarted "$before"
expect "attach after the kill" ctl attach "$busy"
sleep 4
expect "it keeps its watchdog content" test "$(property sprofd NRestarts)" = 1
before=$(main_pid)
expect "it hangs" box_run systemctl kill -s STOP sprofd
expect "the watchdog ends it, systemd starts it again" within 20 restarted "$before"
expect "systemctl stop" box_run systemctl stop sprofd
expect "it ended in order" test "$(state sprofd):$(property sprofd Result)" = inactive:success
expect "its socket is gone" box_run test ! -e /run/sprofd/sprofd.sock
expect "the program that was sampled is not" is_state busy active
refuse "sprofctl says so" "not running" ctl status

# --- socket activation ---
expect "systemctl start sprofd.socket" box_run systemctl start sprofd.socket
expect "the daemon does not run yet" is_state sprofd inactive
expect "the socket is root's, for group sprof" test "$(box_run stat -c %U:%G:%a /run/sprofd/sprofd.sock)" = root:sprof:660
expect "the first sprofctl starts it" ctl attach "$busy" --frequency=999
expect "it runs" is_state sprofd active
sleep 1
pull_and_look "activated"
expect "restart with the socket kept" box_run systemctl restart sprofd
expect "it answers" ctl list
box_run systemctl stop sprofd 2>/dev/null
expect "the socket outlives the service" box_run test -S /run/sprofd/sprofd.sock
expect "which starts again when it is asked" ctl status
expect "the socket is still for group sprof" test "$(box_run stat -c %G:%a /run/sprofd/sprofd.sock)" = sprof:660
expect "stop both" box_run systemctl stop sprofd.socket sprofd.service
expect "nothing is left" box_run test ! -e /run/sprofd/sprofd.sock
expect "no start of it failed" test "$(property sprofd Result)" = success

# --- sprofd-fetch: asked as sprofd asks, for what a server that is not there does not have ---
fetch_ask='
import socket
text = lambda field, value: bytes([field << 3 | 2, len(value)]) + value
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.settimeout(20)
client.connect("/run/sprofd/fetch.sock")
client.send(text(1, b"0123456789abcdef") + text(2, b"http://127.0.0.1:1") + b"\x18\x05\x20\x64\x28\x64")
reply = client.recv(8192)
assert reply.startswith(text(1, b"0123456789abcdef") + b"\x10\x03") and b"onnect" in reply, reply
'
as_sprofd() { box_run setpriv --reuid=sprofd --regid=sprof --clear-groups "$@"; }
expect "systemctl start sprofd-fetch.socket" box_run systemctl start sprofd-fetch.socket
expect "its socket is sprofd's alone" test "$(box_run stat -c %U:%a /run/sprofd/fetch.sock)" = sprofd:600
expect "sprofd-fetch does not run yet" is_state sprofd-fetch inactive
expect "it answers sprofd" as_sprofd python3 -c "$fetch_ask"
expect "it runs" is_state sprofd-fetch active
fetch_pid=$(property sprofd-fetch MainPID)
expect "as a user of its own" sh -c '[ "$1" -ge 61184 ]' - "$(box_run stat -c %u "/proc/$fetch_pid")"
expect "without capabilities" test "$(field "$fetch_pid" CapBnd)" = 0000000000000000
expect "with its cache directory" box_run test -d /var/cache/sprofd-fetch/
expect "stop it" box_run systemctl stop sprofd-fetch.socket sprofd-fetch.service
expect "it ended well" test "$(property sprofd-fetch Result)" = success

if [ "$failures" -gt 0 ]; then
	echo "--- the journal of sprofd:"
	box_run journalctl --no-pager -u sprofd -u sprofd.socket -u sprofd-fetch | tail -n 60
fi
echo "$failures failures"
[ "$failures" = 0 ]
