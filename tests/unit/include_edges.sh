#!/bin/sh
# The permitted edges between folders: base <- model <- each stage <- app. A stage includes only itself, base, model, bpf and the
# protocols (proto/ and what is generated); client never includes daemon; bpf, proto and base only themselves and the system. What both sides share is
# one installed header, the ABI of the barrier-lock table (sprof/barrier_abi.h): bpf, the stages and app may include that, and nothing else of client.
#     include_edges.sh TREE         prints what is forbidden in TREE; exit 1 if anything is, 2 if there is nothing to look at
#     include_edges.sh --edges TREE prints the real edges, one a line, with how often each is
set -eu
list=false
if [ "${1-}" = --edges ]; then
	list=true
	shift
fi
tree=${1:?usage: include_edges.sh [--edges] TREE}
cd "$tree"
files=$(find -H bpf proto daemon client -type f \( -name '*.c' -o -name '*.h' \) 2>/dev/null | sort)
[ -n "$files" ] || { echo "no sources in $tree" >&2; exit 2; }

# shellcheck disable=SC2086
awk -v list="$list" '
function folder_of(path,   part) { # bpf/x -> bpf, daemon/base/x -> base, client/... -> client
	split(path, part, "/")
	return part[1] == "daemon" ? part[2] : part[1]
}
function exists(path,   line, r) {
	r = (getline line < path)
	close(path)
	return r >= 0
}
# The folder an included name lies in; "system" for names that the compiler finds elsewhere, "generated" for those of the build.
function target_of(name, including,   directory) {
	if (name ~ /\.(pb-c|skel)\.h$/) return "generated"
	directory = including
	sub(/[^\/]*$/, "", directory)
	while (sub(/^\.\.\//, "", name)) sub(/[^\/]*\/$/, "", directory) # "../serve/x.h" is no way around
	if (exists(directory name)) return folder_of(directory name)
	if (exists("daemon/" name)) return folder_of("daemon/" name)
	if (exists(name)) return folder_of(name)
	if (name == "sprof/barrier_abi.h" && exists("client/include/" name)) return "abi"
	if (exists("client/include/" name)) return "client"
	return "system"
}
function permitted(from, to) {
	if (from == to || to == "system") return 1
	if (to == "abi") return from != "proto" && from != "base" && from != "model" && from != "elf"
	if (from == "bpf" || from == "proto" || from == "base") return 0
	if (from == "client") return to == "generated" || to == "proto"
	if (from == "model") return to == "base" || to == "bpf"
	if (from == "app") return to != "client" && to != "elf" && to != "fetch"
	return to == "base" || to == "model" || to == "bpf" || to == "generated" || to == "proto"
}
/^[ \t]*#[ \t]*include[ \t]*["<]/ {
	name = $0
	sub(/^[ \t]*#[ \t]*include[ \t]*["<]/, "", name)
	sub(/[">].*/, "", name)
	from = folder_of(FILENAME)
	to = target_of(name, FILENAME)
	edges[from " -> " to]++
	if (!permitted(from, to)) {
		if (list == "false") printf "%s:%d: %s must not include %s (%s)\n", FILENAME, FNR, from, to, name
		forbidden++
	}
}
END {
	if (list == "true") for (edge in edges) print edges[edge], edge
	exit forbidden && list == "false" ? 1 : 0
}' $files
