/* Burns CPU in a known call graph: thread_main -> drive -> a_heavy, b_mid -> b_leaf, c_light, in the proportions of --shares.
 * --threads=N --seconds=N --shares=3:2:1 --burst-us=N --idle-us=N (bursts with sleeps between them) --undumpable --leader-exits
 * --exit-after-ms=N ends each thread but the first early. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "target.h"

enum { MAX_THREADS = 256, ROUND_US = 300 };

struct worker {
	pthread_t thread;
	uint64_t cpu_ns;
	pid_t tid;
	bool may_end_early;
};

struct plan {
	uint64_t iterations[3]; /* of one round, in a_heavy, b_mid, c_light */
	long idle_us;           /* between rounds */
	long exit_after_ms;
};

static struct plan plan;
static struct worker workers[MAX_THREADS];

TARGET_NOINLINE static void a_heavy(uint64_t iterations)
{
	target_burn(iterations);
	TARGET_OWN_FRAME(a_heavy);
}

TARGET_NOINLINE static void b_leaf(uint64_t iterations)
{
	target_burn(iterations);
	TARGET_OWN_FRAME(b_leaf);
}

TARGET_NOINLINE static void b_mid(uint64_t iterations)
{
	b_leaf(iterations);
	__asm__ volatile("");
}

TARGET_NOINLINE static void c_light(uint64_t iterations)
{
	target_burn(iterations);
	TARGET_OWN_FRAME(c_light);
}

TARGET_NOINLINE static void drive(const struct plan *round)
{
	a_heavy(round->iterations[0]);
	b_mid(round->iterations[1]);
	c_light(round->iterations[2]);
	__asm__ volatile("");
}

TARGET_NOINLINE static void *thread_main(void *argument)
{
	struct worker *worker = argument;
	worker->tid = target_tid();
	prctl(PR_SET_TIMERSLACK, 1UL);
	uint64_t end_ns = target_now_ns() + (uint64_t)plan.exit_after_ms * 1000000;
	while (!target_over()) {
		if (plan.exit_after_ms && worker->may_end_early && target_now_ns() > end_ns)
			break;
		drive(&plan);
		if (plan.idle_us)
			target_sleep_us(plan.idle_us);
	}
	worker->cpu_ns = target_thread_cpu_ns();
	return NULL;
}

static void report(long n_threads, const long shares[3])
{
	printf("{\"pid\": %d, \"process_cpu_ns\": %llu, \"shares\": [%ld, %ld, %ld], \"threads\": [", (int)getpid(),
	       (unsigned long long)target_process_cpu_ns(), shares[0], shares[1], shares[2]);
	for (long i = 0; i < n_threads; i++)
		printf("%s{\"tid\": %d, \"cpu_ns\": %llu}", i ? ", " : "", (int)workers[i].tid,
		       (unsigned long long)workers[i].cpu_ns);
	printf("]}\n");
	fflush(stdout);
}

static void make_plan(const long shares[3], long burst_us, long idle_us, long exit_after_ms)
{
	uint64_t per_us = target_burn_per_us();
	long total = shares[0] + shares[1] + shares[2];
	for (int i = 0; i < 3; i++)
		plan.iterations[i] = per_us * (uint64_t)(burst_us ? burst_us : ROUND_US) * (uint64_t)shares[i] /
				     (uint64_t)(total > 0 ? total : 1);
	plan.idle_us = idle_us;
	plan.exit_after_ms = exit_after_ms;
}

/* Takes --shares=A:B:C out of the arguments. */
static int parse_shares(int argc, char **argv, long shares[3])
{
	int kept = 1;
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], "--shares=", 9) == 0) {
			char *at = argv[i] + 9;
			for (int k = 0; k < 3; k++, at += *at == ':')
				shares[k] = strtol(at, &at, 10);
		} else {
			argv[kept++] = argv[i];
		}
	return kept;
}

struct how {
	long threads;
	long shares[3];
};

/* The first worker is the calling thread itself. */
static void *run(void *argument)
{
	const struct how *how = argument;
	for (long i = 1; i < how->threads; i++) {
		workers[i].may_end_early = true;
		if (pthread_create(&workers[i].thread, NULL, thread_main, &workers[i]) != 0)
			target_die("pthread_create");
	}
	target_ready(NULL);
	thread_main(&workers[0]);
	for (long i = 1; i < how->threads; i++)
		pthread_join(workers[i].thread, NULL);
	report(how->threads, how->shares);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct how how = {.threads = 1, .shares = {3, 2, 1}};
	long seconds = 0, burst_us = 0, idle_us = 0, undumpable = 0, leader_exits = 0, exit_after_ms = 0;
	const struct target_flag flags[] = {
		{"threads", &how.threads},         {"seconds", &seconds},
		{"burst-us", &burst_us},           {"idle-us", &idle_us},
		{"undumpable", &undumpable},       {"leader-exits", &leader_exits},
		{"exit-after-ms", &exit_after_ms},
	};
	argc = parse_shares(argc, argv, how.shares);
	target_parse(argc, argv, flags, sizeof(flags) / sizeof(flags[0]));
	if (how.threads < 1 || how.threads > MAX_THREADS)
		return 2;
	if (undumpable && prctl(PR_SET_DUMPABLE, 0UL) != 0)
		target_die("prctl");
	target_begin(seconds);
	make_plan(how.shares, burst_us, idle_us, exit_after_ms);
	if (!leader_exits) {
		run(&how);
		return 0;
	}
	pthread_t thread;
	if (pthread_create(&thread, NULL, run, &how) != 0)
		target_die("pthread_create");
	pthread_exit(NULL); /* the process goes on with a leader that is a zombie */
}
