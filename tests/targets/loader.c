/* Burns by itself until SIGUSR1, then opens the library named and burns in there: loader [--seconds=N] LIBRARY. */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "target.h"

static volatile sig_atomic_t go;

static void on_signal(int number)
{
	go = number;
}

TARGET_NOINLINE static void burn_before(uint64_t iterations)
{
	target_burn(iterations);
	TARGET_OWN_FRAME(burn_before);
}

TARGET_NOINLINE static void burn_through(void (*burn)(uint64_t), uint64_t iterations)
{
	burn(iterations);
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	long seconds = 0;
	const struct target_flag flags[] = {{"seconds", &seconds}};
	int first = target_parse(argc, argv, flags, 1);
	if (first >= argc)
		return 2;
	target_begin(seconds);
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGUSR1, &action, NULL);
	uint64_t slice = target_burn_per_us() * 1000;
	target_ready(NULL);
	while (!target_over() && !go)
		burn_before(slice);
	void *library = dlopen(argv[first], RTLD_NOW);
	void (*burn)(uint64_t) = NULL;
	void *symbol = library ? dlsym(library, "plugin_burn") : NULL;
	memcpy(&burn, &symbol, sizeof(burn));
	if (!burn) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	target_ready("\"loaded\": true");
	while (!target_over())
		burn_through(burn, slice);
	printf("{\"pid\": %d, \"process_cpu_ns\": %llu}\n", (int)getpid(), (unsigned long long)target_process_cpu_ns());
	return 0;
}
