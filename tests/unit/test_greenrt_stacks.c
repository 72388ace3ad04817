/* Stops threads of greenrt wherever they are, walks their stacks by frame pointers and by the table, as docs/BARRIER-TABLE.md says, and
 * judges each stack by the names of its functions: n_0_3_1 is called by n_0_3 or by itself, and the root is n_0. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

#include "check_main.h"
#include "libsprof_reader.h"

enum { MAX_BARRIERS = 600, MAX_FRAMES = 1024, MAX_SYMBOLS = 512, WANTED = 2000, PATIENCE_S = 20, LONGEST_S = 100 };

struct symbol {
	uint64_t lo, hi;
	char name[40];
};

struct tally {
	unsigned judged, switching, locked, native, mismatched, unframed, in_trampoline, jumped, foreign, barriers;
};

static struct table_source source;
static uint64_t table, image;
static struct sprof_header header;
static struct sprof_range ranges[SPROF_MAX_RANGES];
static struct symbol symbols[MAX_SYMBOLS];
static size_t n_symbols;
static struct tally tally;

static bool peek(uint64_t address, void *to, size_t bytes)
{
	return read_table(&source, address, to, bytes);
}

static void find_mappings(void)
{
	char path[64], line[512];
	(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)source.pid);
	FILE *maps = fopen(path, "re");
	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (strstr(line, "/memfd:SPROF_BLT"))
			table = strtoull(line, NULL, 16);
		if (image == 0 && strstr(line, "/greenrt\n"))
			image = strtoull(line, NULL, 16);
	}
	ck_assert_int_eq(fclose(maps), 0);
	ck_assert(table != 0 && image != 0);
	ck_assert(peek(table, &header, sizeof(header)));
	ck_assert(peek(table + header.off_range, ranges, header.n_range * sizeof(ranges[0])));
}

static void read_symbols(void)
{
	FILE *nm = popen("nm -S --defined-only " GREENRT, "r"); // NOLINT(cert-env33-c)
	char line[256];
	ck_assert_ptr_nonnull(nm);
	while (fgets(line, sizeof(line), nm) && n_symbols < MAX_SYMBOLS) {
		struct symbol *s = &symbols[n_symbols];
		unsigned long lo, size;
		if (sscanf(line, "%lx %lx %*c %39s", &lo, &size, s->name) != 3 ||
		    strncmp(s->name, "n_0", 3) != 0) // NOLINT(cert-err34-c)
			continue;
		s->lo = lo;
		s->hi = lo + size;
		n_symbols++;
	}
	ck_assert_int_eq(pclose(nm), 0);
	ck_assert_uint_eq(n_symbols, 19);
}

/* NULL: the runtime's, or native. */
static const char *name_of(uint64_t pc)
{
	for (size_t i = 0; i < n_symbols; i++)
		if (pc - image >= symbols[i].lo && pc - image < symbols[i].hi)
			return symbols[i].name;
	return NULL;
}

static const struct sprof_range *range_of(uint64_t pc, uint32_t kind)
{
	for (uint32_t i = 0; i < header.n_range; i++)
		if (ranges[i].kind == kind && pc >= ranges[i].lo && pc < ranges[i].hi)
			return &ranges[i];
	return NULL;
}

static uint64_t entry_of_trampoline(void)
{
	for (uint32_t i = 0; i < header.n_range; i++)
		if (ranges[i].kind == SPROF_RANGE_TRAMPOLINE)
			return ranges[i].lo + (uint64_t)(int64_t)ranges[i].entry_offset;
	return 0;
}

static bool may_call(const char *caller, const char *callee)
{
	size_t parent = (size_t)(strrchr(callee, '_') - callee);
	return strcmp(caller, callee) == 0 || (strlen(caller) == parent && strncmp(caller, callee, parent) == 0);
}

struct walk {
	struct sprof_stack stack;
	struct sprof_barrier barriers[MAX_BARRIERS];
	uint64_t cursor;
	uint64_t frames[MAX_FRAMES];
	size_t n;
};
static struct walk walk;

/* The return address in slot, or 0 for a barrier that the table does not have next. */
static uint64_t substitute(uint64_t slot, uint64_t pc)
{
	if (pc != entry_of_trampoline())
		return pc;
	if (walk.cursor >= walk.stack.n || walk.barriers[walk.cursor].slot != slot)
		return 0;
	tally.barriers++;
	return walk.barriers[walk.cursor++].original_pc;
}

/* Rule 13. */
static bool leave_trampoline(const struct sprof_range *range, struct sprof_context *at)
{
	uint64_t slot = at->sp + (uint64_t)(int64_t)range->cfa_offset - 8;
	for (uint64_t i = walk.stack.pos > 0 ? walk.stack.pos - 1 : 0; i <= walk.stack.pos && i < MAX_BARRIERS; i++)
		if (walk.barriers[i].slot == slot && i < walk.stack.n) {
			*at = (struct sprof_context){.pc = walk.barriers[i].original_pc, .sp = slot + 8, .fp = at->fp};
			walk.cursor = i + 1;
			tally.in_trampoline++;
			return true;
		}
	return false;
}

/* From a context on a stack whose lock is had. False: a mismatch. */
static bool walk_from(struct sprof_context at)
{
	const struct sprof_range *trampoline = range_of(at.pc, SPROF_RANGE_TRAMPOLINE);
	/* Barriers below sp are of frames younger than this start: a foreign call's own return address may be hijacked. */
	walk.cursor = walk.stack.pos;
	while (walk.cursor < walk.stack.n && walk.barriers[walk.cursor].slot < at.sp)
		walk.cursor++;
	walk.n = 0;
	if (trampoline && !leave_trampoline(trampoline, &at))
		return false;
	while (walk.n < MAX_FRAMES) {
		uint64_t frame[2];
		walk.frames[walk.n++] = at.pc;
		if (at.fp < walk.stack.lo || at.fp >= walk.stack.hi || !peek(at.fp, frame, sizeof(frame)))
			return true;
		at = (struct sprof_context){.pc = substitute(at.fp + 8, frame[1]), .sp = at.fp + 16, .fp = frame[0]};
		const struct sprof_range *interior =
			range_of(at.pc - 1, SPROF_RANGE_TRAMPOLINE); /* it called a helper */
		if (at.pc == 0 || (interior && !leave_trampoline(interior, &at)))
			return false;
	}
	return true;
}

/* The youngest frame may be in its prologue, where frame pointers miss its caller: it is judged by nobody. */
static void judge(size_t first)
{
	const char *callee = NULL;
	for (size_t i = first; i < walk.n; i++) {
		const char *name = name_of(walk.frames[i] - 1);
		ck_assert_ptr_null(range_of(walk.frames[i], SPROF_RANGE_TRAMPOLINE)); /* rule 14 */
		if (!name)
			continue;
		if (callee)
			ck_assert_msg(may_call(name, callee), "%s calls %s", name, callee);
		callee = name;
	}
	if (callee)
		ck_assert_str_eq(callee, "n_0");
	ck_assert_uint_gt(walk.n, first);
	ck_assert_ptr_nonnull(range_of(walk.frames[walk.n - 1] - 1, SPROF_RANGE_STACK_TOP));
	tally.judged++;
}

/* A context is covered by the lock of the stack that it points into: it is read after the version. 0: at is it. */
static void walk_stack(struct sprof_ref ref, struct sprof_context at, uint64_t context, uint32_t tid, size_t first)
{
	uint64_t begin = 0;
	if (read_stack(&source, table, &header, ref.index, &walk.stack, walk.barriers, MAX_BARRIERS) != READ_ACCEPTED ||
	    walk.stack.self.gen != ref.gen || walk.stack.owner_tid != tid) {
		tally.locked++;
		return;
	}
	ck_assert(context == 0 || peek(context, &at, sizeof(at)));
	bool matched = walk_from(at);
	ck_assert(peek(table + header.off_stack + ref.index * sizeof(walk.stack), &begin, 8));
	if (begin != walk.stack.seq_end)
		tally.locked++;
	else if (!matched && first == 1 && walk.n == 1)
		tally.unframed++; /* in a prologue or epilogue: its own slot, which frame pointers miss, holds a barrier */
	else if (!matched)
		tally.mismatched++;
	else
		judge(first);
}

static bool is_complete(const struct sprof_context *context)
{
	return context->pc != 0 && context->sp != 0;
}

static uint64_t find_thread(uint32_t tid, struct sprof_thread *ret)
{
	/* It grows as threads attach. With the word after it: reads are of eight bytes. */
	uint32_t n_probe[2] = {0, 0};
	ck_assert(peek(table + offsetof(struct sprof_header, n_probe), n_probe, sizeof(n_probe)));
	for (uint32_t i = 0; i < n_probe[0]; i++) {
		uint64_t address =
			table + header.off_thread + SPROF_THREAD_SLOT(tid, i, header.cap_thread) * sizeof(*ret);
		if (peek(address, ret, sizeof(*ret)) && ret->tid == tid)
			return address;
	}
	return 0;
}

/* The rules, for a thread that stands still. */
static void sample(pid_t tid)
{
	struct user_regs_struct registers;
	struct sprof_thread thread;
	struct sprof_stack user;
	ck_assert_int_eq(ptrace(PTRACE_GETREGS, tid, NULL, &registers), 0);
	struct sprof_context at = {.pc = registers.rip, .sp = registers.rsp, .fp = registers.rbp};
	uint64_t record = find_thread((uint32_t)tid, &thread);
	if (record == 0)
		return;
	if (thread.seq & 1) {
		tally.switching++;
		return;
	}
	if (thread.foreign_depth > 0 && is_complete(&thread.foreign_context)) {
		tally.foreign++;
		walk_stack(thread.foreign, thread.foreign_context,
			   record + offsetof(struct sprof_thread, foreign_context), thread.tid, 0);
		return;
	}
	if (thread.user.gen == 0 ||
	    !peek(table + header.off_stack + thread.user.index * sizeof(user), &user, sizeof(user))) {
		tally.native++;
		return;
	}
	if (at.sp >= user.lo && at.sp <= user.hi && !range_of(at.pc, SPROF_RANGE_SETS_SP)) {
		walk_stack(thread.user, at, 0, thread.tid, 1);
	} else if (is_complete(&thread.jump_context)) {
		tally.jumped++;
		walk_stack(thread.user, thread.jump_context, record + offsetof(struct sprof_thread, jump_context),
			   thread.tid, 0);
	} else {
		tally.native++;
	}
}

static void stop_and_sample(pid_t tid)
{
	int status = 0;
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0 || waitpid(tid, &status, __WALL) != tid)
		return;
	if (WIFSTOPPED(status)) {
		sample(tid);
		ptrace(PTRACE_CONT, tid, NULL, NULL);
	}
}

static size_t seize_threads(pid_t *tids, size_t max)
{
	char path[64];
	size_t n = 0;
	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)source.pid);
	DIR *directory = opendir(path);
	ck_assert_ptr_nonnull(directory);
	for (struct dirent *entry; (entry = readdir(directory)) && n < max;) { // NOLINT(concurrency-mt-unsafe)
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (tid > 0 && ptrace(PTRACE_SEIZE, tid, NULL, NULL) == 0)
			tids[n++] = tid;
	}
	closedir(directory);
	return n;
}

static void start(const char *barriers)
{
	int ends[2];
	char line[64];
	ck_assert_int_eq(pipe(ends), 0);
	source.pid = fork();
	if (source.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ends[1], 1);
		execl(GREENRT, GREENRT, "--seconds=200", "--pause-us=100", "--threads=2", barriers, NULL);
		_exit(127);
	}
	ck_assert_int_gt(source.pid, 0);
	close(ends[1]);
	ck_assert_int_gt(read(ends[0], line, sizeof(line)), 0);
	find_mappings();
	read_symbols();
}

/* On a crowded machine fewer will do, but not too few. */
static bool is_enough(time_t began, unsigned barriers)
{
	if (tally.judged >= WANTED && tally.foreign > 0 && tally.barriers >= barriers)
		return true;
	return time(NULL) > began + PATIENCE_S && tally.judged >= WANTED / 4 && tally.foreign > 0 &&
	       tally.barriers >= barriers;
}

static void sample_many(const char *barriers, unsigned n_barriers)
{
	pid_t tids[8];
	start(barriers);
	size_t n = seize_threads(tids, 8);
	ck_assert_uint_eq(n, 4); /* the first, the collector, two workers */
	time_t began = time(NULL);
	for (unsigned i = 0; !is_enough(began, n_barriers) && time(NULL) < began + LONGEST_S; i++) {
		stop_and_sample(tids[i % n]);
		usleep(100 + i % 37);
	}
	kill(source.pid, SIGKILL);
	printf("%s: judged %u (foreign %u, jumped %u, in the trampoline %u; %u barriers), switching %u, locked %u, "
	       "native %u, "
	       "unframed %u, mismatched %u\n",
	       barriers, tally.judged, tally.foreign, tally.jumped, tally.in_trampoline, tally.barriers,
	       tally.switching, tally.locked, tally.native, tally.unframed, tally.mismatched);
	ck_assert_uint_ge(tally.judged, WANTED / 4);
	ck_assert_uint_eq(tally.mismatched, 0);
	ck_assert_uint_gt(tally.foreign, 0);
	ck_assert_uint_ge(tally.barriers, n_barriers);
}

START_TEST(barriers_on_every_frame)
{
	sample_many("--barriers=every", 101);
}
END_TEST

START_TEST(barriers_at_doubling_distances)
{
	sample_many("--barriers=doubling", 51);
}
END_TEST

START_TEST(without_barriers)
{
	sample_many("--barriers=none", 0);
	ck_assert_uint_eq(tally.barriers, 0);
}
END_TEST

CHECK_MAIN("greenrt_stacks", 120, barriers_on_every_frame, barriers_at_doubling_distances, without_barriers)
