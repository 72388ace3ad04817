/* One download from one server, written to a file as it comes, within bounds of size and time. */
#pragma once
#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

struct transfer {
	CURL *easy; /* NULL: none is under way */
	int fd;
	uint64_t bytes, max_bytes;
	bool too_large, no_elf, write_failed;
	char error[CURL_ERROR_SIZE];
};

/* GET url/buildid/BUILD_ID/debuginfo to fd, which is taken in every case, as part of multi. owner is what curl gives back (CURLOPT_PRIVATE).
 * transfer stays where it is until transfer_end. -ENOMEM. */
int transfer_begin(struct transfer *transfer, CURLM *multi, void *owner, const char *url, const char *build_id, int fd,
		   uint64_t max_bytes, uint64_t timeout_ms);
enum transfer_end { TRANSFER_WHOLE, TRANSFER_NOT_FOUND, TRANSFER_FAILED };
/* After curl says that it is over, with result. *ret_why: of TRANSFER_FAILED, valid as long as transfer. */
enum transfer_end transfer_end(struct transfer *transfer, CURLM *multi, CURLcode result, const char **ret_why);
/* Gives it up; nothing is there afterwards. */
void transfer_stop(struct transfer *transfer, CURLM *multi);
