#include <check.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "check_main.h"
#include "unwind_memory.h"

#include "bpf/record.h"

enum { PAGE = 4096, STACK_BYTES = 64 * PAGE, MAX_FRAMES = 16384 };

static const __u64 base = 0x7ffd00000000;
static struct recorded_memory memory;
static unsigned char *stack;                 /* at base */
static struct unwind_list_page code_list[2]; /* all code is without unwind information */
static __u64 frames[MAX_FRAMES];
static size_t n;

static void setup(void)
{
	stack = calloc(1, STACK_BYTES);
	plain_list(code_list);
	memory = (struct recorded_memory){
		.start = base, .n = STACK_BYTES, .bytes = stack, .list = code_list, .list_pages = 2};
}

static void teardown(void)
{
	free(stack);
	ck_assert(!memory.out_of_page);
}

static void put_frame(__u64 offset, __u64 fp, __u64 pc)
{
	memcpy(stack + offset, &fp, 8);
	memcpy(stack + offset + 8, &pc, 8);
}

static enum stack_end walk(__u64 sp_offset, __u64 fp, size_t max)
{
	return unwind_walk(unwind_leaf(0x401000, base + sp_offset, fp), &memory, frames, max, &n);
}

/* count frames, step bytes apart, the first at offset first; the last one's frame pointer is zero. */
static void put_chain(__u64 first, __u64 step, size_t count)
{
	for (size_t i = 0; i < count; i++)
		put_frame(first + i * step, i + 1 < count ? base + first + (i + 1) * step : 0, 0x500000 + i);
}

static void expect_chain(size_t count)
{
	ck_assert_uint_eq(n, count + 1);
	ck_assert_uint_eq(frames[0], 0x401000);
	for (size_t i = 0; i < count; i++)
		if (frames[i + 1] != 0x500000 + i)
			ck_abort_msg("frame %zu is %llx", i, (unsigned long long)frames[i + 1]);
}

START_TEST(a_straight_chain)
{
	setup();
	put_chain(64, 48, 10);
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES), STACK_END_ROOT);
	expect_chain(10);
	ck_assert_uint_eq(memory.reads, 2); /* the next instruction of the leaf; one copy serves the page */
	teardown();
}
END_TEST

START_TEST(wherever_frames_lie_across_pages)
{
	for (__u64 step = 16; step <= 2 * PAGE; step = step * 3 / 2 / 8 * 8 + 8)
		for (__u64 first = PAGE - 32; first <= PAGE + 32; first += 8) {
			setup();
			size_t count = (STACK_BYTES - 2 * PAGE) / step;
			put_chain(first, step, count);
			ck_assert_int_eq(walk(0, base + first, MAX_FRAMES), STACK_END_ROOT);
			expect_chain(count);
			teardown();
		}
}
END_TEST

START_TEST(a_thousand_frames_and_more)
{
	setup();
	put_chain(16, 32, RECORD_MAX_USER_FRAMES + 500);
	ck_assert_int_eq(walk(0, base + 16, RECORD_MAX_USER_FRAMES), STACK_END_TOO_DEEP);
	ck_assert_uint_eq(n, RECORD_MAX_USER_FRAMES);
	for (size_t i = 1; i < n; i++)
		ck_assert_uint_eq(frames[i], 0x500000 + i - 1);
	ck_assert_int_eq(walk(0, base + 16, MAX_FRAMES), STACK_END_ROOT);
	expect_chain(RECORD_MAX_USER_FRAMES + 500);
	teardown();
}
END_TEST

START_TEST(roots)
{
	setup();
	ck_assert_int_eq(walk(0, 0, MAX_FRAMES), STACK_END_ROOT); /* no frame pointer at all */
	ck_assert_uint_eq(n, 1);
	put_frame(32, base + 64, 0); /* no return address: _start */
	ck_assert_int_eq(walk(0, base + 32, MAX_FRAMES), STACK_END_ROOT);
	ck_assert_uint_eq(n, 1);
	teardown();
}
END_TEST

START_TEST(loops_end)
{
	setup();
	put_frame(32, base + 32, 0x500000); /* points to itself */
	ck_assert_int_eq(walk(0, base + 32, MAX_FRAMES), STACK_END_NO_UNWIND_INFO);
	ck_assert_uint_eq(n, 2);
	put_frame(32, base + 96, 0x500000);
	put_frame(96, base + 32, 0x500001); /* and back */
	ck_assert_int_eq(walk(0, base + 32, MAX_FRAMES), STACK_END_NO_UNWIND_INFO);
	ck_assert_uint_eq(n, 3);
	put_frame(32, base + 40, 0x500000); /* into itself: frames must not overlap */
	ck_assert_int_eq(walk(0, base + 32, MAX_FRAMES), STACK_END_NO_UNWIND_INFO);
	ck_assert_uint_eq(n, 2);
	teardown();
}
END_TEST

START_TEST(bad_frame_pointers)
{
	setup();
	put_chain(64, 48, 10);
	ck_assert_int_eq(walk(128, base + 64, MAX_FRAMES), STACK_END_NO_UNWIND_INFO); /* below the stack pointer */
	ck_assert_uint_eq(n, 1);
	for (__u64 odd = 1; odd < 8; odd++)
		ck_assert_int_eq(walk(0, base + 64 + odd, MAX_FRAMES), STACK_END_NO_UNWIND_INFO);
	ck_assert_uint_eq(memory.reads, 8);                                /* each leaf's next instruction, no stack */
	ck_assert_int_eq(walk(64, base + 64, MAX_FRAMES), STACK_END_ROOT); /* exactly at the stack pointer is well */
	teardown();
}
END_TEST

START_TEST(unreadable_memory)
{
	setup();
	ck_assert_int_eq(walk(0, base + STACK_BYTES, MAX_FRAMES), STACK_END_UNREADABLE);
	ck_assert_uint_eq(n, 1);
	put_frame(PAGE, base + 2 * STACK_BYTES, 0x500000); /* one good frame, then nothing */
	ck_assert_int_eq(walk(0, base + PAGE, MAX_FRAMES), STACK_END_UNREADABLE);
	ck_assert_uint_eq(n, 2);
	/* A frame whose second half lies on a page that is not there. */
	ck_assert_int_eq(walk(0, base + STACK_BYTES - 8, MAX_FRAMES), STACK_END_UNREADABLE);
	ck_assert_int_eq(walk(0, base + STACK_BYTES - 16, MAX_FRAMES), STACK_END_ROOT); /* the last that is: all zero */
	teardown();
}
END_TEST

START_TEST(the_top_of_the_address_space)
{
	setup();
	static const __u64 last[] = {UINT64_MAX - 7, UINT64_MAX - 15, UINT64_MAX - 23, UINT64_MAX - 4095};
	for (size_t i = 0; i < sizeof(last) / sizeof(last[0]); i++) {
		enum stack_end end = walk(0, last[i], MAX_FRAMES);
		ck_assert(end == STACK_END_UNREADABLE || end == STACK_END_NO_UNWIND_INFO);
		ck_assert_uint_eq(n, 1);
	}
	/* A frame in the very last bytes: its caller's stack pointer wraps to 0, and the walk ends all the same. */
	unsigned char top[16];
	__u64 words[2] = {UINT64_MAX - 15, 0x500000};
	memcpy(top, words, 16);
	memory.start = UINT64_MAX - 15, memory.n = 16, memory.bytes = top;
	enum stack_end end = walk(0, UINT64_MAX - 15, 64);
	ck_assert(end == STACK_END_TOO_DEEP || end == STACK_END_NO_UNWIND_INFO);
	teardown();
}
END_TEST

/* --- against the real thing: this program's own stack --- */

struct capture {
	__u64 expected[64]; /* return addresses, innermost first */
	unsigned depth;
	struct unwind_registers registers;
	unsigned char *bytes; /* a copy of the stack as it is at the innermost call */
	__u64 start;
	size_t n;
};

static __u64 stack_top(void)
{
	pthread_attr_t attributes;
	void *low;
	size_t size;
	pthread_getattr_np(pthread_self(), &attributes);
	pthread_attr_getstack(&attributes, &low, &size);
	pthread_attr_destroy(&attributes);
	return (__u64)(uintptr_t)low + size;
}

__attribute__((noinline, no_sanitize_address)) static void take(struct capture *capture)
{
	unsigned char *frame = __builtin_frame_address(0);
	capture->expected[0] = (__u64)(uintptr_t)__builtin_return_address(0);
	capture->registers = unwind_leaf((__u64)(uintptr_t)take, (__u64)(uintptr_t)frame, (__u64)(uintptr_t)frame);
	capture->start = (__u64)(uintptr_t)frame;
	size_t wanted = stack_top() - capture->start;
	capture->n = wanted;
	for (size_t i = 0; i < wanted; i++)
		capture->bytes[i] = frame[i];
}

__attribute__((noinline)) static void descend(struct capture *capture, unsigned left, unsigned at)
{
	char pad[200] = {0}; /* frames of this size cross pages now and then */
	capture->expected[at + 1] = (__u64)(uintptr_t)__builtin_return_address(0);
	if (left)
		descend(capture, left - 1, at - 1);
	else
		take(capture);
	__asm__ volatile("" ::"r"(pad) : "memory"); /* no tail call */
}

START_TEST(as_the_compiler_says)
{
	enum { DEPTH = 40 };
	static struct capture capture;
	capture.bytes = malloc(16 << 20);
	descend(&capture, DEPTH - 1, DEPTH - 1);
	ck_assert_uint_lt(capture.n, 16 << 20);
	plain_list(code_list);
	memory = (struct recorded_memory){
		.start = capture.start, .n = capture.n, .bytes = capture.bytes, .list = code_list, .list_pages = 2};
	unwind_walk(capture.registers, &memory, frames, MAX_FRAMES, &n);
	ck_assert_uint_gt(n, DEPTH + 1);
	for (unsigned i = 0; i <= DEPTH; i++)
		if (frames[i + 1] != capture.expected[i])
			ck_abort_msg("frame %u", i);
	ck_assert(!memory.out_of_page);
	free(capture.bytes);
}
END_TEST

/* --- where nothing is known yet, and where an address is in no code --- */

START_TEST(without_a_list)
{
	setup();
	memory.not_ready = true;
	put_chain(64, 48, 10);
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES),
			 STACK_END_TABLES_NOT_READY); /* whatever the frame pointers say */
	expect_chain(10);
	teardown();
}
END_TEST

START_TEST(callers_in_no_code)
{
	setup();
	put_chain(64, 48, 3);
	put_frame(64 + 48, base + 64 + 96, 0x7000); /* below all code */
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES), STACK_END_NO_UNWIND_INFO);
	ck_assert_uint_eq(n, 2); /* not taken for a caller */
	/* The leaf itself may be in code that has just been made. */
	memory.list[1].entries[0].start = 0x4ff000;
	((struct unwind_list_header *)memory.list)->first[0] = 0x4ff000;
	put_frame(64 + 48, base + 64 + 96, 0x500001);
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES), STACK_END_ROOT);
	expect_chain(3);
	ck_assert_int_eq(walk(0, base + 65, MAX_FRAMES), STACK_END_BAD_RETURN_ADDRESS);
	memory.outdated = true;
	ck_assert_int_eq(walk(0, base + 65, MAX_FRAMES), STACK_END_TABLES_NOT_READY);
	teardown();
}
END_TEST

/* As the kernel does for uretprobes: to a page that no list of mappings has yet. */
START_TEST(a_return_that_the_kernel_hijacked)
{
	setup();
	put_chain(64, 48, 10);
	memory.hijacker = 0x7000;
	put_frame(64 + 2 * 48, base + 64 + 3 * 48, 0x7000);
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES), STACK_END_HIJACKED);
	ck_assert_uint_eq(n, 3);
	memory.hijacked_slot = base + 64 + 2 * 48 + 8;
	memory.original = 0x500002;
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES), STACK_END_ROOT);
	expect_chain(10);
	teardown();
}
END_TEST

START_TEST(bounds_of_the_stack)
{
	setup();
	put_chain(64, 48, 10);
	memory.stack_lo = base;
	memory.stack_hi = base + 64 + 3 * 48;
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES), STACK_END_NO_UNWIND_INFO);
	ck_assert_uint_eq(n, 4);
	memory.stack_hi = base + STACK_BYTES;
	ck_assert_int_eq(walk(0, base + 64, MAX_FRAMES), STACK_END_ROOT);
	expect_chain(10);
	teardown();
}
END_TEST

CHECK_MAIN("unwind", 60, a_straight_chain, without_a_list, callers_in_no_code, a_return_that_the_kernel_hijacked,
	   bounds_of_the_stack, wherever_frames_lie_across_pages, a_thousand_frames_and_more, roots, loops_end,
	   bad_frame_pointers, unreadable_memory, the_top_of_the_address_space, as_the_compiler_says)
