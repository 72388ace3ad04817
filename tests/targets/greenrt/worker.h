/* The threads that run green threads, and the queue they take them from. */
#pragma once
#include "green.h"

struct green_queue {
	pthread_mutex_t lock;
	struct green **items; /* as many as there are green threads */
	long n, first, capacity;
};
struct green *queue_take(struct green_queue *queue); /* NULL: none */
void queue_put(struct green_queue *queue, struct green *green);

struct green_worker {
	pthread_t id;
	int tid; /* 0: not running yet */
	struct sprof_thread *thread;
	struct sprof_stack *system; /* its pthread stack */
	struct green_queue *queue;
	volatile int *stop;
	uint64_t cpu_ns;
};

void green_allow_collector(struct green *green);
