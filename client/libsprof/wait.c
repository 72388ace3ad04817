/* Waiting for another thread of the process to let go of a lock. */
#include <sched.h>
#include <time.h>

#include "internal.h"

enum { SPINS = 100, YIELDS = 200, NAP_NS = 50000 };

void relax(unsigned *round)
{
	int saved = errno;
	if (*round < SPINS) {
#if defined(__x86_64__)
		__builtin_ia32_pause();
#elif defined(__aarch64__)
		__asm__ volatile("yield");
#endif
	} else if (*round < YIELDS) {
		sched_yield();
	} else { /* a holder of lower priority must get to run */
		struct timespec nap = {.tv_nsec = NAP_NS};
		nanosleep(&nap, NULL);
	}
	if (*round < YIELDS)
		++*round;
	errno = saved;
}

void spin_lock(uint32_t *lock)
{
	unsigned round = 0;
	while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE))
		relax(&round);
}

void spin_unlock(uint32_t *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

void sprof_lock_slow(struct sprof_stack *stack)
{
	unsigned round = 0;
	while (!sprof_trylock(stack))
		relax(&round);
}
