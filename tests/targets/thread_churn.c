/* Threads that are born and die all the time: each of --threads=N lines burns --life-us=N, starts its successor, and dies; so threads
 * are born of threads that are about to end, also while somebody attaches. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "target.h"

static _Atomic unsigned long born;
static _Atomic unsigned long burnt_ns;
static _Atomic long lines;
static uint64_t iterations_per_life;

TARGET_NOINLINE static void burn_a_life(void)
{
	target_burn(iterations_per_life);
	TARGET_OWN_FRAME(burn_a_life);
}

static void *life(void *unused);

static void start_life(void)
{
	pthread_t thread;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 65536);
	if (pthread_create(&thread, &attributes, life, NULL) != 0)
		target_die("pthread_create");
	pthread_attr_destroy(&attributes);
	atomic_fetch_add(&born, 1);
}

static void *life(void *unused)
{
	burn_a_life();
	if (target_over())
		atomic_fetch_sub(&lines, 1);
	else
		start_life();
	atomic_fetch_add(&burnt_ns, target_thread_cpu_ns());
	return unused;
}

int main(int argc, char **argv)
{
	long threads = 2, seconds = 0, life_us = 2000;
	const struct target_flag flags[] = {{"threads", &threads}, {"seconds", &seconds}, {"life-us", &life_us}};
	target_parse(argc, argv, flags, 3);
	target_begin(seconds);
	iterations_per_life = target_burn_per_us() * (uint64_t)life_us;
	atomic_store(&lines, threads);
	for (long i = 0; i < threads; i++)
		start_life();
	target_ready(NULL);
	while (atomic_load(&lines) > 0)
		target_sleep_us(10000);
	target_sleep_us(50000); /* the last ones out */
	printf("{\"pid\": %d, \"process_cpu_ns\": %llu, \"born\": %lu, \"burnt_ns\": %lu}\n", (int)getpid(),
	       (unsigned long long)target_process_cpu_ns(), atomic_load(&born), atomic_load(&burnt_ns));
	return 0;
}
