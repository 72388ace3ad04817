#include "collect/python_runtime.h"

#include <errno.h>
#include <string.h>

#include "collect/process_memory.h"

enum {
	THREADS_LOOKED_AT = 64,
	THREAD_BYTES = 4096,  /* of struct pthread, in which what threads keep by the first keys lies (glibc) */
	THREAD_SELF = 16,     /* tcbhead_t.self: its own address */
	SPECIFIC_FIRST = 64,  /* not before that */
	MAIN_BEHIND_HEAD = 8, /* interpreters.main follows interpreters.head */
};

bool python_is_named_so(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	if (strncmp(name, "lib", 3) == 0)
		name += 3;
	return strncmp(name, "python3.", 8) == 0 && name[8] >= '0' && name[8] <= '9';
}

static int read_word(pid_t pid, uint64_t address, uint64_t *ret)
{
	return process_memory_read(pid, address, ret, sizeof(*ret));
}

/* Where from a thread's own address the address of its state is kept: struct pthread_key_data, whose first word counts the uses of the key and is odd
 * while it has one. 0: nowhere. */
static uint32_t find_specific(const uint64_t *thread, uint64_t state)
{
	for (uint32_t at = SPECIFIC_FIRST; at < THREAD_BYTES; at += sizeof(*thread)) {
		uint64_t uses = thread[at / sizeof(*thread) - 1];
		if (thread[at / sizeof(*thread)] == state && uses & 1 && uses < UINT32_MAX)
			return at;
	}
	return 0;
}

/* What one thread tells, if it is one. 0: it told; -EAGAIN: it did not. */
static int ask_thread(pid_t pid, const struct python_layout *layout, uint64_t interpreter, uint64_t state,
		      struct python_config *config)
{
	uint64_t thread[THREAD_BYTES / sizeof(uint64_t)];
	uint64_t owner = 0, id = 0;
	int r = read_word(pid, state + layout->state_interpreter, &owner);
	if (r == 0)
		r = read_word(pid, state + layout->config.state_thread_id, &id);
	if (r < 0 || owner != interpreter || !id || process_memory_read(pid, id, thread, sizeof(thread)) < 0 ||
	    thread[THREAD_SELF / sizeof(uint64_t)] != id)
		return -EAGAIN;
	uint32_t specific = find_specific(thread, state);
	if (!specific)
		return -EAGAIN;
	config->specific = specific;
	return 0;
}

/* Where the main interpreter and its threads are to be found. */
struct places {
	uint64_t main_interpreter, threads;
};

/* The beginning of _Py_DebugOffsets (Include/internal/pycore_runtime.h, 3.13). -EAGAIN: there is nothing yet; -EOPNOTSUPP: a free-threaded build, whose
 * objects are laid out in another way. */
static int read_places(pid_t pid, const struct python_layout *layout, uint64_t runtime, struct places *ret)
{
	struct {
		char cookie[8];
		uint64_t version, free_threaded, runtime_bytes, finalizing, interpreters, interpreter_bytes, id, next,
			threads;
	} table;
	*ret = (struct places){.main_interpreter = layout->runtime_main_interpreter,
			       .threads = layout->interpreter_threads};
	if (!layout->tells_offsets)
		return 0;
	int r = process_memory_read(pid, runtime, &table, sizeof(table));
	if (r < 0)
		return r;
	if (memcmp(table.cookie, "xdebugpy", sizeof(table.cookie)) != 0)
		return -EAGAIN;
	*ret = (struct places){.main_interpreter = table.interpreters + MAIN_BEHIND_HEAD, .threads = table.threads};
	return table.free_threaded ? -EOPNOTSUPP : 0;
}

static int ask_threads(pid_t pid, const struct python_layout *layout, uint64_t runtime, struct python_config *config)
{
	uint64_t interpreter = 0, state = 0;
	struct places places;
	int r = read_places(pid, layout, runtime, &places);
	if (r == 0)
		r = read_word(pid, runtime + places.main_interpreter, &interpreter);
	if (r == 0 && interpreter)
		r = read_word(pid, interpreter + places.threads, &state);
	if (r < 0)
		return r == -EFAULT ? -EAGAIN : r;
	for (unsigned i = 0; state && i < THREADS_LOOKED_AT; i++) {
		if (ask_thread(pid, layout, interpreter, state, config) == 0)
			return 0;
		if (read_word(pid, state + layout->state_next, &state) < 0)
			return -EAGAIN;
	}
	return -EAGAIN;
}

int python_runtime_read(pid_t pid, const uint64_t addresses[PYTHON_SYMBOL_COUNT],
			const struct python_layout **ret_layout, struct python_config *ret)
{
	uint64_t version = 0;
	int r = read_word(pid, addresses[PYTHON_VERSION], &version);
	if (r < 0)
		return r;
	const struct python_layout *layout = python_layout_find(version);
	if (!layout)
		return -EOPNOTSUPP;
	struct python_config config = layout->config;
	config.code_type = addresses[PYTHON_CODE_TYPE];
	config.holder_at = layout->runtime_holder ? addresses[PYTHON_RUNTIME] + layout->runtime_holder : 0;
	r = ask_threads(pid, layout, addresses[PYTHON_RUNTIME], &config);
	if (r < 0)
		return r;
	*ret_layout = layout;
	*ret = config;
	return 0;
}
