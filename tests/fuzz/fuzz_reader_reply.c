/* Replies of a reader that was taken over. The first byte says how many offsets were asked for; the sequence is 1. What is accepted must
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

static void check(const struct protocol_reply *reply, size_t n_asked)
{
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
	size_t n_asked = data[0];
	if (protocol_parse(data + 1, size - 1, 1, n_asked, &reply) == 0) {
		check(&reply, n_asked);
		protocol_reply_free(&reply);
	}
	return 0;
}
