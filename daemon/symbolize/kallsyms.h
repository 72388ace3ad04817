/* The kernel's functions by address, from the text of /proc/kallsyms: lines of "address type name\t[module]" (kernel/kallsyms.c,
 * s_show()), in hex, in no promised order. Only text symbols (types t T w W) are kept, 16 bytes and the name each.
 * Immutable once read: thread: any. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct kallsyms;

/* Reads in until its end. -EIO; -ENOMEM; -EFBIG: more than any kernel has. Malformed lines are skipped. */
int kallsyms_read(FILE *in, struct kallsyms **ret);
void kallsyms_free(struct kallsyms *kallsyms); /* NULL is fine */

/* There were symbols, but the kernel hides every address from us (kernel.kptr_restrict, CAP_SYSLOG). */
bool kallsyms_restricted(const struct kallsyms *kallsyms);

struct kallsyms_symbol {
	const char *name, *module; /* live as long as the kallsyms; module is "" for the kernel proper */
	uint64_t start;
};
/* The last function that starts at or below address; false when there is none, or it cannot reach that far: the kernel tells no sizes,
 * so what lies beyond the end of the kernel's text, or far behind a function, has no name. */
bool kallsyms_find(const struct kallsyms *kallsyms, uint64_t address, struct kallsyms_symbol *ret);

size_t kallsyms_count(const struct kallsyms *kallsyms);
size_t kallsyms_bytes(const struct kallsyms *kallsyms); /* of memory */
