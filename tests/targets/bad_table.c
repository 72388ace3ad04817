/* bad_table --seconds=N DEFECT
 * Publishes a small barrier-lock table that is right in everything (DEFECT none) but for one thing, and sleeps. By the letter of
 * docs/BARRIER-TABLE.md, without libsprof, which would not do these things. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sprof/barrier_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "target.h"

enum {
	TABLE_BYTES = 20480,
	OFF_RANGE = 128,
	OFF_THREAD = 4096,
	OFF_STACK = 12288,
	OFF_BARRIER = 16384,
	CAP = 16, /* of stacks, and of barriers of a stack */
	CAP_THREADS = 32,
	STACK_BYTES = 65536,
	SYSTEM = 0,
	USER = 1,
	WAITS = 2, /* the stack that resumed USER */
	N_STACKS = 3,
	N_BARRIERS = 3,
};

static const char *defect = "none";
static bool known; /* somebody knew the defect */
static int table_fd = -1;

static bool is(const char *name)
{
	bool same = strcmp(defect, name) == 0;
	known |= same;
	return same;
}

struct bad {
	struct sprof_header *header;
	struct sprof_range *ranges;
	struct sprof_thread *threads, *own;
	struct sprof_stack *stacks;
	struct sprof_barrier *barriers; /* of USER */
	char *memory[N_STACKS];
	uint64_t entry, code;
};

static void *word(uint64_t address)
{
	return (void *)(uintptr_t)address; // NOLINT(performance-no-int-to-ptr)
}

/* --- memory --- */

static int open_file(void)
{
	const char *named = "/memfd:SPROF_BLT";
	bool file = is("no-memfd"), sealed = !is("shrinkable") && !is("short");
	int fd = file ? open(named, O_RDWR | O_CREAT | O_CLOEXEC, 0600)
		      : memfd_create(is("wrong-name") ? "sprof" : "SPROF_BLT", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, is("offset") ? TABLE_BYTES + 4096 : TABLE_BYTES) < 0)
		target_die("file");
	if (file)
		unlink(named);
	if (!file && sealed &&
	    fcntl(fd, F_ADD_SEALS, is("unsealed") ? F_SEAL_SHRINK : F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		target_die("seals");
	return fd;
}

static char *map_table(void)
{
	char *memory;
	if (is("anonymous")) {
		memory = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	} else {
		int fd = open_file();
		memory = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, is("private") ? MAP_PRIVATE : MAP_SHARED, fd,
			      is("offset") ? 4096 : 0);
		table_fd = fd;
	}
	if (memory == MAP_FAILED)
		target_die("mmap");
	if (!is("inherited") && madvise(memory, TABLE_BYTES, MADV_DONTFORK) < 0)
		target_die("madvise");
	memset(memory, 0, TABLE_BYTES);
	if (!is("not-locked") && !is("not-resident") && mlock(memory, TABLE_BYTES) < 0)
		target_die("mlock");
	return memory;
}

/* --- a table that is right --- */

static uint64_t own_starttime(void)
{
	char text[1024] = "";
	FILE *file = fopen("/proc/self/stat", "re");
	if (!file || !fgets(text, sizeof(text), file))
		target_die("stat");
	(void)fclose(file);
	const char *at = strrchr(text, ')');
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

static struct sprof_ref ref_to(const struct bad *bad, uint32_t index)
{
	return bad->stacks[index].self;
}

static void make_stacks(struct bad *bad)
{
	for (uint32_t i = 0; i < CAP; i++)
		bad->stacks[i] = (struct sprof_stack){.off_barrier = OFF_BARRIER + (uint64_t)i * CAP * 16,
						      .cap = CAP,
						      .self = {.index = i, .gen = 1},
						      .resumer = {.index = SPROF_INDEX_NONE}};
	for (uint32_t i = 0; i < N_STACKS; i++) {
		bad->memory[i] = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (bad->memory[i] == MAP_FAILED)
			target_die("mmap");
		bad->stacks[i].lo = (uintptr_t)bad->memory[i];
		bad->stacks[i].hi = bad->stacks[i].lo + STACK_BYTES;
		bad->stacks[i].owner_tid = (uint32_t)target_tid();
	}
	struct sprof_stack *user = &bad->stacks[USER];
	user->resumer = ref_to(bad, WAITS);
	user->resumer_context = (struct sprof_context){.pc = bad->code, .sp = bad->stacks[WAITS].hi - 256};
	user->n = N_BARRIERS;
	for (int i = 0; i < N_BARRIERS; i++) {
		bad->barriers[i] =
			(struct sprof_barrier){.slot = user->hi - 512 + (uint64_t)i * 64, .original_pc = bad->code};
		*(uint64_t *)word(bad->barriers[i].slot) = bad->entry;
	}
}

static void make_thread(struct bad *bad)
{
	uint32_t tid = (uint32_t)target_tid();
	bad->own = &bad->threads[tid % CAP_THREADS];
	*bad->own = (struct sprof_thread){.tid = tid,
					  .seq = 2,
					  .foreign_depth = 1,
					  .starttime = own_starttime(),
					  .current = ref_to(bad, USER),
					  .user = ref_to(bad, USER),
					  .system = ref_to(bad, SYSTEM),
					  .foreign = ref_to(bad, USER)};
	bad->own->foreign_context = (struct sprof_context){.pc = bad->code, .sp = bad->stacks[USER].hi - 1024};
}

static void make(struct bad *bad)
{
	char *memory = (char *)bad->header;
	*bad = (struct bad){.header = bad->header,
			    .ranges = (void *)(memory + OFF_RANGE),
			    .threads = (void *)(memory + OFF_THREAD),
			    .stacks = (void *)(memory + OFF_STACK),
			    .barriers = (void *)(memory + OFF_BARRIER + USER * CAP * 16),
			    .entry = (uintptr_t)target_begin,
			    .code = (uintptr_t)target_parse + 1};
	*bad->header = (struct sprof_header){.abi = 1,
					     .hdr_size = 128,
					     .thread_size = 256,
					     .stack_size = 128,
					     .barrier_size = 16,
					     .range_size = 32,
					     .total_size = TABLE_BYTES,
					     .self_va = (uintptr_t)memory,
					     .proc_starttime = own_starttime(),
					     .tgid = (uint32_t)getpid(),
					     .flags = SPROF_HEADER_LOCKED,
					     .off_thread = OFF_THREAD,
					     .off_stack = OFF_STACK,
					     .off_range = OFF_RANGE,
					     .cap_thread = CAP_THREADS,
					     .cap_stack = CAP,
					     .cap_range = SPROF_MAX_RANGES,
					     .n_range = 2,
					     .n_probe = 1};
	bad->ranges[0] = (struct sprof_range){.lo = bad->entry, .hi = bad->entry + 4, .kind = SPROF_RANGE_TRAMPOLINE};
	bad->ranges[1] = (struct sprof_range){.lo = bad->entry + 4,
					      .hi = bad->entry + 8,
					      .kind = SPROF_RANGE_TRAMPOLINE,
					      .entry_offset = -4,
					      .cfa_offset = 8,
					      .fp_offset = -16};
	make_stacks(bad);
	make_thread(bad);
	bad->header->magic = SPROF_TABLE_MAGIC;
}

/* --- what is wrong with it --- */

static void move_ranges(const struct bad *bad, uint64_t offset)
{
	memmove((char *)bad->header + offset, bad->ranges, 2 * sizeof(bad->ranges[0]));
	bad->header->off_range = offset;
}

static void spoil_header(const struct bad *bad)
{
	struct sprof_header *header = bad->header;
	if (is("magic"))
		header->magic = 0;
	if (is("abi"))
		header->abi = 2;
	if (is("ranges-locked"))
		header->range_begin = 1;
	if (is("no-starttime"))
		header->proc_starttime = 0;
	if (is("tgid"))
		header->tgid++;
	if (is("starttime"))
		header->proc_starttime += 5;
	if (is("unaligned"))
		move_ranges(bad, OFF_RANGE + 8);
	if (is("overlapping"))
		move_ranges(bad, OFF_THREAD - 64);
	if (is("later")) { /* of a later writer of the same ABI */
		header->range_size = 64;
		header->cap_range = 32;
		bad->ranges[2] = bad->ranges[1];
		bad->ranges[1] = bad->ranges[3] = (struct sprof_range){.lo = ~0ull};
	}
}

static void spoil_ranges(const struct bad *bad)
{
	struct sprof_range *first = &bad->ranges[0], *second = &bad->ranges[1];
	if (is("range-empty"))
		second->hi = second->lo;
	if (is("range-not-code"))
		*second = (struct sprof_range){.lo = (uintptr_t)bad->memory[0],
					       .hi = (uintptr_t)bad->memory[0] + 8,
					       .kind = SPROF_RANGE_MANAGED_TEXT};
	if (is("range-kind"))
		second->kind = 99;
	if (is("ranges-overlap"))
		second->lo -= 2, second->entry_offset += 2;
	if (is("entry-nowhere"))
		second->entry_offset = 1000;
	if (is("cfa-register"))
		second->cfa_register = 2;
	if (is("cfa-offset"))
		second->cfa_offset = 12;
	if (is("cfa-at-entry"))
		first->cfa_offset = 8;
	if (is("fp-offset"))
		second->fp_offset = 8;
}

static void *end_at_once(void *context)
{
	*(uint32_t *)context = (uint32_t)target_tid();
	return NULL;
}

static uint32_t dead_tid(void)
{
	pthread_t thread;
	uint32_t tid = 0;
	if (pthread_create(&thread, NULL, end_at_once, &tid) != 0)
		target_die("pthread_create");
	pthread_join(thread, NULL);
	return tid;
}

static void spoil_places(struct bad *bad)
{
	uint32_t tid = bad->own->tid;
	struct sprof_thread *next = &bad->threads[SPROF_THREAD_SLOT(tid, 1, CAP_THREADS)];
	if (is("thread-probe")) { /* probes are two slots apart */
		bad->threads[(tid + 1) % CAP_THREADS] = *bad->own;
		memset(bad->own, 0, sizeof(*bad->own));
	}
	if (is("thread-beyond"))
		bad->header->n_probe = 0;
	if (is("thread-twice")) {
		*next = *bad->own;
		bad->header->n_probe = 2;
	}
	if (is("thread-dead")) {
		uint32_t dead = dead_tid();
		bad->header->n_probe = 2;
		bad->threads[SPROF_THREAD_SLOT(dead, 1, CAP_THREADS)] = (struct sprof_thread){.tid = dead, .seq = 2};
	}
	if (is("thread-reused"))
		bad->own->starttime += 2;
	if (is("thread-tick")) /* what is within the tolerance */
		bad->own->starttime += 1;
}

static void spoil_thread(const struct bad *bad)
{
	struct sprof_thread *own = bad->own;
	if (is("seq-odd"))
		own->seq = 3;
	if (is("ref-range"))
		own->user.index = CAP;
	if (is("ref-stale"))
		own->user.gen = 7;
	if (is("ref-unused"))
		own->user = ref_to(bad, N_STACKS);
	if (is("ref-left-behind")) { /* harmless: no context goes with it */
		own->foreign_depth = 0;
		own->foreign_context = (struct sprof_context){0};
		own->foreign.gen = 7;
	}
	if (is("owner"))
		bad->stacks[USER].owner_tid = 0;
	if (is("context-stack"))
		own->foreign = (struct sprof_ref){.index = SPROF_INDEX_NONE};
	if (is("context-sp"))
		own->foreign_context.sp = bad->stacks[SYSTEM].hi;
	if (is("context-pc"))
		own->foreign_context.pc = bad->stacks[SYSTEM].lo;
	if (is("context-trampoline"))
		own->foreign_context.pc = bad->entry;
	if (is("context-half"))
		own->libcall_context.pc = bad->code;
	if (is("context-unused"))
		own->foreign_depth = 0;
	if (is("context-jump"))
		own->jump_context = (struct sprof_context){.pc = bad->code, .sp = bad->stacks[WAITS].lo};
}

static void spoil_stack(const struct bad *bad)
{
	struct sprof_stack *user = &bad->stacks[USER], *waits = &bad->stacks[WAITS], *system = &bad->stacks[SYSTEM];
	if (is("stack-bounds"))
		waits->hi = waits->lo;
	if (is("stack-self"))
		waits->self.index = 9;
	if (is("stack-cap"))
		waits->cap = SPROF_MAX_BARRIERS + 1;
	if (is("stack-array"))
		waits->off_barrier = TABLE_BYTES - 16;
	if (is("stack-array-unaligned"))
		bad->stacks[WAITS].off_barrier = OFF_BARRIER + 2048 + 8;
	if (is("stack-n"))
		system->n = CAP + 1, system->pos = CAP + 1;
	if (is("stack-pos"))
		system->pos = 1;
	if (is("stacks-overlap"))
		system->lo = user->hi - 8, system->hi = user->hi + 8;
	if (is("stacks-touch")) /* as neighbours may */
		system->lo = user->hi, system->hi = user->hi + 8;
	if (is("barriers-overlap"))
		waits->off_barrier = user->off_barrier + 16;
	if (is("stack-unmapped"))
		munmap(bad->memory[SYSTEM], STACK_BYTES);
	if (is("owner-unknown"))
		waits->owner_tid = 1;
	if (is("lock-held"))
		waits->seq_begin = 5, waits->seq_end = 4;
	if (is("resumer-ref"))
		user->resumer.gen = 9;
	if (is("resumer-context"))
		user->resumer_context.sp = user->lo + 8;
	if (is("resumer-cycle")) {
		waits->resumer = ref_to(bad, USER);
		waits->resumer_context = (struct sprof_context){.pc = bad->code, .sp = user->hi - 64};
	}
}

static void spoil_barriers(const struct bad *bad)
{
	struct sprof_barrier *barrier = bad->barriers;
	if (is("slot-outside"))
		barrier[2].slot = bad->stacks[USER].hi;
	if (is("slot-alignment"))
		barrier[1].slot += 4, *(uint64_t *)word(barrier[0].slot + 68) = bad->entry;
	if (is("slot-order")) {
		struct sprof_barrier first = barrier[0];
		barrier[0] = barrier[1];
		barrier[1] = first;
	}
	if (is("slot-word"))
		*(uint64_t *)word(barrier[1].slot) = barrier[1].original_pc;
	if (is("slot-passed")) { /* what is below pos counts no more */
		*(uint64_t *)word(barrier[0].slot) = 0x5a5a;
		barrier[0].original_pc = 0x5a5a;
		bad->stacks[USER].pos = 1;
	}
	if (is("original-pc"))
		barrier[1].original_pc = 0x1234;
	if (is("original-trampoline"))
		barrier[1].original_pc = bad->entry;
}

static void spoil(struct bad *bad)
{
	spoil_header(bad);
	spoil_ranges(bad);
	spoil_places(bad);
	spoil_thread(bad);
	spoil_stack(bad);
	spoil_barriers(bad);
	if (is("short") && ftruncate(table_fd, 4096) < 0)
		target_die("ftruncate");
	if (is("not-resident") && madvise((char *)bad->header + OFF_BARRIER, 4096, MADV_DONTNEED) < 0)
		target_die("madvise");
}

/* A second one, at another address; a child that has its parent's. */
static void make_others(void)
{
	if (is("other-table")) {
		struct bad twin = {.header = (struct sprof_header *)(void *)map_table()};
		make(&twin);
	}
	if (!is("inherited") && !is("vfork")) {
		target_ready(NULL);
		return;
	}
	pid_t child = is("vfork") ? vfork() : fork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork)
	if (child < 0)
		target_die("fork");
	if (child == 0) {
		char text[64]; /* one line for both, since a parent that has called vfork waits */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int n = snprintf(text, sizeof(text), "{\"ready\": %d, \"child\": %d}\n", (int)getppid(), (int)getpid());
		_exit(write(STDOUT_FILENO, text, (size_t)n) != n || pause() == 0);
	}
}

int main(int argc, char **argv)
{
	long seconds = 60;
	const struct target_flag flags[] = {{"seconds", &seconds}};
	int first = target_parse(argc, argv, flags, 1);
	if (first + 1 == argc)
		defect = argv[first];
	static struct bad bad;
	bad.header = (struct sprof_header *)(void *)map_table();
	make(&bad);
	spoil(&bad);
	if (!is("none") && !known && !is("vfork") && !is("other-table")) {
		(void)fprintf(stderr, "bad_table: there is no defect \"%s\"\n", defect);
		return 2;
	}
	target_begin(seconds);
	make_others();
	while (!target_over())
		target_sleep_us(100000);
	return 0;
}
