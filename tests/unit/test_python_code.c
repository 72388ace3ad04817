/* Code objects and the interpreter's state are read from a process: this one, where they are made up. */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check_main.h"
#include "collect/python_code.h"
#include "collect/python_runtime.h"

enum { TYPE = 0x123456 };
#define V311 0x030b02f0u

static struct {
	uint64_t words[40];
} object;
static struct {
	uint64_t words[5];
	uint8_t more[32 + 8 * PYTHON_NAME_MAX_CHARACTERS];
} name, filename;
static struct {
	uint64_t words[4];
	uint8_t bytes[16];
} line_table;
static struct python_code_room room;
static struct python_code code;

static uint64_t at(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

/* A str of 3.11's: ASCII behind 48 bytes, others behind 72. */
static void make_text(void *to, const void *characters, size_t n, unsigned kind, bool ascii)
{
	uint8_t *bytes = to;
	uint64_t length = n;
	uint32_t state = kind << 2 | 1u << 5 | (ascii ? 1u << 6 : 0);
	memset(bytes, 0, 72);
	memcpy(bytes + 16, &length, 8);
	memcpy(bytes + 32, &state, 4);
	memcpy(bytes + (ascii ? 48 : 72), characters, n * kind);
}

static struct python_code_key make_object(void)
{
	make_text(&name, "Class.f", 7, 1, true);
	make_text(&filename, "/a/b.py", 7, 1, true);
	line_table.words[2] = 3;
	memcpy(line_table.bytes, "\xd8\x01\x02", 3);
	object.words[1] = TYPE;
	memcpy((char *)&object + 72, &(uint32_t){33}, 4);
	object.words[24 / 8] = 0x700000005;
	object.words[112 / 8] = at(&filename);
	object.words[128 / 8] = at(&name);
	object.words[136 / 8] = at(&line_table);
	return (struct python_code_key){.address = at(&object),
					.identity = python_identity(33, at(&filename), at(&name), at(&line_table), 5)};
}

static int read_object(const struct python_code_key *key)
{
	return python_code_read(getpid(), python_layout_find(V311), TYPE, key, &room, &code);
}

START_TEST(a_code_object)
{
	struct python_code_key key = make_object();
	ck_assert_int_eq(read_object(&key), 0);
	ck_assert_str_eq(code.name, "Class.f");
	ck_assert_str_eq(code.filename, "/a/b.py");
	ck_assert_int_eq(code.first_line, 33);
	ck_assert_uint_eq(code.n_lines, 3);
	ck_assert_mem_eq(code.lines, "\xd8\x01\x02", 3);
}
END_TEST

START_TEST(another_object)
{
	struct python_code_key key = make_object(), other = key;
	other.identity++;
	ck_assert_int_eq(read_object(&other), -ESTALE);
	object.words[24 / 8]++; /* with other constants, and all else at the addresses of what was there before */
	ck_assert_int_eq(read_object(&key), -ESTALE);
	object.words[24 / 8]--;
	ck_assert_int_eq(read_object(&key), 0);
	object.words[1]++;
	ck_assert_int_eq(read_object(&key), -ESTALE);
	key.address = 8;
	ck_assert_int_eq(read_object(&key), -EFAULT);
}
END_TEST

START_TEST(texts_of_each_kind)
{
	struct python_code_key key = make_object();
	make_text(&name, "gr\xfc\xdf\x07\x80", 6, 1, false);
	ck_assert_int_eq(read_object(&key), 0);
	ck_assert_str_eq(code.name, "gr\xc3\xbc\xc3\x9f??");
	make_text(&name, (const uint16_t[]){'a', 0x540d, 0xd800, 0xffff}, 4, 2, false);
	ck_assert_int_eq(read_object(&key), 0);
	ck_assert_str_eq(code.name, "a\xe5\x90\x8d?\xef\xbf\xbf");
	make_text(&name, (const uint32_t[]){'b', 0x10330, 0x110000, UINT32_MAX, 0}, 5, 4, false);
	ck_assert_int_eq(read_object(&key), 0);
	ck_assert_str_eq(code.name, "b\xf0\x90\x8c\xb0???");
	make_text(&name, "", 0, 1, true); /* a function without name is none */
	ck_assert_int_eq(read_object(&key), -ESTALE);
	make_text(&name, "f", 1, 1, true);
	make_text(&filename, "", 0, 1, true);
	ck_assert_int_eq(read_object(&key), 0);
	ck_assert_str_eq(code.filename, "");
}
END_TEST

START_TEST(texts_that_lie)
{
	struct python_code_key key = make_object();
	static uint32_t wide[PYTHON_NAME_MAX_CHARACTERS + 100];
	for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++)
		wide[i] = 0x10330;
	make_text(&name, wide, sizeof(wide) / sizeof(wide[0]), 4, false);
	ck_assert_int_eq(read_object(&key), 0);
	ck_assert_uint_eq(strlen(code.name), 4 * PYTHON_NAME_MAX_CHARACTERS); /* the rest is cut */
	make_text(&name, "f", 1, 1, true);
	name.words[4] &= ~(uint64_t)(1u << 5); /* not compact */
	ck_assert_int_eq(read_object(&key), -ESTALE);
	for (unsigned kind = 0; kind < 8; kind++) {
		make_text(&name, "\1\1\1\1\1\1\1", 1, kind, true);
		int r = read_object(&key);
		ck_assert(r == (kind == 1 || kind == 2 || kind == 4 ? 0 : -ESTALE));
	}
	make_text(&name, "f", 1, 1, true);
	uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(page, MAP_FAILED);
	ck_assert_int_eq(mprotect(page + 4096, 4096, PROT_NONE), 0);
	memset(page + 4000 + 16, 0xff, 8); /* bytes that are longer than their memory */
	object.words[136 / 8] = at(page + 4000);
	key.identity = python_identity(33, at(&filename), at(&name), at(page + 4000), 5);
	ck_assert_int_eq(read_object(&key), -EFAULT);
	munmap(page, 8192);
}
END_TEST

START_TEST(names_of_files)
{
	ck_assert(python_is_named_so("/usr/bin/python3.11"));
	ck_assert(python_is_named_so("/x/libpython3.12.so.1.0"));
	ck_assert(python_is_named_so("python3.13"));
	ck_assert(!python_is_named_so("/usr/bin/python3"));
	ck_assert(!python_is_named_so("/usr/bin/python2.7"));
	ck_assert(!python_is_named_so("/usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so"));
	ck_assert(!python_is_named_so("libpython3.so"));
	ck_assert(!python_is_named_so(""));
}
END_TEST

START_TEST(versions)
{
	ck_assert_ptr_nonnull(python_layout_find(0x030b00f0));
	ck_assert_ptr_nonnull(python_layout_find(0x030c01f0));
	ck_assert_ptr_nonnull(python_layout_find(0x030d00f0));
	ck_assert_ptr_null(python_layout_find(0x030a00f0));
	ck_assert_ptr_null(python_layout_find(0x030e00f0));
	ck_assert_ptr_null(python_layout_find(0));
	ck_assert_ptr_null(python_layout_find(UINT64_MAX));
}
END_TEST

/* A runtime with one interpreter and one thread, which has its state under a key. */
static struct {
	uint64_t runtime[256], interpreter[64], state[64];
	uint64_t thread[512], version;
} made;

static int find(struct python_config *config)
{
	const uint64_t addresses[PYTHON_SYMBOL_COUNT] = {at(made.runtime), at(&made.version), TYPE};
	const struct python_layout *layout = NULL;
	int r = python_runtime_read(getpid(), addresses, &layout, config);
	ck_assert_ptr_eq(layout, r == 0 ? python_layout_find(made.version) : NULL);
	return r;
}

START_TEST(the_runtime)
{
	struct python_config config = {};
	ck_assert_int_eq(find(&config), -EOPNOTSUPP);
	made.version = V311;
	ck_assert_int_eq(find(&config), -EAGAIN); /* not initialized */
	made.runtime[48 / 8] = at(made.interpreter);
	ck_assert_int_eq(find(&config), -EAGAIN);
	made.interpreter[16 / 8] = at(made.state);
	ck_assert_int_eq(find(&config), -EAGAIN);
	made.state[16 / 8] = at(made.interpreter);
	made.state[152 / 8] = at(made.thread);
	made.thread[2] = at(made.thread);
	ck_assert_int_eq(find(&config), -EAGAIN);
	made.thread[99] = at(made.state); /* by chance, under no key */
	ck_assert_int_eq(find(&config), -EAGAIN);
	made.thread[102] = 1;
	made.thread[103] = at(made.state);
	ck_assert_int_eq(find(&config), 0);
	ck_assert_uint_eq(config.specific, 103 * 8);
	ck_assert_uint_eq(config.code_type, TYPE);
	ck_assert_uint_eq(config.holder_at, at(made.runtime) + 576);
	made.state[16 / 8]++; /* of no such interpreter */
	ck_assert_int_eq(find(&config), -EAGAIN);
	made.state[8 / 8] = at(made.state); /* a list without end */
	ck_assert_int_eq(find(&config), -EAGAIN);
	made.interpreter[16 / 8] = 8;
	ck_assert_int_eq(find(&config), -EAGAIN);
}
END_TEST

/* 3.13 tells its offsets itself. */
START_TEST(a_runtime_that_tells)
{
	struct python_config config = {};
	made.version = 0x030d01f0;
	ck_assert_int_eq(find(&config), -EAGAIN);
	memcpy(made.runtime, "xdebugpy", 8);
	made.runtime[5] = 200 * 8 - 8; /* interpreters.head: main follows */
	made.runtime[9] = 40 * 8;      /* threads.head */
	made.runtime[200] = at(made.interpreter);
	made.interpreter[40] = at(made.state);
	made.state[16 / 8] = at(made.interpreter);
	made.state[152 / 8] = at(made.thread);
	made.thread[2] = at(made.thread);
	made.thread[102] = 3;
	made.thread[103] = at(made.state);
	ck_assert_int_eq(find(&config), 0);
	ck_assert_uint_eq(config.specific, 103 * 8);
	made.runtime[2] = 1; /* free-threaded */
	ck_assert_int_eq(find(&config), -EOPNOTSUPP);
}
END_TEST

CHECK_MAIN("python_code", 30, a_code_object, another_object, texts_of_each_kind, texts_that_lie, names_of_files,
	   versions, the_runtime, a_runtime_that_tells)
