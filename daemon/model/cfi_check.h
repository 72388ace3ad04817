/* An unwind table (bpf/cfi_table.h) from sprofd-elf, which a hostile file may have taken over: whether it keeps what the format promises, so
 * that no look-up in it reads beyond it and no expression of it leaves its bounds, in BPF or here. Thread: any. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/cfi_table.h"

/* table: n bytes, aligned to 8. True: it is whole and sound; nothing is promised of whether its rules are right. */
bool cfi_table_check(const void *table, size_t n);

/* In a checked table: the number of the rule that holds at file_offset, CFI_RULE_NONE where there is none. */
uint32_t cfi_table_rule_at(const void *table, uint64_t file_offset);
/* Rule `number` of a checked table. */
const struct cfi_rule *cfi_table_rule(const void *table, uint32_t number);
