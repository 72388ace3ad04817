/* What of a barrier-lock table the BPF program is told. Pure. */
#pragma once
#include <linux/types.h>

#include "bpf/table.h"
#include "collect/barrier_table.h"

/* exec_id: of the program that was running while the table was read (record.exec_id), or 0 when no sample has told. */
void table_config_fill(const struct barrier_table *table, uint64_t exec_id, struct table_config *ret);
