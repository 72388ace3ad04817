#include "model/python_codes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "model/python_lines.h"

enum { FIRST_SLOTS = 256 };

struct entry {
	struct python_code_key key;
	enum python_code_state state;
	struct python_code code; /* its texts and bytes are the arena's */
};

struct python_codes {
	_Atomic unsigned references;
	pthread_mutex_t lock; /* of all below */
	struct arena texts;
	size_t budget_bytes; /* of entries and slots */
	struct entry *entries;
	uint32_t n, n_begun, capacity; /* those from n_begun on nobody has begun to read */
	uint32_t *slots;               /* number + 1, open addressing; 0: free */
	uint32_t n_slots;              /* a power of two, more than capacity */
};

/* Half of the budget is for what is told, the rest for the table. */
struct python_codes *python_codes_new(size_t budget_bytes)
{
	struct python_codes *codes = calloc(1, sizeof(*codes));
	if (!codes)
		return NULL;
	codes->references = 1;
	codes->budget_bytes = budget_bytes / 2;
	arena_init(&codes->texts, budget_bytes / 2);
	pthread_mutex_init(&codes->lock, NULL);
	return codes;
}

struct python_codes *python_codes_ref(struct python_codes *codes)
{
	codes->references++;
	return codes;
}

void python_codes_unref(struct python_codes *codes)
{
	if (!codes || --codes->references > 0)
		return;
	arena_free(&codes->texts);
	pthread_mutex_destroy(&codes->lock);
	free(codes->entries);
	free(codes->slots);
	free(codes);
}

/* The target chooses where its objects are, so they are spread by a seed that it does not know. */
static uint32_t *slot_of(const struct python_codes *codes, const struct python_code_key *key)
{
	uint64_t words[] = {key->address, key->identity};
	uint32_t at = (uint32_t)hash_bytes(words, sizeof(words), hash_seed());
	for (;; at++) {
		uint32_t *slot = &codes->slots[at & (codes->n_slots - 1)];
		if (*slot == 0)
			return slot;
		const struct python_code_key *found = &codes->entries[*slot - 1].key;
		if (found->address == key->address && found->identity == key->identity)
			return slot;
	}
}

static bool grow(struct python_codes *codes)
{
	uint32_t n_slots = codes->n_slots ? 2 * codes->n_slots : FIRST_SLOTS, capacity = n_slots / 2;
	if (capacity * sizeof(struct entry) + n_slots * sizeof(uint32_t) > codes->budget_bytes ||
	    capacity >= SAMPLE_PYTHON_NO_CODE)
		return false;
	struct entry *entries = reallocarray(codes->entries, capacity, sizeof(*entries));
	if (!entries)
		return false;
	codes->entries = entries;
	uint32_t *slots = calloc(n_slots, sizeof(*slots));
	if (!slots)
		return false;
	free(codes->slots);
	codes->slots = slots;
	codes->n_slots = n_slots;
	codes->capacity = capacity;
	for (uint32_t i = 0; i < codes->n; i++)
		*slot_of(codes, &codes->entries[i].key) = i + 1;
	return true;
}

static uint32_t add(struct python_codes *codes, const struct python_code_key *key)
{
	uint32_t *slot = codes->n_slots ? slot_of(codes, key) : NULL;
	if (slot && *slot)
		return *slot - 1;
	if (!slot || codes->n == codes->capacity) {
		if (!grow(codes))
			return SAMPLE_PYTHON_NO_CODE;
		slot = slot_of(codes, key);
	}
	codes->entries[codes->n] = (struct entry){.key = *key};
	*slot = ++codes->n;
	return codes->n - 1;
}

uint32_t python_codes_number(struct python_codes *codes, const struct python_code_key *key)
{
	pthread_mutex_lock(&codes->lock);
	uint32_t number = add(codes, key);
	pthread_mutex_unlock(&codes->lock);
	return number;
}

size_t python_codes_begin(struct python_codes *codes, struct python_code_unread *ret, size_t max)
{
	size_t n = 0;
	pthread_mutex_lock(&codes->lock);
	for (; n < max && codes->n_begun < codes->n; n++, codes->n_begun++)
		ret[n] = (struct python_code_unread){.number = codes->n_begun,
						     .key = codes->entries[codes->n_begun].key};
	pthread_mutex_unlock(&codes->lock);
	return n;
}

static bool copy(struct arena *arena, const struct python_code *code, struct python_code *ret)
{
	char *name = arena_strndup(arena, code->name, strlen(code->name));
	char *filename = arena_strndup(arena, code->filename, strlen(code->filename));
	uint8_t *lines = arena_alloc(arena, code->n_lines);
	if (!name || !filename || !lines)
		return false;
	memcpy(lines, code->lines, code->n_lines);
	*ret = (struct python_code){.name = name,
				    .filename = filename,
				    .first_line = code->first_line,
				    .lines = lines,
				    .n_lines = code->n_lines};
	return true;
}

void python_codes_tell(struct python_codes *codes, uint32_t number, const struct python_code *code)
{
	pthread_mutex_lock(&codes->lock);
	if (number < codes->n && codes->entries[number].state == PYTHON_CODE_UNREAD) {
		struct entry *entry = &codes->entries[number];
		entry->state = code && copy(&codes->texts, code, &entry->code) ? PYTHON_CODE_TOLD : PYTHON_CODE_GONE;
	}
	pthread_mutex_unlock(&codes->lock);
}

enum python_code_state python_codes_find(struct python_codes *codes, uint32_t number, uint32_t instruction,
					 struct python_line *ret)
{
	struct entry entry = {.state = PYTHON_CODE_GONE}; /* there was no room for it */
	pthread_mutex_lock(&codes->lock);
	if (number < codes->n)
		entry = codes->entries[number];
	pthread_mutex_unlock(&codes->lock);
	if (entry.state != PYTHON_CODE_TOLD)
		return entry.state;
	int64_t line = python_lines_find(entry.code.lines, entry.code.n_lines, entry.code.first_line, instruction);
	*ret = (struct python_line){
		.name = entry.code.name,
		.filename = entry.code.filename,
		.line = line > 0                    ? line
			: entry.code.first_line > 0 ? entry.code.first_line
						    : 0,
		.start_line = entry.code.first_line > 0 ? entry.code.first_line : 0,
	};
	return PYTHON_CODE_TOLD;
}
