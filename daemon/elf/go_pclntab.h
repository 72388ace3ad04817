/* The layout of .gopclntab, of Go 1.16 and later (Go's src/runtime/symtab.go, runtime2.go and src/debug/gosym/pclntab.go): its functions, and for each
 * the tables that map its addresses to numbers. The bytes are anybody's: whatever is not there reads as nothing. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/dwarf_cursor.h"

struct go_pclntab {
	const uint8_t *bytes;
	size_t n;
	bool before_1_18, has_start_line;
	uint8_t quantum;
	uint64_t text, n_functions;
	uint64_t names, units, files, values, functions; /* where the pieces are within the section */
	unsigned steps; /* that go_pclntab_value_at has made: a hostile file gets no more than a million */
};

enum { GO_PCLNTAB_TEXT_FIELD = 24 /* of the header, of Go 1.18 and later: where the code is linked to */ };

/* text_address: where the code is linked to, for programs whose table is only completed when they are loaded. False: it is none that we know. */
bool go_pclntab_open(const uint8_t *bytes, size_t n, uint64_t text_address, struct go_pclntab *ret);

/* Where in the bytes a table begins, which the linker may have put among others: the first that looks like one. n: nowhere. */
size_t go_pclntab_find(const uint8_t *bytes, size_t n);

/* The address of function i; of i == n_functions the end of the last one. They ascend, if the table is honest. */
uint64_t go_pclntab_start(const struct go_pclntab *table, uint64_t i);
/* Where the record of function i is in the section; 0: nowhere. */
uint64_t go_pclntab_record(const struct go_pclntab *table, uint64_t i);

enum go_function_flag { GO_FUNCTION_TOP = 1, GO_FUNCTION_WRITES_SP = 2 }; /* Go 1.17 and later: abi.FuncFlag */

/* A record. Offsets are from where the table has its names, values and so on. */
struct go_function {
	uint64_t start, name, stack_values, file_values, line_values, unit, start_line;
	uint8_t flags;
};
void go_pclntab_function(const struct go_pclntab *table, uint64_t record, struct go_function *ret);

/* The text at offset behind base, up to a NUL or to max bytes; .n == 0: none. */
struct dwarf_text go_pclntab_text(const struct go_pclntab *table, uint64_t base, uint64_t offset, size_t max);

/* The ranges of a function's addresses, one after the other, with a number each. */
struct go_values {
	struct cursor in;
	uint8_t quantum;
	bool begun;
	uint64_t start, end;
	int64_t value;
};
/* offset: of stack_values, file_values or line_values; 0: there are none. */
struct go_values go_pclntab_values(const struct go_pclntab *table, uint64_t offset, uint64_t function_start);
/* False: there are no more, or the bytes make no sense. */
bool go_values_next(struct go_values *values);

/* The value at address of one of a function's tables; -1: it says none. */
int64_t go_pclntab_value_at(struct go_pclntab *table, uint64_t offset, uint64_t function_start, uint64_t address);
