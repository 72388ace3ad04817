/* The collector: takes green threads that do not run managed code, moves their stacks now and then, and hijacks their return addresses. */
#include <time.h>

#include "green.h"

#include "target.h"
#include "worker.h"

enum { MOVE_EVERY = 4 };

static uint64_t *word_at(uint64_t address)
{
	return (uint64_t *)(uintptr_t)address; // NOLINT(performance-no-int-to-ptr)
}

static void restore_all(struct green *green)
{
	struct sprof_barrier barrier;
	while (sprof_barrier_pop(green_table, green->stack, &barrier))
		*word_at(barrier.slot) = barrier.original_pc;
	sprof_barrier_clear(green->stack);
}

/* One barrier a frame, or at the frames 1, 2, 4, 8 … from the youngest. The outermost is left alone. */
static void install(struct green_collector *collector, struct green *green)
{
	uint64_t fp = green->sp + GREEN_FRAME_BYTES - 8;
	for (unsigned frame = 1, next = 1; *word_at(fp) != 0; fp = *word_at(fp), frame++) {
		if (frame != next)
			continue;
		uint64_t *slot = word_at(fp + 8);
		if (sprof_barrier_append(green_table, green->stack, fp + 8, *slot) < 0) {
			collector->full++;
			return;
		}
		*slot = (uintptr_t)green_trampoline;
		collector->installed++;
		next = collector->barriers == BARRIERS_EVERY ? next + 1 : next * 2;
	}
}

/* To a stack of half the size, if three quarters of it are free; else of the same size. */
static void move(struct green *green)
{
	uint64_t used = green->stack->hi - green->sp;
	bool shrink = green->bytes > GREEN_MIN_BYTES && 4 * used < green->bytes &&
		      used + GREEN_GUARD_BYTES < green->bytes / 2;
	green_move(green, shrink ? green->bytes / 2 : green->bytes);
}

static uint64_t cpu_ns_of(const struct green_worker *worker)
{
	clockid_t clock;
	struct timespec t = {.tv_sec = 0};
	if (pthread_getcpuclockid(worker->id, &clock) == 0)
		clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void visit(struct green_collector *collector, struct green *green)
{
	sprof_lock(green->stack);
	uint64_t start = target_now_ns();
	enum green_state state = __atomic_load_n(&green->state, __ATOMIC_ACQUIRE);
	if (state == GREEN_RUNNING) {
		sprof_unlock(green->stack);
		__atomic_store_n(&green->preempt, true, __ATOMIC_RELAXED);
		return;
	}
	bool foreign = state == GREEN_FOREIGN || state == GREEN_FOREIGN_HERE;
	uint64_t cpu_ns = foreign ? cpu_ns_of(green->worker) : 0;
	green->foreign_rounds += foreign;
	restore_all(green);
	if (green->rounds++ % MOVE_EVERY == 0 && state != GREEN_FOREIGN_HERE)
		move(green);
	if (collector->barriers != BARRIERS_NONE)
		install(collector, green);
	if (collector->hold_us > 0) /* asleep, so that others run meanwhile, on one CPU as well */
		nanosleep(&(struct timespec){.tv_nsec = collector->hold_us * 1000}, NULL);
	collector->held_ns += target_now_ns() - start;
	if (foreign)
		green->foreign_held_ns += cpu_ns_of(green->worker) - cpu_ns;
	sprof_unlock(green->stack);
}

void *green_collect(void *argument)
{
	struct green_collector *collector = argument;
	while (!target_over())
		for (long i = 0; i < collector->n && !target_over(); i++) {
			visit(collector, &collector->greens[i]);
			nanosleep(&(struct timespec){.tv_nsec = collector->pause_us * 1000}, NULL);
		}
	return NULL;
}
