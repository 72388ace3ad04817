/* What an attach waits for before the first sample, with patience for both together: the unwind tables of what is mapped, and the interpreter. */
#include "app/pipeline.h"
#include "app/target.h"
#include "base/cleanup.h"

static void on_impatient(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	target_hurry(context);
}

static bool is_busy(const struct target *target)
{
	return target->unwind.busy || target->python.busy_finding;
}

void target_await(struct target *target, unsigned wait_ms, void (*ready)(struct target *target))
{
	struct timeval wait = {.tv_usec = (suseconds_t)wait_ms * 1000};
	target->ready = ready;
	if (is_busy(target) && !target->patience)
		target->patience = event_new(target->pipeline->base, -1, 0, on_impatient, target);
	if (!is_busy(target) || !target->patience || event_add(target->patience, &wait) < 0)
		target_hurry(target);
}

void target_await_less(struct target *target)
{
	if (!is_busy(target))
		target_hurry(target);
}

void target_hurry(struct target *target)
{
	void (*ready)(struct target * target) = TAKE_PTR(target->ready);
	if (!ready)
		return;
	if (target->patience)
		event_del(target->patience);
	ready(target);
}
