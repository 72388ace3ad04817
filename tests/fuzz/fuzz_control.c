/* The bodies of control requests: the first byte chooses message and form. */
#include <stdint.h>
#include <stdlib.h>

#include "serve/body.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes == 0)
		return 0;
	enum media media = data[0] & 1 ? MEDIA_JSON : MEDIA_PROTOBUF;
	struct error err = {0};
	int r;
	if (data[0] & 2) {
		uint32_t frequency_hz = 0;
		r = body_parse_rate(media, data + 1, bytes - 1, &frequency_hz, &err);
		require(frequency_hz <= BODY_MAX_FREQUENCY_HZ);
	} else {
		Sprof__Control__AttachRequest request = SPROF__CONTROL__ATTACH_REQUEST__INIT;
		r = body_parse_attach(media, data + 1, bytes - 1, &request, &err);
		require(r < 0 ? request.pid == 0 : request.pid >= 1 && request.pid <= BODY_MAX_PID);
		require(request.frequency_hz <= BODY_MAX_FREQUENCY_HZ &&
			request.event <= SPROF__CONTROL__EVENT__EVENT_CYCLES);
	}
	require(r == -err.code);
	return 0;
}
