/* Burns at the bottom of --depth=N frames of one function, each with a frame pointer; with --calls=1 by calls of another. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "target.h"

static long calls;

/* Begins with a push. */
TARGET_NOINLINE static void deep_call(void)
{
	__asm__ volatile("" ::: "rbx");
}

TARGET_NOINLINE static void deep_leaf(void)
{
	while (!target_over()) {
		for (int i = 0; calls && i < 1000; i++)
			deep_call();
		if (!calls)
			target_burn(100000);
	}
	__asm__ volatile("");
}

/* NOLINTNEXTLINE(misc-no-recursion): recursion is what it is for */
TARGET_NOINLINE static void deep_frame(long left)
{
	if (left > 1)
		deep_frame(left - 1);
	else
		deep_leaf();
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	long depth = 100, seconds = 0;
	const struct target_flag flags[] = {{"depth", &depth}, {"seconds", &seconds}, {"calls", &calls}};
	target_parse(argc, argv, flags, 3);
	target_begin(seconds);
	target_ready(NULL);
	deep_frame(depth);
	printf("{\"pid\": %d, \"process_cpu_ns\": %llu}\n", (int)getpid(), (unsigned long long)target_process_cpu_ns());
	return 0;
}
