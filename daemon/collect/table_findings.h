/* What can be wrong with a barrier-lock table: one list that gives each finding its name, how bad it is, which rule of docs/BARRIER-TABLE.md it is
 * about, and what to do. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum finding_severity {
	FINDING_NOTE,
	FINDING_WARNING, /* samples may be lost, or the next change goes wrong */
	FINDING_ERROR,   /* this breaks unwinding */
};

/* X(CODE, severity, proof, rule, what to do). Proof: ONCE is certain from one look, since it is about one record that was copied in one piece; TWICE is
 * about things that change independently of each other, and is believed when it was seen in two looks. */
#define FINDING_TABLE(X)                                                                                               \
	X(NO_TABLE, ERROR, TWICE, "section 4.1",                                                                       \
	  "open one: memfd_create(\"SPROF_BLT\"), ftruncate, seal, mmap shared at offset 0, fill it, store magic "     \
	  "last; with libsprof see sprof_status_text")                                                                 \
	X(UNSETTLED, ERROR, TWICE, "section 4.1", "store magic last, and leave it; release the ranges' lock")          \
	X(INVALID, ERROR, TWICE, "section 6", "no reader accepts this table: correct the field")                       \
	X(FOREIGN_PROCESS, ERROR, TWICE, "section 5",                                                                  \
	  "in a forked child make a table of its own at the same address (tgid, proc_starttime), and use "             \
	  "MADV_DONTFORK; a vfork child must not touch it")                                                            \
	X(PRIVATE_MEMORY, ERROR, TWICE, "section 4.1",                                                                 \
	  "map it with MAP_SHARED from a memfd; libsprof uses private memory where that was denied: "                  \
	  "sprof_status_text says why")                                                                                \
	X(WRONG_NAME, ERROR, TWICE, "section 4.1",                                                                     \
	  "name the memfd SPROF_BLT, and map it readable at offset 0: readers find it by that")                        \
	X(NO_MEMFD, ERROR, TWICE, "section 6", "make it with memfd_create: a file of that name is not looked at")      \
	X(OTHER_TABLE, NOTE, TWICE, "section 4.1",                                                                     \
	  "a process has one table: before unmapping another store magic = 0")                                         \
	X(SHRINKABLE, WARNING, ONCE, "section 4.1",                                                                    \
	  "seal it with F_SEAL_SHRINK: whoever has its descriptor could truncate it, and the runtime would die of "    \
	  "SIGBUS")                                                                                                    \
	X(UNSEALED, NOTE, ONCE, "section 4.1", "seal it with F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL")               \
	X(NOT_LOCKED, WARNING, ONCE, "section 4.1",                                                                    \
	  "mlock it (RLIMIT_MEMLOCK): what is swapped out when a sample is taken cannot be read (table_not_resident)") \
	X(NOT_RESIDENT, WARNING, ONCE, "section 4.1",                                                                  \
	  "mlock the table, or touch every page of it at the start: samples that need these pages are cut")            \
	X(INHERITED, WARNING, ONCE, "section 5",                                                                       \
	  "madvise(MADV_DONTFORK): a forked child would write into its parent's table")                                \
	X(NO_STARTTIME, NOTE, ONCE, "section 7",                                                                       \
	  "store field 22 of /proc/self/stat: without it a reused number goes unnoticed")                              \
	X(PID_NAMESPACE, NOTE, ONCE, "section 7",                                                                      \
	  "nothing: the numbers in the table are those of inside, as they should be")                                  \
	X(TIME_NAMESPACE, NOTE, ONCE, "section 7", "nothing: proc_starttime is not compared then")                     \
	X(UNALIGNED, ERROR, ONCE, "section 2",                                                                         \
	  "place arrays at multiples of their record size (ranges 32, barriers 16): no record may lie across a page, " \
	  "no word be torn")                                                                                           \
	X(OVERLAPPING, ERROR, ONCE, "section 2", "give each array a place of its own")                                 \
	X(RANGE_EMPTY, ERROR, ONCE, "section 2",                                                                       \
	  "store lo < hi: hi is the address behind the last instruction; kind 0 makes a place free")                   \
	X(RANGE_NOT_CODE, ERROR, TWICE, "section 4.6",                                                                 \
	  "remove ranges of code that is gone, and give addresses of code")                                            \
	X(RANGE_KIND, NOTE, ONCE, "section 2", "readers ignore kinds that they do not know")                           \
	X(RANGES_OVERLAP, ERROR, ONCE, "section 2", "one range holds for one rule: no address may have two")           \
	X(ENTRY_NOWHERE, ERROR, ONCE, "section 2",                                                                     \
	  "entry_offset is the entry's address less lo, and some TRAMPOLINE range must hold the entry itself")         \
	X(CFA_REGISTER, ERROR, ONCE, "section 2", "store 0 for sp, 1 for fp")                                          \
	X(CFA_OFFSET, ERROR, ONCE, "section 2", "c = register + cfa_offset, in bytes: a multiple of 8, at most 1 MiB") \
	X(CFA_AT_ENTRY, ERROR, ONCE, "section 2",                                                                      \
	  "right at the entry sp is c: the range that begins there has cfa_offset 0; after each push a new range "     \
	  "begins")                                                                                                    \
	X(FP_OFFSET, ERROR, ONCE, "section 2",                                                                         \
	  "the caller's fp was saved at c + fp_offset, below c: negative, a multiple of 8; 0: still in its register")  \
	X(THREAD_PROBE, ERROR, TWICE, "W6",                                                                            \
	  "claim one of the slots (tid + i * stride) % cap_thread, i = 0 .. 15: readers look nowhere else")            \
	X(THREAD_BEYOND, ERROR, TWICE, "W6",                                                                           \
	  "raise n_probe to i + 1 before a slot at probe i is claimed: readers look no further")                       \
	X(THREAD_TWICE, ERROR, TWICE, "W6", "a thread has one slot: look for its own tid before claiming another")     \
	X(THREAD_DEAD, WARNING, TWICE, "section 4.4",                                                                  \
	  "give the slot back when the thread ends: clear it under an odd seq, then tid = 0")                          \
	X(THREAD_REUSED, WARNING, TWICE, "section 4.4",                                                                \
	  "the slot is of an earlier thread of this number, so readers ignore it: a thread that finds its tid with "   \
	  "another starttime clears it first")                                                                         \
	X(THREADS_MISSING, NOTE, TWICE, "section 4.4", "threads that run managed code need a record; others do not")   \
	X(SEQ_ODD, WARNING, TWICE, "W7",                                                                               \
	  "make seq even again: meanwhile no sample of the thread is unwound by the table")                            \
	X(REF_RANGE, ERROR, ONCE, "section 2", "index is below cap_stack, or 0xffffffff for none")                     \
	X(REF_STALE, WARNING, TWICE, "section 2",                                                                      \
	  "copy self (index, gen) of the stack, and let go of it before it is removed: it refers to nothing now")      \
	X(OWNER, ERROR, TWICE, "W8",                                                                                   \
	  "set owner_tid to the thread that runs on the stack: readers do not trust it otherwise")                     \
	X(CONTEXT_STACK, ERROR, TWICE, "section 2", "name the stack that the context points into")                     \
	X(CONTEXT_SP, ERROR, TWICE, "W1",                                                                              \
	  "sp lies in lo .. hi of the stack: move contexts along, under its lock, when it moves")                      \
	X(CONTEXT_PC, ERROR, TWICE, "section 1", "pc is the return address of the call, in executable memory")         \
	X(CONTEXT_TRAMPOLINE, ERROR, TWICE, "section 1",                                                               \
	  "where a barrier stands, give its original pc: no frame is a trampoline's")                                  \
	X(CONTEXT_HALF, WARNING, TWICE, "section 1",                                                                   \
	  "store pc and sp, or neither: a context with one of them is none")                                           \
	X(CONTEXT_UNUSED, WARNING, TWICE, "section 4.5",                                                               \
	  "raise foreign_depth with it, and clear it after the call: it is not looked at")                             \
	X(STACK_BOUNDS, ERROR, ONCE, "section 2", "lo < hi; both 0 when the place is not in use")                      \
	X(STACK_SELF, ERROR, ONCE, "section 2",                                                                        \
	  "self is the place's own index, and a gen that is not 0: readers compare it with every reference")           \
	X(STACK_CAP, ERROR, ONCE, "section 2", "at most 2^16 barriers a stack")                                        \
	X(STACK_ARRAY, ERROR, ONCE, "section 2", "off_barrier + cap * barrier_size lies inside total_size")            \
	X(STACK_N, ERROR, ONCE, "section 2",                                                                           \
	  "barriers pos .. n-1 are installed: n is at most cap; if the array is full, do not install")                 \
	X(STACK_POS, ERROR, ONCE, "W5",                                                                                \
	  "store pos + 1 once for each barrier that is returned through: pos is at most n")                            \
	X(STACKS_OVERLAP, ERROR, TWICE, "section 2",                                                                   \
	  "an address belongs to one stack: remove a stack before its memory is used for another")                     \
	X(STACK_UNMAPPED, WARNING, TWICE, "section 4.2", "remove a stack before its memory is unmapped")               \
	X(OWNER_UNKNOWN, WARNING, TWICE, "W8", "owner_tid is a thread with a record in the table, or 0")               \
	X(LOCK_HELD, WARNING, TWICE, "W2",                                                                             \
	  "hold it for microseconds, and release it (seq_end = seq_begin) in every case: meanwhile the stack is not "  \
	  "walked")                                                                                                    \
	X(STACK_RESTLESS, NOTE, TWICE, "section 8",                                                                    \
	  "nothing, unless it is never free: it could not be copied in one piece, and was not judged")                 \
	X(SLOT_OUTSIDE, ERROR, ONCE, "section 2",                                                                      \
	  "a slot is an address on its stack: move slots along when the stack moves")                                  \
	X(SLOT_ALIGNMENT, ERROR, ONCE, "section 2", "a slot is the address of a whole word: a multiple of 8")          \
	X(SLOT_ORDER, ERROR, ONCE, "section 2", "keep barriers pos .. n-1 ascending by slot, no slot twice")           \
	X(SLOT_WORD, ERROR, TWICE, "W4",                                                                               \
	  "write the trampoline's entry into the slot, and take it out, under the same lock as the record")            \
	X(ORIGINAL_PC, ERROR, TWICE, "section 2",                                                                      \
	  "original_pc is what stood in the slot: a return address in executable memory")                              \
	X(ORIGINAL_TRAMPOLINE, ERROR, ONCE, "section 4.3",                                                             \
	  "a barrier on a barrier: look whether the slot holds an entry already before it is replaced")                \
	X(RESUMER_REF, ERROR, TWICE, "section 4.5",                                                                    \
	  "copy self (index, gen) of the stack that resumed it; clear it when it yields")                              \
	X(RESUMER_CYCLE, ERROR, TWICE, "section 4.5",                                                                  \
	  "a fiber is resumed by a stack that waits, never by itself: clear resumer when it yields")                   \
	X(LEFT_OUT, NOTE, TWICE, "", "nothing: the tool looks at so many and no more; profiling has no such limit")

enum finding_code {
#define FINDING_ENUM(code, severity, proof, rule, todo) FINDING_##code,
	FINDING_TABLE(FINDING_ENUM)
#undef FINDING_ENUM
		FINDING_COUNT
};

struct finding_info {
	const char *name; /* stable: "SLOT_WORD" */
	enum finding_severity severity;
	bool twice;
	const char *rule; /* of docs/BARRIER-TABLE.md; "" : none */
	const char *todo;
};
const struct finding_info *finding_info(enum finding_code code);

enum { FINDING_WHERE_BYTES = 48, FINDING_WHAT_BYTES = 320, FINDINGS_OF_A_CODE = 16 };

struct finding {
	enum finding_code code;
	char where
		[FINDING_WHERE_BYTES]; /* "thread 1234", "stack 3", "stack 3 barrier 2", "range 0", "header", "mapping" */
	char what[FINDING_WHAT_BYTES];
	uint64_t
		identity; /* a version: two findings of the same place are the same only when it is the same too; 0: does not matter */
};

/* At most FINDINGS_OF_A_CODE of each code are kept, the rest is counted. Zeroed memory is an empty list. */
struct findings {
	struct finding *list;
	size_t n;
	uint32_t counts[FINDING_COUNT]; /* all of the code */
	bool out_of_memory;
};

void findings_add(struct findings *findings, enum finding_code code, uint64_t identity, const char *where,
		  const char *format, ...) __attribute__((format(printf, 5, 6)));
void findings_free(struct findings *findings);
/* What two looks say together: what is certain from one, and what both saw at the same place. -ENOMEM. */
int findings_join(const struct findings *first, const struct findings *second, struct findings *ret);
