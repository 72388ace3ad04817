#include "elf/symbol_source.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf/demangle.h"
#include "elf/text.h"

enum { NAME_FIRST_READ_BYTES = 256 };

/* Reads the string at offset, without its NUL; what is longer than bytes - 1 is cut. Most names are short: one small read. */
static bool read_string(int fd, uint64_t offset, uint64_t limit, char *out, size_t bytes)
{
	if (offset > INT64_MAX || limit == 0)
		return false;
	size_t wanted = bytes - 1 < NAME_FIRST_READ_BYTES ? bytes - 1 : NAME_FIRST_READ_BYTES;
	for (;;) {
		if (wanted > limit)
			wanted = limit;
		ssize_t n = pread(fd, out, wanted, (off_t)offset);
		if (n <= 0)
			return false;
		out[n] = '\0';
		if (strlen(out) < (size_t)n || (size_t)n < wanted || wanted == bytes - 1 || wanted == limit)
			return true;
		wanted = bytes - 1;
	}
}

/* The same of a file that is in memory. */
static bool copy_string(const struct symbol_source *source, uint64_t offset, uint64_t limit, char *out, size_t bytes)
{
	if (offset >= source->memory_bytes || limit == 0)
		return false;
	size_t room = source->memory_bytes - offset;
	size_t n = strnlen(source->memory + offset, room < limit ? room : limit);
	if (n > bytes - 1)
		n = bytes - 1;
	memcpy(out, source->memory + offset, n);
	out[n] = '\0';
	return true;
}

static bool read_name(const struct symbol_source *source, struct symbol_name name, char *out, size_t bytes)
{
	uint64_t table = source->symbols.strings[name.strings].file_offset;
	uint64_t table_bytes = source->symbols.strings[name.strings].bytes;
	if (name.offset >= table_bytes || table > INT64_MAX)
		return false;
	if (source->memory)
		return copy_string(source, table + name.offset, table_bytes - name.offset, out, bytes);
	return read_string(source->fd, table + name.offset, table_bytes - name.offset, out, bytes);
}

/* "memcpy@@GLIBC_2.14" is memcpy. */
static void strip_version(char *name)
{
	char *at = strchr(name, '@');
	if (at && at > name)
		*at = '\0';
}

static void append_plt(char *name)
{
	static const char suffix[] = "@plt";
	size_t length = strlen(name);
	if (length + sizeof(suffix) <= READER_NAME_MAX_BYTES + 1)
		memcpy(name + length, suffix, sizeof(suffix));
}

bool symbol_source_find(const struct symbol_source *source, uint64_t address, struct image_name *ret)
{
	const struct symbol_range *range = symbols_find(&source->symbols, address);
	if (!range)
		return false;
	if (!read_name(source, range->name, ret->system_name, sizeof(ret->system_name)))
		return false;
	strip_version(ret->system_name);
	text_make_printable(ret->system_name);
	if (!ret->system_name[0])
		return false; /* the file changed since it was opened */
	if (demangle(ret->system_name, ret->name, sizeof(ret->name)))
		text_make_printable(ret->name);
	else
		memcpy(ret->name, ret->system_name, strlen(ret->system_name) + 1);
	if (range->name.is_plt) {
		append_plt(ret->name);
		append_plt(ret->system_name);
	}
	return true;
}

void symbol_source_release(struct symbol_source *source)
{
	symbols_free(&source->symbols);
	free(source->memory);
	source->memory = NULL;
	source->memory_bytes = 0;
}
