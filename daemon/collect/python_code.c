#include "collect/python_code.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "collect/process_memory.h"

enum {
	OBJECT_TYPE = 8,        /* PyObject.ob_type */
	TEXT_LENGTH = 16,       /* PyASCIIObject.length; also ob_size of bytes */
	TEXT_STATE = 32,        /* PyASCIIObject.state */
	BYTES_DATA = 32,        /* PyBytesObject.ob_sval */
	TEXT_HEADER_BYTES = 40, /* as far as it is looked at */
	STATE_KIND_SHIFT = 2,   /* three bits: bytes of a character */
	STATE_COMPACT = 1 << 5,
	STATE_ASCII = 1 << 6,
};

/* What of the object's own bytes matters. */
struct object {
	uint64_t type, filename, qualname, line_table;
	uint32_t first_line, number;
};

static int read_object(pid_t pid, const struct python_config *layout, uint64_t address, struct object *ret)
{
	uint8_t bytes[PYTHON_CODE_BYTES];
	int r = process_memory_read(pid, address, bytes, sizeof(bytes));
	if (r < 0)
		return r;
	memcpy(&ret->type, bytes + OBJECT_TYPE, sizeof(ret->type));
	memcpy(&ret->filename, bytes + layout->code_filename, sizeof(ret->filename));
	memcpy(&ret->qualname, bytes + layout->code_qualname, sizeof(ret->qualname));
	memcpy(&ret->line_table, bytes + layout->code_line_table, sizeof(ret->line_table));
	memcpy(&ret->first_line, bytes + layout->code_first_line, sizeof(ret->first_line));
	memcpy(&ret->number, bytes + layout->code_number, sizeof(ret->number));
	return 0;
}

static uint32_t identity_of(const struct object *object)
{
	return python_identity(object->first_line, object->filename, object->qualname, object->line_table,
			       object->number);
}

static size_t put_utf8(uint32_t c, char *out)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(0xf00 >> n | c);
	return n;
}

/* Characters of kind bytes each, as UTF-8; what is no good character in a name (control characters, halves of surrogates) becomes a question mark. */
static void to_utf8(const uint8_t *characters, size_t n, size_t kind, char *out)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t c = 0;
		char text[4];
		memcpy(&c, characters + i * kind, kind); /* little-endian */
		size_t bytes = c <= 0x10ffff ? put_utf8(c, text) : 0;
		if (bytes == 0 || utf8_printable(text, bytes) != bytes) {
			text[0] = '?';
			bytes = 1;
		}
		memcpy(out, text, bytes);
		out += bytes;
	}
	*out = '\0';
}

/* A str. out has room for 4 * PYTHON_NAME_MAX_CHARACTERS + 1. */
static int read_text(pid_t pid, const struct python_layout *layout, uint64_t address, uint8_t *characters, char *out)
{
	uint8_t header[TEXT_HEADER_BYTES];
	uint64_t length = 0;
	uint32_t state = 0;
	int r = process_memory_read(pid, address, header, sizeof(header));
	if (r < 0)
		return r;
	memcpy(&length, header + TEXT_LENGTH, sizeof(length));
	memcpy(&state, header + TEXT_STATE, sizeof(state));
	uint32_t kind = state >> STATE_KIND_SHIFT & 7;
	if (!(state & STATE_COMPACT) || (kind != 1 && kind != 2 && kind != 4))
		return -ESTALE;
	if (length > PYTHON_NAME_MAX_CHARACTERS)
		length = PYTHON_NAME_MAX_CHARACTERS;
	address += state & STATE_ASCII ? layout->ascii_bytes : layout->text_bytes;
	r = length ? process_memory_read(pid, address, characters, length * kind) : 0;
	if (r == 0)
		to_utf8(characters, length, kind, out);
	return r;
}

static int read_lines(pid_t pid, uint64_t address, uint8_t *lines, size_t *ret_n)
{
	uint64_t n = 0;
	int r = process_memory_read(pid, address + TEXT_LENGTH, &n, sizeof(n));
	if (r == 0 && n > PYTHON_LINES_MAX_BYTES)
		n = PYTHON_LINES_MAX_BYTES;
	if (r == 0 && n)
		r = process_memory_read(pid, address + BYTES_DATA, lines, n);
	*ret_n = n;
	return r;
}

int python_code_read(pid_t pid, const struct python_layout *layout, uint64_t code_type,
		     const struct python_code_key *key, struct python_code_room *room, struct python_code *ret)
{
	struct object before = {}, after = {};
	size_t n_lines = 0;
	int r = read_object(pid, &layout->config, key->address, &before);
	if (r == 0 && (before.type != code_type || identity_of(&before) != key->identity))
		return -ESTALE;
	if (r == 0)
		r = read_text(pid, layout, before.qualname, room->characters, room->name);
	if (r == 0)
		r = read_text(pid, layout, before.filename, room->characters, room->filename);
	if (r == 0)
		r = read_lines(pid, before.line_table, room->lines, &n_lines);
	/* It runs on meanwhile, and may have let go of what was read. */
	if (r == 0)
		r = read_object(pid, &layout->config, key->address, &after);
	if (r < 0)
		return r;
	if (after.type != code_type || identity_of(&after) != key->identity || !room->name[0])
		return -ESTALE;
	*ret = (struct python_code){.name = room->name,
				    .filename = room->filename,
				    .first_line = (int32_t)before.first_line,
				    .lines = room->lines,
				    .n_lines = n_lines};
	return 0;
}
