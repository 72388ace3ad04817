/* What was found out about a barrier-lock table as a control message. Pure, any thread. */
#pragma once
#include "base/arena.h"
#include "collect/process.h"
#include "collect/table_inspect.h"
#include "control.pb-c.h"

/* In the arena, and of *inspection and *process: they must outlive it. NULL: out of memory. */
Sprof__Control__Table *table_report(struct arena *arena, const struct process *process,
				    const struct table_inspection *inspection);
