/* The rules of a table, each kept once, and the expressions that they refer to, each kept once. Hashes are seeded: a file chooses both. */
#pragma once
#include <linux/types.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/cfi_table.h"
#include "elf/cfi_expression.h"

struct cfi_rules {
	struct cfi_rule *rules; /* CFI_RULE_NONE and CFI_RULE_END first */
	uint32_t n, allocated;
	uint32_t *by_hash; /* numbers of rules, + 1; 0: free */
	uint32_t n_slots;  /* a power of two */
	uint64_t seed;
	uint16_t recent[256]; /* numbers of rules that were asked for lately, most often again */
	uint8_t *code;        /* CFI_MAX_CODE_BYTES; will begin right behind the table's header */
	uint32_t n_code;
	uint16_t *code_by_hash; /* offsets, + 1 */
};

/* -ENOMEM. */
int cfi_rules_init(struct cfi_rules *rules);
void cfi_rules_free(struct cfi_rules *rules);
/* The number of the rule, which has no padding and zeros where nothing is said; -ENOSPC: CFI_MAX_RULES others are there; -ENOMEM. */
int cfi_rules_add(struct cfi_rules *rules, const struct cfi_rule *rule);
/* The offset of the expression in the code; -ENOSPC. */
int cfi_rules_add_expression(struct cfi_rules *rules, const struct cfi_expression *expression);
