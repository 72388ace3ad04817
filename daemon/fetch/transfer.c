#include "fetch/transfer.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "proto/fetch_limits.h"

enum {
	CONNECT_TIMEOUT_MS = 10000,
	SLOW_BYTES_PER_S = 1024, /* for SLOW_S: given up */
	SLOW_S = 20,
	REDIRECTS_MAX = 3,
	URL_BYTES = FETCH_URL_MAX_BYTES + FETCH_BUILD_ID_MAX_DIGITS + 32,
	HTTP_OK = 200,
	HTTP_NOT_FOUND = 404,
};

static bool write_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t written = write(fd, bytes, n);
		if (written < 0 && errno != EINTR)
			return false;
		bytes += written > 0 ? written : 0;
		n -= written > 0 ? (size_t)written : 0;
	}
	return true;
}

/* Whether the n bytes at offset of a file may be an ELF file's. */
static bool begins_as_elf(uint64_t offset, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n && offset + i < SELFMAG; i++)
		if (bytes[i] != ELFMAG[offset + i])
			return false;
	return true;
}

/* Called by curl; anything but n ends the transfer. A page of HTML instead of an ELF file is not worth having. */
static size_t take(char *bytes, size_t size, size_t n, void *context)
{
	struct transfer *transfer = context;
	(void)size; /* 1, by curl's promise */
	if (!begins_as_elf(transfer->bytes, bytes, n))
		transfer->no_elf = true;
	else if (n > transfer->max_bytes - transfer->bytes)
		transfer->too_large = true;
	else if (!write_all(transfer->fd, bytes, n))
		transfer->write_failed = true;
	else {
		transfer->bytes += n;
		return n;
	}
	return 0;
}

static bool set_limits(CURL *easy, const struct transfer *transfer, uint64_t timeout_ms)
{
	/* A length that is announced is refused before a byte is read; one that is not, by take(). */
	return curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)transfer->max_bytes) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES_PER_S) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)SLOW_S) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX) == CURLE_OK;
}

/* Only HTTP, and from HTTPS only on to HTTPS. */
static bool set_place(CURL *easy, const char *url)
{
	bool secure = strncmp(url, "https://", 8) == 0;
	return curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https") == CURLE_OK;
}

static bool set_all(struct transfer *transfer, void *owner, const char *url, uint64_t timeout_ms)
{
	CURL *easy = transfer->easy;
	return set_place(easy, url) && set_limits(easy, transfer, timeout_ms) &&
	       curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_USERAGENT, "sprofd/" SPROF_VERSION) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PRIVATE, owner) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer) == CURLE_OK;
}

static void release(struct transfer *transfer)
{
	curl_easy_cleanup(transfer->easy);
	transfer->easy = NULL;
	close(TAKE_FD(transfer->fd));
}

int transfer_begin(struct transfer *transfer, CURLM *multi, void *owner, const char *url, const char *build_id, int fd,
		   uint64_t max_bytes, uint64_t timeout_ms)
{
	char whole[URL_BYTES];
	size_t length = strlen(url);
	while (length > 0 && url[length - 1] == '/')
		length--;
	snprintf(whole, sizeof(whole), "%.*s/buildid/%s/debuginfo", (int)length, url, build_id);
	*transfer = (struct transfer){.easy = curl_easy_init(), .fd = fd, .max_bytes = max_bytes};
	if (transfer->easy && set_all(transfer, owner, whole, timeout_ms) &&
	    curl_multi_add_handle(multi, transfer->easy) == CURLM_OK)
		return 0;
	release(transfer);
	return -ENOMEM;
}

void transfer_stop(struct transfer *transfer, CURLM *multi)
{
	if (!transfer->easy)
		return;
	curl_multi_remove_handle(multi, transfer->easy);
	release(transfer);
}

enum transfer_end transfer_end(struct transfer *transfer, CURLM *multi, CURLcode result, const char **ret_why)
{
	long status = 0;
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	transfer_stop(transfer, multi);
	if (result == CURLE_OK && status == HTTP_OK && transfer->bytes >= SELFMAG)
		return TRANSFER_WHOLE;
	if (status == HTTP_NOT_FOUND)
		return TRANSFER_NOT_FOUND;
	if (transfer->too_large || result == CURLE_FILESIZE_EXCEEDED)
		*ret_why = "it is larger than max_mib";
	else if (transfer->no_elf || result == CURLE_OK)
		*ret_why = "the server sent no ELF file";
	else if (transfer->write_failed)
		*ret_why = "it cannot be written to the cache directory";
	else
		*ret_why = transfer->error[0] ? transfer->error : curl_easy_strerror(result);
	return TRANSFER_FAILED;
}
