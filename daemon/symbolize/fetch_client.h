/* Debug files from debuginfod, by way of sprofd-fetch: it has the network and the cache directory, and this asks it. A pull waits for it
 * a second at the most, and after that for nothing more for a while; what comes later is there for the next pull. Not thread-safe. */
#pragma once
#include <stdint.h>

struct fetch_client;

struct fetch_options {
	const char *urls;      /* of servers, with blanks between; "": it is off */
	const char *socket;    /* of sprofd-fetch */
	const char *cache_dir; /* where its files are */
	uint32_t timeout_seconds;
	uint32_t file_max_mib, cache_max_mib;
};

/* Copies what it needs. NULL: out of memory. */
struct fetch_client *fetch_client_new(const struct fetch_options *options);
void fetch_client_free(struct fetch_client *client); /* NULL is fine */

/* Asks for the debug file of build_id, and waits until deadline_ns (CLOCK_MONOTONIC) at the most. 0: it is at ret_path (of PATH_MAX bytes);
 * -ENOENT: it is not to be had now; -EAGAIN: not yet: ask again; -EOPNOTSUPP: it is off. */
int fetch_client_ask(struct fetch_client *client, const char *build_id, uint64_t deadline_ns, char *ret_path);
