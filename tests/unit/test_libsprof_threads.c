/* Thread slots: claimed, given back, left behind by the dead; and what a signal handler may do in the middle of a change. */
#include <pthread.h>
#include <signal.h>
#include <sprof/sprof.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check_main.h"

static struct sprof_table *open_table(uint32_t threads)
{
	struct sprof_table *table = NULL;
	const struct sprof_options options = {.size = sizeof(options), .threads = threads, .flags = SPROF_OPEN_NO_LOCK};
	ck_assert_int_eq(sprof_open(&options, &table), 0);
	return table;
}

static struct sprof_thread *slots_of(const struct sprof_table *table)
{
	const struct sprof_header *h = sprof_table_address(table);
	return (struct sprof_thread *)((char *)h + h->off_thread);
}

static uint64_t refused(const struct sprof_table *table)
{
	struct sprof_status status = {.size = sizeof(status)};
	ck_assert_int_eq(sprof_status(table, &status), 0);
	return status.threads_refused;
}

static uint32_t gettid_u32(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

/* Field 22 the slow way. */
static uint64_t starttime_by_scanf(void)
{
	char text[1024] = "";
	FILE *f = fopen("/proc/thread-self/stat", "re");
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
	ck_assert_int_eq(fclose(f), 0);
	char *p = strrchr(text, ')') + 2;
	for (int field = 3; field < 22; field++)
		p = strchr(p, ' ') + 1;
	return strtoull(p, NULL, 10);
}

static void *attach_named(void *table)
{
	ck_assert_int_eq(pthread_setname_np(pthread_self(), "a) R 1 2 (3"), 0);
	struct sprof_thread *thread = sprof_thread_attach(table);
	ck_assert_ptr_nonnull(thread);
	ck_assert_uint_eq(thread->tid, gettid_u32());
	ck_assert_uint_eq(thread->starttime, starttime_by_scanf());
	ck_assert_uint_eq(thread->seq & 1, 0);
	ck_assert_ptr_eq(sprof_thread_attach(table), thread);
	ck_assert_ptr_eq(sprof_thread_self(table), thread);
	return thread;
}

START_TEST(a_reader_finds_it_by_its_tid)
{
	struct sprof_table *table = open_table(64);
	struct sprof_thread *thread = attach_named(table);
	size_t place = (size_t)(thread - slots_of(table));
	ck_assert_uint_eq(place, gettid_u32() % 64);
	ck_assert_uint_eq(((const struct sprof_header *)sprof_table_address(table))->n_probe, 1);
	sprof_thread_detach(thread);
	ck_assert_uint_eq(thread->tid, SPROF_TID_FREE);
	ck_assert_ptr_null(sprof_thread_self(table));
	sprof_close(table);
}
END_TEST

static void *dirty(void *table)
{
	struct sprof_thread *thread = attach_named(table);
	sprof_gc(thread, 1);
	sprof_foreign_enter(thread, sprof_stack_add(table, 1, 2), 1, 2, 3);
	(void)sprof_begin(thread); /* dies in the middle of a change */
	return thread;
}

static void *run_thread(void *(*body)(void *), void *argument)
{
	pthread_t id;
	void *result;
	ck_assert_int_eq(pthread_create(&id, NULL, body, argument), 0);
	ck_assert_int_eq(pthread_join(id, &result), 0);
	return result;
}

static void *attach_clean(void *table)
{
	struct sprof_thread *thread = attach_named(table);
	ck_assert_uint_eq(thread->flags | thread->foreign_depth | thread->foreign.gen, 0);
	ck_assert_uint_eq(thread->foreign_context.pc | thread->foreign_context.sp | thread->foreign_context.fp, 0);
	return thread;
}

/* Joining waits for the kernel to clear the tid, which is a moment before the thread is gone. */
static void await_death(uint32_t tid)
{
	while (syscall(SYS_tgkill, getpid(), (pid_t)tid, 0) == 0)
		usleep(100);
}

START_TEST(slots_of_the_dead_are_used_again)
{
	struct sprof_table *table = open_table(SPROF_THREAD_PROBES); /* every thread looks at every slot */
	for (int i = 0; i < SPROF_THREAD_PROBES; i++)
		await_death(((struct sprof_thread *)run_thread(dirty, table))->tid);
	for (int i = 0; i < SPROF_THREAD_PROBES; i++)
		ck_assert_uint_eq(slots_of(table)[i].seq & 1, 1);
	struct sprof_thread *thread = run_thread(attach_clean, table);
	ck_assert_uint_eq(refused(table), 0);
	ck_assert_uint_eq(thread->seq & 1, 0);
	sprof_close(table);
}
END_TEST

struct sleeper {
	uint32_t tid;
	pthread_barrier_t born, over;
};

static void *sleep_until_over(void *argument)
{
	struct sleeper *sleeper = argument;
	sleeper->tid = gettid_u32();
	pthread_barrier_wait(&sleeper->born);
	pthread_barrier_wait(&sleeper->over);
	return NULL;
}

/* Pools of threads have runs of tids. Runs that begin at the same slot must not starve in each other's neighbourhood. */
START_TEST(runs_of_tids_that_overlap)
{
	struct sprof_table *table = open_table(1024);
	struct sprof_thread *slots = slots_of(table), *mine;
	struct sleeper other; /* alive, so that its slots are not taken from it */
	pthread_t id;
	ck_assert_int_eq(pthread_barrier_init(&other.born, NULL, 2) | pthread_barrier_init(&other.over, NULL, 2), 0);
	ck_assert_int_eq(pthread_create(&id, NULL, sleep_until_over, &other), 0);
	pthread_barrier_wait(&other.born);
	uint32_t home = gettid_u32() % 1024;
	for (uint32_t i = 0; i < 700; i++)
		slots[(home + 1024 - 200 + i) % 1024].tid = other.tid;
	mine = sprof_thread_attach(table);
	ck_assert_ptr_nonnull(mine);
	const struct sprof_header *header = sprof_table_address(table);
	uint32_t i = 0;
	while (i < header->n_probe && &slots[SPROF_THREAD_SLOT(gettid_u32(), i, 1024)] != mine)
		i++;
	ck_assert_uint_eq(i, header->n_probe - 1);
	ck_assert_uint_gt(header->n_probe, 1);
	ck_assert_ptr_eq(sprof_thread_self(table), mine);
	pthread_barrier_wait(&other.over);
	ck_assert_int_eq(pthread_join(id, NULL), 0);
	sprof_close(table);
}
END_TEST

/* The same number, another thread: told apart by when it began. */
START_TEST(a_tid_that_was_used_before)
{
	struct sprof_table *table = open_table(64);
	struct sprof_thread *thread = sprof_thread_attach(table);
	sprof_gc(thread, 1);
	sprof_libcall_enter(thread, NULL, 1, 2, 3);
	thread->starttime -= 100;
	uint32_t seq = thread->seq;
	ck_assert_ptr_eq(sprof_thread_attach(table), thread);
	ck_assert_uint_eq(thread->flags, 0);
	ck_assert_uint_eq(thread->libcall_context.pc, 0);
	ck_assert_uint_eq(thread->starttime, starttime_by_scanf());
	ck_assert_uint_gt(thread->seq, seq);
	ck_assert_uint_eq(thread->seq & 1, 0);
	sprof_close(table);
}
END_TEST

struct crowd {
	struct sprof_table *table;
	pthread_barrier_t all;
	uint64_t with_slot;
};

static void *join_crowd(void *argument)
{
	struct crowd *crowd = argument;
	struct sprof_thread *thread = sprof_thread_attach(crowd->table);
	if (thread) {
		__atomic_fetch_add(&crowd->with_slot, 1, __ATOMIC_RELAXED);
		if (thread->tid != gettid_u32())
			abort();
	}
	pthread_barrier_wait(&crowd->all);
	if (thread && (thread->tid != gettid_u32() || sprof_thread_self(crowd->table) != thread))
		abort();
	sprof_gc(thread, 1);
	sprof_thread_detach(thread);
	return NULL;
}

/* Runs n threads that are all attached at once; returns how many got a slot. */
static uint64_t gather(struct sprof_table *table, unsigned n)
{
	struct crowd crowd = {.table = table};
	pthread_t *ids = calloc(n, sizeof(*ids));
	pthread_attr_t attr;
	ck_assert_ptr_nonnull(ids);
	ck_assert_int_eq(pthread_barrier_init(&crowd.all, NULL, n), 0);
	ck_assert_int_eq(pthread_attr_init(&attr), 0);
	ck_assert_int_eq(pthread_attr_setstacksize(&attr, 65536), 0);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(pthread_create(&ids[i], &attr, join_crowd, &crowd), 0);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
	free(ids);
	return crowd.with_slot;
}

#ifdef SPROF_SANITIZE
enum { MANY = 1000 }; /* a sanitized thread costs too much memory for more */
#else
enum { MANY = 10000 };
#endif

START_TEST(ten_thousand_threads)
{
	struct sprof_table *table = open_table(MANY * 16 / 10);
	ck_assert_uint_eq(gather(table, MANY), MANY);
	ck_assert_uint_eq(refused(table), 0);
	for (uint32_t i = 0; i < MANY * 16 / 10; i++)
		ck_assert_uint_eq(slots_of(table)[i].tid | slots_of(table)[i].flags, 0);
	sprof_close(table);
}
END_TEST

START_TEST(more_threads_than_slots)
{
	struct sprof_table *table = open_table(100);
	uint64_t with_slot = gather(table, 300);
	ck_assert_uint_le(with_slot, 100);
	ck_assert_uint_ge(with_slot, SPROF_THREAD_PROBES);
	ck_assert_uint_eq(refused(table), 300 - with_slot);
	ck_assert_ptr_nonnull(strstr(sprof_status_text(table), "more threads"));
	sprof_close(table);
}
END_TEST

static struct sprof_thread *interrupted;
static uint32_t seq_in_handler[3];

static void handler(int number)
{
	(void)number;
	seq_in_handler[0] = interrupted->seq;
	uint32_t step = sprof_begin(interrupted);
	seq_in_handler[1] = interrupted->seq;
	sprof_end(interrupted, step);
	seq_in_handler[2] = interrupted->seq;
}

START_TEST(a_handler_in_the_middle_of_a_change)
{
	struct sprof_table *table = open_table(64);
	interrupted = sprof_thread_attach(table);
	ck_assert_ptr_ne(signal(SIGUSR1, handler), SIG_ERR);
	uint32_t step = sprof_begin(interrupted);
	ck_assert_int_eq(raise(SIGUSR1), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(seq_in_handler[i] & 1, 1);
	ck_assert_uint_gt(seq_in_handler[1], seq_in_handler[0]);
	sprof_end(interrupted, step);
	ck_assert_uint_eq(interrupted->seq & 1, 0);
	ck_assert_uint_gt(interrupted->seq, seq_in_handler[2]);
	uint32_t seq = interrupted->seq;
	ck_assert_int_eq(raise(SIGUSR1), 0);
	ck_assert_uint_eq(seq_in_handler[1], seq + 1);
	ck_assert_uint_eq(interrupted->seq, seq + 2);
	sprof_close(table);
}
END_TEST

START_TEST(foreign_calls_nest_by_callbacks)
{
	struct sprof_table *table = open_table(64);
	struct sprof_thread *thread = sprof_thread_attach(table);
	struct sprof_stack *stack = sprof_stack_add(table, 0x1000, 0x2000);
	sprof_foreign_enter(thread, stack, 1, 0x1100, 3);
	ck_assert_uint_eq(thread->foreign_depth, 1);
	ck_assert_mem_eq(&thread->foreign, &stack->self, 8);
	sprof_callback_enter(thread);
	ck_assert_uint_eq(thread->foreign_depth, 1);
	ck_assert_uint_eq(thread->foreign_context.pc | thread->foreign_context.sp, 0);
	sprof_foreign_enter(thread, stack, 4, 0x1080, 6);
	ck_assert_uint_eq(thread->foreign_depth, 2);
	sprof_foreign_leave(thread);
	ck_assert_uint_eq(thread->foreign_depth, 1);
	ck_assert_uint_eq(thread->foreign_context.pc | thread->foreign_context.sp, 0);
	sprof_callback_leave(thread, stack, 1, 0x1100, 3);
	ck_assert_uint_eq(thread->foreign_context.sp, 0x1100);
	sprof_foreign_leave(thread);
	sprof_foreign_leave(thread); /* one too many */
	ck_assert_uint_eq(thread->foreign_depth, 0);
	ck_assert_uint_eq(thread->seq & 1, 0);
	sprof_close(table);
}
END_TEST

START_TEST(to_the_system_stack_and_back)
{
	struct sprof_table *table = open_table(64);
	struct sprof_thread *thread = sprof_thread_attach(table);
	struct sprof_stack *user = sprof_stack_add(table, 0x1000, 0x2000),
			   *system = sprof_stack_add(table, 0x5000, 0x6000);
	uint32_t step = sprof_begin(thread);
	sprof_set_system(thread, system);
	sprof_end(thread, step);
	sprof_switch_begin(thread, NULL, user);
	sprof_switch_end(thread);
	ck_assert_uint_eq(system->owner_tid, gettid_u32());
	ck_assert_uint_eq(user->owner_tid, gettid_u32());
	sprof_system_begin(thread, 7, 0x1f00, 0x1f10);
	sprof_switch_end(thread);
	ck_assert_mem_eq(&thread->current, &system->self, 8);
	ck_assert_mem_eq(&thread->user, &user->self, 8);
	ck_assert_uint_eq(thread->jump_context.sp, 0x1f00);
	sprof_user_begin(thread);
	sprof_switch_end(thread);
	ck_assert_mem_eq(&thread->current, &user->self, 8);
	ck_assert_uint_eq(thread->jump_context.pc | thread->jump_context.sp, 0);
	sprof_switch_begin(thread, user, NULL);
	sprof_switch_end(thread);
	ck_assert_uint_eq(user->owner_tid, 0);
	ck_assert_uint_eq(thread->current.gen, 0);
	sprof_close(table);
}
END_TEST

CHECK_MAIN("libsprof_threads", 60, a_reader_finds_it_by_its_tid, slots_of_the_dead_are_used_again,
	   runs_of_tids_that_overlap, a_tid_that_was_used_before, ten_thousand_threads, more_threads_than_slots,
	   a_handler_in_the_middle_of_a_change, foreign_calls_nest_by_callbacks, to_the_system_stack_and_back)
