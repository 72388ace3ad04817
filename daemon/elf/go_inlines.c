#include "elf/go_inlines.h"

#include <gelf.h>
#include <string.h>
#include <unistd.h>

#include "elf/relocation.h"

enum {
	WORD_BYTES = 8,
	/* Words of the moduledata of Go 1.18 and 1.19; of 1.20 and later two more are before the last. */
	MODULE_TABLE = 0,
	MODULE_NAMES = 1,
	MODULE_TEXT = 22,
	MODULE_TREES = 38, /* gofunc */
	MODULE_WORDS = 41,
	SECTIONS_MAX_BYTES = 128 << 20, /* that are looked through, all together */
	INLINE_TREE_INDEX = 2,          /* PCDATA_InlTreeIndex */
	INLINE_TREE = 3,                /* FUNCDATA_InlTree */
	NODE_MAX_BYTES = 20,
};

/* --- where they are --- */

struct module {
	uint64_t table, names, text; /* addresses: what its words must be */
	unsigned trees;              /* which word has what is looked for */
};

static uint64_t word_at(const uint8_t *bytes, size_t i)
{
	uint64_t word;
	memcpy(&word, bytes + i * WORD_BYTES, sizeof(word));
	return word;
}

/* In the words of a section that is written to. */
static uint64_t find_in_words(const uint8_t *bytes, size_t n, const struct module *module)
{
	for (size_t at = 0; at + (size_t)MODULE_WORDS * WORD_BYTES <= n; at += WORD_BYTES) {
		const uint8_t *words = bytes + at;
		if (word_at(words, MODULE_TABLE) == module->table && word_at(words, MODULE_NAMES) == module->names &&
		    word_at(words, MODULE_TEXT) == module->text)
			return word_at(words, module->trees);
	}
	return 0;
}

static uint64_t find_in_sections(Elf *elf, const struct module *module)
{
	Elf_Scn *section = NULL;
	uint64_t found = 0, bytes = 0;
	while (!found && (section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		if (!gelf_getshdr(section, &header) || header.sh_type != SHT_PROGBITS ||
		    header.sh_flags & SHF_COMPRESSED || !(header.sh_flags & SHF_WRITE) || header.sh_addr % WORD_BYTES ||
		    header.sh_size > SECTIONS_MAX_BYTES - bytes)
			continue;
		bytes += header.sh_size;
		const Elf_Data *data = elf_rawdata(section, NULL);
		if (data && data->d_buf)
			found = find_in_words(data->d_buf, data->d_size, module);
	}
	return found;
}

static bool is_module(Elf *elf, uint64_t address, void *context)
{
	const struct module *module = context;
	return relocation_of(elf, address + MODULE_NAMES * WORD_BYTES) == module->names &&
	       relocation_of(elf, address + MODULE_TEXT * WORD_BYTES) == module->text;
}

/* Of a position-independent program the words are what is written when it is loaded. */
static uint64_t find_in_relocations(Elf *elf, struct module *module)
{
	uint64_t address = relocation_to(elf, module->table, is_module, module);
	return address ? relocation_of(elf, address + module->trees * WORD_BYTES) : 0;
}

bool go_inlines_open(Elf *elf, int fd, const struct go_pclntab *table, uint64_t table_address, struct go_inlines *ret)
{
	struct module module = {.table = table_address,
				.names = table_address + table->names,
				.text = table->text,
				.trees = MODULE_TREES + (table->has_start_line ? 2 : 0)};
	size_t n = 0;
	if (table->before_1_18 || elf_getphdrnum(elf, &n) < 0)
		return false;
	uint64_t trees = find_in_sections(elf, &module);
	trees = trees ? trees : find_in_relocations(elf, &module);
	for (size_t i = 0; trees && i < n; i++) {
		GElf_Phdr header;
		if (!gelf_getphdr(elf, (int)i, &header) || header.p_type != PT_LOAD || trees < header.p_vaddr ||
		    trees - header.p_vaddr >= header.p_filesz)
			continue;
		uint64_t before = trees - header.p_vaddr;
		*ret = (struct go_inlines){
			.fd = fd, .file_offset = header.p_offset + before, .bytes = header.p_filesz - before};
		return true;
	}
	return false;
}

/* --- what they say --- */

/* A number of a function's record. */
static uint64_t read_u32(const struct go_pclntab *table, uint64_t offset)
{
	struct cursor in = cursor_at(table->bytes, table->n, offset, table->n);
	return cursor_uint(&in, 4);
}

struct tree {
	uint64_t offset; /* from where trees are counted */
	uint64_t index;  /* offset of the values that say which node an address is in; 0: there are none */
};

/* A record's fixed part is followed by the offsets of its values by kind, then by those of its data by kind. */
static bool find_tree(const struct go_pclntab *table, uint64_t record, struct tree *ret)
{
	uint64_t fixed = table->has_start_line ? 44 : 40, n_values = read_u32(table, record + 28);
	uint64_t n_data = read_u32(table, record + fixed - 4) >> 24;
	if (n_values <= INLINE_TREE_INDEX || n_data <= INLINE_TREE)
		return false;
	ret->index = read_u32(table, record + fixed + INLINE_TREE_INDEX * 4);
	ret->offset = read_u32(table, record + fixed + (n_values + INLINE_TREE) * 4);
	return ret->index && ret->offset != UINT32_MAX;
}

struct node {
	uint32_t name, parent, start_line; /* parent: where in the function it is called, in bytes from its start */
};

static uint32_t u32_of(const uint8_t *bytes)
{
	uint32_t value;
	memcpy(&value, bytes, sizeof(value));
	return value;
}

static bool read_node(const struct go_inlines *inlines, const struct go_pclntab *table, uint64_t tree, uint64_t i,
		      struct node *ret)
{
	uint8_t bytes[NODE_MAX_BYTES];
	uint64_t n = table->has_start_line ? 16 : NODE_MAX_BYTES, at = tree + i * n;
	if (at > inlines->bytes || n > inlines->bytes - at ||
	    pread(inlines->fd, bytes, n, (off_t)(inlines->file_offset + at)) != (ssize_t)n)
		return false;
	*ret = table->has_start_line ? (struct node){.name = u32_of(bytes + 4),
						     .parent = u32_of(bytes + 8),
						     .start_line = u32_of(bytes + 12)}
				     : (struct node){.name = u32_of(bytes + 12), .parent = u32_of(bytes + 16)};
	return true;
}

size_t go_inlines_find(const struct go_inlines *inlines, struct go_pclntab *table, uint64_t record,
		       const struct go_function *function, uint64_t address, struct go_call *ret, size_t max)
{
	struct tree tree;
	struct node node;
	size_t n = 0;
	if (!find_tree(table, record, &tree))
		return 0;
	while (n < max) {
		int64_t i = go_pclntab_value_at(table, tree.index, function->start, address);
		if (i < 0 || i > INT32_MAX || !read_node(inlines, table, tree.offset, (uint64_t)i, &node))
			break;
		ret[n++] = (struct go_call){
			.name = node.name, .at = address, .called_at = node.parent, .start_line = node.start_line};
		address = function->start + node.parent;
	}
	return n;
}
