/* Replies of a reader that was taken over. The first byte says how many offsets were asked for, or if it is one of the last three, what else; the sequence is 1. What is accepted must
 * be within all bounds. */
#include <stdint.h>
#include <string.h>

#include "symbolize/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
	if (text && strlen(text) > READER_NAME_MAX_BYTES)
		__builtin_trap();
}

enum { CODE_ASKED = 3 };

static size_t asked_by(uint8_t byte)
{
	switch (byte) {
	case 253:
		return PROTOCOL_ASKED_CODE(CODE_ASKED);
	case 254:
		return PROTOCOL_ASKED_SYMBOLS;
	case 255:
		return PROTOCOL_ASKED_UNWIND_TABLE;
	default:
		return byte;
	}
}

static void check(const struct protocol_reply *reply, size_t n_asked)
{
	if (reply->kind == REPLY_CODE_PLACES && (reply->n_places == 0 || reply->n_places > CODE_ASKED))
		__builtin_trap();
	if (reply->kind == REPLY_FOUND_SYMBOLS && reply->n_positions > READER_SYMBOLS_MAX)
		__builtin_trap();
	if (reply->kind != REPLY_SYMBOLIZED)
		return;
	if (reply->n == 0 || reply->n > n_asked)
		__builtin_trap();
	for (size_t i = 0; i < reply->n; i++) {
		if (reply->frames[i].n > READER_FRAMES_MAX)
			__builtin_trap();
		for (uint32_t k = 0; k < reply->frames[i].n; k++) {
			const struct profile_line *line = &reply->frames[i].lines[k];
			if (!line->name[0] || !line->system_name[0])
				__builtin_trap();
			check_text(line->name);
			check_text(line->system_name);
			check_text(line->filename);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct protocol_reply reply;
	if (size == 0)
		return 0;
	size_t n_asked = asked_by(data[0]);
	if (protocol_parse(data + 1, size - 1, 1, n_asked, &reply) == 0) {
		check(&reply, n_asked);
		protocol_reply_free(&reply);
	}
	return 0;
}
