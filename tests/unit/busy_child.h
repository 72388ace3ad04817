/* A child of the test whose threads burn CPU time until they are told to end. */
#pragma once
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_BUSY_THREADS = 256 };

struct busy_shared {
	_Atomic int n;                        /* threads that were born */
	_Atomic int wanted;                   /* more are born until there are as many */
	_Atomic pid_t tids[MAX_BUSY_THREADS]; /* in the order of birth; [0] is the main thread, which does not burn */
	_Atomic bool end[MAX_BUSY_THREADS];
	unsigned birth_us; /* between births */
};

struct busy_child {
	pid_t pid;
	struct busy_shared *shared;
};

struct busy_thread {
	struct busy_shared *shared;
	int index;
};

static inline void *busy_burn(void *context)
{
	struct busy_thread thread = *(struct busy_thread *)context;
	free(context);
	thread.shared->tids[thread.index] = (pid_t)syscall(SYS_gettid);
	while (!thread.shared->end[thread.index])
		for (volatile int i = 0; i < 1000; i++)
			;
	return NULL;
}

static inline void busy_run(struct busy_shared *shared)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shared->tids[0] = getpid();
	shared->n = 1;
	for (;;) {
		if (shared->n < shared->wanted) {
			struct busy_thread *thread = malloc(sizeof(*thread));
			pthread_t handle;
			*thread = (struct busy_thread){shared, shared->n};
			if (pthread_create(&handle, NULL, busy_burn, thread) != 0)
				_exit(1);
			pthread_detach(handle);
			shared->n++;
			if (shared->birth_us)
				usleep(shared->birth_us);
		} else {
			usleep(2000);
		}
	}
}

/* Returns once `threads` (the main one included) were born and run. */
static inline struct busy_child busy_start(int threads, unsigned birth_us)
{
	struct busy_child child;
	child.shared = mmap(NULL, sizeof(*child.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (child.shared == MAP_FAILED)
		abort();
	child.shared->birth_us = birth_us;
	child.shared->wanted = threads;
	child.pid = fork();
	if (child.pid == 0)
		busy_run(child.shared);
	for (int i = 0; i < threads; i++)
		while (!child.shared->tids[i])
			usleep(500);
	return child;
}

static inline void busy_stop(struct busy_child *child)
{
	kill(child->pid, SIGKILL);
	waitpid(child->pid, NULL, 0);
	munmap(child->shared, sizeof(*child->shared));
}

/* CPU time of the thread so far, as the kernel books it; 0 when it is gone. */
static inline uint64_t busy_runtime_ns(const struct busy_child *child, int index)
{
	char path[64];
	unsigned long long ns = 0;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", (int)child->pid, (int)child->shared->tids[index]);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%llu", &ns) != 1)
		ns = 0;
	fclose(file);
	return ns;
}
