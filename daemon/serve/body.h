/* The bodies of control requests, protobuf or JSON, as strict as the interface: an unknown field, a value out of range or a
 * body that is not whole is an error, so that a misspelt or too new request is never half obeyed. Thread: any. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "control.pb-c.h"
#include "serve/negotiate.h"

enum {
	BODY_MAX_PID = 1 << 22, /* PID_MAX_LIMIT in include/linux/threads.h */
	BODY_MAX_FREQUENCY_HZ = 1000000,
};

/* 0 and *ret (which holds no memory of its own); -EINVAL, -ERANGE, -ENOMEM. media is MEDIA_PROTOBUF or MEDIA_JSON. */
int body_parse_attach(enum media media, const uint8_t *data, size_t bytes, Sprof__Control__AttachRequest *ret,
		      struct error *err);
int body_parse_rate(enum media media, const uint8_t *data, size_t bytes, uint32_t *ret_frequency_hz, struct error *err);
