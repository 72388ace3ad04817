/* Bounds of the conversation between sprofd and sprofd-fetch (fetch.proto), checked on both sides; and where the files are. */
#pragma once

enum {
	FETCH_MESSAGE_MAX_BYTES = 8 << 10,
	FETCH_URLS_MAX = 8,
	FETCH_URL_MAX_BYTES = 512,
	FETCH_BUILD_ID_MIN_DIGITS = 8,
	FETCH_BUILD_ID_MAX_DIGITS = 128,
	FETCH_TIMEOUT_MAX_S = 600,
};
#define FETCH_FILE_SUFFIX ".debug" /* behind the build id, in the cache directory */
