/* Looks for what a file says is elsewhere: its separate debug file, dwz's supplementary file and those of split DWARF, by build id and by name, in the target's
 * root and in our own. What is found goes to the reader, which takes only what belongs to the file. Not thread-safe. */
#pragma once
#include "symbolize/fetch_client.h"
#include "symbolize/opener.h"
#include "symbolize/reader.h"

struct debug_search {
	struct reader *reader;
	struct opener *opener;
	struct fetch_client *fetch;
	uint64_t file_id;
	int root_fd;      /* the target's root; -1: unknown */
	const char *path; /* of the file in the target's root; may be "" */
	uint64_t deadline_ns;
};

/* After the file was opened in the reader, which said opened: attaches what is found, and brings opened up to date. 0 whether or not
 * something was found; -EAGAIN: nothing was, but debuginfod may have it later; otherwise as reader_attach: the reader failed. */
int debug_search_run(const struct debug_search *search, struct protocol_reply *opened);
/* After the reader said that split DWARF is wanted: attaches what is found. As debug_search_run. */
int debug_search_split(const struct debug_search *search, const struct protocol_reply *wanted);
