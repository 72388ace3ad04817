#include "elf/cfi_build.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "elf/cfi_frames.h"
#include "elf/cfi_go.h"
#include "elf/cfi_pieces.h"
#include "elf/cfi_pointer.h"
#include "elf/cfi_program.h"
#include "elf/cfi_sections.h"

enum {
	MIN_BUCKET_SHIFT = 4,
	ROW_MAX_BYTES = 8, /* all told, where that can be had */
};
#define ALIGN_UP(n, to)   (((n) + (to)-1) / (to) * (to))
#define ALIGN_DOWN(n, to) ((n) / (to) * (to))

struct build {
	struct cfi_sections sections;
	struct cfi_frames frames;
	struct cfi_pieces pieces;
	struct cfi_go go;
	struct cfi_output output;
};

static void build_free(struct build *build)
{
	cfi_rows_free(&build->output.rows);
	cfi_rules_free(&build->output.rules);
	cfi_frames_free(&build->frames);
	cfi_go_free(&build->go);
	if (build->sections.elf)
		cfi_sections_free(&build->sections);
}

/* Sections of one kind: adds what the kinds before it do not cover. */
static int read_kind(struct build *build, enum cfi_section_kind kind)
{
	size_t first = build->frames.n_fdes;
	for (uint32_t i = 0; i < build->sections.n; i++) {
		if (build->sections.list[i].kind != kind)
			continue;
		int r = kind == CFI_GO_FUNCTIONS ? cfi_go_read(&build->go, &build->frames, &build->sections, i)
						 : cfi_frames_read(&build->frames, &build->sections, i);
		if (r < 0)
			return r;
	}
	return cfi_pieces_add(&build->pieces, &build->frames, first);
}

static void set_bases(struct build *build, const struct cfi_cie *cie)
{
	const struct cfi_section *section = &build->sections.list[cie->section];
	build->output.bases = (struct cfi_bases){
		.section = section->bytes,
		.section_address = section->address,
		.text_address = build->sections.text_address,
		.data_address = build->sections.data_address,
	};
}

static int run_piece(struct build *build, const struct cfi_piece *piece)
{
	const struct cfi_fde *fde = &build->frames.fdes[piece->fde];
	struct cfi_cie *cie = &build->frames.cies[fde->cie];
	if (build->sections.list[cie->section].kind == CFI_GO_FUNCTIONS)
		return cfi_go_run(&build->go, &build->output, fde, piece->start, piece->end);
	set_bases(build, cie);
	return cfi_program_run(&build->output, cie, fde, piece->start, piece->end);
}

static int run_pieces(struct build *build, uint64_t *ret_end)
{
	struct cfi_output *output = &build->output;
	uint64_t end = build->pieces.list[0].start;
	output->rows.base = ALIGN_DOWN(end, 1ULL << CFI_MAX_BUCKET_SHIFT);
	for (size_t i = 0; i < build->pieces.n; i++) {
		const struct cfi_piece *piece = &build->pieces.list[i];
		int r = piece->start > end ? cfi_rows_add(&output->rows, end, CFI_RULE_NONE) : 0;
		if (r < 0)
			return r;
		r = run_piece(build, piece);
		if (r < 0)
			return r;
		end = piece->end;
	}
	*ret_end = end;
	return 0;
}

/* Small buckets are quickly searched, large ones make a small index: of 1.5 bytes a row, less where rules are many for the rows, but not
 * below half a byte. */
static unsigned choose_shift(uint64_t start, uint64_t end, size_t n_rows, size_t other_bytes)
{
	size_t most = n_rows + n_rows / 2, least = n_rows / 2;
	size_t left = n_rows * ROW_MAX_BYTES > other_bytes ? n_rows * ROW_MAX_BYTES - other_bytes : 0;
	size_t index_bytes = left > most ? most : left < least ? least : left;
	unsigned shift = MIN_BUCKET_SHIFT;
	while (shift < CFI_MAX_BUCKET_SHIFT &&
	       ((end - ALIGN_DOWN(start, 1ULL << shift)) >> shift) * sizeof(__u32) > index_bytes)
		shift++;
	return shift;
}

/* Where everything goes. -EFBIG. */
static int lay_out(const struct build *build, uint64_t end, struct cfi_table_header *ret)
{
	const struct cfi_rows *rows = &build->output.rows;
	const struct cfi_rules *rules = &build->output.rules;
	uint64_t first =
		rows->base + (rows->rows[0] & UINT16_MAX); /* where the first piece is: within 64 KiB of the base */
	if (end - rows->base > CFI_MAX_TEXT_BYTES)
		return -EFBIG;
	size_t other_bytes =
		sizeof(*ret) + rules->n_code + rows->n * sizeof(__u32) + rules->n * sizeof(struct cfi_rule);
	unsigned shift = choose_shift(first, end, rows->n, other_bytes);
	uint64_t start = ALIGN_DOWN(first, 1ULL << shift);
	uint64_t n_buckets = ALIGN_UP(end - start, 1ULL << shift) >> shift;
	uint64_t n_rows = rows->n + (start < first); /* a gap before the first row */
	if (n_rows > CFI_MAX_ROWS)
		return -EFBIG;
	uint64_t off_code = sizeof(*ret);
	uint64_t off_index = ALIGN_UP(off_code + rules->n_code, sizeof(__u32));
	uint64_t off_rows = off_index + (n_buckets + 1) * sizeof(__u32);
	uint64_t off_rules = ALIGN_UP(off_rows + n_rows * sizeof(__u32), sizeof(struct cfi_rule));
	uint64_t total = off_rules + rules->n * sizeof(struct cfi_rule);
	if (total > CFI_MAX_TABLE_BYTES)
		return -EFBIG;
	*ret = (struct cfi_table_header){
		.magic = CFI_TABLE_MAGIC,
		.total_bytes = (__u32)total,
		.text_start = start,
		.text_end = end,
		.n_buckets = (__u32)n_buckets,
		.bucket_shift = shift,
		.n_rows = (__u32)n_rows,
		.n_rules = rules->n,
		.n_code_bytes = rules->n_code,
		.off_index = (__u32)off_index,
		.off_rows = (__u32)off_rows,
		.off_rules = (__u32)off_rules,
		.off_code = (__u32)off_code,
	};
	return 0;
}

static void write_rows(const struct build *build, const struct cfi_table_header *header, uint8_t *table)
{
	const struct cfi_rows *rows = &build->output.rows;
	__u32 *index = (__u32 *)(table + header->off_index), *out = (__u32 *)(table + header->off_rows);
	uint64_t start = header->text_start - rows->base; /* the base is aligned to more, so not above it */
	uint32_t extra = header->n_rows > rows->n, bucket = 0;
	if (extra)
		out[0] = (__u32)(header->text_start & UINT16_MAX) | (__u32)CFI_RULE_NONE << 16;
	memcpy(out + extra, rows->rows, rows->n * sizeof(out[0]));
	index[bucket++] = 0;
	for (size_t chunk = 0; chunk < rows->n_first_of; chunk++) {
		size_t end = chunk + 1 < rows->n_first_of ? rows->first_of[chunk + 1] : rows->n;
		for (size_t i = rows->first_of[chunk]; i < end; i++) {
			uint64_t offset = (uint64_t)chunk << 16 | (rows->rows[i] & UINT16_MAX);
			uint64_t in_bucket = (offset - start) >> header->bucket_shift;
			while (bucket <= in_bucket)
				index[bucket++] = (__u32)i + extra;
		}
	}
	while (bucket <= header->n_buckets)
		index[bucket++] = header->n_rows;
}

static int assemble(const struct build *build, uint64_t end, struct cfi_table *ret)
{
	struct cfi_table_header header;
	int r = lay_out(build, end, &header);
	if (r < 0)
		return r;
	const struct cfi_rows *rows = &build->output.rows;
	const struct cfi_rules *rules = &build->output.rules;
	uint8_t *table = scratch_alloc(rows->scratch, header.total_bytes);
	if (!table)
		return -ENOMEM;
	memcpy(table, &header, sizeof(header));
	memcpy(table + header.off_code, rules->code, rules->n_code);
	memset(table + header.off_code + rules->n_code, 0, header.off_index - header.off_code - rules->n_code);
	write_rows(build, &header, table);
	uint32_t rows_end = header.off_rows + header.n_rows * (uint32_t)sizeof(__u32);
	memset(table + rows_end, 0, header.off_rules - rows_end);
	memcpy(table + header.off_rules, rules->rules, rules->n * sizeof(rules->rules[0]));
	*ret = (struct cfi_table){
		.bytes = table,
		.n = header.total_bytes,
		.stats = {.n_fdes = build->frames.n_fdes,
			  .n_malformed = build->frames.n_malformed + build->output.n_malformed,
			  .n_unsupported = build->output.n_unsupported,
			  .n_registers_lost = build->output.n_registers_lost,
			  .n_rows = header.n_rows,
			  .n_rules = header.n_rules,
			  .n_index = header.n_buckets + 1,
			  .n_code_bytes = header.n_code_bytes},
	};
	return 0;
}

int cfi_build_in(struct scratch *scratch, int fd, struct cfi_table *ret)
{
	_cleanup_(build_free) struct build build = {
		.frames.scratch = scratch, .pieces.scratch = scratch, .output.rows.scratch = scratch};
	uint64_t end = 0;
	scratch_reset(scratch);
	int r = cfi_sections_read(scratch, fd, &build.sections);
	if (r == 0)
		r = read_kind(&build, CFI_GO_FUNCTIONS);
	if (r == 0)
		r = read_kind(&build, CFI_EH_FRAME);
	if (r == 0)
		r = read_kind(&build, CFI_DEBUG_FRAME);
	if (r == 0 && build.pieces.n == 0)
		r = -ENODATA;
	if (r == 0)
		r = cfi_rules_init(&build.output.rules);
	if (r == 0)
		r = run_pieces(&build, &end);
	return r < 0 ? r : assemble(&build, end, ret);
}

int cfi_build(int fd, struct cfi_table *ret)
{
	struct scratch own = {};
	int r = cfi_build_in(&own, fd, ret);
	if (r < 0)
		scratch_release(&own);
	else
		ret->own = own;
	return r;
}

void cfi_table_free(struct cfi_table *table)
{
	scratch_release(&table->own);
	*table = (struct cfi_table){};
}
