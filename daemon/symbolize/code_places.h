/* What code was at addresses when they were sampled, by the jitdump that tells it. */
#pragma once
#include "symbolize/file_names.h"

/* Sets the place of each of n moments, which must ascend by address, and for one address by time; 0: nothing is known to have been there.
 * Returns how many could not be looked at before deadline_ns: those have none. */
size_t code_places_find(struct file_names *names, const struct named_file *dump, struct code_moment *moments, size_t n,
			uint64_t deadline_ns);
