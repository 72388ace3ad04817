#include "elf/cfi_sections.h"

#include <errno.h>
#include <gelf.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf/dwarf_cursor.h"
#include "elf/relocation.h"

static int read_segments(struct cfi_sections *sections)
{
	size_t n = 0;
	uint64_t file_bytes = sections->file_bytes;
	if (elf_getphdrnum(sections->elf, &n) < 0)
		return -ENOEXEC;
	for (size_t i = 0; i < n && sections->n_segments < CFI_SEGMENTS_MAX; i++) {
		GElf_Phdr header;
		if (!gelf_getphdr(sections->elf, (int)i, &header))
			return -ENOEXEC;
		if (header.p_type != PT_LOAD || !(header.p_flags & PF_X) || header.p_offset >= file_bytes)
			continue;
		uint64_t room = file_bytes - header.p_offset;
		if (room > UINT64_MAX - header.p_vaddr)
			room = UINT64_MAX - header.p_vaddr;
		sections->segments[sections->n_segments++] =
			(struct cfi_segment){.address = header.p_vaddr,
					     .bytes = header.p_filesz < room ? header.p_filesz : room,
					     .file_offset = header.p_offset};
	}
	return 0;
}

/* Debug sections may be compressed: at most CFI_SECTION_MAX_BYTES come of it. */
static bool decompress(Elf_Scn *section)
{
	GElf_Chdr header;
	return gelf_getchdr(section, &header) && header.ch_size <= CFI_SECTION_MAX_BYTES &&
	       elf_compress(section, 0, 0) >= 0;
}

/* Not by libelf, whose memory would be touched for the first time. What the file does not have whole is as good as not there. */
static int read_section(struct cfi_sections *sections, const GElf_Shdr *header, enum cfi_section_kind kind)
{
	size_t n = header->sh_size, done = 0;
	if (n == 0 || header->sh_offset > sections->file_bytes || n > sections->file_bytes - header->sh_offset)
		return 0;
	uint8_t *bytes = scratch_alloc(sections->scratch, n);
	if (!bytes)
		return -ENOMEM;
	while (done < n) {
		ssize_t got = pread(sections->fd, bytes + done, n - done, (off_t)(header->sh_offset + done));
		if (got <= 0)
			return 0;
		done += (size_t)got;
	}
	sections->list[sections->n++] =
		(struct cfi_section){.bytes = bytes, .n = n, .address = header->sh_addr, .kind = kind};
	return 0;
}

static int add_section(struct cfi_sections *sections, Elf_Scn *section, const GElf_Shdr *header,
		       enum cfi_section_kind kind)
{
	if (header->sh_type == SHT_NOBITS || sections->n == CFI_SECTIONS_MAX)
		return 0;
	if (header->sh_size > CFI_SECTION_MAX_BYTES)
		return -EFBIG;
	if (!(header->sh_flags & SHF_COMPRESSED))
		return read_section(sections, header, kind);
	if (!decompress(section))
		return 0;
	const Elf_Data *data = elf_getdata(section, NULL);
	if (!data || !data->d_buf || data->d_size == 0)
		return 0;
	sections->list[sections->n++] =
		(struct cfi_section){.bytes = data->d_buf, .n = data->d_size, .address = header->sh_addr, .kind = kind};
	return 0;
}

static void take_base(struct cfi_sections *sections, const char *name, const GElf_Shdr *header)
{
	if (strcmp(name, ".text") == 0)
		sections->text_address = header->sh_addr;
	else if (strcmp(name, ".got.plt") == 0 || (strcmp(name, ".got") == 0 && sections->data_address == 0))
		sections->data_address = header->sh_addr;
}

/* An external linker of a position-independent program puts Go's table among other data. */
static bool has_name(enum cfi_section_kind kind, bool is_last_try, const char *name)
{
	static const char *const names[] = {
		[CFI_EH_FRAME] = ".eh_frame", [CFI_DEBUG_FRAME] = ".debug_frame", [CFI_GO_FUNCTIONS] = ".gopclntab"};
	if (is_last_try)
		return strcmp(name, ".data.rel.ro") == 0;
	return strcmp(name, names[kind]) == 0 ||
	       (kind == CFI_GO_FUNCTIONS && strcmp(name, ".data.rel.ro.gopclntab") == 0);
}

static int read_named(struct cfi_sections *sections, enum cfi_section_kind kind, bool is_last_try)
{
	size_t strings = 0;
	if (elf_getshdrstrndx(sections->elf, &strings) < 0)
		return 0;
	Elf_Scn *section = NULL;
	while ((section = elf_nextscn(sections->elf, section))) {
		GElf_Shdr header;
		const char *name =
			gelf_getshdr(section, &header) ? elf_strptr(sections->elf, strings, header.sh_name) : NULL;
		if (!name)
			continue;
		take_base(sections, name, &header);
		sections->is_go |= strcmp(name, ".go.buildinfo") == 0;
		int r = has_name(kind, is_last_try, name) ? add_section(sections, section, &header, kind) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_go(struct cfi_sections *sections)
{
	size_t n = sections->n;
	int r = read_named(sections, CFI_GO_FUNCTIONS, false);
	return r == 0 && sections->is_go && sections->n == n ? read_named(sections, CFI_GO_FUNCTIONS, true) : r;
}

static bool find_program_header(Elf *elf, bool (*wanted)(const GElf_Phdr *, uint64_t), uint64_t value, GElf_Phdr *ret)
{
	size_t n = 0;
	if (elf_getphdrnum(elf, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (gelf_getphdr(elf, (int)i, ret) && wanted(ret, value))
			return true;
	}
	return false;
}

static bool is_eh_frame_header(const GElf_Phdr *header, uint64_t unused)
{
	(void)unused;
	return header->p_type == PT_GNU_EH_FRAME && header->p_filesz >= 8;
}

static bool loads(const GElf_Phdr *header, uint64_t address)
{
	return header->p_type == PT_LOAD && address >= header->p_vaddr && address - header->p_vaddr < header->p_filesz;
}

/* .eh_frame by PT_GNU_EH_FRAME, which says where it starts; as every linker writes it: pcrel, 4 bytes (LSB Core, 10.6.2). */
static int read_by_header(struct cfi_sections *sections)
{
	enum { VERSION = 1, PCREL_SDATA4 = 0x1b };
	GElf_Phdr header, load;
	if (!find_program_header(sections->elf, is_eh_frame_header, 0, &header) || header.p_offset > INT64_MAX)
		return 0;
	const Elf_Data *data = elf_getdata_rawchunk(sections->elf, (int64_t)header.p_offset, 8, ELF_T_BYTE);
	if (!data || data->d_size != 8)
		return 0;
	struct cursor in = cursor_at(data->d_buf, data->d_size, 0, data->d_size);
	uint64_t version = cursor_uint(&in, 1), encoding = cursor_uint(&in, 1);
	cursor_skip(&in, 2);
	uint64_t address = header.p_vaddr + 4 + (uint64_t)(int64_t)(int32_t)cursor_uint(&in, 4);
	if (version != VERSION || encoding != PCREL_SDATA4 ||
	    !find_program_header(sections->elf, loads, address, &load))
		return 0;
	uint64_t skipped = address - load.p_vaddr, bytes = load.p_filesz - skipped;
	if (load.p_offset > INT64_MAX - skipped)
		return 0;
	if (bytes > CFI_SECTION_MAX_BYTES)
		return -EFBIG;
	data = elf_getdata_rawchunk(sections->elf, (int64_t)(load.p_offset + skipped), bytes, ELF_T_BYTE);
	if (data && data->d_size)
		sections->list[sections->n++] = (struct cfi_section){
			.bytes = data->d_buf, .n = data->d_size, .address = address, .ends_at_zero = true};
	return 0;
}

static int read_elf(struct cfi_sections *sections)
{
	GElf_Ehdr header;
	if (elf_kind(sections->elf) != ELF_K_ELF || !gelf_getehdr(sections->elf, &header) ||
	    (header.e_type != ET_EXEC && header.e_type != ET_DYN))
		return -ENOEXEC;
	if (header.e_machine != EM_X86_64 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
	    header.e_ident[EI_DATA] != ELFDATA2LSB)
		return -EOPNOTSUPP;
	int r = read_segments(sections);
	if (r == 0)
		r = read_named(sections, CFI_EH_FRAME, false);
	if (r == 0 && sections->n == 0)
		r = read_by_header(sections);
	if (r == 0)
		r = read_named(sections, CFI_DEBUG_FRAME, false);
	if (r == 0)
		r = read_go(sections);
	return r == 0 && sections->n == 0 ? -ENODATA : r;
}

int cfi_sections_read(struct scratch *scratch, int fd, struct cfi_sections *ret)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		return -ENOEXEC;
	elf_version(EV_CURRENT);
	struct cfi_sections sections = {.elf = elf_begin(fd, ELF_C_READ, NULL),
					.scratch = scratch,
					.fd = fd,
					.file_bytes = (uint64_t)st.st_size};
	int r = sections.elf ? read_elf(&sections) : -ENOEXEC;
	if (r < 0) {
		cfi_sections_free(&sections);
		return r;
	}
	*ret = sections;
	return 0;
}

void cfi_sections_free(struct cfi_sections *sections)
{
	sections->n = 0;
	elf_end(sections->elf);
	sections->elf = NULL;
}

uint64_t cfi_sections_relocated(const struct cfi_sections *sections, uint64_t address)
{
	return relocation_of(sections->elf, address);
}

bool cfi_sections_locate(const struct cfi_sections *sections, uint64_t address, uint64_t *ret_file_offset,
			 uint64_t *ret_bytes)
{
	for (size_t i = 0; i < sections->n_segments; i++) {
		const struct cfi_segment *segment = &sections->segments[i];
		if (address >= segment->address && address - segment->address < segment->bytes) {
			*ret_file_offset = segment->file_offset + (address - segment->address);
			*ret_bytes = segment->bytes - (address - segment->address);
			return true;
		}
	}
	return false;
}
