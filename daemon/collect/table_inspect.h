/* Looks at a process's barrier-lock table twice, a moment apart, and judges: a live process is no mistake of its writer's. Thread: any; blocks; for
 * worker threads. */
#pragma once
#include "collect/table_findings.h"
#include "collect/table_look.h"

struct table_inspection {
	struct table_look look; /* the second */
	struct findings findings;
	uint64_t apart_ns; /* between the looks */
};

/* 0 also when there is no table: look.state. -ESRCH; -EPERM; -ENOMEM; other -errno, as table_look_take. Release with table_inspection_free. */
int table_inspect(pid_t pid, struct table_inspection *ret, struct error *err);
void table_inspection_free(struct table_inspection *inspection);
