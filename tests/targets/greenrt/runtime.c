/* Green threads: parking, calls off the stack and back, panics. The functions that switch.S calls are here. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "green.h"
#include "worker.h"

_Thread_local struct green *green_current;
struct sprof_table *green_table;
uint64_t green_depth, green_max_bytes;

void green_enter_system(struct green *green, enum green_kind kind);
void green_leave_system(struct green *green, enum green_kind kind);
void green_enter_callback(struct green *green);
void green_leave_callback(struct green *green);
void green_left_callback(struct green *green);
void green_enter_here(struct green *green);
void green_leave_here(struct green *green);
void green_main(struct green *green);
void green_barrier_helper(struct green *green);

static uint64_t *pointer_to(uint64_t address)
{
	return (uint64_t *)(uintptr_t)address; // NOLINT(performance-no-int-to-ptr)
}

static uint64_t word_at(uint64_t address)
{
	return *pointer_to(address);
}

/* Where the call that saved green->sp returns to, be there a barrier or not. */
static struct sprof_context caller_of(const struct green *green)
{
	uint64_t slot = green->sp + GREEN_FRAME_BYTES;
	struct sprof_context context = {.pc = word_at(slot), .sp = slot + 8, .fp = word_at(slot - 8)};
	for (uint64_t i = green->stack->pos; i < green->stack->n; i++)
		if (green->barriers[i].slot == slot)
			context.pc = green->barriers[i].original_pc;
	return context;
}

static void set_state(struct green *green, enum green_state state)
{
	__atomic_store_n(&green->state, state, __ATOMIC_RELEASE);
}

void green_enter_system(struct green *green, enum green_kind kind)
{
	struct sprof_context c = caller_of(green);
	if (kind == GREEN_CALL_FOREIGN)
		sprof_foreign_enter(green->thread, green->stack, c.pc, c.sp, c.fp);
	if (kind == GREEN_CALL_LIBRARY)
		sprof_libcall_enter(green->thread, green->stack, c.pc, c.sp, c.fp);
	if (kind == GREEN_CALL_SYSTEM)
		sprof_system_begin(green->thread, c.pc, c.sp, c.fp);
	else
		sprof_system_begin(green->thread, 0, 0, 0);
}

/* The foreign code itself says when the collector may have the stack: green_allow_collector, once it runs on the system stack. */
void green_allow_collector(struct green *green)
{
	set_state(green, GREEN_FOREIGN);
}

void green_leave_system(struct green *green, enum green_kind kind)
{
	sprof_lock(green->stack); /* waits for the collector, which may have moved the stack */
	set_state(green, GREEN_RUNNING);
	if (kind == GREEN_CALL_FOREIGN)
		sprof_foreign_leave(green->thread);
	sprof_unlock(green->stack);
	if (kind == GREEN_CALL_LIBRARY)
		sprof_libcall_leave(green->thread);
	sprof_user_begin(green->thread);
}

void green_enter_callback(struct green *green)
{
	sprof_lock(green->stack);
	set_state(green, GREEN_RUNNING);
	sprof_callback_enter(green->thread);
	sprof_unlock(green->stack);
	green->pinned++;
	green->callbacks++;
	sprof_user_begin(green->thread);
}

void green_leave_callback(struct green *green)
{
	sprof_system_begin(green->thread, 0, 0, 0);
}

void green_left_callback(struct green *green)
{
	struct sprof_context c = caller_of(green);
	green->pinned--;
	sprof_callback_leave(green->thread, green->stack, c.pc, c.sp, c.fp);
	set_state(green, GREEN_FOREIGN);
}

void green_enter_here(struct green *green)
{
	struct sprof_context c = caller_of(green);
	sprof_foreign_enter(green->thread, green->stack, c.pc, c.sp, c.fp);
	set_state(green, GREEN_FOREIGN_HERE);
}

void green_leave_here(struct green *green)
{
	sprof_lock(green->stack); /* waits for the collector */
	set_state(green, GREEN_RUNNING);
	sprof_foreign_leave(green->thread);
	sprof_unlock(green->stack);
}

void green_move(struct green *green, uint64_t bytes)
{
	uint64_t old_hi = green->stack->hi, old_sp = green->sp, used = old_hi - old_sp;
	if (used + GREEN_GUARD_BYTES / 2 > bytes || bytes > green_max_bytes)
		abort();
	green->side ^= 1;
	green->bytes = bytes;
	uint64_t lo = (uintptr_t)green->memory[green->side], hi = lo + bytes, delta = hi - old_hi;
	memcpy(pointer_to(old_sp + delta), pointer_to(old_sp), used);
	green->sp = old_sp + delta;
	green->limit = lo + GREEN_GUARD_BYTES;
	for (uint64_t fp = green->sp + GREEN_FRAME_BYTES - 8; word_at(fp) != 0; fp = word_at(fp))
		*pointer_to(fp) += delta;
	memset(pointer_to(old_sp), 0x5a, used); /* whoever still looks there is wrong */
	sprof_stack_move(green_table, green->stack, lo, hi);
	green->moves++;
}

/* On the system stack. */
static void grow(struct green *green)
{
	sprof_lock(green->stack);
	green_move(green, 2 * green->bytes);
	green->growths++;
	sprof_unlock(green->stack);
}

void green_grow(struct green *green)
{
	green_on_system(green, grow, GREEN_CALL_SYSTEM);
}

void green_safepoint(struct green *green)
{
	green->safepoints++;
	if (green->pinned ||
	    (!__atomic_load_n(&green->preempt, __ATOMIC_RELAXED) && green->safepoints % GREEN_QUANTUM != 0))
		return;
	sprof_switch_begin(green->thread, green->stack, NULL);
	sprof_set_current(green->thread, green->worker->system);
	green_to_scheduler(green);
}

void green_panic(struct green *green)
{
	struct green_jump jump = green->recover;
	green->panics++;
	sprof_lock(green->stack);
	jump.rsp = green->stack->hi - jump.rsp;
	jump.rbp = green->stack->hi - jump.rbp;
	sprof_barrier_unwind(green_table, green->stack, jump.rsp);
	/* With the lock held: until sp has changed, the frames that lost their barriers can be walked. */
	green_restore(&jump);
}

void green_recovered(struct green *green)
{
	sprof_unlock(green->stack);
}

void green_barrier_helper(struct green *green)
{
	green->helper_calls++;
	for (volatile int i = 0; i < 50; i++)
		;
}

void green_main(struct green *green)
{
	for (;;)
		green_work(green);
}

void green_start(struct green *green)
{
	for (int i = 0; i < 2; i++) {
		green->memory[i] =
			mmap(NULL, green_max_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (green->memory[i] == MAP_FAILED)
			abort();
	}
	uint64_t lo = (uintptr_t)green->memory[0], hi = lo + GREEN_MIN_BYTES;
	green->stack = sprof_stack_add(green_table, lo, hi);
	green->barriers = sprof_barriers(green_table, green->stack);
	if (!green->stack)
		abort();
	/* As if green_first had been called by green_entry, and had parked at once: rbx is its argument. */
	uint64_t *top = pointer_to(hi);
	memset(top - 16, 0, 16 * sizeof(*top));
	top[-9] = (uintptr_t)green_first;
	top[-11] = (uintptr_t)green;
	green->sp = (uintptr_t)(top - 15);
	green->bytes = GREEN_MIN_BYTES;
	green->limit = lo + GREEN_GUARD_BYTES;
	green->state = GREEN_PARKED;
}

static void run(struct green_worker *worker, struct green *green)
{
	sprof_lock(green->stack); /* waits for the collector */
	set_state(green, GREEN_RUNNING);
	sprof_unlock(green->stack);
	green->preempt = false;
	green->worker = worker;
	green->thread = worker->thread;
	green_current = green;
	sprof_switch_begin(worker->thread, NULL, green->stack);
	green_run(green);
	green_current = NULL;
	set_state(green, GREEN_PARKED);
}

void green_schedule(struct green_worker *worker)
{
	while (!__atomic_load_n(worker->stop, __ATOMIC_RELAXED)) {
		struct green *green = queue_take(worker->queue);
		if (!green) {
			nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
			continue;
		}
		run(worker, green);
		queue_put(worker->queue, green);
	}
}
