#include "symbolize/symbolize.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/cfi_check.h"
#include "model/python_codes.h"
#include "symbolize/code_places.h"
#include "symbolize/file_names.h"
#include "symbolize/jit_sources.h"
#include "symbolize/kernel_names.h"
#include "symbolize/strings.h"
#include "symbolize/vdso.h"

enum {
	STRINGS_TABLE_MAX_BYTES = 64 << 20,
	COPIED_BITS = 13,
};

struct symbolize {
	pthread_mutex_t lock; /* of files; held for one file at a time */
	struct opener *opener;
	struct file_names *files;
	struct jit_ids *jit_ids;
	struct kernel_names *kernel;
	int vdso_fd; /* -1: none */
	size_t vdso_bytes;
};

int symbolize_new(const struct symbolize_options *options, struct symbolize **ret, struct error *err)
{
	struct symbolize *symbolize = calloc(1, sizeof(*symbolize));
	if (!symbolize)
		return error_set(err, ENOMEM, "out of memory");
	pthread_mutex_init(&symbolize->lock, NULL);
	symbolize->vdso_fd = -1;
	symbolize->opener = opener_new();
	symbolize->jit_ids = jit_ids_new();
	symbolize->files = symbolize->opener ? file_names_new(options, symbolize->opener) : NULL;
	symbolize->kernel = kernel_names_new(options->kallsyms_path);
	if (!symbolize->files || !symbolize->kernel || !symbolize->jit_ids) {
		symbolize_free(symbolize);
		return error_set(err, ENOMEM, "out of memory");
	}
	(void)vdso_copy(&symbolize->vdso_fd, &symbolize->vdso_bytes); /* without it, vdso frames are just "[vdso]" */
	*ret = symbolize;
	return 0;
}

void symbolize_free(struct symbolize *symbolize)
{
	if (!symbolize)
		return;
	file_names_free(symbolize->files);
	jit_ids_free(symbolize->jit_ids);
	opener_free(symbolize->opener);
	kernel_names_free(symbolize->kernel);
	if (symbolize->vdso_fd >= 0)
		close(symbolize->vdso_fd);
	pthread_mutex_destroy(&symbolize->lock);
	free(symbolize);
}

void symbolize_end(struct symbolize *symbolize)
{
	if (symbolize)
		file_names_end(symbolize->files);
}

void symbolize_status(struct symbolize *symbolize, struct symbolize_status *ret)
{
	file_names_get_status(symbolize->files, ret);
}

/* What of the cache has been copied, lately; equal lines and texts are one there. Only for one look-up in a file: the cache may let go of
 * it then, and have something else at that address; and a nameless function's name is the file's too. */
struct copied {
	const void *from, *to;
	size_t turn;
};

/* One symbolize_profile. */
struct pass {
	struct symbolize *symbolize;
	struct profile *profile;
	enum symbolize_what what;
	uint64_t deadline_ns;
	struct strings strings; /* names that are in the profile's arena already */
	struct copied copied[1 << COPIED_BITS];
	size_t turn; /* how many times something was looked up in a file */
	struct jit_sources jit;
	bool jit_sought;
	/* Of the mapping at hand. */
	const char *file_name; /* without its folder; NULL: no file's */
	bool has_nameless;     /* some function of it was told by where it begins */
	const uint32_t *locations;
	size_t n;
};

static struct copied *copied_of(struct pass *pass, const void *from)
{
	uint64_t mixed = (uint64_t)(uintptr_t)from * UINT64_C(0x9e3779b97f4a7c15);
	return &pass->copied[mixed >> (64 - COPIED_BITS)];
}

static bool is_copied(const struct pass *pass, const struct copied *copied, const void *from)
{
	return copied->from == from && copied->turn == pass->turn;
}

/* The profile's own copy of text. stable: that is one of the cache's, which are asked for many times over. */
static const char *keep_text(struct pass *pass, const char *text, bool stable)
{
	if (!stable)
		return strings_text(&pass->strings, text);
	struct copied *copied = copied_of(pass, text);
	if (!is_copied(pass, copied, text))
		*copied = (struct copied){text, strings_text(&pass->strings, text), pass->turn};
	return copied->to;
}

/* Objective-C's methods begin with a plus as well. */
static bool is_nameless(const char *name)
{
	const char start[] = {READER_NAMELESS, '0', 'x', '\0'};
	size_t n = sizeof(start) - 1;
	return strncmp(name, start, n) == 0 && name[n] && !name[n + strspn(name + n, "0123456789abcdef")];
}

/* A function's name; of one that has none, the file's name and where in it the function begins: "libc.so.6+0x4010". */
static const char *keep_name(struct pass *pass, const char *name, bool stable)
{
	char text[NAME_MAX + READER_NAME_MAX_BYTES + 1];
	if (!pass->file_name || !is_nameless(name))
		return keep_text(pass, name, stable);
	pass->has_nameless = true;
	snprintf(text, sizeof(text), "%.*s%s", NAME_MAX, pass->file_name, name);
	return strings_text(&pass->strings, text);
}

static struct profile_line *copy_lines(struct pass *pass, const struct profile_line *lines, uint32_t n, bool stable)
{
	struct profile_line *copy = arena_alloc(&pass->profile->arena, n * sizeof(*copy));
	for (uint32_t i = 0; copy && i < n; i++) {
		copy[i] = lines[i];
		copy[i].name = keep_name(pass, lines[i].name, stable);
		copy[i].system_name = keep_name(pass, lines[i].system_name, stable);
		copy[i].filename = lines[i].filename ? keep_text(pass, lines[i].filename, stable) : NULL;
		if (!copy[i].name || !copy[i].system_name)
			return NULL;
	}
	return copy;
}

/* Without memory for them a location stays as it is. */
static void set_lines(struct pass *pass, uint32_t location, const struct profile_line *lines, uint32_t n, bool stable)
{
	struct copied *copied = stable ? copied_of(pass, lines) : NULL;
	struct profile_line *copy =
		copied && is_copied(pass, copied, lines) ? (void *)copied->to : copy_lines(pass, lines, n, stable);
	if (!copy) {
		pass->profile->missing_names++;
		return;
	}
	if (copied)
		*copied = (struct copied){lines, copy, pass->turn};
	pass->profile->locations[location].lines = copy;
	pass->profile->locations[location].n_lines = n;
}

static void set_name(struct pass *pass, uint32_t location, const char *name)
{
	struct profile_line line = {.name = name, .system_name = name};
	set_lines(pass, location, &line, 1, false);
}

/* The first source that knows a location names it. */
static void take_found(void *context, size_t index, const struct profile_line *lines, uint32_t n, bool cached)
{
	struct pass *pass = context;
	if (n && pass->profile->locations[pass->locations[index]].n_lines == 0)
		set_lines(pass, pass->locations[index], lines, n, cached);
}

/* What has no lines yet gets the one name. */
static void fall_back(struct pass *pass, const char *name)
{
	if (pass->what != SYMBOLIZE_ALL)
		return;
	for (size_t i = 0; i < pass->n; i++) {
		if (pass->profile->locations[pass->locations[i]].n_lines == 0)
			set_name(pass, pass->locations[i], name);
	}
}

/* By what the reader goes in a file of that kind. */
static uint64_t offset_in(const struct named_file *file, const struct profile_location *location)
{
	switch (file->kind) {
	case PROTOCOL_PERF_MAP:
		return location->address;
	case PROTOCOL_JITDUMP:
		return location->place;
	default:
		return location->file_offset;
	}
}

/* Looks all locations up in a file. */
static void name_by_reader(struct pass *pass, const struct named_file *file)
{
	if (pass->what != SYMBOLIZE_ALL)
		return;
	pass->turn++;
	_cleanup_free_ uint64_t *offsets = reallocarray(NULL, pass->n ? pass->n : 1, sizeof(*offsets));
	if (!offsets) {
		pass->profile->missing_names += pass->n;
		return;
	}
	for (size_t i = 0; i < pass->n; i++)
		offsets[i] = offset_in(file, &pass->profile->locations[pass->locations[i]]);
	pass->profile->missing_names +=
		file_names_find(pass->symbolize->files, file, offsets, pass->n, pass->deadline_ns, take_found, pass);
}

/* Looks up in what a JIT tells what has no lines yet. */
static void name_by_jit(struct pass *pass)
{
	struct symbolize *symbolize = pass->symbolize;
	if (pass->what != SYMBOLIZE_ALL || pass->n == 0)
		return;
	pthread_mutex_lock(&symbolize->lock);
	if (!pass->jit_sought)
		jit_sources_find(symbolize->jit_ids, symbolize->opener, &pass->profile->target, pass->deadline_ns,
				 &pass->jit);
	pass->jit_sought = true;
	for (size_t i = 0; i < pass->jit.n; i++)
		name_by_reader(pass, &pass->jit.files[i]);
	pthread_mutex_unlock(&symbolize->lock);
}

static const char *display_name(const struct profile_mapping *mapping)
{
	return !mapping->name[0] || strcmp(mapping->name, "//anon") == 0 ? "[anon]" : mapping->name;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static void name_file(struct pass *pass, struct profile_mapping *mapping)
{
	struct file *file = mapping->file;
	/* pprof cannot look for a file of such a name, so what we do not name has no name ever. */
	bool hopeless = mapping_is_nameless(mapping->name);
	if (!file || file->fd < 0) {
		pass->profile->missing_names += pass->what == SYMBOLIZE_BUILD_IDS || hopeless ? 0 : pass->n;
	} else {
		char build_id[BUILD_ID_HEX_BYTES] = "";
		struct named_file named = {.id = file->id,
					   .fd = file->fd,
					   .root_fd = pass->profile->target.root_fd,
					   .path = mapping->name};
		pthread_mutex_lock(&pass->symbolize->lock);
		if (!file_build_id(file) &&
		    file_names_build_id(pass->symbolize->files, &named, pass->deadline_ns, build_id) == 0)
			file_set_build_id(file, build_id);
		pass->file_name = base_name(mapping->name);
		name_by_reader(pass, &named);
		pass->file_name = NULL;
		pthread_mutex_unlock(&pass->symbolize->lock);
	}
	if (file && file_build_id(file))
		mapping->build_id = file_build_id(file);
	if (hopeless) {
		name_by_jit(pass);
		fall_back(pass, display_name(mapping));
	}
}

/* A 32-bit process has another image, which ours does not name. */
static bool is_our_vdso(const struct symbolize *symbolize, const struct profile_mapping *mapping)
{
	return symbolize->vdso_fd >= 0 && mapping->start > UINT32_MAX &&
	       mapping->end - mapping->start == symbolize->vdso_bytes;
}

static void name_vdso(struct pass *pass, struct profile_mapping *mapping)
{
	struct symbolize *symbolize = pass->symbolize;
	if (is_our_vdso(symbolize, mapping)) {
		char build_id[BUILD_ID_HEX_BYTES] = "";
		struct named_file vdso = {
			.id = SYMBOLIZE_VDSO_FILE_ID, .fd = symbolize->vdso_fd, .root_fd = -1, .path = ""};
		pthread_mutex_lock(&symbolize->lock);
		(void)file_names_build_id(symbolize->files, &vdso, pass->deadline_ns, build_id);
		pass->file_name = "[vdso]";
		name_by_reader(pass, &vdso);
		pass->file_name = NULL;
		pthread_mutex_unlock(&symbolize->lock);
		const char *kept = strings_text(&pass->strings, build_id);
		if (kept)
			mapping->build_id = kept;
	}
	fall_back(pass, "[vdso]");
}

static void name_kernel(struct pass *pass)
{
	char name[KERNEL_NAME_MAX_BYTES];
	for (size_t i = 0; pass->what == SYMBOLIZE_ALL && i < pass->n; i++) {
		uint32_t location = pass->locations[i];
		if (kernel_names_find(pass->symbolize->kernel, pass->profile->locations[location].file_offset, name))
			set_name(pass, location, name);
	}
}

/* The texts are the table's, which stay as long as it does: as stable as those of the cache. */
static void name_python(struct pass *pass)
{
	struct python_codes *codes = pass->profile->target.python;
	for (size_t i = 0; codes && i < pass->n; i++) {
		uint32_t location = pass->locations[i];
		uint64_t frame = pass->profile->locations[location].address;
		struct python_line found;
		enum python_code_state state =
			python_codes_find(codes, SAMPLE_PYTHON_NUMBER(frame), SAMPLE_PYTHON_INSTRUCTION(frame), &found);
		if (state != PYTHON_CODE_TOLD) {
			set_name(pass, location,
				 state == PYTHON_CODE_GONE ? "[python code gone]" : "[python code not read]");
			continue;
		}
		struct profile_line line = {.name = found.name,
					    .system_name = found.name,
					    .filename = found.filename[0] ? found.filename : NULL,
					    .line = found.line,
					    .start_line = found.start_line};
		set_lines(pass, location, &line, 1, false);
	}
}

static void set_flags(const struct pass *pass, struct profile_mapping *mapping)
{
	bool functions = pass->n > 0, filenames = pass->n > 0, line_numbers = pass->n > 0, inlined = false;
	for (size_t i = 0; i < pass->n; i++) {
		const struct profile_location *location = &pass->profile->locations[pass->locations[i]];
		functions = functions && location->n_lines > 0;
		filenames = filenames && location->n_lines > 0 && location->lines[0].filename;
		line_numbers = line_numbers && location->n_lines > 0 && location->lines[0].line > 0;
		inlined = inlined || location->n_lines > 1;
	}
	mapping->has_functions = functions && !pass->has_nameless;
	mapping->has_filenames = filenames;
	mapping->has_line_numbers = line_numbers;
	mapping->has_inline_frames = inlined && line_numbers;
}

static void name_mapping(struct pass *pass, struct profile_mapping *mapping)
{
	mapping->build_id = "";
	switch (mapping->kind) {
	case MAPPING_FILE:
		name_file(pass, mapping);
		break;
	case MAPPING_VDSO:
		name_vdso(pass, mapping);
		break;
	case MAPPING_KERNEL:
		name_kernel(pass);
		break;
	case MAPPING_ANONYMOUS:
		name_by_jit(pass);
		fall_back(pass, display_name(mapping));
		break;
	case MAPPING_PYTHON:
		name_python(pass);
		break;
	case MAPPING_SPECIAL:
		fall_back(pass, display_name(mapping));
		break;
	}
	set_flags(pass, mapping);
}

/* The indices of the locations that have a mapping, in its order: those of mapping m from first[m] to first[m + 1]. */
struct groups {
	uint32_t *order;
	size_t *first;
};

static void groups_free(struct groups *groups)
{
	free(groups->order);
	free(groups->first);
}

static int group_by_mapping(const struct profile *profile, struct groups *groups)
{
	groups->order = calloc(profile->n_locations + 1, sizeof(groups->order[0]));
	groups->first = calloc(profile->n_mappings + 2, sizeof(groups->first[0]));
	if (!groups->order || !groups->first)
		return -ENOMEM;
	/* first[m + 1] is first where the next location of m goes, and ends up as where those of m + 1 begin. */
	size_t *next = groups->first + 1;
	for (size_t i = 0; i < profile->n_locations; i++) {
		uint32_t m = profile->locations[i].mapping;
		if (m < profile->n_mappings)
			next[m + 1]++;
	}
	for (size_t m = 1; m < profile->n_mappings; m++)
		next[m] += next[m - 1];
	for (size_t i = 0; i < profile->n_locations; i++) {
		uint32_t m = profile->locations[i].mapping;
		if (m < profile->n_mappings)
			groups->order[next[m]++] = (uint32_t)i;
	}
	return 0;
}

void symbolize_profile(struct symbolize *symbolize, struct profile *profile, enum symbolize_what what,
		       uint64_t deadline_ns)
{
	struct pass *pass = calloc(1, sizeof(*pass));
	struct groups groups = {};
	if (!pass || group_by_mapping(profile, &groups) < 0) {
		profile->missing_names += profile->n_locations;
		groups_free(&groups);
		free(pass);
		return;
	}
	pass->symbolize = symbolize;
	pass->profile = profile;
	pass->what = what;
	pass->deadline_ns = deadline_ns;
	pass->jit.map_fd = -1;
	strings_init(&pass->strings, &profile->arena, STRINGS_TABLE_MAX_BYTES);
	for (size_t m = 0; m < profile->n_mappings; m++) {
		pass->locations = groups.order + groups.first[m];
		pass->n = groups.first[m + 1] - groups.first[m];
		pass->has_nameless = false;
		name_mapping(pass, &profile->mappings[m]);
	}
	jit_sources_release(&pass->jit);
	strings_free(&pass->strings);
	groups_free(&groups);
	free(pass);
}

void symbolize_places(void *context, struct code_moment *moments, size_t n)
{
	struct symbolize_code *code = context;
	struct symbolize *symbolize = code->symbolize;
	struct named_file dump;
	pthread_mutex_lock(&symbolize->lock);
	if (jit_sources_dump(symbolize->jit_ids, code->dump, &dump) == 0)
		code->missing += code_places_find(symbolize->files, &dump, moments, n, code->deadline_ns);
	pthread_mutex_unlock(&symbolize->lock);
}

bool symbolize_trim(struct symbolize *symbolize, uint64_t before_ns)
{
	return kernel_names_trim(symbolize->kernel, before_ns);
}

int symbolize_unwind_table(struct symbolize *symbolize, uint64_t file_id, int fd, size_t max_bytes,
			   uint64_t deadline_ns, struct scratch *scratch, struct unwind_table *ret)
{
	if (file_id == SYMBOLIZE_VDSO_FILE_ID)
		fd = symbolize->vdso_fd;
	if (fd < 0)
		return -ENODATA;
	if (max_bytes > CFI_MAX_TABLE_BYTES)
		max_bytes = CFI_MAX_TABLE_BYTES;
	pthread_mutex_lock(&symbolize->lock);
	int r = file_names_unwind_table(symbolize->files, file_id, fd, max_bytes, deadline_ns, scratch, ret);
	pthread_mutex_unlock(&symbolize->lock);
	return r;
}

int symbolize_find_symbols(struct symbolize *symbolize, uint64_t file_id, int fd, const char *const *names, size_t n,
			   uint64_t deadline_ns, uint64_t *ret)
{
	if (fd < 0 || n > READER_SYMBOLS_MAX)
		return -EINVAL;
	pthread_mutex_lock(&symbolize->lock);
	int r = file_names_find_symbols(symbolize->files, file_id, fd, names, n, deadline_ns, ret);
	pthread_mutex_unlock(&symbolize->lock);
	return r;
}
