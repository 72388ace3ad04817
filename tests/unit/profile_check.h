/* Is this a pprof profile that every reader takes? The rules of go tool pprof, and those of Parca and Pyroscope, which are
 * stricter, and what sprofd itself promises. It decodes with protobuf-c and shares no code with the encoder.
 * Used by the unit tests of pprof and by the program profile_check of the system tests. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "profile.pb-c.h"

enum { PROFILE_CHECK_WHY_BYTES = 300 };

/* Uncompresses (one gzip member, nothing after it) and decodes. NULL, with the reason in why, when it is damaged.
 * Free with perftools__profiles__profile__free_unpacked(profile, NULL). */
Perftools__Profiles__Profile *profile_check_load(const uint8_t *data, size_t bytes, char why[PROFILE_CHECK_WHY_BYTES]);

/* 0 when all rules hold; -1, with the first violated one in why. */
int profile_check(const Perftools__Profiles__Profile *profile, char why[PROFILE_CHECK_WHY_BYTES]);

/* The value of a sample's label, or NULL. For a profile that passed. */
const char *profile_check_label(const Perftools__Profiles__Profile *profile, const Perftools__Profiles__Sample *sample,
				const char *key);
