/* Steps a program through every instruction, from its first to its last, and holds each walk against a list of its calls: what every `call` pushed,
 * and every signal, as long as the stack pointer is below. Nothing of how stacks are walked is in that list. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "check_main.h"
#include "recorded_code.h"

#include "model/cfi_check.h"

struct call {
	__u64 slot;    /* where the return address is */
	__u64 address; /* to which it returns, or goes back when a signal interrupted */
};

enum {
	MAX_CALLS = 256,
	STACK_BYTES = 64 << 10,
	TEXT_BYTES = 16,
	RED_ZONE_BYTES = 128,
	MAX_WRONG = 20,
	MAX_STEPS = 3000000
};

struct stepped {
	pid_t pid;
	struct user_regs_struct now;
	unsigned char text[TEXT_BYTES]; /* at now.rip */
	struct call calls[MAX_CALLS];   /* outermost first */
	size_t n_calls;
	struct recorded_code code;
	int signal; /* to be delivered by the next step */
	unsigned char stack[STACK_BYTES];
	unsigned long steps, wrong, without_info;
};

static size_t read_at(pid_t pid, __u64 address, void *to, size_t n)
{
	struct iovec into = {to, n}, from = {(void *)(uintptr_t)address, n}; // NOLINT(performance-no-int-to-ptr)
	ssize_t got = process_vm_readv(pid, &into, 1, &from, 1, 0);
	return got < 0 ? 0 : (size_t)got;
}

static __u64 word_at(pid_t pid, __u64 address)
{
	__u64 word = 0;
	(void)read_at(pid, address, &word, sizeof(word));
	return word;
}

static void look(struct stepped *stepped)
{
	ptrace(PTRACE_GETREGS, stepped->pid, NULL, &stepped->now);
	memset(stepped->text, 0, TEXT_BYTES);
	size_t n = TEXT_BYTES;
	while (n && !read_at(stepped->pid, stepped->now.rip, stepped->text, n)) /* up to the end of the mapping */
		n--;
}

/* A call, behind the prefixes that it may have: notrack or bnd, and REX. */
static bool is_call(const unsigned char *text)
{
	const unsigned char *at = text;
	while (*at == 0x3e || *at == 0xf2 || (*at & 0xf0) == 0x40)
		at++;
	return at[0] == 0xe8 || (at[0] == 0xff && ((at[1] >> 3) & 7) == 2);
}

static bool is_system_call(const unsigned char *text)
{
	return text[0] == 0x0f && text[1] == 0x05;
}

static void push(struct stepped *stepped, __u64 slot, __u64 address)
{
	ck_assert_uint_lt(stepped->n_calls, MAX_CALLS);
	stepped->calls[stepped->n_calls++] = (struct call){slot, address};
}

/* One step. false: it has exited. */
static bool step(struct stepped *stepped)
{
	struct user_regs_struct before = stepped->now;
	bool call = is_call(stepped->text), system_call = is_system_call(stepped->text);
	int status, number = stepped->signal;
	ptrace(PTRACE_SINGLESTEP, stepped->pid, NULL, (void *)(uintptr_t)number); // NOLINT(performance-no-int-to-ptr)
	ck_assert_int_eq(waitpid(stepped->pid, &status, 0), stepped->pid);
	if (!WIFSTOPPED(status))
		return false;
	look(stepped);
	__u64 sp = stepped->now.rsp;
	stepped->signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
	while (stepped->n_calls && stepped->calls[stepped->n_calls - 1].slot < sp)
		stepped->n_calls--;
	if (number) { /* the kernel's frame: the restorer's address, then the context */
		push(stepped, sp + 8 + 40 + 128, word_at(stepped->pid, sp + 8 + 40 + 128));
		push(stepped, sp, word_at(stepped->pid, sp));
	} else if (call && !stepped->signal && sp == before.rsp - 8) {
		push(stepped, sp, word_at(stepped->pid, sp));
	} else if (system_call && (before.rax == SYS_mmap || before.rax == SYS_mprotect || before.rax == SYS_munmap)) {
		recorded_read(&stepped->code, stepped->pid);
	}
	stepped->steps++;
	return true;
}

static enum stack_end walk(struct stepped *stepped, __u64 *frames, size_t *ret_n)
{
	const struct user_regs_struct *now = &stepped->now;
	struct unwind_registers registers = {
		.rax = now->rax,
		.rdx = now->rdx,
		.rcx = now->rcx,
		.rbx = now->rbx,
		.rsi = now->rsi,
		.rdi = now->rdi,
		.fp = now->rbp,
		.sp = now->rsp,
		.r8 = now->r8,
		.r9 = now->r9,
		.r10 = now->r10,
		.r11 = now->r11,
		.r12 = now->r12,
		.r13 = now->r13,
		.r14 = now->r14,
		.r15 = now->r15,
		.pc = now->rip,
		.known = UNWIND_KNOWN_ALL,
		.pc_is_exact = 1,
	};
	struct recorded_memory memory = {.start = (now->rsp - RED_ZONE_BYTES) & ~4095ull, .bytes = stepped->stack};
	memory.n = read_at(stepped->pid, memory.start, stepped->stack, STACK_BYTES) & ~4095ull;
	recorded_use(&stepped->code, &memory);
	return unwind_walk(registers, &memory, frames, MAX_CALLS, ret_n);
}

static const char *file_of(const struct stepped *stepped, __u64 pc, __u64 *ret_offset)
{
	for (__u32 i = 0; i < stepped->code.n_entries; i++) {
		const struct unwind_list_entry *entry = &stepped->code.list[1].entries[i];
		*ret_offset = pc + entry->bias;
		if (pc >= entry->start && pc < entry->end && entry->kind == UNWIND_CODE_TABLE)
			return stepped->code.names[entry->table];
	}
	*ret_offset = pc;
	return "?";
}

static void tell(struct stepped *stepped, enum stack_end end, const __u64 *frames, size_t n)
{
	__u64 offset;
	if (stepped->wrong++ >= MAX_WRONG)
		return;
	const char *file = file_of(stepped, stepped->now.rip, &offset);
	printf("step %lu at %s+%llx: end %d, %zu frames of %zu:", stepped->steps, file, (unsigned long long)offset, end,
	       n, stepped->n_calls + 1);
	for (size_t i = 1; i < n || i <= stepped->n_calls; i++)
		printf(" %llx/%llx", i < n ? (unsigned long long)frames[i] : 0,
		       i <= stepped->n_calls ? (unsigned long long)stepped->calls[stepped->n_calls - i].address : 0);
	printf("\n");
}

/* The dynamic linker's own _start has no unwind information, but a frame pointer of zero. */
static bool ends_well(const struct stepped *stepped, enum stack_end end, __u64 last)
{
	__u64 offset;
	return end == STACK_END_OUTERMOST ||
	       (end == STACK_END_ROOT && strstr(file_of(stepped, last, &offset), "/ld-linux"));
}

static bool has_info(const struct stepped *stepped)
{
	for (__u32 i = 0; i < stepped->code.n_entries; i++) {
		const struct unwind_list_entry *entry = &stepped->code.list[1].entries[i];
		if (stepped->now.rip >= entry->start && stepped->now.rip < entry->end &&
		    entry->kind == UNWIND_CODE_TABLE)
			return cfi_table_rule_at(stepped->code.tables[entry->table].bytes,
						 stepped->now.rip + entry->bias) != CFI_RULE_NONE;
	}
	return false;
}

static void check(struct stepped *stepped)
{
	__u64 frames[MAX_CALLS];
	size_t n = 0;
	enum stack_end end = walk(stepped, frames, &n);
	bool right = n == stepped->n_calls + 1 && ends_well(stepped, end, frames[n - 1]);
	for (size_t i = 1; right && i < n; i++)
		right = frames[i] == stepped->calls[stepped->n_calls - i].address;
	/* The C compiler's start files have functions without unwind information. */
	if (!right && !has_info(stepped))
		stepped->without_info++;
	else if (!right)
		tell(stepped, end, frames, n);
}

static void start(struct stepped *stepped, const char *program)
{
	int status;
	stepped->pid = fork();
	if (stepped->pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execl(program, program, (char *)NULL);
		_exit(127);
	}
	ck_assert_int_eq(waitpid(stepped->pid, &status, 0), stepped->pid);
	ck_assert(WIFSTOPPED(status));
	recorded_read(&stepped->code, stepped->pid);
	look(stepped);
}

static void step_through(const char *program)
{
	struct stepped *stepped = calloc(1, sizeof(*stepped));
	start(stepped, program);
	do
		check(stepped);
	while (stepped->steps < MAX_STEPS && step(stepped));
	printf("%s: %lu steps, %lu wrong, %lu in functions without unwind information\n", program, stepped->steps,
	       stepped->wrong, stepped->without_info);
	fflush(stdout); /* the test's process ends without */
	ck_assert_uint_lt(stepped->steps, MAX_STEPS);
	ck_assert_uint_gt(stepped->steps, 10000);
	ck_assert_uint_eq(stepped->wrong, 0);
	ck_assert_uint_lt(stepped->without_info, 200);
	ck_assert_uint_gt(unwind_quick_steps, 10000);
	recorded_free(&stepped->code);
	free(stepped);
}

START_TEST(without_frame_pointers_and_bound_lazily)
{
	step_through(STEPS_LAZY);
}
END_TEST

START_TEST(with_frame_pointers_and_bound_at_once)
{
	step_through(STEPS_NOW);
}
END_TEST

CHECK_MAIN("cfi_steps", 110, without_frame_pointers_and_bound_lazily, with_frame_pointers_and_bound_at_once)
