/* Burns, and forks children that burn as well, one after the other. They are no business of whoever profiles the parent. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "target.h"

enum { MAX_CHILDREN = 1000 };
static pid_t children[MAX_CHILDREN];

TARGET_NOINLINE static void burn_parent(uint64_t iterations)
{
	target_burn(iterations);
	TARGET_OWN_FRAME(burn_parent);
}

TARGET_NOINLINE static void burn_child(uint64_t iterations)
{
	target_burn(iterations);
	TARGET_OWN_FRAME(burn_child);
}

int main(int argc, char **argv)
{
	long seconds = 0, slice_ms = 50;
	const struct target_flag flags[] = {{"seconds", &seconds}, {"slice-ms", &slice_ms}};
	target_parse(argc, argv, flags, 2);
	target_begin(seconds);
	uint64_t slice = target_burn_per_us() * 1000 * (uint64_t)slice_ms;
	size_t n = 0;
	target_ready(NULL);
	while (!target_over()) {
		pid_t child = n < MAX_CHILDREN ? fork() : -1;
		if (child == 0) {
			burn_child(slice);
			_exit(0);
		}
		burn_parent(slice);
		if (child > 0) {
			children[n++] = child;
			waitpid(child, NULL, 0);
		}
	}
	printf("{\"pid\": %d, \"process_cpu_ns\": %llu, \"children\": [", (int)getpid(),
	       (unsigned long long)target_process_cpu_ns());
	for (size_t i = 0; i < n; i++)
		printf("%s%d", i ? ", " : "", (int)children[i]);
	printf("]}\n");
	return 0;
}
