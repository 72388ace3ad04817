/* bpf/python.h in its user-mode build, on frames that are made up. */
#include <check.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "check_main.h"
#include "collect/python_layout.h"

enum { PAGE_WORDS = 65536, CODE_TYPE = 0x7007 };

/* All that can be read. */
static uint64_t memory_words[PAGE_WORDS];
static size_t used;
static uint64_t unreadable; /* an address that cannot be read */
static unsigned reads;

static long unwind_read(void *to, __u32 bytes, __u64 address, void *memory)
{
	(void)memory;
	reads++;
	uint64_t offset = address - (uint64_t)(uintptr_t)memory_words;
	if (offset > sizeof(memory_words) || bytes > sizeof(memory_words) - offset || address == unreadable)
		return -14;
	memcpy(to, (const char *)memory_words + offset, bytes);
	return 0;
}

#define PYTHON_IS_NEW(identity) ((identity) == last_new)
static uint32_t last_new;
#include "bpf/python.h"

static struct python_walk walk;
static struct python_config config;
static uint64_t *state, *thread;

static uint64_t *take(size_t words)
{
	uint64_t *at = memory_words + used;
	used += words;
	ck_assert_uint_le(used, PAGE_WORDS);
	return at;
}

static uint64_t at(const uint64_t *p)
{
	return (uint64_t)(uintptr_t)p;
}

static void set_byte(uint64_t *object, size_t offset, uint8_t value)
{
	memcpy((char *)object + offset, &value, 1);
}

static uint64_t *new_code(void)
{
	uint64_t *code = take(40);
	code[1] = CODE_TYPE;
	code[config.code_filename / 8] = 0x111;
	code[config.code_qualname / 8] = at(code);
	code[config.code_line_table / 8] = at(code) + 1;
	return code;
}

static uint64_t *new_frame(const uint64_t *code, uint64_t previous, unsigned instruction)
{
	uint64_t *frame = take(9);
	frame[config.frame_code / 8] = at(code);
	frame[config.frame_previous / 8] = previous;
	frame[config.frame_instruction / 8] = at(code) + config.code_instructions + instruction;
	return frame;
}

static void setup(uint32_t version)
{
	memset(memory_words, 0, sizeof(memory_words));
	used = 0, unreadable = 0, reads = 0, last_new = 1;
	config = python_layout_find(version)->config;
	config.code_type = CODE_TYPE;
	config.specific = 64;
	state = take(64);
	thread = take(64);
	state[config.state_thread_id / 8] = at(thread);
	thread[64 / 8] = at(state);
}

static void walk_all(void)
{
	python_reset(&walk);
	if (python_begin(&walk, &config, at(thread), NULL))
		return;
	for (int i = 0; i < PYTHON_STEPS; i++)
		if (python_step(&walk, &config, NULL))
			return;
}

static void check_run(unsigned i, unsigned n, uint64_t entry)
{
	ck_assert_uint_lt(i, walk.n_runs);
	ck_assert_uint_eq(walk.runs[i].n, n);
	ck_assert_uint_eq(walk.entries[i], entry);
	ck_assert_uint_eq(walk.runs[i].c_frame, RECORD_NO_C_FRAME);
}

/* 3.11: outer (entered from C) calls C, which calls middle (entered), which calls inner. */
static uint64_t c_frames[2];
static uint64_t *inner, *middle;
static void setup_311(void)
{
	setup(0x030b0000);
	uint64_t *outer = new_frame(new_code(), 0, 10);
	middle = new_frame(new_code(), at(outer), 20);
	inner = new_frame(new_code(), at(middle), 30);
	set_byte(outer, config.frame_entry, 1);
	set_byte(middle, config.frame_entry, 1);
	uint64_t *below = take(3), *top = take(3), *root = take(3);
	below[1] = at(outer), below[2] = at(root);
	top[1] = at(inner), top[2] = at(below);
	state[config.state_frame / 8] = at(top);
	c_frames[0] = at(top), c_frames[1] = at(below);
}

START_TEST(runs_of_311)
{
	setup_311();
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_WHOLE);
	ck_assert_uint_eq(walk.n_frames, 3);
	ck_assert_uint_eq(walk.n_runs, 2);
	check_run(0, 2, c_frames[0]);
	check_run(1, 1, c_frames[1]);
	ck_assert_uint_eq(walk.frames[0].code, inner[config.frame_code / 8]);
	ck_assert_uint_eq(walk.frames[0].instruction, 30);
	ck_assert_uint_eq(walk.frames[1].instruction, 20);
	ck_assert_uint_eq(walk.frames[2].instruction, 10);
	ck_assert_uint_ne(walk.frames[0].identity, walk.frames[1].identity);
	ck_assert_uint_eq(walk.frames[0].identity,
			  python_identity(0, 0x111, walk.frames[0].code, walk.frames[0].code + 1, 0));
	ck_assert_uint_eq(walk.has_new, 0);
	last_new = walk.frames[1].identity;
	walk_all();
	ck_assert_uint_eq(walk.has_new, 1);
}
END_TEST

START_TEST(where_runs_have_their_c_frames)
{
	setup_311();
	walk_all();
	ck_assert_uint_eq(walk.next_entry, c_frames[0]);
	python_passed(&walk, 4);
	ck_assert_uint_eq(walk.next_entry, c_frames[1]);
	python_passed(&walk, 9);
	ck_assert_uint_eq(walk.next_entry, ~0ull);
	ck_assert_uint_eq(walk.runs[0].c_frame, 4);
	ck_assert_uint_eq(walk.runs[1].c_frame, 9);
	python_reset(&walk);
	ck_assert_uint_eq(walk.next_entry, ~0ull);
}
END_TEST

/* From 3.12 on below each run is a frame that lies on the C stack. */
static uint64_t *setup_owner(uint32_t version, unsigned n)
{
	setup(version);
	uint64_t *code = new_code(), *entry = new_frame(code, 0, 0);
	set_byte(entry, config.frame_owner, (uint8_t)config.owner_c_stack);
	uint64_t last = at(entry);
	for (unsigned i = 0; i < n; i++)
		last = at(new_frame(code, last, 2 * i));
	if (config.has_c_frames) {
		uint64_t *top = take(2);
		top[0] = last;
		last = at(top);
	}
	state[config.state_frame / 8] = last;
	return entry;
}

START_TEST(runs_of_312_and_313)
{
	static const uint32_t versions[] = {0x030c0000, 0x030d0000};
	for (size_t i = 0; i < 2; i++) {
		uint64_t *entry = setup_owner(versions[i], 5);
		walk_all();
		ck_assert_uint_eq(walk.end, PYTHON_END_WHOLE);
		ck_assert_uint_eq(walk.n_frames, 5);
		ck_assert_uint_eq(walk.n_runs, 1);
		check_run(0, 5, at(entry));
		ck_assert_uint_eq(walk.frames[0].instruction, 8);
	}
}
END_TEST

START_TEST(deeper_than_the_record)
{
	uint64_t *entry = setup_owner(0x030d0000, 1400);
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_TOO_DEEP);
	ck_assert_uint_eq(walk.n_frames, RECORD_MAX_PYTHON_FRAMES);
	check_run(0, RECORD_MAX_PYTHON_FRAMES, at(entry)); /* which is still found */
	ck_assert_uint_eq(walk.frames[0].instruction, 2798);
	setup_owner(0x030d0000, PYTHON_STEPS);
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_TOO_DEEP);
	ck_assert_uint_eq(walk.n_runs, 0);
	ck_assert_uint_lt(reads, 4000);
}
END_TEST

START_TEST(more_runs_than_the_record_has)
{
	setup(0x030d0000);
	uint64_t *code = new_code(), last = 0;
	for (unsigned i = 0; i < RECORD_MAX_PYTHON_RUNS + 20; i++) {
		uint64_t *entry = new_frame(code, last, 0);
		set_byte(entry, config.frame_owner, (uint8_t)config.owner_c_stack);
		last = at(new_frame(code, at(entry), 2));
	}
	state[config.state_frame / 8] = last;
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_TOO_DEEP);
	ck_assert_uint_eq(walk.n_runs, RECORD_MAX_PYTHON_RUNS);
	for (unsigned i = 0; i < RECORD_MAX_PYTHON_RUNS + 2; i++)
		python_passed(&walk, i);
	ck_assert_uint_eq(walk.runs[RECORD_MAX_PYTHON_RUNS - 1].c_frame, RECORD_MAX_PYTHON_RUNS - 1);
}
END_TEST

START_TEST(a_circle)
{
	setup(0x030d0000);
	uint64_t *frame = new_frame(new_code(), 0, 2);
	frame[config.frame_previous / 8] = at(frame);
	state[config.state_frame / 8] = at(frame);
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_TOO_DEEP);
	ck_assert_uint_eq(walk.n_frames, RECORD_MAX_PYTHON_FRAMES);
}
END_TEST

START_TEST(threads_without_a_state)
{
	setup_311();
	thread[64 / 8] = 0;
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_NO_STATE);
	thread[64 / 8] = at(state);
	state[config.state_thread_id / 8]++; /* another thread's */
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_NO_STATE);
	ck_assert_uint_eq(walk.n_frames, 0);
}
END_TEST

/* Of a subinterpreter, the state that holds the GIL is not the one that the thread keeps. */
START_TEST(the_state_that_holds_the_gil)
{
	setup_311();
	uint64_t *holder = take(1);
	config.holder_at = at(holder);
	holder[0] = at(state);
	thread[64 / 8] = 0;
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_WHOLE);
	uint64_t *other = take(64); /* another thread holds it: then the thread's own */
	other[config.state_thread_id / 8] = 0x1234;
	holder[0] = at(other);
	thread[64 / 8] = at(state);
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_WHOLE);
	ck_assert_uint_eq(walk.n_frames, 3);
}
END_TEST

START_TEST(what_is_no_code)
{
	setup_311();
	uint64_t *code = (uint64_t *)(uintptr_t)middle[config.frame_code / 8]; // NOLINT(performance-no-int-to-ptr)
	code[1]++;
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_NOT_CODE);
	ck_assert_uint_eq(walk.n_frames, 1);
	code[1]--;
	inner[config.frame_instruction / 8] = 0; /* before the code, and far behind it */
	middle[config.frame_instruction / 8] = at(code) + (1u << 30);
	walk_all();
	ck_assert_uint_eq(walk.frames[0].instruction, 0);
	ck_assert_uint_eq(walk.frames[1].instruction, RECORD_MAX_PYTHON_OFFSET);
}
END_TEST

/* What is made anew at the addresses of what is gone, with another number. */
static void renumber(const uint64_t *frame)
{
	const uint32_t number = 1;
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_WHOLE);
	uint32_t before = walk.frames[0].identity;
	memcpy((char *)memory_words + (frame[config.frame_code / 8] - at(memory_words)) + config.code_number, &number,
	       sizeof(number));
	walk_all();
	ck_assert_uint_ne(walk.frames[0].identity, before);
	ck_assert_uint_eq(walk.frames[0].identity,
			  python_identity(0, 0x111, walk.frames[0].code, walk.frames[0].code + 1, number));
}

START_TEST(another_code_object_at_the_same_place)
{
	setup_311();
	renumber(inner);
	renumber(setup_owner(0x030c0000, 1)); /* which has the same code object */
	renumber(setup_owner(0x030d0000, 1));
}
END_TEST

START_TEST(what_cannot_be_read)
{
	setup_311();
	const uint64_t places[] = {at(state) + config.state_frame, c_frames[0] + config.c_frame_current, at(inner),
				   middle[config.frame_code / 8], c_frames[1] + config.c_frame_previous};
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		unreadable = places[i];
		walk_all();
		ck_assert_uint_eq(walk.end, PYTHON_END_UNREADABLE);
	}
	unreadable = at(thread) + 64;
	walk_all();
	ck_assert_uint_eq(walk.end, PYTHON_END_NO_STATE);
}
END_TEST

CHECK_MAIN("python_walk", 30, runs_of_311, where_runs_have_their_c_frames, runs_of_312_and_313, deeper_than_the_record,
	   more_runs_than_the_record_has, a_circle, threads_without_a_state, the_state_that_holds_the_gil,
	   what_is_no_code, another_code_object_at_the_same_place, what_cannot_be_read)
