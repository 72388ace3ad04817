#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "elf/dwarf_cursor.h"
#include "elf/jit_internal.h"
#include "elf/text.h"

enum {
	MAGIC = 0x4A695444, /* "JiTD", as the writer's own machine has it */
	HEADER_BYTES = 40,
	PREFIX_BYTES = 16, /* id, size, time: of each record */
	RECORD_LOAD = 0,
	RECORD_MOVE = 1,
	RECORD_DEBUG_INFO = 2,
	RECORD_MAX_BYTES = 16 << 20,
	MOVED_AMONG_MAX = 4096, /* of what was told last */
	LINES_OF_SYMBOL_MAX = 64 << 10,
	LOAD_FIXED_BYTES = 40, /* of a load record behind its prefix */
	V8_SHIFT_BYTES = 0x40, /* of an ELF header */
	FLAGS_AT = 32,
	FLAG_ARCH_TIMESTAMP = 1, /* times are the processor's, which nobody can compare with a sample's */
};

#define CODE_MAX_BYTES (UINT64_C(1) << 40) /* of one function */

/* Lines that wait for the record of their code. */
struct pending {
	uint64_t address;
	uint32_t first, n;
	bool v8s; /* see shift_lines() */
};

struct reading {
	struct jit *jit;
	struct pending lines;
	uint64_t now_ns;
	bool timeless; /* its times are by another clock than ours */
};

static uint64_t now_ns(void)
{
	struct timespec now = {};
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static bool is_in_name(struct dwarf_text name, const char *path)
{
	size_t n = strlen(path);
	const char *at = name.at, *end = name.at + name.n;
	while (n && (at = memmem(at, (size_t)(end - at), path, n)) && at[n] != ':') /* a NUL is behind the name */
		at++;
	return n && at;
}

/* V8 10 writes memory that it has freed in place of a script's path, and that may well be a text. The path is in the function's name too, before its line; of a
 * script that was inlined it is not, but that looks like one. */
static void forget_what_is_no_path(struct jit *jit, const struct pending *lines, struct dwarf_text name)
{
	for (uint32_t i = 0; i < lines->n; i++) {
		struct jit_line *line = &jit->lines[lines->first + i];
		const char *file = jit->text + line->file;
		if (file[0] != '/' && strncmp(file, "file:", 5) != 0 && strncmp(file, "node:", 5) != 0 &&
		    !is_in_name(name, file))
			line->file = 0;
	}
}

/* Behind the prefix: pid, tid, vma, address, size, index, name, bytes of code. */
static int take_load(struct reading *reading, uint64_t time_ns, struct cursor *in)
{
	cursor_skip(in, 4 + 4 + 8);
	uint64_t address = cursor_uint(in, 8), bytes = cursor_uint(in, 8);
	cursor_skip(in, 8);
	struct dwarf_text name = cursor_text(in);
	struct pending lines = reading->lines;
	reading->lines = (struct pending){};
	if (in->failed || bytes > CODE_MAX_BYTES)
		return 0;
	struct jit_symbol symbol = {.start = address,
				    .end = address + bytes,
				    .from_ns = time_ns,
				    .told_at = address,
				    .first_line = lines.first,
				    .n_lines = lines.address == address ? lines.n : 0};
	if (symbol.n_lines && lines.v8s)
		forget_what_is_no_path(reading->jit, &lines, name);
	return jit_add_named(reading->jit, symbol, name.at, name.n);
}

/* Code that is elsewhere from now on; samples of before it moved are where it was. */
static int take_move(struct reading *reading, uint64_t time_ns, struct cursor *in)
{
	struct jit *jit = reading->jit;
	cursor_skip(in, 4 + 4 + 8);
	uint64_t old = cursor_uint(in, 8), new = cursor_uint(in, 8), bytes = cursor_uint(in, 8);
	if (in->failed || bytes == 0 || bytes > CODE_MAX_BYTES || new > UINT64_MAX - bytes)
		return 0;
	for (size_t i = jit->n; i-- > 0 && jit->n - i < MOVED_AMONG_MAX;) {
		struct jit_symbol symbol = jit->symbols[i];
		if (symbol.start != old)
			continue;
		symbol.start = new;
		symbol.end = new + bytes;
		symbol.from_ns = time_ns;
		return jit_add(jit, &symbol);
	}
	return 0;
}

static int add_line(struct jit *jit, uint64_t address, uint32_t line, struct dwarf_text file)
{
	/* The same file many times over: its name is there already, as a rule. */
	uint32_t name = 0;
	const struct jit_line *last = jit->n_lines ? &jit->lines[jit->n_lines - 1] : NULL;
	const char *known = last ? jit->text + last->file : "";
	int r = 0;
	char copy[READER_NAME_MAX_BYTES + 1];
	size_t n = file.n < READER_NAME_MAX_BYTES ? file.n : READER_NAME_MAX_BYTES;
	memcpy(copy, file.at, n);
	copy[n] = '\0';
	if (!text_is_printable(copy)) /* V8 10 writes memory that it has freed */
		file.n = 0;
	if (last && strlen(known) == file.n && memcmp(known, file.at, file.n) == 0)
		name = last->file;
	else
		r = jit_add_text(jit, file.at, file.n, &name);
	if (r == 0)
		r = jit_grow((void **)&jit->lines, jit->n_lines + 1, &jit->lines_allocated, JIT_LINES_MAX,
			     sizeof(jit->lines[0]));
	if (r == 0)
		jit->lines[jit->n_lines++] = (struct jit_line){.address = address, .file = name, .line = line};
	return r;
}

/* V8 tells of where lines would be if an ELF header were put before the code, which perf does: then the first is right behind one. Every
 * function has a line at its begin, so that nobody else's is. */
static void shift_lines(struct jit *jit, struct pending *lines)
{
	lines->v8s = lines->n > 0 && jit->lines[lines->first].address == lines->address + V8_SHIFT_BYTES;
	if (!lines->v8s)
		return;
	for (uint32_t i = 0; i < lines->n; i++)
		jit->lines[lines->first + i].address -= V8_SHIFT_BYTES;
}

/* Behind the prefix: address of the code, number of entries; each: address, line, discriminator, file. */
static int take_debug_info(struct reading *reading, struct cursor *in)
{
	struct jit *jit = reading->jit;
	uint64_t address = cursor_uint(in, 8), n = cursor_uint(in, 8);
	reading->lines = (struct pending){.address = address, .first = (uint32_t)jit->n_lines};
	for (uint64_t i = 0; i < n && i < LINES_OF_SYMBOL_MAX && !in->failed; i++) {
		uint64_t at = cursor_uint(in, 8);
		uint32_t line = (uint32_t)cursor_uint(in, 4);
		cursor_skip(in, 4);
		struct dwarf_text file = cursor_text(in);
		if (in->failed)
			break;
		int r = add_line(jit, at, line <= INT32_MAX ? line : 0, file);
		if (r < 0)
			return r;
		reading->lines.n++;
	}
	shift_lines(jit, &reading->lines);
	return 0;
}

static int take_record(struct reading *reading, uint32_t id, uint64_t time_ns, struct cursor *in)
{
	if (id == RECORD_LOAD || id == RECORD_MOVE)
		reading->timeless |= time_ns > reading->now_ns;
	switch (id) {
	case RECORD_LOAD:
		return take_load(reading, time_ns, in);
	case RECORD_MOVE:
		return take_move(reading, time_ns, in);
	case RECORD_DEBUG_INFO:
		return take_debug_info(reading, in);
	default:
		return 0;
	}
}

/* How much of a record is needed: not the bytes of the code at its end. */
static size_t wanted_bytes(uint32_t id, uint32_t bytes)
{
	size_t body = bytes - PREFIX_BYTES, name = LOAD_FIXED_BYTES + READER_NAME_MAX_BYTES + 1;
	if (id == RECORD_LOAD)
		return body < name ? body : name;
	return body < RECORD_MAX_BYTES ? body : 0;
}

int jit_read_dump(struct jit *jit, int fd, uint64_t bytes)
{
	uint32_t header[HEADER_BYTES / 4];
	if (pread(fd, header, sizeof(header), 0) != sizeof(header) || header[0] != MAGIC || header[2] < HEADER_BYTES)
		return -ENOEXEC;
	size_t room = bytes < RECORD_MAX_BYTES ? bytes : RECORD_MAX_BYTES;
	_cleanup_free_ uint8_t *body = malloc(room ? room : 1);
	struct reading reading = {
		.jit = jit, .now_ns = now_ns(), .timeless = header[FLAGS_AT / 4] & FLAG_ARCH_TIMESTAMP};
	int r = body ? 0 : -ENOMEM;
	uint64_t at = header[2];
	while (r == 0 && at < bytes) {
		uint32_t prefix[PREFIX_BYTES / 4];
		if (pread(fd, prefix, sizeof(prefix), (off_t)at) != sizeof(prefix) || prefix[1] < PREFIX_BYTES)
			break; /* the rest is not written yet */
		size_t wanted = wanted_bytes(prefix[0], prefix[1]);
		ssize_t n = pread(fd, body, wanted < room ? wanted : room, (off_t)(at + PREFIX_BYTES));
		if (n < 0)
			return -EIO;
		struct cursor in = {.at = body, .end = body + n};
		r = take_record(&reading, prefix[0], prefix[2] | (uint64_t)prefix[3] << 32, &in);
		at += prefix[1];
	}
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): freed by its cleanup */
	for (size_t i = 0; reading.timeless && i < jit->n; i++)
		jit->symbols[i].from_ns = 0;
	return r; // NOLINT(clang-analyzer-unix.Malloc): freed by its cleanup
}
