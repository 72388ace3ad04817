/* Ranges of code, under the versioned lock of the header. */
#include "internal.h"

void ranges_lock(struct sprof_header *header)
{
	unsigned round = 0;
	for (;;) {
		uint64_t version = __atomic_load_n(&header->range_end, __ATOMIC_ACQUIRE);
		if (__atomic_compare_exchange_n(&header->range_begin, &version, version + 1, 0, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			break;
		relax(&round);
	}
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

void ranges_unlock(struct sprof_header *header)
{
	__atomic_store_n(&header->range_end, SPROF_LOAD(header->range_begin), __ATOMIC_RELEASE);
}

static void put(struct sprof_range *to, const struct sprof_range *range)
{
	SPROF_STORE(to->lo, range->lo);
	SPROF_STORE(to->hi, range->hi);
	SPROF_STORE(to->kind, range->kind);
	SPROF_STORE(to->entry_offset, range->entry_offset);
	SPROF_STORE(to->cfa_offset, range->cfa_offset);
	SPROF_STORE(to->cfa_register, range->cfa_register);
	SPROF_STORE(to->fp_offset, range->fp_offset);
}

int sprof_range_add(struct sprof_table *table, const struct sprof_range *range)
{
	if (!table)
		return -ENOSPC;
	if (range->lo >= range->hi || range->kind == SPROF_RANGE_NONE || range->cfa_register > SPROF_CFA_FP)
		return -EINVAL;
	struct sprof_header *header = table->header;
	int r = -ENOSPC;
	ranges_lock(header);
	uint32_t i = 0;
	while (i < header->n_range && table->ranges[i].kind != SPROF_RANGE_NONE)
		i++;
	if (i < table->cap_range) {
		put(&table->ranges[i], range);
		if (i == header->n_range)
			SPROF_STORE(header->n_range, i + 1);
		r = (int)i;
	}
	ranges_unlock(header);
	if (r < 0)
		count(&table->ranges_refused);
	return r;
}

void sprof_range_remove(struct sprof_table *table, int index)
{
	if (!table || index < 0)
		return;
	static const struct sprof_range none = {.kind = SPROF_RANGE_NONE};
	struct sprof_header *header = table->header;
	ranges_lock(header);
	if ((uint32_t)index < header->n_range)
		put(&table->ranges[index], &none);
	while (header->n_range > 0 && table->ranges[header->n_range - 1].kind == SPROF_RANGE_NONE)
		SPROF_STORE(header->n_range, header->n_range - 1);
	ranges_unlock(header);
}
