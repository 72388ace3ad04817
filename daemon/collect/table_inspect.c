#include "collect/table_inspect.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "collect/table_judge.h"

enum { APART_NS = 50 * 1000 * 1000 };

/* One look and what it says. */
static int look_and_judge(pid_t pid, struct table_look *ret_look, struct findings *findings, struct error *err)
{
	int r = table_look_take(pid, ret_look, err);
	if (r == 0)
		table_judge(ret_look, findings);
	return r;
}

int table_inspect(pid_t pid, struct table_inspection *ret, struct error *err)
{
	struct table_look first = {0};
	struct findings earlier = {0}, later = {0};
	struct table_inspection inspection = {.apart_ns = clock_monotonic_ns()};
	int r = look_and_judge(pid, &first, &earlier, err);
	table_look_free(&first);
	if (r == 0) {
		inspection.apart_ns = clock_monotonic_ns();
		nanosleep(&(struct timespec){.tv_nsec = APART_NS}, NULL);
		inspection.apart_ns = clock_monotonic_ns() - inspection.apart_ns;
		r = look_and_judge(pid, &inspection.look, &later, err);
	}
	if (r == 0 && findings_join(&earlier, &later, &inspection.findings) < 0)
		r = error_set(err, ENOMEM, "out of memory");
	findings_free(&earlier);
	findings_free(&later);
	if (r < 0)
		table_inspection_free(&inspection);
	else
		*ret = inspection;
	return r;
}

void table_inspection_free(struct table_inspection *inspection)
{
	table_look_free(&inspection->look);
	findings_free(&inspection->findings);
}
