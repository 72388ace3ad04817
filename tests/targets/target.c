#include "target.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

volatile int target_stop;
static uint64_t deadline_ns;

static uint64_t read_clock(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t target_now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t target_thread_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t target_process_cpu_ns(void)
{
	return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

pid_t target_tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

void target_sleep_us(long us)
{
	struct timespec span = {us / 1000000, us % 1000000 * 1000};
	nanosleep(&span, NULL);
}

void target_die(const char *what)
{
	perror(what);
	exit(1);
}

static void stop(int number)
{
	(void)number;
	target_stop = 1;
}

void target_begin(long seconds)
{
	struct sigaction action = {.sa_handler = stop};
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (seconds > 0)
		deadline_ns = target_now_ns() + (uint64_t)seconds * 1000000000u;
}

bool target_over(void)
{
	if (deadline_ns && target_now_ns() >= deadline_ns)
		target_stop = 1;
	return target_stop;
}

void target_ready(const char *more)
{
	printf("{\"ready\": %d%s%s}\n", (int)getpid(), more ? ", " : "", more ? more : "");
	fflush(stdout);
}

uint64_t target_burn_per_us(void)
{
	enum { PROBE = 2000000 };
	uint64_t best_ns = UINT64_MAX;
	for (int i = 0; i < 3; i++) {
		uint64_t before_ns = target_thread_cpu_ns();
		target_burn(PROBE);
		uint64_t took_ns = target_thread_cpu_ns() - before_ns;
		if (took_ns < best_ns)
			best_ns = took_ns;
	}
	uint64_t rate = (uint64_t)PROBE * 1000 / (best_ns ? best_ns : 1);
	return rate ? rate : 1;
}

static long parse_number(char **argv, const char *text)
{
	char *end = NULL;
	errno = 0;
	long number = strtol(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0) {
		fprintf(stderr, "%s: not a number: %s\n", argv[0], text);
		exit(2);
	}
	return number;
}

int target_parse(int argc, char **argv, const struct target_flag *flags, size_t n_flags)
{
	int i = 1;
	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (argv[i][2] == '\0')
			return i + 1;
		size_t f = 0, length = strcspn(argv[i] + 2, "=");
		while (f < n_flags &&
		       (strlen(flags[f].name) != length || strncmp(argv[i] + 2, flags[f].name, length) != 0))
			f++;
		if (f == n_flags) {
			fprintf(stderr, "%s: unknown option %s\n", argv[0], argv[i]);
			exit(2);
		}
		*flags[f].value = argv[i][2 + length] == '=' ? parse_number(argv, argv[i] + 3 + length) : 1;
	}
	return i;
}
