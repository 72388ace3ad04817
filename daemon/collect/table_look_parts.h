/* What the files behind table_look.h share. */
#pragma once
#include "collect/table_look.h"

/* table_surroundings.c: mappings and tasks; and, of a table that was found, seals, flags and pages. 0 or -errno. */
int look_take_mappings(struct table_look *look, pid_t tid);
int look_take_tasks(struct table_look *look, pid_t pid);
void look_take_memory(struct table_look *look);

/* table_records.c: all threads and stacks in use. 0 or -errno. */
int look_take_records(struct table_look *look);

/* A vector of n elements, whose room doubles, with room for one more: the same or another place; NULL, and it stays as it is, when out of memory. */
void *look_grow(void *elements, size_t n, size_t element_bytes);
