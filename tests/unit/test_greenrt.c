/* The runtime of tests/targets/greenrt, looked at from outside: what its table says is what its stacks hold. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "check_main.h"
#include "libsprof_reader.h"

enum { MAX_BARRIERS = 600, STACKS = 8, LOOK_MS = 1000 };

struct running {
	pid_t pid;
	FILE *out;
	struct table_source source;
	uint64_t table;
	struct sprof_header header;
	uint64_t entry; /* of the trampoline */
};

static struct running start(const char *const *options)
{
	struct running r = {.pid = 0};
	char *arguments[8] = {GREENRT, NULL};
	int ends[2];
	for (int i = 0; options[i]; i++)
		arguments[i + 1] = (char *)options[i];
	ck_assert_int_eq(pipe(ends), 0);
	r.pid = fork();
	ck_assert_int_ge(r.pid, 0);
	if (r.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ends[1], 1);
		close(ends[0]);
		execv(GREENRT, arguments);
		_exit(127);
	}
	close(ends[1]);
	r.out = fdopen(ends[0], "r");
	r.source.pid = r.pid;
	char line[8192];
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), r.out));
	ck_assert_ptr_nonnull(strstr(line, "\"ready\""));
	return r;
}

static bool find_table(struct running *r)
{
	char path[64], line[512];
	(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)r->pid);
	FILE *maps = fopen(path, "re");
	ck_assert_ptr_nonnull(maps);
	while (r->table == 0 && fgets(line, sizeof(line), maps))
		if (strstr(line, "/memfd:SPROF_BLT (deleted)"))
			r->table = strtoull(line, NULL, 16);
	ck_assert_int_eq(fclose(maps), 0);
	return r->table != 0;
}

static void read_header(struct running *r)
{
	struct sprof_range ranges[SPROF_MAX_RANGES];
	ck_assert(read_table(&r->source, r->table, &r->header, sizeof(r->header)));
	ck_assert_uint_eq(r->header.magic, SPROF_TABLE_MAGIC);
	ck_assert_uint_eq(r->header.self_va, r->table);
	ck_assert_uint_eq(r->header.tgid, (uint32_t)r->pid);
	ck_assert_uint_le(r->header.n_range, SPROF_MAX_RANGES);
	ck_assert(
		read_table(&r->source, r->table + r->header.off_range, ranges, r->header.n_range * sizeof(ranges[0])));
	for (uint32_t i = 0; i < r->header.n_range; i++)
		if (ranges[i].kind == SPROF_RANGE_TRAMPOLINE) {
			uint64_t entry = ranges[i].lo + (uint64_t)(int64_t)ranges[i].entry_offset;
			ck_assert(r->entry == 0 || r->entry == entry);
			r->entry = entry;
		}
	ck_assert_uint_ne(r->entry, 0);
}

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct seen {
	uint64_t stacks, barriers, refused, contexts;
};

/* Every barrier that is still installed when its slot has been read is in its slot: the owner advances pos meanwhile. */
static void look_at_stack(const struct running *r, uint32_t place, struct seen *seen)
{
	static struct sprof_barrier barriers[MAX_BARRIERS];
	static uint64_t slots[MAX_BARRIERS];
	uint64_t address = r->table + r->header.off_stack + place * sizeof(struct sprof_stack), pos = 0, begin = 0;
	struct sprof_stack stack;
	if (read_stack(&r->source, r->table, &r->header, place, &stack, barriers, MAX_BARRIERS) != READ_ACCEPTED) {
		seen->refused++;
		return;
	}
	ck_assert_uint_le(stack.n, stack.cap);
	ck_assert_uint_le(stack.n, MAX_BARRIERS);
	for (uint64_t i = stack.pos; i < stack.n; i++)
		if (!read_table(&r->source, barriers[i].slot, &slots[i], 8))
			slots[i] = 0;
	ck_assert(read_table(&r->source, address + offsetof(struct sprof_stack, pos), &pos, 8));
	ck_assert(read_table(&r->source, address + offsetof(struct sprof_stack, seq_begin), &begin, 8));
	if (begin != stack.seq_end) {
		seen->refused++;
		return;
	}
	seen->stacks++;
	for (uint64_t i = pos; i < stack.n; i++, seen->barriers++) {
		ck_assert_uint_eq(slots[i], r->entry);
		ck_assert_uint_ge(barriers[i].slot, stack.lo);
		ck_assert_uint_lt(barriers[i].slot, stack.hi);
		ck_assert_uint_ne(barriers[i].original_pc, r->entry);
		if (i > pos)
			ck_assert_uint_gt(barriers[i].slot, barriers[i - 1].slot);
	}
}

/* A foreign context points into its stack, wherever that is now. */
static void look_at_thread(const struct running *r, uint32_t place, struct seen *seen)
{
	uint64_t address = r->table + r->header.off_thread + place * sizeof(struct sprof_thread), begin = 0;
	struct sprof_thread thread;
	struct sprof_stack stack;
	if (read_thread(&r->source, address, &thread) != READ_ACCEPTED || thread.tid == 0 ||
	    thread.foreign_depth == 0 || thread.foreign_context.pc == 0)
		return;
	if (read_stack(&r->source, r->table, &r->header, thread.foreign.index, &stack, NULL, 0) != READ_ACCEPTED ||
	    read_thread(&r->source, address, &thread) != READ_ACCEPTED ||
	    !read_table(&r->source, r->table + r->header.off_stack + stack.self.index * sizeof(stack), &begin, 8) ||
	    begin != stack.seq_end || thread.foreign_depth == 0 || thread.foreign_context.pc == 0 ||
	    memcmp(&thread.foreign, &stack.self, sizeof(stack.self)) != 0)
		return;
	ck_assert_uint_eq(stack.owner_tid, thread.tid);
	ck_assert_uint_gt(thread.foreign_context.sp, stack.lo);
	ck_assert_uint_le(thread.foreign_context.sp, stack.hi);
	ck_assert_uint_gt(thread.foreign_context.fp, stack.lo);
	ck_assert_uint_ne(thread.foreign_context.pc, r->entry);
	seen->contexts++;
}

static double number_of(const char *json, const char *key)
{
	char quoted[64];
	(void)snprintf(quoted, sizeof(quoted), "\"%s\": ", key);
	const char *p = strstr(json, quoted);
	ck_assert_msg(p != NULL, "no %s in %s", key, json);
	return strtod(p + strlen(quoted), NULL);
}

/* Waits for its end, and fills ret_json with the truth that it prints. */
static void finish(struct running *r, char *ret_json, size_t size)
{
	int status = -1;
	ck_assert_ptr_nonnull(fgets(ret_json, (int)size, r->out));
	ck_assert_int_eq(fclose(r->out), 0);
	ck_assert_int_eq(waitpid(r->pid, &status, 0), r->pid);
	ck_assert_int_eq(status, 0);
	double total = 0;
	int nodes = 0;
	for (const char *p = strstr(ret_json, "\"n_0\""); p; p = strstr(p + 1, "\"n_0"), nodes++) {
		double share = strtod(strchr(p, ':') + 1, NULL);
		ck_assert(share > 0);
		total += share;
	}
	ck_assert_int_eq(nodes, 19);
	ck_assert(total > 0.9999 && total < 1.0001);
	ck_assert(number_of(ret_json, "moves") > 0);
	ck_assert(number_of(ret_json, "growths") > 0);
	ck_assert(number_of(ret_json, "panics") > 0);
	ck_assert(number_of(ret_json, "callbacks") > 0);
	ck_assert(number_of(ret_json, "barriers_full") == 0);
	ck_assert(number_of(ret_json, "cpu_ns") > 0);
}

static struct seen look(struct running *r)
{
	struct seen seen = {0};
	ck_assert(find_table(r));
	read_header(r);
	for (uint64_t until = now_ms() + LOOK_MS; now_ms() < until;) {
		for (uint32_t i = 0; i < STACKS; i++)
			look_at_stack(r, i, &seen);
		for (uint32_t i = 0; i < r->header.cap_thread; i++)
			look_at_thread(r, i, &seen);
		usleep(200);
	}
	return seen;
}

START_TEST(barriers_on_every_frame)
{
	struct running r =
		start((const char *const[]){"--seconds=2", "--barriers=every", "--depth=200", "--pause-us=100", NULL});
	struct seen seen = look(&r);
	char json[8192];
	ck_assert_uint_gt(seen.stacks, 100);
	ck_assert_uint_gt(seen.barriers, 1000);
	ck_assert_uint_gt(seen.contexts, 0);
	finish(&r, json, sizeof(json));
	ck_assert(number_of(json, "barrier_hits") > 1000);
	ck_assert(number_of(json, "helper_calls") > 10);
}
END_TEST

START_TEST(barriers_at_doubling_distances)
{
	struct running r = start((const char *const[]){"--seconds=2", "--barriers=doubling", "--threads=3", NULL});
	struct seen seen = look(&r);
	char json[8192];
	ck_assert_uint_gt(seen.barriers, 100);
	finish(&r, json, sizeof(json));
	ck_assert(number_of(json, "barrier_hits") > 100);
}
END_TEST

START_TEST(without_barriers)
{
	struct running r = start((const char *const[]){"--seconds=2", "--barriers=none", NULL});
	struct seen seen = look(&r);
	char json[8192];
	ck_assert_uint_gt(seen.stacks, 100);
	ck_assert_uint_eq(seen.barriers, 0);
	finish(&r, json, sizeof(json));
	ck_assert(number_of(json, "barrier_hits") == 0);
}
END_TEST

/* A collector that keeps locks for long: seen as refused by a reader, and measured by greenrt itself. */
START_TEST(locks_that_are_held)
{
	struct running r = start((const char *const[]){"--seconds=2", "--hold-us=300", "--pause-us=100", NULL});
	struct seen seen = look(&r);
	char json[8192];
	ck_assert_uint_gt(seen.refused, 0);
	finish(&r, json, sizeof(json));
	ck_assert(number_of(json, "foreign_held_ns") > 0);
	ck_assert(number_of(json, "held_share") < 1);
}
END_TEST

START_TEST(unpublished)
{
	struct running r = start((const char *const[]){"--seconds=1", "--barriers=every", "--no-table", NULL});
	char json[8192];
	ck_assert(!find_table(&r));
	finish(&r, json, sizeof(json));
	ck_assert_ptr_nonnull(strstr(json, "\"published\": false"));
	ck_assert(number_of(json, "barrier_hits") > 100);
}
END_TEST

CHECK_MAIN("greenrt", 30, barriers_on_every_frame, barriers_at_doubling_distances, without_barriers,
	   locks_that_are_held, unpublished)
