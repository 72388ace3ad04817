/* The pprof encoding of a profile: gzip'ed protobuf, valid by the stricter rules of Parca and Pyroscope too. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/profile.h"

/* *ret is malloc'ed, *ret_bytes long. Ids are sequential from 1, strings are made valid UTF-8 without control characters, since
 * names end up on terminals (each bad byte becomes U+FFFD). Samples without any location are left out. Thread: any.
 * -ENOMEM; -EOVERFLOW when it would be larger than a protobuf message may be (2 GiB). */
int pprof_encode(const struct profile *profile, uint8_t **ret, size_t *ret_bytes, struct error *err);
