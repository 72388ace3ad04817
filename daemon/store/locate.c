#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "store/build.h"

/* x86-64's kernel half with four-level page tables. The mapping's offset is its start, so that offset and address are equal. */
#define KERNEL_START UINT64_C(0xffff800000000000)
#define KERNEL_END   UINT64_MAX

static const char *const placeholder_names[] = {
	[PLACEHOLDER_NO_STACK] = "[no stack]",
	[PLACEHOLDER_KERNEL] = "[kernel]",
	[PLACEHOLDER_SYSTEM] = "[System]",
	[PLACEHOLDER_GC] = "[GC]",
	[PLACEHOLDER_EXTERNAL_CODE] = "[ExternalCode]",
	[PLACEHOLDER_LEFT_OUT] = "[LeftOut]",
};

struct mapping_item {
	struct set_entry entry;
	uint32_t index;
	struct profile_mapping mapping;
};

struct location_key {
	uint64_t address, place;
	uint32_t mapping, placeholder;
};

struct location_item {
	struct set_entry entry;
	uint32_t index;
	struct location_key key;
	uint64_t file_offset;
};

static bool version_equal(const struct set_entry *entry, const void *key)
{
	return ((const struct builder_version *)entry)->version == *(const uint32_t *)key;
}

struct builder_version *builder_version(struct builder *builder, uint32_t version)
{
	if (builder->last_version && builder->last_version->version == version)
		return builder->last_version;
	uint32_t hash = (uint32_t)hash_bytes(&version, sizeof(version), hash_seed());
	struct builder_version *found = set_find(&builder->versions, hash, version_equal, &version);
	if (!found) {
		if (set_reserve(&builder->versions, &builder->heap) < 0)
			return NULL;
		const struct maps *maps = builder->options->maps(builder->options->maps_context, version);
		size_t n = maps ? maps->n : 0;
		found = arena_alloc(&builder->profile->arena, sizeof(*found));
		uint32_t *mapping_index = arena_alloc(&builder->profile->arena, n * sizeof(uint32_t));
		if (!found || !mapping_index)
			return NULL;
		for (size_t i = 0; i < n; i++)
			mapping_index[i] = PROFILE_NO_MAPPING;
		*found = (struct builder_version){.version = version, .maps = maps, .mapping_index = mapping_index};
		set_insert(&builder->versions, &found->entry, hash);
		if (maps && (!builder->newest_version || version > builder->newest_version->version))
			builder->newest_version = found;
	}
	builder->last_version = found;
	return found;
}

static bool mapping_equal(const struct set_entry *entry, const void *key)
{
	const struct profile_mapping *a = &((const struct mapping_item *)entry)->mapping;
	const struct mapping *b = key;
	return a->start == b->start && a->end == b->end && a->file_offset == b->file_offset && a->kind == b->kind &&
	       a->file == b->file && (a->file || strcmp(a->name, b->name) == 0);
}

/* The index of a mapping in the profile, added if need be: the same range of the same file is one, whatever the version. */
static int add_mapping(struct builder *builder, const struct mapping *mapping, uint32_t *ret)
{
	uint64_t numbers[] = {mapping->start, mapping->end, mapping->file_offset, (uint64_t)(uintptr_t)mapping->file};
	uint32_t hash = (uint32_t)hash_bytes(numbers, sizeof(numbers), hash_seed());
	struct mapping_item *item = set_find(&builder->mappings, hash, mapping_equal, mapping);
	if (!item) {
		if (set_reserve(&builder->mappings, &builder->heap) < 0)
			return -ENOMEM;
		item = arena_alloc(&builder->profile->arena, sizeof(*item));
		char *name = arena_strndup(&builder->profile->arena, mapping->name, strlen(mapping->name));
		if (!item || !name)
			return -ENOMEM;
		*item = (struct mapping_item){
			.index = (uint32_t)builder->mappings.n,
			.mapping = {.start = mapping->start,
				    .end = mapping->end,
				    .file_offset = mapping->file_offset,
				    .kind = mapping->kind,
				    .name = name,
				    .file = mapping->file,
				    .build_id = ""},
		};
		set_insert(&builder->mappings, &item->entry, hash);
	}
	*ret = item->index;
	return 0;
}

int builder_add_main(struct builder *builder)
{
	struct builder_version *newest = builder->newest_version;
	if (!newest || newest->maps->main_index >= newest->maps->n)
		return 0;
	size_t i = newest->maps->main_index;
	return add_mapping(builder, &newest->maps->mappings[i], &newest->mapping_index[i]);
}

static bool location_equal(const struct set_entry *entry, const void *key_)
{
	const struct location_key *a = &((const struct location_item *)entry)->key, *b = key_;
	return a->address == b->address && a->place == b->place && a->mapping == b->mapping &&
	       a->placeholder == b->placeholder;
}

static int add_location(struct builder *builder, const struct location_key *key, uint64_t file_offset, uint32_t *ret)
{
	uint32_t hash = (uint32_t)hash_bytes(key, sizeof(*key), hash_seed());
	struct location_item *item = set_find(&builder->locations, hash, location_equal, key);
	if (!item) {
		if (builder->locations.n >= PROFILE_NO_MAPPING || set_reserve(&builder->locations, &builder->heap) < 0)
			return -ENOMEM;
		item = arena_alloc(&builder->profile->arena, sizeof(*item));
		if (!item)
			return -ENOMEM;
		*item = (struct location_item){
			.index = (uint32_t)builder->locations.n, .key = *key, .file_offset = file_offset};
		set_insert(&builder->locations, &item->entry, hash);
	}
	*ret = item->index;
	return 0;
}

static int locate_unmapped(struct builder *builder, uint64_t address, uint32_t *ret)
{
	struct location_key key = {.address = address, .mapping = PROFILE_NO_MAPPING};
	return add_location(builder, &key, 0, ret);
}

int builder_locate_kernel(struct builder *builder, uint64_t address, uint32_t *ret)
{
	if (address < KERNEL_START || address >= KERNEL_END)
		return locate_unmapped(builder, address, ret);
	if (builder->kernel_mapping == PROFILE_NO_MAPPING) {
		struct mapping kernel = {.start = KERNEL_START,
					 .end = KERNEL_END,
					 .file_offset = KERNEL_START,
					 .kind = MAPPING_KERNEL,
					 .name = "[kernel.kallsyms]"};
		int r = add_mapping(builder, &kernel, &builder->kernel_mapping);
		if (r < 0)
			return r;
	}
	struct location_key key = {.address = address, .mapping = builder->kernel_mapping};
	return add_location(builder, &key, address, ret);
}

int builder_locate_python(struct builder *builder, uint64_t frame, uint32_t *ret)
{
	if (builder->python_mapping == PROFILE_NO_MAPPING) {
		struct mapping python = {.start = SAMPLE_PYTHON_FIRST,
					 .end = SAMPLE_PYTHON_END,
					 .file_offset = SAMPLE_PYTHON_FIRST,
					 .kind = MAPPING_PYTHON,
					 .name = "[python]"};
		int r = add_mapping(builder, &python, &builder->python_mapping);
		if (r < 0)
			return r;
	}
	struct location_key key = {.address = frame, .mapping = builder->python_mapping};
	return add_location(builder, &key, frame, ret);
}

int builder_locate_user(struct builder *builder, struct builder_version *version, const struct mapping *mapping,
			uint64_t address, uint64_t code_ns, uint32_t *ret)
{
	if (!mapping)
		return locate_unmapped(builder, address, ret);
	uint32_t *index = &version->mapping_index[mapping - version->maps->mappings];
	if (*index == PROFILE_NO_MAPPING) {
		int r = add_mapping(builder, mapping, index);
		if (r < 0)
			return r;
	}
	struct location_key key = {.address = address, .mapping = *index};
	if (builder->moments && mapping_is_nameless(mapping->name))
		key.place = builder_place(builder, address, code_ns);
	return add_location(builder, &key, address - mapping->start + mapping->file_offset, ret);
}

int builder_locate_placeholder(struct builder *builder, enum builder_placeholder placeholder, uint32_t *ret)
{
	struct location_key key = {.mapping = PROFILE_NO_MAPPING, .placeholder = placeholder};
	return add_location(builder, &key, 0, ret);
}

static int finish_location(struct builder *builder, const struct location_item *item)
{
	struct profile_location *location = &builder->profile->locations[item->index];
	*location = (struct profile_location){
		.address = item->key.address,
		.file_offset = item->file_offset,
		.place = item->key.place,
		.mapping = item->key.mapping,
	};
	if (item->key.placeholder == PLACEHOLDER_NONE)
		return 0;
	const char *name = placeholder_names[item->key.placeholder];
	location->lines = arena_alloc(&builder->profile->arena, sizeof(struct profile_line));
	if (!location->lines)
		return -ENOMEM;
	location->lines[0] = (struct profile_line){.name = name, .system_name = name};
	location->n_lines = 1;
	return 0;
}

int builder_finish_locations(struct builder *builder)
{
	struct profile *profile = builder->profile;
	profile->locations = arena_alloc(&profile->arena, builder->locations.n * sizeof(struct profile_location));
	profile->mappings = arena_alloc(&profile->arena, builder->mappings.n * sizeof(struct profile_mapping));
	if (!profile->locations || !profile->mappings)
		return -ENOMEM;
	for (struct set_entry *entry = builder->locations.first; entry; entry = entry->next) {
		int r = finish_location(builder, (const struct location_item *)entry);
		if (r < 0)
			return r;
	}
	profile->n_locations = builder->locations.n;
	for (struct set_entry *entry = builder->mappings.first; entry; entry = entry->next) {
		struct profile_mapping *mapping = &profile->mappings[profile->n_mappings++];
		*mapping = ((struct mapping_item *)entry)->mapping;
		if (mapping->file)
			file_ref(mapping->file);
	}
	return 0;
}
