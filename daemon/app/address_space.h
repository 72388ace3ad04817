/* Which snapshot of a target's mappings the addresses of a sample belong to, and when to take a new one.
 *
 * Versions are numbered from 0. A snapshot that contradicts nothing is merged into the current version; one that does, and any after an
 * exec, opens a new version. Every record tells how many pages are mapped executable: when that changes, a library came or
 * went. Reading the mappings takes the target's mmap lock, so it is asked for, never done, here. Event loop only. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/record.h"
#include "model/maps.h"

struct address_space {
	struct maps **versions; /* [i] may be NULL: not read yet, or never could be */
	uint32_t n;             /* versions that records were tagged with, or that were read */
	uint32_t room;
	bool wanted;  /* a snapshot should be taken */
	bool reading; /* one is being taken */
	bool seen;    /* the three below are of a record */
	bool unsure;  /* version 0 was read before the first record: perhaps of another program */
	uint64_t exec_id;
	uint32_t exec_pages, map_count;
	uint64_t next_ns;     /* no snapshot before this moment */
	uint64_t interval_ns; /* between snapshots: grows, and further while they find nothing new */
};

void address_space_init(struct address_space *space);
void address_space_free(struct address_space *space);

/* The version for this record's addresses. *ret_new_program tells that an exec happened since the last record. */
uint32_t address_space_note(struct address_space *space, const struct record *record, bool *ret_new_program);
/* The snapshot that is certain to be what the process had mapped when the record was made; NULL: none is. Borrowed. */
const struct maps *address_space_at(const struct address_space *space, const struct record *record);
/* A stack was seen for the first time: if an address lies in no mapping, and mappings have changed since, a snapshot is wanted. */
void address_space_note_stack(struct address_space *space, uint32_t version, uint32_t map_count, const uint64_t *user,
			      uint16_t n_user);
/* Whether the names of a stack depend on when it was sampled: it is in code that a JIT may have made, which a jitdump tells or, if mappings have
 * changed that are not read yet, may tell. */
bool address_space_is_timed(const struct address_space *space, const uint64_t *user, uint16_t n_user);
/* Whether a snapshot should be taken now. */
bool address_space_due(const struct address_space *space, uint64_t now_ns);
/* The version that a snapshot which begins now will describe. */
uint32_t address_space_begin(struct address_space *space);
/* Takes the reference of maps, read after address_space_begin gave version; NULL: it could not be read. All records from before it was
 * read should have been noted: when they tell of an exec meanwhile, nobody knows whose mappings these are, and they are not used. -ENOMEM. */
int address_space_update(struct address_space *space, uint32_t version, struct maps *maps, uint64_t now_ns);

/* A malloc'ed array of *ret_n references (NULL where there is none), for a profile that is built on another thread. */
int address_space_snapshot(const struct address_space *space, struct maps ***ret, uint32_t *ret_n);
