/* .gopclntab made by hand, of each version of its format, in the file that cfi_maker.h makes: functions at CFI_CODE and on, with the code and the table of
 * stack depths that a test wants. */
#pragma once
#include "cfi_maker.h"

enum go_version { GO_1_16, GO_1_18, GO_1_20, GO_VERSIONS };

enum { GO_FUNCTIONS_MAX = 16, GO_VALUES_MAX = 32, GO_HEADER_BYTES = 72, GO_NAME_MAX = 32 };

/* pairs: stack depth and how many bytes of code have it, up to bytes == 0. */
struct go_made {
	const char *name;
	uint32_t start, bytes; /* from CFI_CODE */
	uint8_t flags;
	uint8_t code[64];
	size_t n_code;
	struct {
		int64_t depth;
		uint32_t bytes;
	} spans[8];
};

static inline void go_put_leb(struct cfi_bytes *out, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		cfi_put(out, (value & 0x7f) | 0x80, 1);
	cfi_put(out, value, 1);
}

static inline void go_put_spans(struct cfi_bytes *out, const struct go_made *function)
{
	int64_t before = -1;
	for (size_t i = 0; i < 8 && function->spans[i].bytes; i++) {
		int64_t delta = (int64_t)((uint64_t)function->spans[i].depth - (uint64_t)before);
		go_put_leb(out, (uint64_t)delta << 1 ^ (uint64_t)(delta >> 63));
		go_put_leb(out, function->spans[i].bytes);
		before = function->spans[i].depth;
	}
	cfi_put(out, 0, 1);
}

static inline void go_put_record(struct cfi_bytes *out, enum go_version version, const struct go_made *function,
				 size_t name, size_t values)
{
	cfi_put(out, version == GO_1_16 ? (uint64_t)CFI_CODE + function->start : function->start,
		version == GO_1_16 ? 8 : 4);
	cfi_put(out, name, 4);
	cfi_put(out, 0, 8);      /* args, deferreturn */
	cfi_put(out, values, 4); /* pcsp */
	cfi_put(out, 0, 8);      /* pcfile, pcln */
	cfi_put(out, 0, 8);      /* npcdata, cuOffset */
	cfi_put(out, 1, version == GO_1_20 ? 4 : 0);
	cfi_put(out, 0, 1); /* funcID */
	cfi_put(out, function->flags, 1);
	cfi_put(out, 0, 2);
}

/* The section's content; names, values, records and the list of functions, one behind the other. */
static inline void go_make_table(struct cfi_bytes *out, enum go_version version, const struct go_made *functions,
				 size_t n)
{
	static const uint32_t magics[] = {0xfffffffa, 0xfffffff0, 0xfffffff1};
	static struct cfi_bytes names, values, records;
	size_t name[GO_FUNCTIONS_MAX], value[GO_FUNCTIONS_MAX], record[GO_FUNCTIONS_MAX],
		entry = version == GO_1_16 ? 8 : 4;
	names.n = values.n = records.n = out->n = 0;
	cfi_put(&values, 0, 1); /* offset 0 is none */
	for (size_t i = 0; i < n; i++) {
		name[i] = names.n;
		cfi_put_bytes(&names, functions[i].name, strlen(functions[i].name) + 1);
		value[i] = functions[i].spans[0].bytes ? values.n : 0;
		go_put_spans(&values, &functions[i]);
		record[i] = (2 * n + 1) * entry + records.n;
		go_put_record(&records, version, &functions[i], name[i], value[i]);
	}
	cfi_put(out, magics[version], 4);
	cfi_put(out, 0x08010000, 4);
	cfi_put(out, n, 8);
	cfi_put(out, 0, 8);
	cfi_put(out, CFI_CODE, version == GO_1_16 ? 0 : 8);
	size_t header = version == GO_1_16 ? GO_HEADER_BYTES - 8 : GO_HEADER_BYTES;
	cfi_put(out, header, 8);
	cfi_put(out, header, 8);
	cfi_put(out, header, 8);
	cfi_put(out, header + names.n, 8);
	cfi_put(out, header + names.n + values.n, 8);
	cfi_put_bytes(out, names.bytes, names.n);
	cfi_put_bytes(out, values.bytes, values.n);
	for (size_t i = 0; i <= n; i++) {
		uint64_t at = i < n ? functions[i].start : functions[n - 1].start + functions[n - 1].bytes;
		cfi_put(out, version == GO_1_16 ? CFI_CODE + at : at, entry);
		cfi_put(out, i < n ? record[i] : 0, i < n ? entry : 0);
	}
	cfi_put_bytes(out, records.bytes, records.n);
}

/* A file with that table in place of .debug_frame. */
static inline void go_make_file(struct maker *maker, const struct cfi_bytes *eh, const struct cfi_bytes *table,
				const struct go_made *functions, size_t n)
{
	enum { DEBUG_NAME = 0xe000 + 17 };
	cfi_make_file(maker, eh, table);
	memcpy(maker->bytes + DEBUG_NAME, ".gopclntab", sizeof(".gopclntab"));
	for (size_t i = 0; i < n; i++) {
		if (functions[i].n_code)
			memcpy(maker->bytes + CFI_CODE_OFFSET + functions[i].start, functions[i].code,
			       functions[i].n_code);
	}
}
