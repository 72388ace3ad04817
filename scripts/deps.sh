#!/bin/bash
# Installs with apt what Debian 12 needs to build, test and try sprofd. Quick when everything is there.
#   deps.sh           everything
#   deps.sh --build   only what building and installing takes
#   deps.sh --demo    that, and what scripts/demo.sh takes
#   deps.sh --test    that, and what the tests take
#   deps.sh --list    prints the packages instead
set -euo pipefail

build=(build-essential cmake ninja-build pkg-config clang llvm bpftool libbpf-dev libevent-dev libelf-dev libdw-dev
	libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libinih-dev uthash-dev libjson-c-dev libseccomp-dev
	libiberty-dev libcurl4-openssl-dev libhttp-parser-dev zlib1g-dev liblzma-dev libzstd-dev libxxhash-dev check ca-certificates)
demo=(golang-go graphviz python3)
tests=(git linux-perf musl-tools clang-format clang-tidy libclang-rt-14-dev binutils gdb curl procps xz-utils libcap2-bin util-linux iproute2 redis-server redis-tools sqlite3 perl
	systemd-sysv systemd-container dbus libc6-dbg dwz nodejs default-jdk-headless
	nginx-light apache2-utils postgresql ruby luajit ripgrep zstd
	qemu-utils pdns-recursor libboost-coroutine-dev libboost1.74-doc)
bench=(elfutils bpftrace libgoogle-perftools-dev google-perftools)

case "${1:-}" in
--build) packages=("${build[@]}") ;;
--demo) packages=("${build[@]}" "${demo[@]}") ;;
--test) packages=("${build[@]}" "${demo[@]}" "${tests[@]}") ;;
"" | --list) packages=("${build[@]}" "${demo[@]}" "${tests[@]}" "${bench[@]}") ;;
*)
	echo "usage: $0 [--build|--demo|--test|--list]" >&2
	exit 2
	;;
esac
if [ "${1:-}" = --list ]; then
	printf '%s\n' "${packages[@]}"
	exit 0
fi

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing=()
for package in "${packages[@]}"; do
	is_installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "deps.sh: run me as root (sudo $0 ${*:-}), to install: ${missing[*]}" >&2
	exit 1
fi

# No package may start a daemon: we want the programs alone, and in a chroot there is nobody to start it.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi
echo "deps.sh: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >&2; }
# The lists may be missing or out of date.
apt-get update -qq >&2 || echo "deps.sh: apt-get update failed; trying with the lists that are there" >&2
install
