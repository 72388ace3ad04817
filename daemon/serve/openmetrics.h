/* The OpenMetrics text of a Status: a pure function, so that it is tested as one. */
#pragma once
#include <stddef.h>

#include "control.pb-c.h"

#define OPENMETRICS_CONTENT_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* *ret is malloc'ed text of *ret_bytes bytes that ends in "# EOF\n". -ENOMEM. */
int openmetrics_format(const Sprof__Control__Status *status, char **ret, size_t *ret_bytes);
