#include "app/address_space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "model/sample.h"

enum {
	MIN_INTERVAL_MS = 4, /* after a rest: a program that opens a library opens others behind it */
	CHANGING_INTERVAL_MS = 50,
	MAX_INTERVAL_MS = 2000,
	REST_MS = 1000,      /* without a snapshot, or the wish for one */
	MAX_VERSIONS = 4096, /* a program that execs or remaps more often than that keeps the last one's names */
	MAX_MIB = 16,        /* of snapshots, besides the newest */
};

void address_space_init(struct address_space *space)
{
	*space = (struct address_space){.interval_ns = MIN_INTERVAL_MS * NS_PER_MS};
}

void address_space_free(struct address_space *space)
{
	for (uint32_t i = 0; i < space->n; i++)
		maps_unref(space->versions[i]);
	free(space->versions);
	address_space_init(space);
}

/* Makes version exist, without a snapshot. */
static int reserve(struct address_space *space, uint32_t version)
{
	if (version < space->n)
		return 0;
	if (version >= space->room) {
		uint32_t room = 2 * version + 4;
		struct maps **grown = reallocarray(space->versions, room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		space->versions = grown;
		space->room = room;
	}
	while (space->n <= version)
		space->versions[space->n++] = NULL;
	return 0;
}

static uint32_t current(const struct address_space *space)
{
	return space->n ? space->n - 1 : 0;
}

/* Whether a snapshot from before the first record is of what the process had mapped then. That it is the same program, the kernel's side saw: where a
 * table said that the stack ends, the list of that very snapshot was looked into, and it carries its program. */
static bool is_confirmed(const struct address_space *space, const struct record *record)
{
	const struct maps *maps = space->n ? space->versions[space->n - 1] : NULL;
	return maps && maps->program && maps->map_count && record->user_end == STACK_END_OUTERMOST &&
	       record->exec_pages == maps->exec_pages && record->map_count == maps->map_count;
}

uint32_t address_space_note(struct address_space *space, const struct record *record, bool *ret_new_program)
{
	bool confirmed = !space->seen && is_confirmed(space, record);
	*ret_new_program = space->seen && record->exec_id != space->exec_id;
	/* When memory is out, the old version stays: addresses of the new program then have no names, or are cut. */
	if (*ret_new_program && space->n < MAX_VERSIONS)
		(void)reserve(space, current(space) + 1);
	if (*ret_new_program)
		space->next_ns = 0; /* the new program's mappings are needed now */
	if (!space->seen || *ret_new_program || record->exec_pages != space->exec_pages) {
		space->wanted |= !confirmed;
		space->map_count = record->map_count;
	}
	space->unsure |= !space->seen && space->n && !confirmed;
	space->seen = true;
	space->exec_id = record->exec_id;
	space->exec_pages = record->exec_pages;
	return current(space);
}

const struct maps *address_space_at(const struct address_space *space, const struct record *record)
{
	if (!space->seen || space->wanted || space->unsure || record->exec_id != space->exec_id ||
	    record->exec_pages != space->exec_pages || record->map_count != space->map_count)
		return NULL;
	return space->n ? space->versions[space->n - 1] : NULL;
}

void address_space_note_stack(struct address_space *space, uint32_t version, uint32_t map_count, const uint64_t *user,
			      uint16_t n_user)
{
	/* Writable code is not among the executable pages that the kernel counts, but among the mappings. */
	if (space->wanted || map_count == space->map_count || version >= space->n || !space->versions[version])
		return;
	for (uint16_t i = 0; i < n_user; i++)
		if (!SAMPLE_IS_PYTHON(user[i]) && !maps_find(space->versions[version], i ? user[i] - 1 : user[i])) {
			space->wanted = true;
			space->map_count = map_count;
			return;
		}
}

bool address_space_is_timed(const struct address_space *space, const uint64_t *user, uint16_t n_user)
{
	const struct maps *maps = space->n ? space->versions[space->n - 1] : NULL;
	if (!space->wanted && !space->reading && !(maps && maps->jit_dump))
		return false;
	for (uint16_t i = 0; i < n_user; i++) {
		const struct mapping *mapping = maps ? maps_find(maps, i ? user[i] - 1 : user[i]) : NULL;
		if (!SAMPLE_IS_PYTHON(user[i]) && (!mapping || mapping_is_nameless(mapping->name)))
			return true;
	}
	return false;
}

bool address_space_due(const struct address_space *space, uint64_t now_ns)
{
	return space->wanted && now_ns >= space->next_ns;
}

uint32_t address_space_begin(struct address_space *space)
{
	space->wanted = false;
	space->reading = true;
	return current(space);
}

/* Its names stand behind its mappings, see maps_new. */
static size_t bytes_of(const struct maps *maps)
{
	const char *last = maps->n ? maps->mappings[maps->n - 1].name : (const char *)(maps + 1);
	return (size_t)(last - (const char *)maps) + (maps->n ? strlen(last) + 1 : 0);
}

/* A target may map anything, and again and again: what is oldest loses its names. */
static void drop_oldest(struct address_space *space)
{
	size_t bytes = 0;
	for (uint32_t i = current(space); i-- > 0;) {
		if (!space->versions[i])
			continue;
		bytes += bytes_of(space->versions[i]);
		if (bytes <= (size_t)MAX_MIB << 20)
			continue;
		maps_unref(space->versions[i]);
		space->versions[i] = NULL;
	}
}

static int replace(struct address_space *space, uint32_t version, struct maps *maps)
{
	int r = reserve(space, version);
	if (r < 0) {
		maps_unref(maps);
		return r;
	}
	maps_unref(space->versions[version]);
	space->versions[version] = maps;
	drop_oldest(space);
	return 0;
}

int address_space_update(struct address_space *space, uint32_t version, struct maps *maps, uint64_t now_ns)
{
	space->reading = false;
	if (version != current(space)) { /* another program began meanwhile: whose these are, nobody knows */
		maps_unref(maps);
		space->wanted = true;
		return 0;
	}
	if (!maps)
		return 0;
	bool unsure = space->unsure && version == 0;
	space->unsure = false;
	struct maps *old = version < space->n ? space->versions[version] : NULL;
	struct maps *merged = NULL;
	int r = old ? maps_merge(old, maps, &merged) : 0;
	bool changed = !old || r == -EEXIST || (merged && merged->n != old->n);
	uint64_t longest_ns = (changed ? CHANGING_INTERVAL_MS : MAX_INTERVAL_MS) * NS_PER_MS;
	bool rested = now_ns > space->next_ns + REST_MS * NS_PER_MS;
	space->interval_ns = rested ? MIN_INTERVAL_MS * NS_PER_MS : space->interval_ns * 2;
	if (space->interval_ns > longest_ns)
		space->interval_ns = longest_ns;
	space->next_ns = now_ns + space->interval_ns;
	if (r == -EEXIST && unsure) /* an exec before the first record */
		return replace(space, 0, maps);
	if (r == -EEXIST)
		return replace(space, space->n < MAX_VERSIONS ? space->n : version, maps);
	if (r < 0) { /* as if it had not been read */
		maps_unref(maps);
		space->unsure = unsure;
		space->wanted = true;
		return r;
	}
	if (merged) {
		maps_unref(maps);
		maps = merged;
	}
	return replace(space, version, maps);
}

int address_space_snapshot(const struct address_space *space, struct maps ***ret, uint32_t *ret_n)
{
	struct maps **copy = calloc(space->n + 1, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	for (uint32_t i = 0; i < space->n; i++)
		copy[i] = space->versions[i] ? maps_ref(space->versions[i]) : NULL;
	*ret = copy;
	*ret_n = space->n;
	return 0;
}
