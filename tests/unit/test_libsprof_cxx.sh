#!/bin/sh
# test_libsprof_cxx.sh CXX SOURCES LIBRARY: a C++ program built against the shared library, inlining and not; and its exported names.
set -eu
cxx=$1 sources=$2 library=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/program.cc" <<'END'
#include <sprof/sprof.h>
int main()
{
	sprof_table *table = nullptr;
	if (sprof_open(nullptr, &table) < 0)
		return 1;
	sprof_thread *thread = sprof_thread_attach(table);
	sprof_stack *stack = sprof_stack_add(table, 0x1000, 0x2000);
	sprof_switch_begin(thread, nullptr, stack);
	sprof_switch_end(thread);
	sprof_lock(stack);
	int r = sprof_barrier_append(table, stack, 0x1800, 42);
	sprof_unlock(stack);
	bool hit = sprof_barrier_hit(stack, sprof_barriers(table, stack), 0x1800) == 42;
	sprof_close(table);
	return r == 0 && hit ? 0 : 1;
}
END
for level in -O0 -O2; do
	"$cxx" -std=c++11 $level -Wall -Wextra -Wundef -Werror -pedantic -fvisibility=hidden -I"$sources/client/include" \
		"$scratch/program.cc" "$library" -Wl,-rpath,"$(dirname "$library")" -o "$scratch/program"
	"$scratch/program"
done
grep -oE '\bsprof_[a-z_]+\(' "$sources/client/include/sprof/sprof.h" | tr -d '(' | sort -u >"$scratch/declared"
nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort >"$scratch/exported"
diff "$scratch/declared" "$scratch/exported"
