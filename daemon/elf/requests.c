#include "elf/requests.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "elf/cfi_build.h"
#include "elf/find_symbols.h"
#include "elf/image.h"
#include "elf/jit.h"
#include "elf/work.h"
#include "proto/reader_limits.h"
#include "reader.pb-c.h"

enum {
	FILES_MAX = 48,
	INDEX_MAX_BYTES = 256 << 20,
	UNUSED_MAX_BYTES = 16 << 20, /* of the heap */
	/* Of a packed Frames with one Frame: tags and lengths, generously; and of a reply around them. */
	FRAMES_OVERHEAD_BYTES = 8,
	FRAME_OVERHEAD_BYTES = 32,
	REPLY_OVERHEAD_BYTES = 64,
	FRAMES_IN_REPLY_MAX = READER_MESSAGE_MAX_BYTES / FRAME_OVERHEAD_BYTES,
};

/* Then a reply goes out with what is there: what takes long must not look like a reader that hangs. */
#define REPLY_AFTER_NS 250000000U

struct open_file {
	uint64_t file_id;
	uint64_t used;       /* by the clock of requests */
	struct image *image; /* or */
	struct jit *jit;
};

struct requests {
	struct open_file files[FILES_MAX];
	size_t n;
	uint64_t clock;
	struct scratch scratch; /* of unwind tables */
	/* The reply being built. */
	Sprof__Reader__Frames frames[READER_BATCH_MAX], *frames_list[READER_BATCH_MAX];
	Sprof__Reader__Frame frame[FRAMES_IN_REPLY_MAX], *frame_list[FRAMES_IN_REPLY_MAX];
	size_t n_frames;
	struct dwarf_wanted wanted[READER_SPLITS_MAX];
	char *wanted_list[READER_SPLITS_MAX];
	char text[READER_MESSAGE_MAX_BYTES];
	size_t text_used;
	uint64_t places[READER_BATCH_MAX], untils[READER_BATCH_MAX];
};

struct requests *requests_new(void)
{
	return calloc(1, sizeof(struct requests));
}

static void release_file(struct open_file *file)
{
	image_free(file->image);
	jit_free(file->jit);
}

static size_t bytes_of(const struct open_file *file)
{
	return file->image ? image_bytes(file->image) : jit_bytes(file->jit);
}

void requests_free(struct requests *requests)
{
	if (!requests)
		return;
	for (size_t i = 0; i < requests->n; i++)
		release_file(&requests->files[i]);
	scratch_release(&requests->scratch);
	free(requests);
}

static struct open_file *find_file(struct requests *requests, uint64_t file_id)
{
	for (size_t i = 0; i < requests->n; i++) {
		if (requests->files[i].file_id == file_id) {
			requests->files[i].used = ++requests->clock;
			return &requests->files[i];
		}
	}
	return NULL;
}

static void close_file(struct requests *requests, struct open_file *file)
{
	release_file(file);
	*file = requests->files[--requests->n];
}

/* Lets go of the files that were not used for longest until there is room for one of bytes. */
static void make_room(struct requests *requests, size_t bytes)
{
	for (;;) {
		size_t held = 0;
		struct open_file *oldest = NULL;
		for (size_t i = 0; i < requests->n; i++) {
			struct open_file *file = &requests->files[i];
			held += bytes_of(file);
			if (!oldest || file->used < oldest->used)
				oldest = file;
		}
		if (!oldest || (requests->n < FILES_MAX && held + bytes <= INDEX_MAX_BYTES))
			return;
		close_file(requests, oldest);
	}
}

static void describe(const struct image *image, Sprof__Reader__Opened *ret)
{
	const struct links *links = image_links(image);
	ret->build_id = (char *)image_build_id(image);
	ret->has_symbols = image_has_symbols(image);
	ret->wants_debug = !image_has_debug(image);
	ret->debug_link = (char *)links->debug_link;
	ret->alt_link = (char *)links->alt_link;
	ret->alt_build_id = (char *)links->alt_build_id;
}

/* Takes fd. */
static int open_by_kind(Sprof__Reader__Open__Kind kind, int fd, struct open_file *ret)
{
	switch (kind) {
	case SPROF__READER__OPEN__KIND__PERF_MAP:
		return jit_open(fd, JIT_PERF_MAP, &ret->jit);
	case SPROF__READER__OPEN__KIND__JITDUMP:
		return jit_open(fd, JIT_DUMP, &ret->jit);
	default:
		return image_open(fd, &ret->image);
	}
}

/* What the making of an index took. A look costs little: there are few free pieces of memory, and large ones. */
static void give_memory_back(void)
{
	if (mallinfo2().fordblks > UNUSED_MAX_BYTES)
		malloc_trim(0);
}

static int handle_open(struct requests *requests, uint64_t file_id, const Sprof__Reader__Open *in, int fd,
		       Sprof__Reader__Opened *ret)
{
	_cleanup_close_ int owned = fd;
	struct open_file *file = find_file(requests, file_id);
	if (!file) {
		struct open_file opened = {.file_id = file_id};
		if (owned < 0)
			return -EBADMSG;
		int r = open_by_kind(in->kind, TAKE_FD(owned), &opened);
		give_memory_back();
		if (r < 0)
			return r;
		make_room(requests, bytes_of(&opened));
		file = &requests->files[requests->n++];
		opened.used = ++requests->clock;
		*file = opened;
	}
	if (file->image)
		describe(file->image, ret);
	else
		ret->has_symbols = jit_count(file->jit) > 0;
	return 0;
}

static enum image_attachment attachment_of(Sprof__Reader__Attach__Kind kind)
{
	switch (kind) {
	case SPROF__READER__ATTACH__KIND__SUPPLEMENTARY:
		return ATTACH_ALT;
	case SPROF__READER__ATTACH__KIND__SPLIT:
		return ATTACH_SPLIT;
	case SPROF__READER__ATTACH__KIND__PACKAGE:
		return ATTACH_PACKAGE;
	default:
		return ATTACH_DEBUG;
	}
}

/* ENOENT has one meaning for sprofd here: try another file. That this one is no longer open, it notices when it asks next. */
static int handle_attach(struct requests *requests, uint64_t file_id, const Sprof__Reader__Attach *in, int fd,
			 Sprof__Reader__Opened *ret)
{
	_cleanup_close_ int owned = fd;
	struct open_file *file = find_file(requests, file_id);
	if (owned < 0)
		return -EBADMSG;
	if (!file || !file->image)
		return -ENOENT;
	int r = image_attach(file->image, attachment_of(in->kind), TAKE_FD(owned));
	give_memory_back();
	if (r == 0)
		describe(file->image, ret);
	return r;
}

static char *keep_text(struct requests *requests, const char *text)
{
	size_t bytes = strlen(text) + 1;
	char *copy = requests->text + requests->text_used;
	memcpy(copy, text, bytes);
	requests->text_used += bytes;
	return copy;
}

/* Whether the texts of n frames and what is around them fit in what is left of the reply; if so, they are counted. */
static bool take_room(const struct image_frame *in, size_t n, size_t *used)
{
	size_t bytes = FRAMES_OVERHEAD_BYTES;
	for (size_t i = 0; i < n; i++)
		bytes += FRAME_OVERHEAD_BYTES + strlen(in[i].name) + strlen(in[i].system_name) + strlen(in[i].filename);
	if (bytes > READER_MESSAGE_MAX_BYTES - *used)
		return false;
	*used += bytes;
	return true;
}

/* Of names of the longest kind not even one offset's frames may fit: then as many as do, from the innermost on, and the outermost. */
static size_t shorten(struct image_frame *in, size_t n)
{
	size_t fit = READER_MESSAGE_MAX_BYTES / (3 * (READER_NAME_MAX_BYTES + FRAME_OVERHEAD_BYTES)) - 1;
	if (n <= fit)
		return n;
	in[fit - 1] = in[n - 1];
	return fit;
}

static void fill_frame(struct requests *requests, const struct image_frame *in, Sprof__Reader__Frame *out)
{
	sprof__reader__frame__init(out);
	out->name = keep_text(requests, in->name);
	if (strcmp(in->name, in->system_name) != 0)
		out->system_name = keep_text(requests, in->system_name);
	if (in->filename[0])
		out->filename = keep_text(requests, in->filename);
	out->line = in->line;
	out->start_line = in->start_line;
}

static size_t find_in(const struct open_file *file, uint64_t offset, struct image_frame *found)
{
	if (file->image)
		return image_find_frames(file->image, offset, found);
	return jit_has_places(file->jit) ? jit_find_place(file->jit, offset, found)
					 : jit_find(file->jit, offset, found);
}

/* Fills the i-th Frames of the reply; false when it does not fit any more. */
static bool add_frames(struct requests *requests, const struct open_file *file, size_t i, uint64_t file_offset,
		       size_t *used)
{
	struct image_frame found[READER_FRAMES_MAX];
	Sprof__Reader__Frames *frames = &requests->frames[i];
	sprof__reader__frames__init(frames);
	requests->frames_list[i] = frames;
	size_t n = find_in(file, file_offset, found);
	if (n > FRAMES_IN_REPLY_MAX - requests->n_frames)
		return false;
	if (!take_room(found, n, used)) {
		n = shorten(found, n);
		if (i > 0 || !take_room(found, n, used))
			return false;
	}
	frames->frame = requests->frame_list + requests->n_frames;
	frames->n_frame = n;
	for (size_t k = 0; k < n; k++, requests->n_frames++) {
		requests->frame_list[requests->n_frames] = &requests->frame[requests->n_frames];
		fill_frame(requests, &found[k], &requests->frame[requests->n_frames]);
	}
	return true;
}

/* True: other files are needed first. */
static bool want_split(struct requests *requests, struct image *image, const Sprof__Reader__Symbolize *in,
		       Sprof__Reader__SplitWanted *ret)
{
	bool package = false;
	size_t n = image_want(image, in->file_offset, in->n_file_offset, requests->wanted, READER_SPLITS_MAX, &package);
	for (size_t i = 0; i < n; i++)
		requests->wanted_list[i] = requests->wanted[i].path;
	ret->package = package;
	ret->path = requests->wanted_list;
	ret->n_path = n;
	return n > 0 || package;
}

static void find_frames(struct requests *requests, const struct open_file *file, const Sprof__Reader__Symbolize *in,
			Sprof__Reader__Symbolized *ret)
{
	requests->text_used = 0;
	requests->n_frames = 0;
	size_t used = REPLY_OVERHEAD_BYTES, n = 0;
	uint64_t until_ns = work_clock_ns() + REPLY_AFTER_NS;
	while (n < in->n_file_offset && (n == 0 || work_clock_ns() < until_ns) &&
	       add_frames(requests, file, n, in->file_offset[n], &used))
		n++;
	ret->frames = requests->frames_list;
	ret->n_frames = n;
}

/* One of the two answers, whose case it sets. */
static int handle_symbolize(struct requests *requests, uint64_t file_id, const Sprof__Reader__Symbolize *in,
			    Sprof__Reader__Symbolized *symbolized, Sprof__Reader__SplitWanted *wanted,
			    Sprof__Reader__Reply *answer)
{
	struct open_file *file = find_file(requests, file_id);
	if (!file)
		return -ENOENT;
	if (in->n_file_offset == 0 || in->n_file_offset > READER_BATCH_MAX)
		return -EBADMSG;
	if (file->image && want_split(requests, file->image, in, wanted)) {
		answer->what_case = SPROF__READER__REPLY__WHAT_SPLIT_WANTED;
		answer->split_wanted = wanted;
		return 0;
	}
	find_frames(requests, file, in, symbolized);
	answer->what_case = SPROF__READER__REPLY__WHAT_SYMBOLIZED;
	answer->symbolized = symbolized;
	return 0;
}

static int handle_close(struct requests *requests, uint64_t file_id)
{
	struct open_file *file = find_file(requests, file_id);
	if (!file)
		return -ENOENT;
	close_file(requests, file);
	return 0;
}

/* The table into the memfd. Not by a mapping, whose pages would all be touched for the first time. */
static int write_table(int table_fd, const struct cfi_table *table)
{
	struct stat st;
	if (fstat(table_fd, &st) < 0)
		return -errno;
	if (st.st_size < 0 || (uint64_t)st.st_size < table->n)
		return -EFBIG;
	for (size_t done = 0; done < table->n;) {
		ssize_t n = pwrite(table_fd, table->bytes + done, table->n - done, (off_t)done);
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static int handle_unwind_table(struct requests *requests, int fd, int table_fd, Sprof__Reader__UnwindTableMade *ret)
{
	struct cfi_table table;
	if (fd < 0 || table_fd < 0)
		return -EBADMSG;
	int r = cfi_build_in(&requests->scratch, fd, &table);
	if (r == 0)
		r = write_table(table_fd, &table);
	scratch_reset(&requests->scratch);
	if (r < 0)
		return r;
	ret->total_bytes = (uint32_t)table.n;
	ret->n_fdes = table.stats.n_fdes;
	ret->n_malformed = table.stats.n_malformed;
	ret->n_unsupported = table.stats.n_unsupported;
	ret->n_registers_lost = table.stats.n_registers_lost;
	return 0;
}

static int handle_find_symbols(int fd, const Sprof__Reader__FindSymbols *in, uint64_t positions[READER_SYMBOLS_MAX],
			       Sprof__Reader__FoundSymbols *ret)
{
	if (fd < 0 || in->n_name == 0 || in->n_name > READER_SYMBOLS_MAX)
		return -EBADMSG;
	ret->n_position = in->n_name;
	ret->position = positions;
	return find_symbols(fd, in->name, in->n_name, positions);
}

static int handle_code_at(struct requests *requests, uint64_t file_id, const Sprof__Reader__CodeAt *in,
			  Sprof__Reader__CodePlaces *ret)
{
	const struct open_file *file = find_file(requests, file_id);
	size_t n = 0;
	if (!file)
		return -ENOENT;
	if (!file->jit || in->n_address == 0 || in->n_address > READER_BATCH_MAX || in->n_time != in->n_address)
		return -EBADMSG;
	uint64_t until_ns = work_clock_ns() + REPLY_AFTER_NS;
	for (; n < in->n_address && (n == 0 || work_clock_ns() < until_ns); n++)
		requests->places[n] = jit_place_at(file->jit, in->address[n], in->time[n], &requests->untils[n]);
	ret->place = requests->places;
	ret->until = requests->untils;
	ret->n_place = ret->n_until = n;
	return 0;
}

static const char *text_of(int error)
{
	switch (error) {
	case 0:
		return "";
	case ENOEXEC:
		return "this is no ELF executable or shared library that we can read";
	case ENOENT:
		return "the file is not open";
	case EFBIG:
		return "the file's tables are too large";
	case ENODATA:
		return "the file has no call frame information";
	case EOPNOTSUPP:
		return "the file is not for x86-64";
	case EBADMSG:
		return "malformed request";
	default:
		return "the file cannot be read";
	}
}

size_t requests_handle(struct requests *requests, const uint8_t *packet, size_t bytes, const int fds[READER_FDS_MAX],
		       uint8_t *reply)
{
	_cleanup_close_ int owned = fds[0], table_fd = fds[1];
	Sprof__Reader__Opened opened = SPROF__READER__OPENED__INIT;
	Sprof__Reader__Symbolized symbolized = SPROF__READER__SYMBOLIZED__INIT;
	Sprof__Reader__SplitWanted wanted = SPROF__READER__SPLIT_WANTED__INIT;
	Sprof__Reader__UnwindTableMade table_made = SPROF__READER__UNWIND_TABLE_MADE__INIT;
	Sprof__Reader__FoundSymbols found = SPROF__READER__FOUND_SYMBOLS__INIT;
	Sprof__Reader__CodePlaces code_places = SPROF__READER__CODE_PLACES__INIT;
	uint64_t positions[READER_SYMBOLS_MAX];
	Sprof__Reader__Reply answer = SPROF__READER__REPLY__INIT;
	Sprof__Reader__Request *request = sprof__reader__request__unpack(NULL, bytes, packet);
	int r = -EBADMSG;
	/* Sequence 0 is malformed: the reply to a Close of that number would be a packet of no bytes, which reads as the end. */
	if (request && request->sequence == 0) {
		r = -EBADMSG;
	} else if (request && request->what_case == SPROF__READER__REQUEST__WHAT_OPEN) {
		r = handle_open(requests, request->file_id, request->open, TAKE_FD(owned), &opened);
		answer.what_case = SPROF__READER__REPLY__WHAT_OPENED;
		answer.opened = &opened;
	} else if (request && request->what_case == SPROF__READER__REQUEST__WHAT_ATTACH) {
		r = handle_attach(requests, request->file_id, request->attach, TAKE_FD(owned), &opened);
		answer.what_case = SPROF__READER__REPLY__WHAT_OPENED;
		answer.opened = &opened;
	} else if (request && request->what_case == SPROF__READER__REQUEST__WHAT_SYMBOLIZE) {
		r = handle_symbolize(requests, request->file_id, request->symbolize, &symbolized, &wanted, &answer);
	} else if (request && request->what_case == SPROF__READER__REQUEST__WHAT_CLOSE) {
		r = handle_close(requests, request->file_id);
	} else if (request && request->what_case == SPROF__READER__REQUEST__WHAT_UNWIND_TABLE) {
		r = handle_unwind_table(requests, owned, table_fd, &table_made);
		answer.what_case = SPROF__READER__REPLY__WHAT_UNWIND_TABLE;
		answer.unwind_table = &table_made;
	} else if (request && request->what_case == SPROF__READER__REQUEST__WHAT_FIND_SYMBOLS) {
		r = handle_find_symbols(owned, request->find_symbols, positions, &found);
		answer.what_case = SPROF__READER__REPLY__WHAT_FOUND_SYMBOLS;
		answer.found_symbols = &found;
	} else if (request && request->what_case == SPROF__READER__REQUEST__WHAT_CODE_AT) {
		r = handle_code_at(requests, request->file_id, request->code_at, &code_places);
		answer.what_case = SPROF__READER__REPLY__WHAT_CODE_PLACES;
		answer.code_places = &code_places;
	}
	answer.sequence = request ? request->sequence : 0;
	answer.error = -r;
	answer.error_text = (char *)text_of(-r);
	if (r < 0)
		answer.what_case = SPROF__READER__REPLY__WHAT__NOT_SET;
	size_t length = sprof__reader__reply__pack(&answer, reply);
	if (request)
		sprof__reader__request__free_unpacked(request, NULL);
	return length;
}
