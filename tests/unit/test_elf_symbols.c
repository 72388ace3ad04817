/* The rules of which symbol names an address, and files that nobody should have linked. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "elf/image.h"
#include "elf_maker.h"

static struct maker made;
static struct image_name found;

static struct image *open_made(void)
{
	struct image *image = NULL;
	int fd = maker_memfd(made.bytes, made.n);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(image_open(fd, &image), 0);
	return image;
}

static int open_error(void)
{
	struct image *image = NULL;
	int fd = maker_memfd(made.bytes, made.n);
	ck_assert_int_ge(fd, 0);
	int r = image_open(fd, &image);
	if (r == 0)
		image_free(image);
	return r;
}

static void expect(const struct image *image, uint64_t offset, const char *name)
{
	bool is_found = image_find(image, MAKER_TEXT + offset, &found);
	if (!name) {
		ck_assert_msg(!is_found, "0x%lx is %s", offset, is_found ? found.system_name : "");
		return;
	}
	ck_assert_msg(is_found, "0x%lx has no name", offset);
	ck_assert_str_eq(found.system_name, name);
}

START_TEST(innermost_sized_symbol_wins)
{
	static const struct maker_symbol symbols[] = {
		{0x100, 0x100, STB_GLOBAL, STT_FUNC, "outer"},
		{0x120, 0x10, STB_LOCAL, STT_FUNC, "inner"},
		{0x180, 0x100, STB_LOCAL, STT_FUNC, "overlaps"},
		{0x400, 8, STB_GLOBAL, STT_OBJECT, "data"},
	};
	maker_make(&made, symbols, 4);
	struct image *image = open_made();
	expect(image, 0xff, NULL);
	expect(image, 0x100, "outer");
	expect(image, 0x11f, "outer");
	expect(image, 0x120, "inner");
	expect(image, 0x12f, "inner");
	expect(image, 0x130, "outer");
	expect(image, 0x180, "overlaps");
	expect(image, 0x1ff, "overlaps");
	expect(image, 0x27f, "overlaps");
	expect(image, 0x280, NULL);
	expect(image, 0x400, NULL);
	ck_assert_str_eq(image_build_id(image), "0102abcd");
	image_free(image);
}
END_TEST

START_TEST(one_start_many_names)
{
	static const struct maker_symbol symbols[] = {
		{0x10, 16, STB_LOCAL, STT_FUNC, "a_local"},   {0x10, 16, STB_WEAK, STT_FUNC, "a_weak"},
		{0x10, 16, STB_GLOBAL, STT_FUNC, "__global"}, {0x10, 16, STB_GLOBAL, STT_FUNC, "_global"},
		{0x10, 16, STB_GLOBAL, STT_FUNC, "global_b"}, {0x10, 16, STB_GLOBAL, STT_FUNC, "global_a"},
		{0x40, 16, STB_WEAK, STT_FUNC, "weak"},       {0x40, 16, STB_LOCAL, STT_FUNC, "local"},
		{0x60, 32, STB_GLOBAL, STT_FUNC, "long_one"}, {0x60, 8, STB_GLOBAL, STT_GNU_IFUNC, "short_one"},
		{0x90, 16, STB_GLOBAL, STT_FUNC, "f@@V_2"},
	};
	maker_make(&made, symbols, sizeof(symbols) / sizeof(symbols[0]));
	struct image *image = open_made();
	expect(image, 0x1f, "global_a");
	expect(image, 0x40, "weak");
	expect(image, 0x60, "short_one");
	expect(image, 0x68, "long_one");
	expect(image, 0x80, NULL);
	expect(image, 0x95, "f");
	image_free(image);
}
END_TEST

START_TEST(symbols_without_size)
{
	static const struct maker_symbol symbols[] = {
		{0x00, 0, STB_GLOBAL, STT_NOTYPE, "_start"},    {0x20, 0x20, STB_GLOBAL, STT_FUNC, "main"},
		{0x30, 0, STB_LOCAL, STT_NOTYPE, "label"},      {0x50, 0, STB_LOCAL, STT_FUNC, "local_asm"},
		{0x50, 0, STB_GLOBAL, STT_NOTYPE, "asm_entry"}, {0x60, 0, STB_LOCAL, STT_NOTYPE, ".Lloop"},
		{0x20, 0, STB_GLOBAL, STT_NOTYPE, "main_too"},
	};
	maker_make(&made, symbols, sizeof(symbols) / sizeof(symbols[0]));
	struct image *image = open_made();
	expect(image, 0x1f, "_start");
	expect(image, 0x20, "main");
	expect(image, 0x38, "main");
	expect(image, 0x40, NULL);
	expect(image, 0x50, "asm_entry");
	expect(image, 0x61, "asm_entry");
	expect(image, MAKER_TEXT_BYTES - 1, "asm_entry");
	expect(image, MAKER_TEXT_BYTES, NULL);
	image_free(image);
}
END_TEST

START_TEST(names_are_made_printable)
{
	static const struct maker_symbol symbols[] = {
		{0x00, 16, STB_GLOBAL, STT_FUNC, "bell\a\xff\xc3."},
		{0x10, 16, STB_GLOBAL, STT_FUNC, "gr\xc3\xbc\xc3\x9f"},
		{0x20, 16, STB_GLOBAL, STT_FUNC, "_ZN5outer5innerEi"},
	};
	maker_make(&made, symbols, 3);
	struct image *image = open_made();
	expect(image, 0x00, "bell???.");
	expect(image, 0x10, "gr\xc3\xbc\xc3\x9f");
	expect(image, 0x20, "_ZN5outer5innerEi");
	ck_assert_str_eq(found.name, "outer::inner(int)");
	image_free(image);
}
END_TEST

START_TEST(overlong_names_are_cut)
{
	static char name[3 * READER_NAME_MAX_BYTES];
	memset(name, 'x', sizeof(name) - 1);
	const struct maker_symbol symbols[] = {{0, 16, STB_GLOBAL, STT_FUNC, name}};
	maker_make(&made, symbols, 1);
	struct image *image = open_made();
	ck_assert(image_find(image, MAKER_TEXT, &found));
	ck_assert_uint_eq(strlen(found.system_name), READER_NAME_MAX_BYTES);
	ck_assert_uint_eq(strlen(found.name), READER_NAME_MAX_BYTES);
	image_free(image);
}
END_TEST

static const struct maker_symbol plain[] = {{0, 16, STB_GLOBAL, STT_FUNC, "plain"}};

START_TEST(hostile_sizes)
{
	const struct maker_symbol symbols[] = {
		{0x10, UINT64_MAX, STB_GLOBAL, STT_FUNC, "endless"},
		{UINT64_MAX - MAKER_ADDRESS, 16, STB_GLOBAL, STT_FUNC, "wraps"},
		{0x100, UINT64_MAX - MAKER_ADDRESS - 0x100, STB_GLOBAL, STT_FUNC, "to_the_end"},
	};
	maker_make(&made, symbols, 3);
	struct image *image = open_made();
	expect(image, 0x0f, NULL);
	expect(image, 0x10, "endless");
	expect(image, 0x100, "to_the_end");
	expect(image, MAKER_TEXT_BYTES - 1, "to_the_end");
	expect(image, MAKER_TEXT_BYTES, NULL);
	image_free(image);
}
END_TEST

START_TEST(broken_headers)
{
	maker_make(&made, plain, 1);
	made.n = 40;
	ck_assert_int_eq(open_error(), -ENOEXEC);
	maker_make(&made, plain, 1);
	maker_header(&made)->e_type = ET_REL;
	ck_assert_int_eq(open_error(), -ENOEXEC);
	maker_make(&made, plain, 1);
	made.bytes[1] = 'F';
	ck_assert_int_eq(open_error(), -ENOEXEC);
	made.n = 0;
	ck_assert_int_eq(open_error(), -ENOEXEC);
}
END_TEST

START_TEST(broken_tables_cost_only_the_names)
{
	for (int damage = 0; damage < 6; damage++) {
		maker_make(&made, plain, 1);
		Elf64_Shdr *sections = maker_sections(&made);
		if (damage == 0)
			sections[MAKER_SYMTAB_SECTION].sh_size = UINT64_MAX;
		if (damage == 1)
			sections[MAKER_SYMTAB_SECTION].sh_offset = made.n + 1;
		if (damage == 2)
			sections[MAKER_STRTAB_SECTION].sh_size = 3; /* does not end in NUL */
		if (damage == 3)
			sections[MAKER_SYMTAB_SECTION].sh_link = MAKER_TEXT_SECTION;
		if (damage == 4)
			sections[MAKER_SYMTAB_SECTION].sh_link = 77;
		if (damage == 5)
			sections[MAKER_TEXT_SECTION].sh_flags = SHF_ALLOC;
		struct image *image = open_made();
		ck_assert_msg(!image_has_symbols(image), "damage %d", damage);
		ck_assert_str_eq(image_build_id(image), "0102abcd");
		expect(image, 0, NULL);
		image_free(image);
	}
}
END_TEST

START_TEST(build_ids_of_odd_lengths)
{
	static const uint8_t id[READER_BUILD_ID_MAX_BYTES] = {0xfe, 0xed};
	maker_make(&made, plain, 1);
	maker_note(&made, id, READER_BUILD_ID_MAX_BYTES);
	struct image *image = open_made();
	ck_assert_uint_eq(strlen(image_build_id(image)), 2 * READER_BUILD_ID_MAX_BYTES);
	ck_assert_int_eq(strncmp(image_build_id(image), "feed00", 6), 0);
	image_free(image);
	static const uint8_t longer[READER_BUILD_ID_MAX_BYTES + 4];
	maker_note(&made, longer, sizeof(longer));
	image = open_made();
	ck_assert_str_eq(image_build_id(image), "");
	image_free(image);
	maker_note(&made, id, 0);
	image = open_made();
	ck_assert_str_eq(image_build_id(image), "");
	image_free(image);
}
END_TEST

/* A file that shrinks after it was opened gives no names, and above all no SIGBUS. */
START_TEST(file_cut_short_later)
{
	maker_make(&made, plain, 1);
	struct image *image = NULL;
	int fd = maker_memfd(made.bytes, made.n), kept = dup(fd);
	ck_assert_int_eq(image_open(fd, &image), 0);
	expect(image, 0, "plain");
	ck_assert_int_eq(ftruncate(kept, 0), 0);
	expect(image, 0, NULL);
	image_free(image);
	close(kept);
}
END_TEST

START_TEST(other_things_than_files)
{
	struct image *image = NULL;
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(image_open(ends[0], &image), -ENOEXEC);
	close(ends[1]);
	ck_assert_int_eq(image_open(open("/", O_RDONLY | O_DIRECTORY), &image), -ENOEXEC);
	int fd = memfd_create("sparse", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, INT64_C(1) << 40), 0);
	ck_assert_int_eq(image_open(fd, &image), -ENOEXEC);
	ck_assert_int_eq(image_open(-1, &image), -EBADF);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("elf_symbols");
	TCase *rules = tcase_create("rules");
	tcase_add_test(rules, innermost_sized_symbol_wins);
	tcase_add_test(rules, one_start_many_names);
	tcase_add_test(rules, symbols_without_size);
	tcase_add_test(rules, names_are_made_printable);
	tcase_add_test(rules, overlong_names_are_cut);
	suite_add_tcase(suite, rules);
	TCase *hostile = tcase_create("hostile");
	tcase_add_test(hostile, hostile_sizes);
	tcase_add_test(hostile, broken_headers);
	tcase_add_test(hostile, broken_tables_cost_only_the_names);
	tcase_add_test(hostile, build_ids_of_odd_lengths);
	tcase_add_test(hostile, file_cut_short_later);
	tcase_add_test(hostile, other_things_than_files);
	suite_add_tcase(suite, hostile);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
