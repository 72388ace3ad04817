# shellcheck shell=bash
# A real systemd as PID 1, in a container over a throw-away overlay of this machine's root. Sourced by a test, after which box_up,
# box_run and box_down are there; box_root is where the box's files are seen from outside.
#
# The test runs in a mount and a network namespace of its own (box_isolate), so that mounts go when it ends; the container's processes
# are all in one control group, so that they can be ended together. Needs root, overlayfs, cgroup2 and the package systemd-container.

# Starts the calling script again, in namespaces of its own: nspawn shares the network namespace, which keeps /sys (and BTF in it) whole.
box_isolate() {
	[ -z "${BOX_ISOLATED:-}" ] || return 0
	export BOX_ISOLATED=1
	exec unshare --mount --net --propagation private -- "$0" "$@"
}

# Prints what is missing, if something is.
box_missing() {
	[ "$(id -u)" = 0 ] || { echo "root" && return; }
	command -v systemd-nspawn >/dev/null || { echo "systemd-nspawn (apt install systemd-container)" && return; }
	grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || { echo "overlayfs" && return; }
	grep -qw cgroup2 /proc/filesystems || echo "cgroup2"
}

# The hierarchies that nspawn looks for; on a machine without any, one that only we see.
box_cgroups() {
	findmnt -rn -t cgroup2 -o TARGET | head -n 1
	findmnt -rn -t cgroup -O name=systemd -o TARGET | head -n 1
}

box_make_root() {
	mount -t tmpfs -o mode=0755,size=2g tmpfs "$box_state"
	mkdir "$box_state/upper" "$box_state/work" "$box_root"
	mount -t overlay -o "lowerdir=/,upperdir=$box_state/upper,workdir=$box_state/work" overlay "$box_root"
	: >"$box_root/etc/machine-id"
	: >"$box_root/etc/fstab"
	# What this machine would do at boot is not what we test.
	local unit
	for unit in timers.target systemd-timesyncd.service systemd-sysctl.service systemd-udevd.service getty.target; do
		ln -sf /dev/null "$box_root/etc/systemd/system/$unit"
	done
}

box_enter_cgroup() {
	local hierarchy
	for hierarchy in $box_hierarchies; do
		mkdir -p "$hierarchy/$box_name"
		echo "$1" >"$hierarchy/$box_name/cgroup.procs"
	done
}

# box_prepare DIRECTORY: makes box_root, which can then be filled. DIRECTORY, which is ours alone, must be empty of "box" and "console".
box_prepare() {
	box_state=$1/box box_root=$1/box/root box_console=$1/console box_name=sprofd-test-box-$$ box_pid='' box_leader=''
	mkdir "$box_state"
	if [ -z "$(box_cgroups)" ]; then
		mount -t cgroup2 none /sys/fs/cgroup
	fi
	box_hierarchies=$(box_cgroups)
	box_make_root
}

# Boots; what it says goes to DIRECTORY/console. Fails when systemd is not up after half a minute.
box_up() {
	local capabilities=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON,CAP_SYSLOG,CAP_IPC_LOCK,CAP_CHECKPOINT_RESTORE # beside nspawn's own
	local command=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
		systemd-nspawn --quiet --boot --directory="$box_root" --machine="$box_name" --register=no --keep-unit
		--resolv-conf=off --timezone=off --link-journal=no --console=read-only
		--capability="$capabilities"
		--system-call-filter="bpf perf_event_open @debug @keyring kcmp" -- --unit=basic.target)
	(
		box_enter_cgroup $BASHPID
		exec "${command[@]}"
	) </dev/null >"$box_console" 2>&1 &
	box_pid=$!
	local i
	for ((i = 0; i < 300; i++)); do
		kill -0 "$box_pid" 2>/dev/null || break
		box_leader=$(tr -d ' ' <"/proc/$box_pid/task/$box_pid/children" 2>/dev/null)
		if [ -n "$box_leader" ] && [[ $(box_run systemctl is-system-running 2>/dev/null) == @(running|degraded) ]]; then
			return 0
		fi
		sleep 0.1
	done
	tail -n 30 "$box_console" >&2
	return 1
}

# Runs a command in the box, as root.
box_run() {
	timeout 60 nsenter --target "$box_leader" --all --root --wd -- \
		env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

# Ends everything in the box, and removes its traces. Safe at any time.
box_down() {
	[ -n "${box_state:-}" ] || return 0
	local hierarchy i
	for hierarchy in $box_hierarchies; do
		[ ! -e "$hierarchy/$box_name/cgroup.kill" ] || echo 1 >"$hierarchy/$box_name/cgroup.kill"
	done
	[ -z "$box_pid" ] || wait "$box_pid" 2>/dev/null
	for hierarchy in $box_hierarchies; do
		for ((i = 0; i < 50; i++)); do # the last process may take a moment to leave
			find "$hierarchy/$box_name" -depth -type d -exec rmdir {} + 2>/dev/null
			[ -d "$hierarchy/$box_name" ] || break
			sleep 0.1
		done
	done
	rmdir "/run/systemd/nspawn/propagate/$box_name" 2>/dev/null
	umount "$box_root" "$box_state" 2>/dev/null
	return 0
}
