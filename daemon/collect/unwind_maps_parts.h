/* What unwind_maps.c and unwind_tables.c share. */
#pragma once
#include <pthread.h>

#include "bpf/cfi_table.h"
#include "collect/unwind_maps.h"
#include "model/file.h"

struct loaded_table {
	struct unwind_maps *maps;
	uint64_t file_id;
	struct file *file; /* a reference, so that the number stays the file's; NULL: of the vdso */
	unsigned references;
	bool shown;   /* the program can find it */
	bool leaving; /* is being let go: nobody finds it any more */
	uint64_t unused_since_ns;
	uint32_t index; /* in the array of tables */
	uint32_t pages;
	int fd;
};

struct unwind_maps {
	int lists_fd, tables_fd;
	pthread_mutex_t lock; /* of all below; never held while the kernel is waited for */
	uint64_t budget_pages, table_pages, list_pages, refused;
	uint64_t kept_pages; /* of table_pages, those of tables without references */
	uint32_t n_tables, n_lists;
	uint64_t serial;                                /* of the last list */
	struct loaded_table *tables[UNWIND_MAX_TABLES]; /* by index; NULL: free */
	uint32_t above;                                 /* all indices from here on are free */
};

/* Takes pages out of the budget, for table_pages or list_pages; tables that nobody needs make room. -ENOSPC, which is counted. */
int unwind_maps_reserve(struct unwind_maps *maps, uint64_t *used_pages, uint32_t pages);
void unwind_maps_give_back(struct unwind_maps *maps, uint64_t *used_pages, uint32_t pages);
/* Lets go of the table that nobody has needed for longest, if that was before before_ns. False: there is none. */
bool unwind_maps_evict(struct unwind_maps *maps, uint64_t before_ns);

/* An inner map of that many pages, filled. Its fd, or -errno. */
int unwind_maps_make(const char *name, const uint8_t *bytes, size_t n, uint32_t pages);
/* Lets the program find these tables, all in one go where the kernel can: it waits for programs that run, each time. -errno. */
int unwind_tables_show(struct unwind_maps *maps, struct loaded_table *const *tables, size_t n);
