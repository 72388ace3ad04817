/* Burns --before-ms=N (or until SIGUSR1 with 0), then becomes another program: execer [--from-thread] [--before-ms=N] -- PROGRAM ARGS...
 * --from-thread: the exec is done by a thread that is not the leader, which takes over the leader's number. */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "target.h"

static volatile sig_atomic_t go;
static long before_ms;
static char **program;

static void on_signal(int number)
{
	go = number;
}

TARGET_NOINLINE static void before_exec(void)
{
	uint64_t end_ns = target_now_ns() + (uint64_t)before_ms * 1000000;
	while (before_ms ? target_now_ns() < end_ns : !go)
		target_burn(100000);
	__asm__ volatile("");
}

static void *become(void *unused)
{
	before_exec();
	execv(program[0], program);
	target_die(program[0]);
	return unused;
}

int main(int argc, char **argv)
{
	long from_thread = 0;
	const struct target_flag flags[] = {{"from-thread", &from_thread}, {"before-ms", &before_ms}};
	int first = target_parse(argc, argv, flags, 2);
	if (first >= argc)
		return 2;
	program = argv + first;
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGUSR1, &action, NULL);
	target_ready(NULL);
	pthread_t thread;
	if (!from_thread)
		become(NULL);
	else if (pthread_create(&thread, NULL, become, NULL) != 0)
		target_die("pthread_create");
	while (1)
		pause();
}
