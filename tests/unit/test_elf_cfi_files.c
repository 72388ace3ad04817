/* CIEs, FDEs and tables as a whole, in hand-made files: encodings, augmentations, formats, overlaps, gaps, damage. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "cfi_maker.h"
#include "check_main.h"
#include "elf/cfi_build.h"

static struct maker maker;
static struct cfi_bytes eh, debug;
static struct cfi_table table;

static int build_file(void)
{
	cfi_table_free(&table);
	int fd = maker_memfd(maker.bytes, maker.n);
	ck_assert_int_ge(fd, 0);
	int r = cfi_build(fd, &table);
	close(fd);
	if (r == 0)
		ck_assert(cfi_table_check(table.bytes, table.n));
	return r;
}

static int build(void)
{
	cfi_make_file(&maker, eh.n ? &eh : NULL, debug.n ? &debug : NULL);
	return build_file();
}

static void clear(void)
{
	eh.n = debug.n = 0;
}

static void expect(uint32_t at, const char *text)
{
	const char *is = cfi_rule_text(table.bytes, at);
	ck_assert_msg(strcmp(is, text) == 0, "at %#x: %s, not %s", at, is, text);
}

/* A program that says CFA = rsp + offset, which tells FDEs apart. */
static const uint8_t *program_of(uint8_t offset)
{
	static uint8_t programs[256][2];
	programs[offset][0] = DW_CFA_def_cfa_offset;
	programs[offset][1] = offset;
	return programs[offset];
}

static void add(size_t cie, uint32_t start, uint32_t bytes, uint8_t offset)
{
	cfi_add_fde(&eh, cie, start, bytes, program_of(offset), 2);
}

/* One FDE for [0x10, 0x30) of the code, whose pointers are `pointer` and 0x20 in n bytes each (0: LEB128). */
static void add_encoded(uint8_t encoding, uint64_t pointer, unsigned n)
{
	clear();
	const struct cfi_cie_made made = {
		.augmentation = "zR", .augmentation_bytes = &encoding, .n_augmentation_bytes = 1};
	size_t cie = cfi_add_cie(&eh, false, false, &made);
	cfi_begin(&eh, false);
	cfi_put(&eh, eh.n - cie, 4);
	if (n == 0) {
		for (int i = 0; i < 3; i++)
			cfi_put(&eh, (pointer >> (7 * i) & 0x7f) | 0x80, 1);
		cfi_put(&eh, pointer >> 21 & 0x7f, 1);
		cfi_put(&eh, 0x20, 1);
	} else {
		cfi_put(&eh, pointer, n);
		cfi_put(&eh, 0x20, n);
	}
	cfi_put(&eh, 0, 1);
	cfi_put_bytes(&eh, program_of(16), 2);
	cfi_end(&eh);
}

static void expect_encoded(void)
{
	ck_assert_int_eq(build(), 0);
	expect(0xf, "none");
	expect(0x10, "r7+16 pc=[-8]");
	expect(0x2f, "r7+16 pc=[-8]");
	expect(0x30, "none");
	ck_assert_uint_eq(table.stats.n_malformed, 0);
}

/* Where the pointer of the FDE that add_encoded makes is, relative to the beginning of the section: behind a CIE of 24 bytes. */
enum { POINTER_AT = 24 + 8 };

START_TEST(pointer_encodings)
{
	const uint64_t target = CFI_CODE + 0x10, here = CFI_EH + POINTER_AT;
	static const struct {
		uint8_t format, bytes;
	} formats[] = {{DW_EH_PE_absptr, 8}, {DW_EH_PE_udata4, 4}, {DW_EH_PE_sdata4, 4}, {DW_EH_PE_udata8, 8},
		       {DW_EH_PE_sdata8, 8}, {DW_EH_PE_signed, 8}, {DW_EH_PE_uleb128, 0}};
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		add_encoded(formats[i].format, target, formats[i].bytes);
		expect_encoded();
	}
	static const struct {
		uint8_t format, bytes;
	} relative[] = {{DW_EH_PE_sdata2, 2}, {DW_EH_PE_sdata4, 4}, {DW_EH_PE_sdata8, 8}, {DW_EH_PE_sleb128, 0}};
	for (size_t i = 0; i < sizeof(relative) / sizeof(relative[0]); i++) {
		add_encoded(DW_EH_PE_pcrel | relative[i].format, target - here, relative[i].bytes);
		expect_encoded();
		add_encoded(DW_EH_PE_datarel | relative[i].format, target - CFI_GOT, relative[i].bytes);
		expect_encoded();
		add_encoded(DW_EH_PE_textrel | relative[i].format, 0x10, relative[i].bytes);
		expect_encoded();
	}
	add_encoded(DW_EH_PE_textrel | DW_EH_PE_udata2, 0x10, 2);
	expect_encoded();
	add_encoded(DW_EH_PE_textrel | DW_EH_PE_uleb128, 0x10, 0);
	expect_encoded();
}
END_TEST

START_TEST(aligned_pointers)
{
	/* POINTER_AT is a multiple of 8, so that the first is where it is; the length is a plain one. */
	add_encoded(DW_EH_PE_aligned, CFI_CODE + 0x10, 8);
	expect_encoded();
}
END_TEST

START_TEST(refused_encodings)
{
	static const uint8_t refused[] = {DW_EH_PE_indirect | DW_EH_PE_pcrel | DW_EH_PE_sdata4, DW_EH_PE_omit, 0x05,
					  0x60};
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		add_encoded(refused[i], CFI_CODE, 8);
		ck_assert_int_eq(build(), -ENODATA);
	}
	add_encoded(DW_EH_PE_pcrel | DW_EH_PE_sdata4, 0, 4); /* 0 is no pointer: code that the linker dropped */
	ck_assert_int_eq(build(), -ENODATA);
}
END_TEST

static void expect_cie(const struct cfi_cie_made *made, bool has_encoding, const char *text)
{
	clear();
	size_t cie = cfi_add_cie(&eh, false, false, made);
	cfi_begin(&eh, false);
	cfi_put(&eh, eh.n - cie, 4);
	if (has_encoding)
		cfi_put(&eh, (uint32_t)(CFI_CODE - (CFI_EH + (uint32_t)eh.n)), 4);
	else
		cfi_put(&eh, CFI_CODE, 8);
	cfi_put(&eh, 0x20, has_encoding ? 4 : 8);
	if (made->augmentation[0] == 'z') {
		cfi_put(&eh, 4, 1); /* an LSDA's pointer */
		cfi_put(&eh, 0xffffffff, 4);
	}
	static const uint8_t program[] = {DW_CFA_advance_loc | 4, DW_CFA_def_cfa_offset, 16};
	cfi_put_bytes(&eh, program, sizeof(program));
	cfi_end(&eh);
	ck_assert_int_eq(build(), text ? 0 : -ENODATA);
	if (!text)
		return;
	expect(0, text[0] == 's' ? "signal r7+8 pc=[-8]" : "r7+8 pc=[-8]");
	expect(made->code_factor ? 4U * made->code_factor : 4U, text);
	/* Behind the system call that leaves a signal frame the frame is still there. */
	expect(0x20, text[0] == 's' ? text : "none");
	expect(0x21, "none");
}

#define AUGMENTATION(letters, ...)                                                    \
	(&(struct cfi_cie_made){.augmentation = (letters),                            \
				.augmentation_bytes = (const uint8_t[]){__VA_ARGS__}, \
				.n_augmentation_bytes = sizeof((const uint8_t[]){__VA_ARGS__})})

START_TEST(augmentations_and_versions)
{
	enum { PCREL = DW_EH_PE_pcrel | DW_EH_PE_sdata4 };
	const char *usual = "r7+16 pc=[-8]";
	expect_cie(&(struct cfi_cie_made){.augmentation = ""}, false, usual);
	expect_cie(&(struct cfi_cie_made){.augmentation = "eh"}, false, usual);
	expect_cie(&(struct cfi_cie_made){.augmentation = "", .version = 3}, false, usual);
	expect_cie(&(struct cfi_cie_made){.augmentation = "", .version = 4}, false, usual);
	expect_cie(&(struct cfi_cie_made){.augmentation = "", .version = 2}, false, NULL);
	expect_cie(&(struct cfi_cie_made){.augmentation = "", .version = 5}, false, NULL);
	expect_cie(&(struct cfi_cie_made){.augmentation = "armcc+"}, false, NULL);
	expect_cie(&(struct cfi_cie_made){.augmentation = "", .return_register = 17}, false, NULL);
	expect_cie(&(struct cfi_cie_made){.augmentation = "", .code_factor = 2}, false, usual);
	expect_cie(AUGMENTATION("zR", PCREL), true, usual);
	expect_cie(AUGMENTATION("zRS", PCREL), true, "signal r7+16 pc=[-8]");
	expect_cie(AUGMENTATION("zPLR", PCREL, 1, 2, 3, 4, PCREL, PCREL), true, usual);
	expect_cie(AUGMENTATION("zPLR", DW_EH_PE_indirect | PCREL, 1, 2, 3, 4, PCREL, PCREL), true, usual);
	expect_cie(AUGMENTATION("zPR", DW_EH_PE_omit, PCREL), true, usual);
	/* 24 bytes in front, so padding up to a multiple of 8. */
	expect_cie(AUGMENTATION("zRB", PCREL), true, usual);
	expect_cie(AUGMENTATION("zR?", PCREL, 1, 2, 3), true, usual); /* what follows has a length */
	expect_cie(AUGMENTATION("zP", 0x05, 1), true, NULL);
	expect_cie(AUGMENTATION("zRPL", PCREL, PCREL, 1), true, NULL); /* longer than it says */
}
END_TEST

/* The return address in another column than 16: what is said of that one is said of the return address. */
START_TEST(return_address_columns)
{
	static const uint8_t program[] = {DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 3, 1, DW_CFA_offset | 16, 2};
	clear();
	const struct cfi_cie_made made = {
		.augmentation = "", .return_register = 3, .program = program, .n_program = sizeof(program)};
	size_t cie = cfi_add_cie(&debug, true, false, &made);
	cfi_add_debug_fde(&debug, false, cie, 0, 0x20, NULL, 0);
	ck_assert_int_eq(build(), 0);
	expect(0, "r7+8 pc=[-8]");
}
END_TEST

START_TEST(debug_frame_formats)
{
	for (int is_64 = 0; is_64 < 2; is_64++) {
		for (uint8_t version = 1; version <= 4; version++) {
			if (version == 2)
				continue;
			clear();
			const struct cfi_cie_made made = {.augmentation = "", .version = version};
			size_t cie = cfi_add_cie(&debug, true, is_64, &made);
			cfi_add_debug_fde(&debug, is_64, cie, 0x10, 0x20, program_of(24), 2);
			ck_assert_int_eq(build(), 0);
			expect(0xf, "none");
			expect(0x10, "r7+24 pc=[-8]");
			expect(0x30, "none");
		}
	}
	/* An FDE before its CIE, whose place is the end of a 32-byte FDE with its padding. */
	clear();
	cfi_add_debug_fde(&debug, false, 32, 0x10, 0x20, program_of(24), 2);
	ck_assert_uint_eq(cfi_add_cie(&debug, true, false, &(struct cfi_cie_made){.augmentation = ""}), 32);
	ck_assert_int_eq(build(), 0);
	expect(0x10, "r7+24 pc=[-8]");
	/* .eh_frame in the 64-bit format: its ids still have 4 bytes. */
	clear();
	size_t cie = cfi_add_cie(&eh, false, true, &(struct cfi_cie_made){.augmentation = ""});
	cfi_begin(&eh, true);
	cfi_put(&eh, eh.n - cie, 4);
	cfi_put(&eh, CFI_CODE, 8);
	cfi_put(&eh, 0x20, 8);
	cfi_put_bytes(&eh, program_of(32), 2);
	cfi_end(&eh);
	ck_assert_int_eq(build(), 0);
	expect(0, "r7+32 pc=[-8]");
}
END_TEST

START_TEST(eh_frame_wins_over_debug_frame)
{
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	add(cie, 0x20, 0x10, 16);
	add(cie, 0x40, 0x10, 24);
	cie = cfi_add_cie(&debug, true, false, &(struct cfi_cie_made){.augmentation = ""});
	cfi_add_debug_fde(&debug, false, cie, 0x10, 0x50, program_of(32), 2); /* around both */
	cfi_add_debug_fde(&debug, false, cie, 0x28, 0x20, program_of(40), 2); /* ends the one before at 0x28 */
	cfi_add_debug_fde(&debug, false, cie, 0x80, 0x10, program_of(48), 2); /* alone */
	ck_assert_int_eq(build(), 0);
	static const struct {
		uint32_t at;
		const char *text;
	} expected[] = {{0x0f, "none"},          {0x10, "r7+32 pc=[-8]"}, {0x1f, "r7+32 pc=[-8]"},
			{0x20, "r7+16 pc=[-8]"}, {0x2f, "r7+16 pc=[-8]"}, {0x30, "r7+40 pc=[-8]"},
			{0x3f, "r7+40 pc=[-8]"}, {0x40, "r7+24 pc=[-8]"}, {0x4f, "r7+24 pc=[-8]"},
			{0x50, "none"},          {0x80, "r7+48 pc=[-8]"}, {0x90, "none"}};
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		expect(expected[i].at, expected[i].text);
}
END_TEST

START_TEST(overlaps)
{
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	add(cie, 0x40, 0x40, 16); /* [0x40, 0x60): the next begins there */
	add(cie, 0x10, 0x10, 24); /* out of order */
	add(cie, 0x60, 0x08, 32); /* within the first, and does not give back what it took */
	add(cie, 0x10, 0x30, 40); /* the same beginning: the first one stays */
	add(cie, 0x60, 0x20, 48);
	ck_assert_int_eq(build(), 0);
	expect(0x10, "r7+24 pc=[-8]");
	expect(0x20, "none");
	expect(0x40, "r7+16 pc=[-8]");
	expect(0x5f, "r7+16 pc=[-8]");
	expect(0x60, "r7+32 pc=[-8]");
	expect(0x68, "none");
	expect(0x7f, "none");
}
END_TEST

START_TEST(equal_neighbours_are_one_row)
{
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	add(cie, 0x00, 0x10, 16);
	add(cie, 0x10, 0x10, 16);
	add(cie, 0x20, 0x10, 24);
	add(cie, 0x40, 0x10, 16);
	static const uint8_t idle[] = {DW_CFA_def_cfa_offset, 32, DW_CFA_advance_loc | 4, DW_CFA_def_cfa_offset, 40,
				       DW_CFA_def_cfa_offset, 32};
	cfi_add_fde(&eh, cie, 0x50, 0x10, idle, sizeof(idle));
	ck_assert_int_eq(build(), 0);
	ck_assert_uint_eq(table.stats.n_fdes, 5);
	ck_assert_uint_eq(table.stats.n_rows, 5);  /* 16, 24, none, 16, 32 */
	ck_assert_uint_eq(table.stats.n_rules, 5); /* none, end, 16, 24, 32 */
	expect(0x1f, "r7+16 pc=[-8]");
	expect(0x30, "none");
	expect(0x5f, "r7+32 pc=[-8]");
}
END_TEST

/* A long one: 1,000 functions of two rows, each found, in buckets of any size. */
START_TEST(many_rows)
{
	static const uint8_t program[] = {DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset, 16};
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	for (uint32_t i = 0; i < 1000; i++)
		cfi_add_fde(&eh, cie, i * 4 + 3, 3, program, sizeof(program));
	ck_assert_int_eq(build(), 0);
	expect(0, "none");
	expect(2, "none");
	for (uint32_t i = 0; i < 1000; i++) {
		expect(i * 4 + 3, "r7+8 pc=[-8]");
		expect(i * 4 + 4, "r7+16 pc=[-8]");
		expect(i * 4 + 5, "r7+16 pc=[-8]");
		expect(i * 4 + 6, "none");
	}
	ck_assert_uint_eq(cfi_table_rule_at(table.bytes, 0), CFI_RULE_NONE);
	ck_assert_uint_eq(cfi_table_rule_at(table.bytes, UINT64_MAX), CFI_RULE_NONE);
	const struct cfi_table_header *header = (const void *)table.bytes;
	ck_assert_uint_eq(cfi_table_rule_at(table.bytes, header->text_start - 1), CFI_RULE_NONE);
	ck_assert_uint_eq(cfi_table_rule_at(table.bytes, header->text_end), CFI_RULE_NONE);
}
END_TEST

/* Code beyond the segment, or in none, or that is not executable. */
START_TEST(only_executable_code)
{
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	add(cie, CFI_CODE_BYTES - 0x10, 0x100, 16);
	add(cie, CFI_CODE_BYTES, 0x10, 24);
	add(cie, (uint32_t)-0x10, 0x10, 32);
	ck_assert_int_eq(build(), 0);
	expect(CFI_CODE_BYTES - 1, "r7+16 pc=[-8]");
	expect(CFI_CODE_BYTES, "none");
	ck_assert_uint_eq(table.stats.n_fdes, 1);
	maker_segments(&maker)[0].p_flags = PF_R;
	ck_assert_int_eq(build_file(), -ENODATA);
	maker_segments(&maker)[0].p_flags = PF_R | PF_X;
	maker_segments(&maker)[0].p_filesz = UINT64_MAX; /* what the file does not have is not there */
	ck_assert_int_eq(build_file(), 0);
	expect(CFI_CODE_BYTES - 1, "r7+16 pc=[-8]");
}
END_TEST

START_TEST(damage)
{
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	add(cie, 0, 0x10, 16);
	size_t good = eh.n;
	add(cie, 0x20, 0x10, 24);
	uint32_t length = 0;
	memcpy(&length, eh.bytes + good, 4);
	const uint32_t wrong[] = {length + 1, 0x7fffffff, 0xfffffff0, 0xfffffffe, 0xffffffff};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) { /* what comes before stays */
		memcpy(eh.bytes + good, &wrong[i], 4);
		ck_assert_int_eq(build(), 0);
		expect(0, "r7+16 pc=[-8]");
		expect(0x20, "none");
		ck_assert_uint_eq(table.stats.n_malformed, 1);
	}
	const uint32_t lost[] = {4, 1, 0x80000000, UINT32_MAX}; /* CIEs that are none */
	memcpy(eh.bytes + good, &length, 4);
	for (size_t i = 0; i < sizeof(lost) / sizeof(lost[0]); i++) {
		memcpy(eh.bytes + good + 4, &lost[i], 4);
		ck_assert_int_eq(build(), 0);
		expect(0x20, "none");
		ck_assert_uint_eq(table.stats.n_malformed, 1);
	}
	for (uint32_t n = 0; n < length; n++) { /* cut anywhere */
		memcpy(eh.bytes + good, &n, 4);
		eh.n = good + 4 + n;
		ck_assert_int_eq(build(), 0);
		expect(0, "r7+16 pc=[-8]");
	}
	static const uint8_t broken[] = {DW_CFA_advance_loc | 1, 0x3f};
	clear();
	cie = cfi_add_usual_cie(&eh);
	add(cie, 0, 0x10, 16);
	cfi_add_fde(&eh, cie, 0x10, 0x10, broken, sizeof(broken));
	add(cie, 0x20, 0x10, 24);
	ck_assert_int_eq(build(), 0);
	expect(0xf, "r7+16 pc=[-8]");
	expect(0x10, "none");
	expect(0x1f, "none");
	expect(0x20, "r7+24 pc=[-8]");
}
END_TEST

/* A zero length is the end of what one object file had, not of everything. */
START_TEST(terminators)
{
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	add(cie, 0, 0x10, 16);
	cfi_put(&eh, 0, 4);
	cfi_put(&eh, 0, 4);
	add(cie, 0x10, 0x10, 24);
	cfi_put(&eh, 0, 4);
	ck_assert_int_eq(build(), 0);
	expect(0x10, "r7+24 pc=[-8]");
	ck_assert_uint_eq(table.stats.n_malformed, 0);
}
END_TEST

/* Without section headers, as some packers leave files: by PT_GNU_EH_FRAME. */
START_TEST(stripped_of_section_headers)
{
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	add(cie, 0, 0x10, 16);
	cfi_put(&eh, 0, 4);
	add(cie, 0x20, 0x10, 24); /* behind the end */
	ck_assert_int_eq(build(), 0);
	enum { HEADER_OFFSET = 0xd000 };
	const uint32_t start = (uint32_t)(CFI_EH - (CFI_BASE + HEADER_OFFSET + 4));
	static const uint8_t version[] = {1, DW_EH_PE_pcrel | DW_EH_PE_sdata4, DW_EH_PE_omit, DW_EH_PE_omit};
	memcpy(maker.bytes + HEADER_OFFSET, version, sizeof(version));
	memcpy(maker.bytes + HEADER_OFFSET + 4, &start, sizeof(start));
	Elf64_Ehdr *header = maker_header(&maker);
	header->e_shoff = header->e_shnum = header->e_shstrndx = 0;
	ck_assert_int_eq(build_file(), -ENODATA);
	header->e_phnum = 3;
	maker_segments(&maker)[1] = (Elf64_Phdr){.p_type = PT_LOAD,
						 .p_flags = PF_R,
						 .p_offset = CFI_EH_OFFSET,
						 .p_vaddr = CFI_EH,
						 .p_filesz = HEADER_OFFSET,
						 .p_memsz = HEADER_OFFSET};
	maker_segments(&maker)[2] = (Elf64_Phdr){.p_type = PT_GNU_EH_FRAME,
						 .p_flags = PF_R,
						 .p_offset = HEADER_OFFSET,
						 .p_vaddr = CFI_BASE + HEADER_OFFSET,
						 .p_filesz = 8,
						 .p_memsz = 8};
	ck_assert_int_eq(build_file(), 0);
	expect(0, "r7+16 pc=[-8]");
	expect(0x20, "none");
	maker.bytes[HEADER_OFFSET] = 2;
	ck_assert_int_eq(build_file(), -ENODATA);
}
END_TEST

START_TEST(other_files)
{
	clear();
	add(cfi_add_usual_cie(&eh), 0, 0x10, 16);
	ck_assert_int_eq(build(), 0);
	maker_header(&maker)->e_type = ET_REL;
	ck_assert_int_eq(build_file(), -ENOEXEC);
	maker_header(&maker)->e_type = ET_EXEC;
	ck_assert_int_eq(build_file(), 0);
	maker_header(&maker)->e_machine = EM_AARCH64;
	ck_assert_int_eq(build_file(), -EOPNOTSUPP);
	maker.n = 0;
	ck_assert_int_eq(build_file(), -ENOEXEC);
	ck_assert_int_eq(cfi_build(-1, &table), -EBADF);
}
END_TEST

/* Text of more than 4 GiB, in a file with holes. */
START_TEST(too_far_apart)
{
	clear();
	size_t cie = cfi_add_cie(&debug, true, false, &(struct cfi_cie_made){.augmentation = ""});
	cfi_add_debug_fde(&debug, false, cie, 0, 0x10, program_of(16), 2);
	cfi_add_debug_fde(&debug, false, cie, 5ULL << 30, 0x10, program_of(24), 2);
	cfi_make_file(&maker, NULL, &debug);
	maker_segments(&maker)[0].p_filesz = 6ULL << 30;
	int fd = maker_memfd(maker.bytes, maker.n);
	ck_assert_int_eq(ftruncate(fd, (off_t)(8ULL << 30)), 0);
	ck_assert_int_eq(cfi_build(fd, &table), -EFBIG);
	close(fd);
}
END_TEST

/* In no order, with places that differ in any of their bits; of two that begin at one place the first in the file stays. */
START_TEST(any_order)
{
	enum { GROUPS = 90, FAR = 44 << 20, NEAR = 0x20, HALF_NEAR = 0x5000 };
	static const uint32_t places[] = {HALF_NEAR + NEAR, 0, HALF_NEAR, NEAR};
	clear();
	size_t cie = cfi_add_cie(&debug, true, false, &(struct cfi_cie_made){.augmentation = ""});
	for (uint64_t i = 0; i < GROUPS; i++) {
		uint64_t group = i * 37 % GROUPS;
		for (uint64_t k = 0; k < 4; k++)
			cfi_add_debug_fde(&debug, false, cie, group * FAR + places[k], 0x10,
					  program_of((uint8_t)(8 + group % 20 * 4 + k)), 2);
		cfi_add_debug_fde(&debug, false, cie, group * FAR + NEAR, 0x18, program_of(127), 2);
	}
	cfi_make_file(&maker, NULL, &debug);
	maker_segments(&maker)[0].p_filesz = 4ULL << 30;
	int fd = maker_memfd(maker.bytes, maker.n);
	ck_assert_int_eq(ftruncate(fd, (off_t)(5ULL << 30)), 0);
	cfi_table_free(&table);
	ck_assert_int_eq(cfi_build(fd, &table), 0);
	close(fd);
	ck_assert(cfi_table_check(table.bytes, table.n));
	for (uint32_t group = 0; group < GROUPS; group++) {
		for (uint32_t k = 0; k < 4; k++) {
			char text[32];
			snprintf(text, sizeof(text), "r7+%u pc=[-8]", 8 + group % 20 * 4 + k);
			expect(group * FAR + places[k], text);
			expect(group * FAR + places[k] + 0x10, "none");
		}
	}
}
END_TEST

/* A small file that asks for much work: one long program in .debug_frame, of which hundreds of pieces are left. */
START_TEST(work_is_bounded)
{
	enum { PROGRAM_OFFSET = 0x20000, PROGRAM_BYTES = 0xc0000, PIECES = 700 };
	static const uint8_t again[] = {DW_CFA_def_cfa_offset, 16};
	clear();
	size_t cie = cfi_add_usual_cie(&eh);
	for (uint32_t i = 0; i < PIECES; i++)
		add(cie, 4 * i + 1, 1, 8);
	cie = cfi_add_cie(&debug, true, false, &(struct cfi_cie_made){.augmentation = ""});
	size_t start = debug.n;
	cfi_add_debug_fde(&debug, false, cie, 0, 4 * PIECES, NULL, 0);
	for (size_t n = 0x1000; n <= PROGRAM_BYTES; n *= PROGRAM_BYTES / 0x1000) {
		cfi_make_file(&maker, &eh, &debug);
		uint8_t *section = maker.bytes + PROGRAM_OFFSET;
		uint32_t length = (uint32_t)(debug.n - start - 4 + n);
		memcpy(section, debug.bytes, debug.n);
		memcpy(section + start, &length, sizeof(length));
		for (size_t i = 0; i < n; i += sizeof(again))
			memcpy(section + debug.n + i, again, sizeof(again));
		maker_sections(&maker)[3].sh_offset = PROGRAM_OFFSET;
		maker_sections(&maker)[3].sh_size = debug.n + n;
		maker.n = PROGRAM_OFFSET + debug.n + n;
		ck_assert_int_eq(build_file(), n == 0x1000 ? 0 : -EFBIG);
		if (n == 0x1000) {
			expect(0, "r7+16 pc=[-8]");
			expect(1, "r7+8 pc=[-8]");
			expect(2, "r7+16 pc=[-8]");
		}
	}
}
END_TEST

CHECK_MAIN("elf_cfi_files", 60, pointer_encodings, aligned_pointers, refused_encodings, augmentations_and_versions,
	   return_address_columns, debug_frame_formats, eh_frame_wins_over_debug_frame, overlaps,
	   equal_neighbours_are_one_row, many_rows, only_executable_code, damage, terminators,
	   stripped_of_section_headers, other_files, too_far_apart, any_order, work_is_bounded)
