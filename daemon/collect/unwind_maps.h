/* Unwind tables and mapping lists in BPF maps, where the sampling program reads them.
 *
 * A table belongs to a file and is there once, whoever maps it. It is loaded by the first; when the last has let go it is kept, in case somebody maps the file again, until
 * its room is needed or its time is over. A mapping list belongs to a
 * target slot, holds references to the tables it names, and is replaced as a whole. All together they take no more memory than a budget: what has
 * no room is refused, and counted.
 *
 * Thread: any. Functions that change what the program sees may wait for the kernel for some milliseconds: for worker threads. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/mapping_list.h"

struct file;
struct unwind_maps;
struct loaded_table;

struct unwind_maps_figures {
	uint64_t budget_bytes, table_bytes, list_bytes;
	uint64_t kept_bytes; /* of table_bytes, those of tables that nobody needs now */
	uint32_t tables, lists;
	uint64_t refused; /* tables and lists that had no room, ever */
};

/* The fds are of the program's arrays of maps, and stay the caller's. NULL: out of memory. */
struct unwind_maps *unwind_maps_new(int lists_fd, int tables_fd, size_t budget_bytes);
void unwind_maps_free(struct unwind_maps *maps); /* NULL is fine; nothing is waited for: the maps go with the program */
void unwind_maps_figures(struct unwind_maps *maps, struct unwind_maps_figures *ret);

/* What a table may have at most now, when all that is only kept makes room. */
size_t unwind_maps_room(struct unwind_maps *maps);

/* A table that would have had more was not made: counts it as refused. */
void unwind_maps_count_refused(struct unwind_maps *maps);

/* The table of a file (its id, see model/file.h): a new reference, or NULL when it is not loaded. */
struct loaded_table *unwind_maps_find(struct unwind_maps *maps, uint64_t file_id);
/* Loads a table, which has been checked, unless another thread was faster. A new reference in *ret. file: its own; NULL where it is none of a file. The program finds it once a
 * list names it. -ENOSPC: the budget is spent; -ENOMEM;
 * -errno of bpf(2). */
int unwind_maps_load(struct unwind_maps *maps, uint64_t file_id, struct file *file, const void *table, size_t bytes,
		     struct loaded_table **ret);
/* Lets go of the tables that nobody has needed since before_ns (CLOCK_MONOTONIC): their files are held open with them. */
void unwind_maps_expire(struct unwind_maps *maps, uint64_t before_ns);
struct loaded_table *loaded_table_ref(struct loaded_table *table); /* NULL is fine */
void loaded_table_unref(struct loaded_table *table);               /* NULL is fine */

/* One mapping of a target. */
struct unwind_mapping {
	uint64_t start, end, file_offset;
	enum unwind_code_kind kind;
	struct loaded_table *table; /* of UNWIND_CODE_TABLE */
};

/* What a slot shows now. Zero: nothing. */
struct unwind_list {
	int fd; /* valid when n_pages > 0 */
	uint32_t n_pages;
	struct loaded_table **tables; /* references */
	size_t n_tables;
};

/* Shows the slot's samples these mappings, which ascend, in place of *list, and lets that go. Takes references of its own to the tables.
 * program, exec_pages: struct maps. Mappings beyond UNWIND_LIST_MAX_ENTRIES are left out. On failure *list stays, and is shown. -EINVAL: no mappings,
 * or no program; -ENOSPC; -ENOMEM; -errno of bpf(2). */
int unwind_maps_show(struct unwind_maps *maps, uint16_t slot, uint64_t program, uint64_t exec_pages,
		     const struct unwind_mapping *mappings, size_t n, struct unwind_list *list);
/* Shows nothing any more. The slot must not belong to anybody else yet. Waits no longer than a look at the kernel takes. */
void unwind_maps_hide(struct unwind_maps *maps, uint16_t slot, const struct unwind_list *list);
/* Lets go what is not shown any more. */
void unwind_list_release(struct unwind_maps *maps, struct unwind_list *list);
