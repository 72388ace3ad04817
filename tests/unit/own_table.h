/* The table that this very process publishes, as any other would find it, for Check's tests. */
#pragma once
#include <check.h>
#include <dlfcn.h>
#include <sprof/barrier_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline struct sprof_header *table(void)
{
	char line[512];
	uintptr_t address = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	ck_assert_ptr_nonnull(maps);
	while (address == 0 && fgets(line, sizeof(line), maps))
		if (strstr(line, "/memfd:SPROF_BLT (deleted)"))
			address = strtoul(line, NULL, 16);
	(void)fclose(maps);
	return (struct sprof_header *)address; // NOLINT(performance-no-int-to-ptr)
}

static inline const struct sprof_stack *stack_places(void)
{
	return (const struct sprof_stack *)((const char *)table() + table()->off_stack);
}

static inline const struct sprof_thread *my_thread(void)
{
	const struct sprof_header *header = table();
	const struct sprof_thread *threads = (const struct sprof_thread *)((const char *)header + header->off_thread);
	for (uint32_t i = 0; i < header->cap_thread; i++)
		if (threads[i].tid == (uint32_t)gettid())
			return &threads[i];
	return NULL;
}

static inline const struct sprof_stack *at(const struct sprof_ref *ref)
{
	const struct sprof_stack *stack = &stack_places()[ref->index];
	return ref->gen && stack->self.gen == ref->gen ? stack : NULL;
}

/* The place of the smallest stack around an address. */
static inline const struct sprof_stack *around(const void *address)
{
	uint64_t here = (uintptr_t)address;
	const struct sprof_stack *best = NULL, *places = stack_places();
	for (uint32_t i = 0, n = table()->cap_stack; i < n; i++) {
		const struct sprof_stack *stack = &places[i];
		if (here >= stack->lo && here < stack->hi && (!best || stack->hi - stack->lo < best->hi - best->lo))
			best = stack;
	}
	return best;
}

static inline const struct sprof_stack *current(void)
{
	const struct sprof_thread *thread = my_thread();
	ck_assert_ptr_nonnull(thread);
	ck_assert_uint_eq(thread->seq & 1, 0);
	return at(&thread->current);
}

static inline const struct sprof_stack *system_place(void)
{
	return at(&my_thread()->system);
}

static inline void assert_waits(const struct sprof_stack *who, const struct sprof_stack *for_whom)
{
	ck_assert_ptr_eq(at(&for_whom->resumer), who);
	ck_assert_uint_eq(who->owner_tid, (uint32_t)gettid());
	ck_assert_uint_ge(for_whom->resumer_context.sp, who->lo);
	ck_assert_uint_le(for_whom->resumer_context.sp, who->hi);
	Dl_info info;
	ck_assert(dladdr((void *)for_whom->resumer_context.pc, &info) != 0); // NOLINT(performance-no-int-to-ptr)
}

static inline void assert_rests(const struct sprof_stack *stack)
{
	ck_assert_uint_eq(stack->owner_tid, 0);
	ck_assert_ptr_null(at(&stack->resumer));
}
