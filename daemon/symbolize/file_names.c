#include "symbolize/file_names.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "symbolize/cache.h"
#include "symbolize/debug_search.h"
#include "symbolize/reader.h"
#include "symbolize/unwind_memfd.h"

enum { FILES_REMEMBERED_MAX = 8192, RETRY_SHIFT_MAX = 10, SPLIT_ROUNDS_MAX = 512 };
/* The file's unwind table, and its symbols by name, are asked for and remembered under other names than the file: each has its own failures. */
#define TABLE_ID(file_id)   ((file_id) | UINT64_C(1) << 63)
#define SYMBOLS_ID(file_id) ((file_id) | UINT64_C(1) << 61)
#define SEARCH_AGAIN_NS     (2 * NS_PER_S)
#define RETRY_MIN_NS        (5 * NS_PER_S)
#define RETRY_MAX_NS        (3600 * NS_PER_S)

struct file_state {
	uint64_t file_id; /* our own numbers: a plain hash does */
	uint32_t open_in; /* the reader_epoch it is open in; 0: none */
	/* What debuginfod has of it is not here yet: names are as of now, and are not kept. */
	bool awaits_debug;
	uint64_t search_again_ns;
	bool nameless; /* no ELF file, or one without symbols */
	unsigned failures;
	uint64_t retry_ns;
	char build_id[BUILD_ID_HEX_BYTES];
	/* Of a file as one that has an unwind table: see TABLE_ID. */
	int tableless;              /* a negative errno: it never will have one */
	size_t table_exceeds_bytes; /* its table is larger than this */
	UT_hash_handle hh;
};

struct file_names {
	struct cache *cache;
	struct reader *reader;
	struct opener *opener;
	struct fetch_client *fetch;
	struct file_state *files; /* oldest first */
	_Atomic uint64_t cached_bytes;
};

struct file_names *file_names_new(const struct symbolize_options *options, struct opener *opener)
{
	struct file_names *names = calloc(1, sizeof(*names));
	if (!names)
		return NULL;
	names->cache = cache_new(options->cache_bytes);
	names->reader = reader_new(options->reader_path, options->reader_timeout_ms);
	names->opener = opener;
	names->fetch = fetch_client_new(&options->fetch);
	if (!names->cache || !names->reader || !names->fetch) {
		file_names_free(names);
		return NULL;
	}
	return names;
}

static void forget(struct file_names *names, struct file_state *file)
{
	HASH_DEL(names->files, file);
	free(file);
}

void file_names_free(struct file_names *names)
{
	if (!names)
		return;
	while (names->files)
		forget(names, names->files);
	reader_free(names->reader);
	fetch_client_free(names->fetch);
	cache_free(names->cache);
	free(names);
}

void file_names_end(const struct file_names *names)
{
	reader_end(names->reader);
}

void file_names_get_status(const struct file_names *names, struct symbolize_status *ret)
{
	struct reader_status reader;
	reader_get_status(names->reader, &reader);
	*ret = (struct symbolize_status){
		.reader_running = reader.running,
		.reader_restarts = reader.restarts,
		.cached_bytes = names->cached_bytes,
	};
}

static struct file_state *find_state(struct file_names *names, uint64_t file_id)
{
	struct file_state *file = NULL;
	HASH_FIND(hh, names->files, &file_id, sizeof(file_id), file);
	return file;
}

/* NULL: out of memory. */
static struct file_state *state_of(struct file_names *names, uint64_t file_id)
{
	struct file_state *file = find_state(names, file_id);
	if (file)
		return file;
	if (HASH_COUNT(names->files) >= FILES_REMEMBERED_MAX)
		forget(names, names->files);
	file = calloc(1, sizeof(*file));
	if (!file)
		return NULL;
	file->file_id = file_id;
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it cannot follow uthash's lists */
	HASH_ADD(hh, names->files, file_id, sizeof(file->file_id), file);
	if (!file->hh.tbl) { /* uthash had no memory for it */
		free(file);
		return NULL;
	}
	return file;
}

static void blame(struct file_state *file)
{
	unsigned shift = file->failures < RETRY_SHIFT_MAX ? file->failures : RETRY_SHIFT_MAX;
	uint64_t wait_ns = RETRY_MIN_NS << shift;
	file->failures++;
	file->open_in = 0;
	file->retry_ns = clock_monotonic_ns() + (wait_ns < RETRY_MAX_NS ? wait_ns : RETRY_MAX_NS);
}

/* -EAGAIN: nothing now. What an earlier request did to the reader is its own file's fault, so it is tried again for this one. */
static int prepare(struct file_names *names, const struct file_state *file, uint64_t deadline_ns)
{
	uint64_t culprit = 0;
	int r = reader_prepare(names->reader, deadline_ns, &culprit);
	if (r == -ECONNRESET || r == -ETIMEDOUT) {
		struct file_state *guilty = find_state(names, culprit);
		if (guilty)
			blame(guilty);
		if (guilty != file)
			r = reader_prepare(names->reader, deadline_ns, &culprit);
	}
	return r == 0 ? 0 : -EAGAIN;
}

/* Whether a failed request was this file's doing. */
static int judge(struct file_state *file, int r)
{
	if (r == -ECONNRESET || r == -ETIMEDOUT || r == -EBADMSG)
		blame(file);
	return -EAGAIN;
}

static int take_opened(struct file_names *names, struct file_state *file, const struct protocol_reply *reply)
{
	if (reply->kind == REPLY_OPENED) {
		file->open_in = reader_epoch(names->reader);
		file->nameless = !reply->has_symbols && !file->awaits_debug;
		memcpy(file->build_id, reply->build_id, sizeof(reply->build_id));
		return 0;
	}
	if (reply->error == ENOEXEC) {
		file->nameless = true;
		return 0;
	}
	blame(file);
	return -EAGAIN;
}

static struct debug_search search_for(struct file_names *names, const struct named_file *in, uint64_t deadline_ns)
{
	return (struct debug_search){
		.reader = names->reader,
		.opener = names->opener,
		.fetch = names->fetch,
		.file_id = in->id,
		.root_fd = in->root_fd,
		.path = in->path,
		.deadline_ns = deadline_ns,
	};
}

/* What the file lacks may be elsewhere. Only what is wrong with the reader is an error. */
static int search(struct file_names *names, struct file_state *file, const struct named_file *in, uint64_t deadline_ns,
		  struct protocol_reply *opened)
{
	if (in->kind != PROTOCOL_ELF || opened->kind != REPLY_OPENED)
		return 0;
	struct debug_search search = search_for(names, in, deadline_ns);
	int r = debug_search_run(&search, opened);
	file->awaits_debug = r == -EAGAIN;
	file->search_again_ns = clock_monotonic_ns() + SEARCH_AGAIN_NS;
	return r == -EAGAIN ? 0 : r;
}

/* 0: the file is open in the reader, or nameless; -EAGAIN. */
static int open_file(struct file_names *names, struct file_state *file, const struct named_file *in,
		     uint64_t deadline_ns)
{
	if (file->nameless)
		return 0;
	if (clock_monotonic_ns() < file->retry_ns)
		return -EAGAIN;
	int r = prepare(names, file, deadline_ns);
	bool is_open = file->open_in == reader_epoch(names->reader);
	bool again = file->awaits_debug && clock_monotonic_ns() >= file->search_again_ns;
	if (r < 0 || (is_open && !again))
		return r;
	struct protocol_reply reply; /* of a file that is open: as it is now */
	r = reader_open(names->reader, file->file_id, in->kind, in->fd, deadline_ns, &reply);
	if (r < 0)
		return judge(file, r);
	r = search(names, file, in, deadline_ns, &reply);
	if (r < 0)
		r = judge(file, r);
	else
		r = take_opened(names, file, &reply);
	protocol_reply_free(&reply);
	return r;
}

int file_names_build_id(struct file_names *names, const struct named_file *in, uint64_t deadline_ns, char *ret)
{
	struct file_state *file = state_of(names, in->id);
	int r = file ? open_file(names, file, in, deadline_ns) : -EAGAIN;
	if (r == 0)
		memcpy(ret, file->build_id, sizeof(file->build_id));
	return r;
}

struct question {
	const struct named_file *in;
	const uint64_t *file_offsets;
	uint64_t deadline_ns;
	file_names_found *found;
	void *context;
};

static void take_names(struct file_names *names, const struct file_state *file, const struct question *question,
		       const size_t *indices, const struct protocol_reply *reply)
{
	for (size_t i = 0; i < reply->n; i++) {
		if (!file->awaits_debug)
			cache_add(names->cache, file->file_id, question->file_offsets[indices[i]],
				  reply->frames[i].lines, reply->frames[i].n);
		question->found(question->context, indices[i], reply->frames[i].lines, reply->frames[i].n, false);
	}
	names->cached_bytes = cache_bytes(names->cache);
}

/* Asks, and gives the reader the files of split DWARF that it wants for that, until it has them all. As reader_symbolize. */
static int symbolize_whole(struct file_names *names, const struct question *question, const uint64_t *offsets, size_t n,
			   struct protocol_reply *reply)
{
	struct debug_search search = search_for(names, question->in, question->deadline_ns);
	for (int round = 0; round < SPLIT_ROUNDS_MAX; round++) {
		int r = reader_symbolize(names->reader, question->in->id, offsets, n, question->deadline_ns, reply);
		if (r < 0 || reply->kind != REPLY_SPLIT_WANTED)
			return r;
		r = debug_search_split(&search, reply);
		protocol_reply_free(reply);
		if (r < 0)
			return r;
	}
	return -EBADMSG; /* it wants without end */
}

/* One packet's worth of the n indices; how many were answered into *ret. */
static int ask(struct file_names *names, struct file_state *file, const struct question *question,
	       const size_t *indices, size_t n, size_t *ret)
{
	uint64_t offsets[READER_BATCH_MAX];
	size_t n_batch = n < READER_BATCH_MAX ? n : READER_BATCH_MAX;
	for (size_t i = 0; i < n_batch; i++)
		offsets[i] = question->file_offsets[indices[i]];
	for (int attempt = 0; attempt < 2; attempt++) {
		int r = open_file(names, file, question->in, question->deadline_ns);
		if (r < 0)
			return r;
		if (file->nameless) {
			*ret = n; /* without asking, and without a place in the cache */
			for (size_t i = 0; i < n; i++)
				question->found(question->context, indices[i], NULL, 0, false);
			return 0;
		}
		struct protocol_reply reply;
		r = symbolize_whole(names, question, offsets, n_batch, &reply);
		if (r < 0)
			return judge(file, r);
		if (reply.kind == REPLY_SYMBOLIZED) {
			take_names(names, file, question, indices, &reply);
			*ret = reply.n;
			file->failures = 0;
		}
		protocol_reply_free(&reply);
		if (reply.kind == REPLY_SYMBOLIZED)
			return 0;
		if (reply.error != ENOENT)
			break;
		file->open_in = 0; /* the reader let go of it: open it again, once */
	}
	blame(file);
	return -EAGAIN;
}

static int compare_offsets(const void *left, const void *right, void *context)
{
	const uint64_t *offsets = context;
	uint64_t a = offsets[*(const size_t *)left], b = offsets[*(const size_t *)right];
	return (a > b) - (a < b);
}

size_t file_names_find(struct file_names *names, const struct named_file *in, const uint64_t *file_offsets, size_t n,
		       uint64_t deadline_ns, file_names_found *found, void *context)
{
	struct question question = {in, file_offsets, deadline_ns, found, context};
	_cleanup_free_ size_t *missing = reallocarray(NULL, n ? n : 1, sizeof(*missing));
	struct file_state *file = state_of(names, in->id);
	if (!missing || !file)
		return n;
	size_t n_missing = 0;
	for (size_t i = 0; i < n; i++) {
		const struct profile_line *lines = NULL;
		uint32_t n_lines = 0;
		if (cache_find(names->cache, in->id, file_offsets[i], &lines, &n_lines))
			found(context, i, lines, n_lines, true);
		else
			missing[n_missing++] = i;
	}
	/* In the file's order: what the reader has worked out for one serves the next. */
	qsort_r(missing, n_missing, sizeof(missing[0]), compare_offsets, (void *)file_offsets);
	size_t done = 0, answered = 0;
	while (done < n_missing && ask(names, file, &question, missing + done, n_missing - done, &answered) == 0)
		done += answered;
	return n_missing - done;
}

/* The reader says why there is no table: for good, for tables of that size, or for now. */
static int take_table_error(struct file_state *file, int error, size_t max_bytes)
{
	switch (error) {
	case ENODATA:
	case ENOEXEC:
	case EOPNOTSUPP:
		file->tableless = -error;
		return -error;
	case EFBIG:
		if (max_bytes > file->table_exceeds_bytes)
			file->table_exceeds_bytes = max_bytes;
		return -EFBIG;
	default:
		blame(file);
		return -EAGAIN;
	}
}

static int take_table(struct file_state *file, int table_fd, const struct protocol_reply *reply, size_t max_bytes,
		      struct scratch *scratch, struct unwind_table *ret)
{
	struct unwind_table table;
	int r = -EBADMSG;
	if (reply->kind == REPLY_ERROR)
		return take_table_error(file, reply->error, max_bytes);
	if (reply->table_bytes <= max_bytes)
		r = unwind_memfd_take(table_fd, reply->table_bytes, scratch, &table);
	if (r == -EBADMSG)
		blame(file);
	if (r < 0)
		return -EAGAIN;
	file->failures = 0;
	table.n_fdes = reply->n_fdes;
	table.n_malformed = reply->n_malformed;
	table.n_unsupported = reply->n_unsupported;
	table.n_registers_lost = reply->n_registers_lost;
	*ret = table;
	return 0;
}

int file_names_unwind_table(struct file_names *names, uint64_t file_id, int fd, size_t max_bytes, uint64_t deadline_ns,
			    struct scratch *scratch, struct unwind_table *ret)
{
	struct file_state *file = state_of(names, TABLE_ID(file_id));
	if (!file || clock_monotonic_ns() < file->retry_ns)
		return -EAGAIN;
	if (file->tableless)
		return file->tableless;
	if (max_bytes <= file->table_exceeds_bytes)
		return -EFBIG;
	int r = prepare(names, file, deadline_ns);
	if (r < 0)
		return r;
	_cleanup_close_ int table_fd = -1;
	if (unwind_memfd_new(max_bytes, &table_fd) < 0)
		return -EAGAIN;
	struct protocol_reply reply;
	const int fds[READER_FDS_MAX] = {fd, table_fd};
	r = reader_unwind_table(names->reader, file->file_id, fds, deadline_ns, &reply);
	if (r < 0)
		return judge(file, r);
	r = take_table(file, table_fd, &reply, max_bytes, scratch, ret);
	protocol_reply_free(&reply);
	return r;
}

int file_names_find_symbols(struct file_names *names, uint64_t file_id, int fd, const char *const *symbols, size_t n,
			    uint64_t deadline_ns, uint64_t *ret)
{
	struct file_state *file = state_of(names, SYMBOLS_ID(file_id));
	if (!file || clock_monotonic_ns() < file->retry_ns)
		return -EAGAIN;
	int r = prepare(names, file, deadline_ns);
	if (r < 0)
		return r;
	struct protocol_reply reply;
	r = reader_find_symbols(names->reader, file->file_id, fd, symbols, n, deadline_ns, &reply);
	if (r < 0)
		return judge(file, r);
	if (reply.kind == REPLY_FOUND_SYMBOLS && reply.n_positions == n)
		memcpy(ret, reply.positions, n * sizeof(*ret));
	else
		r = reply.kind == REPLY_ERROR && reply.error == ENOEXEC ? -ENOEXEC : -EAGAIN;
	if (r == -EAGAIN)
		blame(file);
	protocol_reply_free(&reply);
	return r;
}

int file_names_code_at(struct file_names *names, const struct named_file *dump, const uint64_t *addresses,
		       const uint64_t *times_ns, size_t n, uint64_t deadline_ns, uint64_t *ret_places,
		       uint64_t *ret_until_ns, size_t *ret_n)
{
	struct file_state *file = state_of(names, dump->id);
	for (int attempt = 0; file && attempt < 2; attempt++) {
		int r = open_file(names, file, dump, deadline_ns);
		if (r < 0)
			return r;
		if (file->nameless) {
			memset(ret_places, 0, n * sizeof(*ret_places));
			memset(ret_until_ns, 0xff, n * sizeof(*ret_until_ns));
			*ret_n = n;
			return 0;
		}
		struct protocol_reply reply;
		r = reader_code_at(names->reader, dump->id, addresses, times_ns, n, deadline_ns, &reply);
		if (r < 0)
			return judge(file, r);
		if (reply.kind == REPLY_CODE_PLACES) {
			memcpy(ret_places, reply.places, reply.n_places * sizeof(*ret_places));
			memcpy(ret_until_ns, reply.until_ns, reply.n_places * sizeof(*ret_until_ns));
			*ret_n = reply.n_places;
		}
		protocol_reply_free(&reply);
		if (reply.kind == REPLY_CODE_PLACES)
			return 0;
		file->open_in = 0; /* the reader let go of it: open it again, once */
	}
	if (file)
		blame(file);
	return -EAGAIN;
}
