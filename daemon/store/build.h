/* A profile under construction. Private to store: moments.c finds out what code was where, locate.c turns addresses into locations, build.c merges
 * samples. Everything lies in the profile's own arena, so that one budget bounds it; only the tables of the sets, and the moments, are given back before the end. */
#pragma once
#include "store/set.h"
#include "store/store.h"

struct builder_version { /* the mappings of one maps_version */
	struct set_entry entry;
	uint32_t version;
	const struct maps *maps; /* NULL: no snapshot */
	uint32_t *mapping_index; /* of each in maps, in the profile; PROFILE_NO_MAPPING: not used so far */
};

struct builder {
	const struct store_build_options *options;
	struct profile *profile;
	struct heap heap;
	struct set versions, mappings, locations, stacks, comms, samples;
	struct builder_version *last_version;    /* the one looked up last, or NULL */
	struct builder_version *newest_version;  /* with a snapshot, or NULL */
	uint32_t kernel_mapping, python_mapping; /* index, or PROFILE_NO_MAPPING while unused */
	uint32_t *scratch;                       /* room for the locations of the longest stack */
	struct code_moment *moments;             /* ascending; each is the first that has its place; NULL: none */
	size_t n_moments, moments_bytes;
};

/* Stands for what has no address: a frame of its own, so that its CPU time is not lost. */
enum builder_placeholder {
	PLACEHOLDER_NONE,
	PLACEHOLDER_NO_STACK,
	PLACEHOLDER_KERNEL,
	PLACEHOLDER_SYSTEM,
	PLACEHOLDER_GC,
	PLACEHOLDER_EXTERNAL_CODE,
	PLACEHOLDER_LEFT_OUT,
};

/* The version's entry, added if need be; NULL: -ENOMEM. */
struct builder_version *builder_version(struct builder *builder, uint32_t version);
/* Adds the main program's mapping of the newest version; before any location. -ENOMEM. */
int builder_add_main(struct builder *builder);

/* The index of a location, added if need be; -ENOMEM. */
int builder_locate_kernel(struct builder *builder, uint64_t address, uint32_t *ret);
int builder_locate_python(struct builder *builder, uint64_t frame, uint32_t *ret);
/* mapping is the one of version->maps that holds address, or NULL when none does. code_ns: when that was sampled, as in struct sample. */
int builder_locate_user(struct builder *builder, struct builder_version *version, const struct mapping *mapping,
			uint64_t address, uint64_t code_ns, uint32_t *ret);
int builder_locate_placeholder(struct builder *builder, enum builder_placeholder placeholder, uint32_t *ret);

/* Asks for all places that the samples of the epochs need; after all their versions are there, before any location. -ENOMEM. */
int builder_find_places(struct builder *builder, struct epoch *const *epochs, size_t n_epochs);
/* The place of what is in a nameless mapping; 0: none. */
uint64_t builder_place(const struct builder *builder, uint64_t address, uint64_t code_ns);
void builder_free_places(struct builder *builder);

/* Where the code of user frame i of a stack is: for callers the call, which is the instruction before the one it returns to. */
static inline uint64_t builder_code_address(const uint64_t *user, size_t i)
{
	return i > 0 && user[i] ? user[i] - 1 : user[i];
}

/* The finished arrays of mappings (which then own references to their files) and locations. -ENOMEM. */
int builder_finish_locations(struct builder *builder);
