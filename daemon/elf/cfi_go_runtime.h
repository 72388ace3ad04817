/* The functions of Go's runtime that its own table does not describe, since they change stacks: from their code it is known where in them the stack is another, and how the
 * caller's is found (Go's src/runtime/asm_amd64.s, sys_linux_amd64.s). The offsets of Go's own structs differ between versions of Go: they are taken
 * from the instructions that use them. What does not look as expected has no rule. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/cfi_rules.h"
#include "elf/dwarf_cursor.h"

enum cfi_go_kind {
	CFI_GO_PLAIN,
	CFI_GO_TOP,      /* nothing is above it */
	CFI_GO_INJECTED, /* nobody called it: its return address is where its caller goes on, not what is behind a call */
	CFI_GO_SIGRETURN,   /* above it is whom a signal interrupted */
	CFI_GO_SYSTEMSTACK, /* runs a function on the thread's stack and comes back */
	CFI_GO_MCALL,       /* leaves a goroutine for good, for the thread's stack */
	CFI_GO_MORESTACK,   /* goes to the thread's stack for a larger one; the goroutine goes on where it was */
	CFI_GO_GOGO,        /* goes on with a goroutine */
	CFI_GO_ASMCGOCALL,  /* calls C on the thread's stack */
	CFI_GO_CGOCALLBACK, /* goes back to the goroutine's stack, for C that calls Go */
	CFI_GO_SAVES_SP,    /* keeps sp in a register meanwhile */
};

/* By the name and enum go_function_flag. */
enum cfi_go_kind cfi_go_kind_of(struct dwarf_text name, uint8_t flags);

/* How runtime.systemstack finds the goroutine whose stack it left: g is at the thread pointer + thread, g.m, m.curg and g.sched.sp. */
struct cfi_go_offsets {
	bool known;
	int32_t thread, m, curg, sp;
};

struct cfi_go_function {
	const uint8_t *code;
	size_t n;
	uint64_t address;
	const int32_t *deltas; /* for each byte, how far above sp the return address is, by the table; < 0: not said */
};

/* Code in which the table does not hold. */
struct cfi_go_region {
	uint64_t start, end; /* addresses */
	uint32_t rule;
};
enum { CFI_GO_REGIONS_MAX = 8 };
struct cfi_go_regions {
	size_t n;
	struct cfi_go_region list[CFI_GO_REGIONS_MAX]; /* ascending */
	/* From there on the table takes sp for lower than it is. */
	uint64_t corrected_from;
	int64_t correction;
};

void cfi_go_offsets_find(const struct cfi_go_function *systemstack, struct cfi_go_offsets *ret);
/* 0; -ENOMEM. */
int cfi_go_regions_find(const struct cfi_go_function *function, enum cfi_go_kind kind,
			const struct cfi_go_offsets *offsets, struct cfi_rules *rules, struct cfi_go_regions *ret);
