/* Stacks made by hand, and what the table says of them. */
#include "scene.h"

const char *scene_entry = scene_trampoline;

uint64_t address_of(const void *what)
{
	return (uintptr_t)what;
}

uint64_t return_into(const char *function)
{
	return address_of(function) + 8;
}

uint64_t *word_at(uint64_t address)
{
	return (uint64_t *)(uintptr_t)address; // NOLINT(performance-no-int-to-ptr)
}

uint64_t slot(const struct made_stack *s, unsigned i)
{
	return s->record[i] + 8;
}

static void put_record(const struct made_stack *s, unsigned i, const char *caller)
{
	*word_at(s->record[i]) = i + 1 < s->n ? s->record[i + 1] : 0;
	*word_at(slot(s, i)) = return_into(caller);
}

void make_chain(struct made_stack *s, const char *mid, const char *root, const char *top)
{
	const char *const callers[] = {mid, root, top};
	s->n = 3;
	for (unsigned i = 0; i < 3; i++)
		s->record[i] = s->hi - 4096 + 256 * i;
	for (unsigned i = 0; i < 3; i++)
		put_record(s, i, callers[i]);
}

void make_all_chains(void)
{
	make_chain(&a, scene_a_mid, scene_a_root, scene_stack_top);
	make_chain(&b, scene_b_mid, scene_b_root, scene_stack_top);
	make_chain(&c, scene_c_mid, scene_c_root, scene_stack_top);
	make_chain(&system_stack, scene_system_mid, scene_system_root, scene_native_top);
	make_chain(&native, scene_native_mid, scene_native_root, scene_native_top);
	make_chain(&above, scene_native_mid, scene_native_root, scene_native_top);
}

void refill_deep(struct made_stack *s, const char *function)
{
	for (unsigned i = 0; i + 1 < s->n; i++)
		__atomic_store_n(word_at(slot(s, i)), return_into(function), __ATOMIC_RELAXED);
}

void make_deep(struct made_stack *s, const char *function, unsigned n, uint64_t distance)
{
	s->n = n;
	for (unsigned i = 0; i < n; i++)
		s->record[i] = s->hi - (n - i) * distance;
	for (unsigned i = 0; i < n; i++)
		put_record(s, i, i + 1 < n ? function : scene_stack_top);
}

struct sprof_context context_in(const struct made_stack *s, const char *leaf)
{
	return (struct sprof_context){.pc = return_into(leaf), .sp = s->record[0] - 128, .fp = s->record[0]};
}

void run_in(const struct made_stack *s, const char *leaf)
{
	struct sprof_context at = context_in(s, leaf);
	scene_in_place();
	scene_run(address_of(leaf), at.sp, at.fp);
}

void hijack(struct made_stack *s, unsigned i)
{
	sprof_lock(s->stack);
	if (sprof_barrier_append(scene_table, s->stack, slot(s, i), *word_at(slot(s, i))) == 0)
		*word_at(slot(s, i)) = address_of(scene_entry);
	sprof_unlock(s->stack);
}

void hijack_all(struct made_stack *s)
{
	for (unsigned i = 0; i < s->n; i++)
		hijack(s, i);
}

static struct sprof_stack *stack_of(const struct made_stack *s)
{
	return s ? s->stack : NULL;
}

void set_refs(const struct made_stack *current, const struct made_stack *user, const struct made_stack *system)
{
	uint32_t step = sprof_begin(scene_record);
	sprof_set_user(scene_record, stack_of(user));
	sprof_set_system(scene_record, stack_of(system));
	sprof_set_current(scene_record, stack_of(current));
	sprof_end(scene_record, step);
}

void own(const struct made_stack *s)
{
	SPROF_STORE(s->stack->owner_tid, scene_record->tid);
}

void enter_foreign(const struct made_stack *s, const char *leaf)
{
	struct sprof_context at = context_in(s, leaf);
	own(s);
	sprof_foreign_enter(scene_record, s->stack, at.pc, at.sp, at.fp);
}

void enter_libcall(const struct made_stack *s, const char *leaf)
{
	struct sprof_context at = context_in(s, leaf);
	own(s);
	sprof_libcall_enter(scene_record, s->stack, at.pc, at.sp, at.fp);
}

void set_jump(const struct made_stack *s, const char *leaf)
{
	struct sprof_context at = context_in(s, leaf);
	sprof_system_begin(scene_record, at.pc, at.sp, at.fp);
	sprof_switch_end(scene_record);
}

void set_resumer(struct made_stack *to, const struct made_stack *from, const char *leaf)
{
	struct sprof_context at = context_in(from, leaf);
	own(from);
	sprof_set_resumer(to->stack, from->stack, at.pc, at.sp, at.fp);
}
