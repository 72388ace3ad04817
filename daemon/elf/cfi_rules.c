#include "elf/cfi_rules.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { FIRST_RULES = 1024, CODE_SLOTS = 2 * CFI_MAX_CODE_BYTES };

int cfi_rules_init(struct cfi_rules *rules)
{
	*rules = (struct cfi_rules){.allocated = FIRST_RULES, .n_slots = 2 * FIRST_RULES, .seed = hash_seed()};
	rules->rules = calloc(rules->allocated, sizeof(rules->rules[0]));
	rules->by_hash = calloc(rules->n_slots, sizeof(rules->by_hash[0]));
	rules->code = calloc(1, CFI_MAX_CODE_BYTES);
	rules->code_by_hash = calloc(CODE_SLOTS, sizeof(rules->code_by_hash[0]));
	struct cfi_rule none = {}, end = {.flags = CFI_END};
	if (!rules->rules || !rules->by_hash || !rules->code || !rules->code_by_hash ||
	    cfi_rules_add(rules, &none) != CFI_RULE_NONE || cfi_rules_add(rules, &end) != CFI_RULE_END) {
		cfi_rules_free(rules);
		return -ENOMEM;
	}
	return 0;
}

void cfi_rules_free(struct cfi_rules *rules)
{
	free(rules->rules);
	free(rules->by_hash);
	free(rules->code);
	free(rules->code_by_hash);
	*rules = (struct cfi_rules){};
}

static uint32_t *probe(const struct cfi_rules *rules, const struct cfi_rule *rule)
{
	uint32_t at = (uint32_t)hash_bytes(rule, sizeof(*rule), rules->seed) & (rules->n_slots - 1);
	while (rules->by_hash[at] && memcmp(&rules->rules[rules->by_hash[at] - 1], rule, sizeof(*rule)) != 0)
		at = (at + 1) & (rules->n_slots - 1);
	return &rules->by_hash[at];
}

/* There are at least twice as many slots as rules. */
static int grow(struct cfi_rules *rules)
{
	struct cfi_rule *grown = reallocarray(rules->rules, (size_t)rules->allocated * 2, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	rules->rules = grown;
	uint32_t *slots = calloc((size_t)rules->n_slots * 2, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(rules->by_hash);
	rules->by_hash = slots;
	rules->allocated *= 2;
	rules->n_slots *= 2;
	for (uint32_t i = 0; i < rules->n; i++)
		*probe(rules, &rules->rules[i]) = i + 1;
	return 0;
}

static int find_or_add(struct cfi_rules *rules, const struct cfi_rule *rule)
{
	uint32_t *slot = probe(rules, rule);
	if (*slot)
		return (int)*slot - 1;
	if (rules->n == CFI_MAX_RULES)
		return -ENOSPC;
	if (rules->n == rules->allocated) {
		int r = grow(rules);
		if (r < 0)
			return r;
		slot = probe(rules, rule);
	}
	rules->rules[rules->n] = *rule;
	*slot = ++rules->n;
	return (int)rules->n - 1;
}

struct words {
	uint64_t a, b, c, d;
};

_Static_assert(sizeof(struct words) == sizeof(struct cfi_rule), "all of a rule");

/* One by one: a rule's last byte was most often stored just now, and a wide load would wait until that has come to the cache. */
static inline struct words words_of(const struct cfi_rule *rule)
{
	struct words words;
	const char *bytes = (const char *)rule;
	memcpy(&words.a, bytes, sizeof(words.a));
	memcpy(&words.b, bytes + 8, sizeof(words.b));
	memcpy(&words.c, bytes + 16, sizeof(words.c));
	memcpy(&words.d, bytes + 24, sizeof(words.d));
	return words;
}

static inline bool equal(struct words left, struct words right)
{
	return ((left.a ^ right.a) | (left.b ^ right.b) | (left.c ^ right.c) | (left.d ^ right.d)) == 0;
}

/* Cheap, and no more than a guess: a file that makes all rules fall together only loses the short cut. */
static uint16_t *guess(struct cfi_rules *rules, struct words words)
{
	uint64_t mixed = words.a ^ words.b << 7 ^ words.c << 17 ^ words.d << 31;
	return &rules->recent[mixed * UINT64_C(0x9e3779b97f4a7c15) >> 56];
}

int cfi_rules_add(struct cfi_rules *rules, const struct cfi_rule *rule)
{
	struct words words = words_of(rule);
	uint16_t *recent = guess(rules, words);
	if (rules->n > *recent && equal(words_of(&rules->rules[*recent]), words))
		return *recent;
	int number = find_or_add(rules, rule);
	if (number >= 0)
		*recent = (uint16_t)number;
	return number;
}

/* Where n more bytes go that must not lie across a page of the table. */
static uint32_t place_code(const struct cfi_rules *rules, uint32_t n)
{
	uint32_t in_table = (uint32_t)sizeof(struct cfi_table_header) + rules->n_code;
	uint32_t left = CFI_PAGE_BYTES - in_table % CFI_PAGE_BYTES;
	return rules->n_code + (left < n ? left : 0);
}

/* Each ends at its first op END: so none is the beginning of another, and equal bytes are an equal expression. */
int cfi_rules_add_expression(struct cfi_rules *rules, const struct cfi_expression *expression)
{
	uint8_t code[CFI_EXPRESSION_MAX_BYTES];
	uint32_t n = (uint32_t)cfi_expression_encode(expression, code);
	uint32_t at = (uint32_t)hash_bytes(code, n, rules->seed) & (CODE_SLOTS - 1);
	for (; rules->code_by_hash[at]; at = (at + 1) & (CODE_SLOTS - 1)) {
		uint32_t offset = rules->code_by_hash[at] - 1U;
		if (offset + n <= rules->n_code && memcmp(rules->code + offset, code, n) == 0)
			return (int)offset;
	}
	uint32_t offset = place_code(rules, n);
	if (offset + n > CFI_MAX_CODE_BYTES)
		return -ENOSPC;
	memcpy(rules->code + offset, code, n);
	rules->n_code = offset + n;
	rules->code_by_hash[at] = (uint16_t)(offset + 1);
	return (int)offset;
}
