#!/bin/sh
# The tree keeps to the permitted edges; and on trees made for it, that do not, include_edges.sh says so.
set -eu
here=$(dirname "$0")
source=${1:?usage: test_include_edges.sh SOURCE_TREE}
check=$here/include_edges.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail()
{
	echo "FAILED: $*" >&2
	failed=1
}

new_tree()
{
	rm -rf "$work/tree"
	folders="base model collect reconcile symbolize store pprof serve app elf fetch"
	# shellcheck disable=SC2086
	(mkdir "$work/tree" && cd "$work/tree" && mkdir -p bpf proto client/include/sprof client/tool daemon && cd daemon && mkdir $folders)
	for folder in $folders; do
		echo '#include <stdint.h>' > "$work/tree/daemon/$folder/$folder.h"
	done
	echo '#include <linux/types.h>' > "$work/tree/bpf/record.h"
	echo '#include <stdint.h>' > "$work/tree/proto/limits.h"
	echo '#pragma once' > "$work/tree/client/include/sprof/sprof.h"
	echo '#include <stdint.h>' > "$work/tree/client/include/sprof/barrier_abi.h"
	echo '#include "sprof/sprof.h"' > "$work/tree/client/tool/main.c"
}

# refuses FILE LINE: the tree with this line in this file is refused, and the file is named
refuses()
{
	new_tree
	printf '%s\n' "$2" >> "$work/tree/$1"
	if out=$("$check" "$work/tree" 2>&1); then
		fail "$1 may include: $2"
	elif ! printf '%s' "$out" | grep -q "^$1:[0-9]*: "; then
		fail "$1: $2: refused without a place: $out"
	fi
}

permits()
{
	new_tree
	printf '%s\n' "$2" >> "$work/tree/$1"
	"$check" "$work/tree" || fail "$1 may not include: $2"
}

permits daemon/model/x.c '#include "base/base.h"'
permits daemon/store/x.c '#include "model/model.h"'
permits daemon/collect/x.c '#include "bpf/record.h"'
permits daemon/collect/x.c '#include "sampler.skel.h"'
permits daemon/serve/x.c '#include "control.pb-c.h"'
permits daemon/app/x.c '#include "serve/serve.h"'
permits client/tool/x.c '#include "control.pb-c.h"'
permits daemon/elf/x.c '#include "proto/limits.h"'
permits bpf/x.c '#include "bpf/record.h"'
permits daemon/collect/x.c '#include <sprof/barrier_abi.h>'
permits daemon/reconcile/x.c '#include <sprof/barrier_abi.h>'
permits daemon/app/x.c '#include <sprof/barrier_abi.h>'
permits bpf/x.h '#include "sprof/barrier_abi.h"'
permits client/tool/x.c '#include <sprof/barrier_abi.h>'
permits daemon/store/x.c '/* as in #include "serve/serve.h" */'

refuses daemon/base/x.c '#include "model/model.h"'
refuses daemon/base/x.h '#include "store/store.h"'
refuses daemon/model/x.c '#include "store/store.h"'
refuses daemon/store/x.c '#include "serve/serve.h"'
refuses daemon/store/x.c '#include <serve/serve.h>'
refuses daemon/store/x.c '  #  include   "pprof/pprof.h"   // why'
refuses daemon/store/x.c '#include "../serve/serve.h"'
refuses daemon/store/x.c '#include "daemon/serve/serve.h"'
refuses daemon/serve/x.c '#include "app/app.h"'
refuses daemon/elf/x.c '#include "symbolize/symbolize.h"'
refuses daemon/symbolize/x.c '#include "elf/elf.h"'
refuses daemon/store/x.c '#include "sprof/sprof.h"'
refuses daemon/app/x.c '#include <sprof/sprof.h>'
refuses daemon/collect/x.c '#include <sprof/sprof.h>'
refuses bpf/x.h '#include <sprof/sprof.h>'
refuses daemon/base/x.c '#include <sprof/barrier_abi.h>'
refuses daemon/elf/x.c '#include <sprof/barrier_abi.h>'
refuses proto/x.h '#include <sprof/barrier_abi.h>'
refuses daemon/app/x.c '#include "elf/elf.h"'
refuses daemon/app/x.c '#include "fetch/fetch.h"'
refuses daemon/symbolize/x.c '#include "fetch/fetch.h"'
refuses client/tool/x.c '#include "base/base.h"'
refuses client/tool/x.c '#include "../../daemon/base/base.h"'
refuses client/tool/x.c '#include "bpf/record.h"'
refuses bpf/x.h '#include "base/base.h"'
refuses proto/x.h '#include "base/base.h"'
refuses bpf/x.c '#include "control.pb-c.h"'

mkdir "$work/empty"
"$check" "$work/empty" 2> /dev/null && fail "a tree without sources is well"

"$check" --edges "$source" | sort -rn
"$check" "$source" || fail "the project's own tree"
# What is certainly there must have been seen: else nothing was looked at.
"$check" --edges "$source" | grep -q ' app -> serve$' || fail "app -> serve was not seen"
"$check" --edges "$source" | grep -q ' collect -> bpf$' || fail "collect -> bpf was not seen"
exit $failed
