#include "store/build.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "bpf/mutants.h"
#include "store/epoch.h"

struct comm_item {
	struct set_entry entry;
	char text[UTF8_REPAIRED_BYTES(SAMPLE_COMM_BYTES)];
};

struct stack_item { /* a stack as the profile has it: cut, and with locations instead of addresses */
	struct set_entry entry;
	enum stack_end incomplete; /* as in struct profile_sample */
	uint32_t n;
	uint32_t locations[]; /* indices, leaf first */
};

struct stack_key {
	const uint32_t *locations;
	uint32_t n;
	enum stack_end incomplete;
};

struct sample_item {
	struct set_entry entry;
	const struct stack_item *stack;
	struct profile_sample sample;
};

struct sample_key {
	const struct stack_item *stack;
	const struct comm_item *comm;
	uint32_t tid, zero;
};

/* What became of a stack of the epoch at hand. */
struct resolved {
	const struct stack_item *stack; /* NULL: not met so far */
	bool cut;
};

static bool comm_equal(const struct set_entry *entry, const void *key)
{
	return strcmp(((const struct comm_item *)entry)->text, key) == 0;
}

/* Names are compared as readers will see them: else two samples might differ in nothing that a profile can say. */
static struct comm_item *intern_comm(struct builder *builder, const char *comm)
{
	char text[UTF8_REPAIRED_BYTES(SAMPLE_COMM_BYTES)];
	utf8_repair(comm, strnlen(comm, SAMPLE_COMM_BYTES), text);
	size_t bytes = strlen(text) + 1;
	uint32_t hash = (uint32_t)hash_bytes(text, bytes, hash_seed());
	struct comm_item *item = set_find(&builder->comms, hash, comm_equal, text);
	if (item || set_reserve(&builder->comms, &builder->heap) < 0)
		return item;
	item = arena_alloc(&builder->profile->arena, sizeof(*item));
	if (!item)
		return NULL;
	memcpy(item->text, text, bytes);
	set_insert(&builder->comms, &item->entry, hash);
	return item;
}

static bool stack_equal(const struct set_entry *entry, const void *key_)
{
	const struct stack_item *item = (const struct stack_item *)entry;
	const struct stack_key *key = key_;
	return item->n == key->n && item->incomplete == key->incomplete &&
	       memcmp(item->locations, key->locations, key->n * sizeof(uint32_t)) == 0;
}

static const struct stack_item *intern_stack(struct builder *builder, const struct stack_key *key)
{
	size_t bytes = key->n * sizeof(uint32_t);
	uint32_t hash = (uint32_t)hash_bytes(key->locations, bytes, hash_seed() + (uint64_t)key->incomplete);
	struct stack_item *item = set_find(&builder->stacks, hash, stack_equal, key);
	if (item || set_reserve(&builder->stacks, &builder->heap) < 0)
		return item;
	item = arena_alloc(&builder->profile->arena, sizeof(*item) + bytes);
	if (!item)
		return NULL;
	item->n = key->n;
	item->incomplete = key->incomplete;
	memcpy(item->locations, key->locations, bytes);
	set_insert(&builder->stacks, &item->entry, hash);
	return item;
}

static bool is_complete(enum stack_end end)
{
	static const bool complete[STACK_END_COUNT] = {
#define STACK_END_COMPLETE(NAME, name, complete, text) [STACK_END_##NAME] = (complete) != 0,
		STACK_END_TABLE(STACK_END_COMPLETE)
#undef STACK_END_COMPLETE
	};
	return complete[end];
}

static int locate_kernel_part(struct builder *builder, const struct stack *stack, uint32_t *n)
{
	for (size_t i = 0; i < stack->n_kernel; i++) {
		int r = builder_locate_kernel(builder, builder_code_address(stack->frames, i),
					      &builder->scratch[(*n)++]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What stands for no address (model/sample.h), and the leaf of a stack that could not be walked when it is in no known text (docs/BARRIER-TABLE.md, rule 9). */
static enum builder_placeholder placeholder_of(const struct stack *stack, const uint64_t *user, size_t i,
					       const struct maps *maps)
{
	bool not_walked = stack->n_user == 2 && (user[1] == SAMPLE_FRAME_SYSTEM || user[1] == SAMPLE_FRAME_GC);
	if (user[i] == SAMPLE_FRAME_SYSTEM)
		return PLACEHOLDER_SYSTEM;
	if (user[i] == SAMPLE_FRAME_GC)
		return PLACEHOLDER_GC;
	if (user[i] == SAMPLE_FRAME_LEFT_OUT)
		return PLACEHOLDER_LEFT_OUT;
	if (user[i] == SAMPLE_FRAME_EXTERNAL_CODE ||
	    (i == 0 && not_walked && maps && !maps_find(maps, user[0]) && !MUTANT(external_code)))
		return PLACEHOLDER_EXTERNAL_CODE;
	return PLACEHOLDER_NONE;
}

/* The place of user frame i. -ENODATA: it is no address of code, and so are those after it that are addresses. */
static int locate_user_frame(struct builder *builder, struct builder_version *version, const struct stack *stack,
			     size_t i, uint64_t code_ns, uint32_t *ret)
{
	const uint64_t *user = stack->frames + stack->n_kernel;
	enum builder_placeholder placeholder = placeholder_of(stack, user, i, version->maps);
	if (placeholder != PLACEHOLDER_NONE)
		return builder_locate_placeholder(builder, placeholder, ret);
	uint64_t address = builder_code_address(user, i);
	const struct mapping *mapping = version->maps ? maps_find(version->maps, address) : NULL;
	/* Without a snapshot nothing can be said against any address. */
	if (i > 0 && version->maps && !mapping)
		return -ENODATA;
	return builder_locate_user(builder, version, mapping, address, code_ns, ret);
}

static int locate_user_part(struct builder *builder, const struct stack *stack, uint64_t code_ns, uint32_t *n,
			    bool *ret_cut)
{
	struct builder_version *version = builder_version(builder, stack->maps_version);
	if (!version)
		return -ENOMEM;
	for (size_t i = 0; i < stack->n_user; i++) {
		uint64_t frame = stack->frames[stack->n_kernel + i];
		int r = 0;
		if (SAMPLE_IS_PYTHON(frame)) /* which needs no walk of the stack to be known */
			r = builder_locate_python(builder, frame, &builder->scratch[*n]);
		else if (!*ret_cut)
			r = locate_user_frame(builder, version, stack, i, code_ns, &builder->scratch[*n]);
		else
			continue;
		if (r == -ENODATA)
			*ret_cut = true;
		else if (r < 0)
			return r;
		else
			(*n)++;
	}
	return 0;
}

static int resolve(struct builder *builder, const struct stack *stack, uint64_t code_ns, struct resolved *ret)
{
	uint32_t n = 0;
	bool cut = false;
	int r = builder->options->include_kernel ? locate_kernel_part(builder, stack, &n) : 0;
	if (r == 0)
		r = locate_user_part(builder, stack, code_ns, &n, &cut);
	if (r == 0 && n == 0)
		r = builder_locate_placeholder(builder, stack->n_kernel ? PLACEHOLDER_KERNEL : PLACEHOLDER_NO_STACK,
					       &builder->scratch[n++]);
	if (r < 0)
		return r;
	enum stack_end end = cut ? STACK_END_BAD_RETURN_ADDRESS : stack->user_end;
	struct stack_key key = {
		.locations = builder->scratch, .n = n, .incomplete = is_complete(end) ? STACK_END_NONE : end};
	const struct stack_item *item = intern_stack(builder, &key);
	if (!item)
		return -ENOMEM;
	*ret = (struct resolved){.stack = item, .cut = cut};
	return 0;
}

static bool sample_equal(const struct set_entry *entry, const void *key_)
{
	const struct sample_item *item = (const struct sample_item *)entry;
	const struct sample_key *key = key_;
	return item->stack == key->stack && item->sample.tid == key->tid && item->sample.comm == key->comm->text;
}

static int add_sample(struct builder *builder, const struct stack_item *stack, const struct cell *cell)
{
	const struct comm_item *comm = intern_comm(builder, cell->comm);
	if (!comm)
		return -ENOMEM;
	struct sample_key key = {.stack = stack, .comm = comm, .tid = cell->tid};
	uint32_t hash = (uint32_t)hash_bytes(&key, sizeof(key), hash_seed());
	struct sample_item *item = set_find(&builder->samples, hash, sample_equal, &key);
	if (!item) {
		if (set_reserve(&builder->samples, &builder->heap) < 0)
			return -ENOMEM;
		item = arena_alloc(&builder->profile->arena, sizeof(*item));
		if (!item)
			return -ENOMEM;
		*item = (struct sample_item){
			.stack = stack,
			.sample = {.tid = cell->tid,
				   .comm = comm->text,
				   .incomplete = stack->incomplete,
				   .n_locations = stack->n,
				   .locations = stack->locations},
		};
		set_insert(&builder->samples, &item->entry, hash);
	}
	item->sample.count += cell->count;
	item->sample.cpu_ns += cell->cpu_ns;
	return 0;
}

static int add_cells(struct builder *builder, const struct epoch *epoch, struct resolved *resolved, uint64_t *cut)
{
	for (const struct set_entry *entry = epoch->cells.first; entry; entry = entry->next) {
		const struct cell *cell = (const struct cell *)entry;
		struct resolved of_moment = {};
		struct resolved *of_stack = cell->code_ns ? &of_moment : &resolved[cell->stack->id];
		int r = of_stack->stack ? 0 : resolve(builder, cell->stack, cell->code_ns, of_stack);
		if (r == 0)
			r = add_sample(builder, of_stack->stack, cell);
		if (r < 0)
			return r;
		if (of_stack->cut)
			*cut += cell->count;
	}
	return 0;
}

static int add_epoch(struct builder *builder, const struct epoch *epoch, uint64_t *cut)
{
	if (epoch->stacks.n == 0)
		return 0;
	size_t bytes = epoch->stacks.n * sizeof(struct resolved);
	struct resolved *resolved = heap_table(&builder->heap, bytes);
	if (!resolved)
		return -ENOMEM;
	int r = add_cells(builder, epoch, resolved, cut);
	heap_table_free(&builder->heap, resolved, bytes);
	return r;
}

/* A look at all stacks before any is resolved: which maps are the newest, and how deep is the deepest? */
static int survey(struct builder *builder, struct epoch *const *epochs, size_t n_epochs)
{
	size_t deepest = 1; /* a placeholder */
	for (size_t i = 0; i < n_epochs; i++) {
		for (const struct set_entry *entry = epochs[i]->stacks.first; entry; entry = entry->next) {
			const struct stack *stack = (const struct stack *)entry;
			size_t depth = (size_t)stack->n_kernel + stack->n_user;
			if (depth > deepest)
				deepest = depth;
			if (!builder_version(builder, stack->maps_version))
				return -ENOMEM;
		}
	}
	builder->scratch = arena_alloc(&builder->profile->arena, deepest * sizeof(uint32_t));
	return builder->scratch ? 0 : -ENOMEM;
}

static int finish_samples(struct builder *builder)
{
	struct profile *profile = builder->profile;
	profile->samples = arena_alloc(&profile->arena, builder->samples.n * sizeof(struct profile_sample));
	if (!profile->samples)
		return -ENOMEM;
	for (struct set_entry *entry = builder->samples.first; entry; entry = entry->next)
		profile->samples[profile->n_samples++] = ((struct sample_item *)entry)->sample;
	return 0;
}

static int build(struct builder *builder, struct epoch *const *epochs, size_t n_epochs, uint64_t *cut)
{
	int r = survey(builder, epochs, n_epochs);
	if (r == 0)
		r = builder_add_main(builder);
	if (r == 0)
		r = builder_find_places(builder, epochs, n_epochs);
	for (size_t i = 0; i < n_epochs && r == 0; i++)
		r = add_epoch(builder, epochs[i], cut);
	if (r == 0)
		r = finish_samples(builder);
	if (r == 0)
		r = builder_finish_locations(builder);
	return r;
}

static void free_tables(struct builder *builder)
{
	struct set *sets[] = {&builder->versions, &builder->mappings, &builder->locations,
			      &builder->stacks,   &builder->comms,    &builder->samples};
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		set_free(sets[i], &builder->heap);
	builder_free_places(builder);
}

int store_build_profile(struct epoch *const *epochs, size_t n_epochs, const struct store_build_options *options,
			struct profile **ret, uint64_t *ret_cut)
{
	struct profile *profile = profile_new(options->budget_bytes);
	if (!profile)
		return -ENOMEM;
	struct builder builder = {.options = options,
				  .profile = profile,
				  .kernel_mapping = PROFILE_NO_MAPPING,
				  .python_mapping = PROFILE_NO_MAPPING};
	heap_init(&builder.heap, &profile->arena, options->budget_bytes);
	uint64_t cut = 0;
	int r = build(&builder, epochs, n_epochs, &cut);
	free_tables(&builder);
	if (r < 0) {
		profile_free(profile);
		return r;
	}
	*ret = profile;
	*ret_cut = cut;
	return 0;
}
