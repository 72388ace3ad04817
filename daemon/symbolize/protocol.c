#include "symbolize/protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "reader.pb-c.h"

enum { ERROR_MAX = 4095 }; /* the kernel's bound of errno */

size_t protocol_open(uint64_t sequence, uint64_t file_id, enum protocol_file kind, uint8_t *packet)
{
	Sprof__Reader__Open open = SPROF__READER__OPEN__INIT;
	open.kind = (Sprof__Reader__Open__Kind)kind; /* the same numbers */
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	request.sequence = sequence;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_OPEN;
	request.open = &open;
	return sprof__reader__request__pack(&request, packet);
}

size_t protocol_attach(uint64_t sequence, uint64_t file_id, enum protocol_attachment kind, uint8_t *packet)
{
	Sprof__Reader__Attach attach = SPROF__READER__ATTACH__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	attach.kind = (Sprof__Reader__Attach__Kind)kind;
	request.sequence = sequence;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_ATTACH;
	request.attach = &attach;
	return sprof__reader__request__pack(&request, packet);
}

size_t protocol_symbolize(uint64_t sequence, uint64_t file_id, const uint64_t *file_offsets, size_t n, uint8_t *packet)
{
	Sprof__Reader__Symbolize symbolize = SPROF__READER__SYMBOLIZE__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	symbolize.n_file_offset = n;
	symbolize.file_offset = (uint64_t *)file_offsets; /* only read */
	request.sequence = sequence;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_SYMBOLIZE;
	request.symbolize = &symbolize;
	return sprof__reader__request__pack(&request, packet);
}

size_t protocol_unwind_table(uint64_t sequence, uint64_t file_id, uint8_t *packet)
{
	Sprof__Reader__UnwindTable unwind_table = SPROF__READER__UNWIND_TABLE__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	request.sequence = sequence;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_UNWIND_TABLE;
	request.unwind_table = &unwind_table;
	return sprof__reader__request__pack(&request, packet);
}

size_t protocol_find_symbols(uint64_t sequence, uint64_t file_id, const char *const *names, size_t n, uint8_t *packet)
{
	Sprof__Reader__FindSymbols find_symbols = SPROF__READER__FIND_SYMBOLS__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	find_symbols.n_name = n;
	find_symbols.name = (char **)names; /* only read */
	request.sequence = sequence;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_FIND_SYMBOLS;
	request.find_symbols = &find_symbols;
	return sprof__reader__request__pack(&request, packet);
}

size_t protocol_code_at(uint64_t sequence, uint64_t file_id, const uint64_t *addresses, const uint64_t *times_ns,
			size_t n, uint8_t *packet)
{
	Sprof__Reader__CodeAt code_at = SPROF__READER__CODE_AT__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	code_at.n_address = code_at.n_time = n;
	code_at.address = (uint64_t *)addresses; /* only read */
	code_at.time = (uint64_t *)times_ns;
	request.sequence = sequence;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_CODE_AT;
	request.code_at = &code_at;
	return sprof__reader__request__pack(&request, packet);
}

static bool is_printable(const char *text)
{
	size_t length = strlen(text);
	if (length > READER_NAME_MAX_BYTES)
		return false;
	for (size_t at = 0; at < length;) {
		size_t n = utf8_printable(text + at, length - at);
		if (n == 0)
			return false;
		at += n;
	}
	return true;
}

static int take_error(const Sprof__Reader__Reply *in, struct protocol_reply *reply)
{
	if (in->error < 0 || in->error > ERROR_MAX || in->what_case != SPROF__READER__REPLY__WHAT__NOT_SET)
		return -EBADMSG;
	reply->kind = REPLY_ERROR;
	reply->error = in->error;
	return 0;
}

_Static_assert((int)PROTOCOL_JITDUMP == (int)SPROF__READER__OPEN__KIND__JITDUMP &&
		       (int)PROTOCOL_PACKAGE == (int)SPROF__READER__ATTACH__KIND__PACKAGE,
	       "the same numbers");

static int take_build_id(const char *in, char *ret)
{
	size_t length = strlen(in);
	if (length > 2 * READER_BUILD_ID_MAX_BYTES || length % 2 != 0 || strspn(in, "0123456789abcdef") != length)
		return -EBADMSG;
	memcpy(ret, in, length + 1);
	return 0;
}

static int take_link(const char *in, char *ret)
{
	size_t length = strlen(in);
	if (length > READER_LINK_MAX_BYTES || !is_printable(in))
		return -EBADMSG;
	memcpy(ret, in, length + 1);
	return 0;
}

static int take_opened(const Sprof__Reader__Opened *in, struct protocol_reply *reply)
{
	if (take_build_id(in->build_id, reply->build_id) < 0 ||
	    take_build_id(in->alt_build_id, reply->alt_build_id) < 0 ||
	    take_link(in->debug_link, reply->debug_link) < 0 || take_link(in->alt_link, reply->alt_link) < 0 ||
	    strchr(in->debug_link, '/'))
		return -EBADMSG;
	reply->kind = REPLY_OPENED;
	reply->has_symbols = in->has_symbols;
	reply->wants_debug = in->wants_debug;
	return 0;
}

static int take_frame(const Sprof__Reader__Frame *in, struct profile_line *ret)
{
	if (!in->name[0] || !is_printable(in->name) || !is_printable(in->system_name) || !is_printable(in->filename) ||
	    in->line > INT32_MAX || in->start_line > INT32_MAX)
		return -EBADMSG;
	*ret = (struct profile_line){
		.name = in->name,
		.system_name = in->system_name[0] ? in->system_name : in->name,
		.filename = in->filename[0] ? in->filename : NULL,
		.line = in->line,
		.start_line = in->start_line,
	};
	return 0;
}

static int take_symbolized(const Sprof__Reader__Symbolized *in, size_t n_asked, struct protocol_reply *reply)
{
	size_t n_lines = 0;
	if (in->n_frames == 0 || in->n_frames > n_asked)
		return -EBADMSG;
	for (size_t i = 0; i < in->n_frames; i++) {
		if (in->frames[i]->n_frame > READER_FRAMES_MAX)
			return -EBADMSG;
		n_lines += in->frames[i]->n_frame;
	}
	reply->lines = calloc(n_lines ? n_lines : 1, sizeof(reply->lines[0]));
	if (!reply->lines)
		return -ENOMEM;
	struct profile_line *line = reply->lines;
	for (size_t i = 0; i < in->n_frames; i++) {
		const Sprof__Reader__Frames *frames = in->frames[i];
		reply->frames[i].lines = line;
		reply->frames[i].n = (uint32_t)frames->n_frame;
		for (size_t k = 0; k < frames->n_frame; k++) {
			int r = take_frame(frames->frame[k], line++);
			if (r < 0)
				return r;
		}
	}
	reply->kind = REPLY_SYMBOLIZED;
	reply->n = in->n_frames;
	return 0;
}

static int take_split_wanted(const Sprof__Reader__SplitWanted *in, struct protocol_reply *reply)
{
	if (in->n_path > READER_SPLITS_MAX || (in->n_path == 0 && !in->package))
		return -EBADMSG;
	for (size_t i = 0; i < in->n_path; i++)
		if (!in->path[i][0] || strlen(in->path[i]) > READER_LINK_MAX_BYTES || !is_printable(in->path[i]))
			return -EBADMSG;
	reply->kind = REPLY_SPLIT_WANTED;
	reply->wants_package = in->package;
	reply->split_paths = in->path;
	reply->n_split_paths = in->n_path;
	return 0;
}

static int take_unwind_table(const Sprof__Reader__UnwindTableMade *in, struct protocol_reply *reply)
{
	reply->kind = REPLY_UNWIND_TABLE;
	reply->table_bytes = in->total_bytes; /* it is checked with the table itself */
	reply->n_fdes = in->n_fdes;
	reply->n_malformed = in->n_malformed;
	reply->n_unsupported = in->n_unsupported;
	reply->n_registers_lost = in->n_registers_lost;
	return 0;
}

static int take_found_symbols(const Sprof__Reader__FoundSymbols *in, struct protocol_reply *reply)
{
	if (in->n_position > READER_SYMBOLS_MAX)
		return -EBADMSG;
	reply->kind = REPLY_FOUND_SYMBOLS;
	reply->n_positions = in->n_position;
	for (size_t i = 0; i < in->n_position; i++)
		reply->positions[i] = in->position[i];
	return 0;
}

static int take_code_places(const Sprof__Reader__CodePlaces *in, size_t n_asked, struct protocol_reply *reply)
{
	size_t n = in->n_place;
	if (n == 0 || n > n_asked || in->n_until != n)
		return -EBADMSG;
	reply->kind = REPLY_CODE_PLACES;
	reply->n_places = n;
	memcpy(reply->places, in->place, n * sizeof(in->place[0]));
	memcpy(reply->until_ns, in->until, n * sizeof(in->until[0]));
	return 0;
}

static int take_reply(const Sprof__Reader__Reply *in, uint64_t sequence, size_t n_asked, struct protocol_reply *reply)
{
	if (in->sequence != sequence)
		return -EBADMSG;
	if (in->error != 0)
		return take_error(in, reply);
	if (n_asked == 0 && in->what_case == SPROF__READER__REPLY__WHAT_OPENED)
		return take_opened(in->opened, reply);
	if (n_asked > 0 && n_asked <= READER_BATCH_MAX && in->what_case == SPROF__READER__REPLY__WHAT_SYMBOLIZED)
		return take_symbolized(in->symbolized, n_asked, reply);
	if (n_asked > 0 && n_asked <= READER_BATCH_MAX && in->what_case == SPROF__READER__REPLY__WHAT_SPLIT_WANTED)
		return take_split_wanted(in->split_wanted, reply);
	if (n_asked == PROTOCOL_ASKED_UNWIND_TABLE && in->what_case == SPROF__READER__REPLY__WHAT_UNWIND_TABLE)
		return take_unwind_table(in->unwind_table, reply);
	if (n_asked == PROTOCOL_ASKED_SYMBOLS && in->what_case == SPROF__READER__REPLY__WHAT_FOUND_SYMBOLS)
		return take_found_symbols(in->found_symbols, reply);
	size_t n_code = PROTOCOL_ASKED_CODE(0) - n_asked;
	if (n_code <= READER_BATCH_MAX && in->what_case == SPROF__READER__REPLY__WHAT_CODE_PLACES)
		return take_code_places(in->code_places, n_code, reply);
	return -EBADMSG;
}

int protocol_parse(const uint8_t *packet, size_t bytes, uint64_t sequence, size_t n_asked, struct protocol_reply *ret)
{
	if (bytes > READER_MESSAGE_MAX_BYTES)
		return -EBADMSG;
	Sprof__Reader__Reply *message = sprof__reader__reply__unpack(NULL, bytes, packet);
	if (!message)
		return -EBADMSG;
	ret->message = message;
	ret->lines = NULL;
	int r = take_reply(message, sequence, n_asked, ret);
	if (r < 0)
		protocol_reply_free(ret);
	return r;
}

void protocol_reply_free(struct protocol_reply *reply)
{
	if (reply->message)
		sprof__reader__reply__free_unpacked(reply->message, NULL);
	free(reply->lines);
	reply->message = NULL;
	reply->lines = NULL;
}
