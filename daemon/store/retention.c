#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/epoch.h"

enum {
	EPOCHS_PER_BUDGET = 4,       /* dropping the oldest costs at most this share of what is kept */
	MIN_EPOCH_BYTES = 64 * 1024, /* below, a deep stack might not fit an empty epoch */
	COPIES_PER_EPOCH = 4, /* a snapshot copies the newest epoch while it is smaller than this share of a full one */
	MAX_COPY_BYTES = 1024 * 1024, /* which takes the event loop about a millisecond */
};

/* epochs[0] is the oldest. A frozen epoch holds at least copy_bytes, so there are never more than max_epochs; only when malloc
 * failed may it be smaller, and then the oldest goes earlier. */
struct retention {
	size_t budget_bytes, epoch_budget_bytes, copy_bytes;
	size_t n, max_epochs;
	bool filling; /* the newest is not frozen */
	struct epoch *epochs[];
};

static size_t bytes_of(const struct epoch *epoch)
{
	return sizeof(*epoch) + heap_bytes(&epoch->heap);
}

static size_t own_bytes(const struct retention *retention)
{
	return sizeof(*retention) + retention->max_epochs * sizeof(struct epoch *);
}

struct retention *retention_new(size_t budget_bytes)
{
	size_t epoch_bytes = budget_bytes / EPOCHS_PER_BUDGET;
	if (epoch_bytes < MIN_EPOCH_BYTES)
		epoch_bytes = MIN_EPOCH_BYTES;
	if (budget_bytes < 2 * epoch_bytes)
		budget_bytes = 2 * epoch_bytes;
	size_t copy_bytes =
		epoch_bytes / COPIES_PER_EPOCH < MAX_COPY_BYTES ? epoch_bytes / COPIES_PER_EPOCH : MAX_COPY_BYTES;
	size_t max_epochs = budget_bytes / copy_bytes + EPOCHS_PER_BUDGET;
	struct retention *retention = calloc(1, sizeof(*retention) + max_epochs * sizeof(struct epoch *));
	if (!retention)
		return NULL;
	retention->budget_bytes = budget_bytes;
	retention->max_epochs = max_epochs;
	retention->copy_bytes = copy_bytes;
	/* What the list itself takes is counted too. */
	retention->epoch_budget_bytes = epoch_bytes - own_bytes(retention) / EPOCHS_PER_BUDGET;
	return retention;
}

void retention_free(struct retention *retention)
{
	if (!retention)
		return;
	for (size_t i = 0; i < retention->n; i++)
		epoch_unref(retention->epochs[i]);
	free(retention);
}

static void drop_oldest(struct retention *retention, uint64_t *aged_out)
{
	*aged_out += retention->epochs[0]->totals.samples;
	epoch_unref(retention->epochs[0]);
	retention->n--;
	memmove(&retention->epochs[0], &retention->epochs[1], retention->n * sizeof(struct epoch *));
}

/* Opens a new epoch. Those before it are dropped, oldest first, until it could fill its budget within that of them all. */
static int open_epoch(struct retention *retention, uint64_t *aged_out)
{
	size_t held_bytes = own_bytes(retention);
	for (size_t i = 0; i < retention->n; i++)
		held_bytes += bytes_of(retention->epochs[i]);
	while (retention->n > 0 && (held_bytes + retention->epoch_budget_bytes > retention->budget_bytes ||
				    retention->n == retention->max_epochs)) {
		held_bytes -= bytes_of(retention->epochs[0]);
		drop_oldest(retention, aged_out);
	}
	struct epoch *epoch = epoch_new(retention->epoch_budget_bytes);
	if (!epoch)
		return -ENOMEM;
	retention->epochs[retention->n++] = epoch;
	retention->filling = true;
	return 0;
}

int retention_add(struct retention *retention, const struct sample *sample, bool *ret_new_stack, uint64_t *aged_out)
{
	/* One that an empty epoch could not hold must not cost those that are kept. */
	if (epoch_sample_bytes(sample) > retention->epoch_budget_bytes / 2)
		return -ENOMEM;
	if (retention->filling) {
		int r = epoch_add(retention->epochs[retention->n - 1], sample, ret_new_stack);
		if (r != -ENOMEM)
			return r;
		retention->filling = false;
	}
	int r = open_epoch(retention, aged_out);
	if (r < 0)
		return r;
	return epoch_add(retention->epochs[retention->n - 1], sample, ret_new_stack);
}

/* Makes the newest epoch fit to be shared: *ret_copy is a copy that takes its place in the snapshot, or NULL when the epoch itself
 * will not change any more. A small one is copied and goes on filling: else frequent pulls would leave a trail of tiny ones. */
static int settle_newest(struct retention *retention, struct epoch **ret_copy)
{
	struct epoch *newest = retention->filling ? retention->epochs[retention->n - 1] : NULL;
	*ret_copy = NULL;
	if (!newest || newest->totals.samples == 0)
		return 0;
	if (bytes_of(newest) >= retention->copy_bytes) {
		retention->filling = false;
		return 0;
	}
	*ret_copy = epoch_copy(newest);
	return *ret_copy ? 0 : -ENOMEM;
}

int retention_snapshot(struct retention *retention, struct epoch ***ret, size_t *ret_n)
{
	struct epoch **epochs = calloc(retention->n + 1, sizeof(struct epoch *));
	if (!epochs)
		return -ENOMEM;
	struct epoch *copy;
	int r = settle_newest(retention, &copy);
	if (r < 0) {
		free(epochs);
		return r;
	}
	size_t n = 0;
	for (size_t i = 0; i < retention->n; i++) {
		if (i + 1 == retention->n && copy)
			epochs[n++] = copy;
		else if (retention->epochs[i]->totals.samples > 0)
			epochs[n++] = epoch_ref(retention->epochs[i]);
	}
	*ret = epochs;
	*ret_n = n;
	return 0;
}

void retention_totals(const struct retention *retention, struct epoch_totals *ret)
{
	struct epoch_totals sum = {.bytes = own_bytes(retention)};
	for (size_t i = 0; i < retention->n; i++) {
		struct epoch_totals part;
		epoch_totals(retention->epochs[i], &part);
		epoch_totals_add(&sum, &part);
	}
	*ret = sum;
}
