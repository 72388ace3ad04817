/* A barrier-lock table as text for people: what is wrong first, then what the process publishes. A pure function of the message; at most 120 columns
 * wide, and of bounded length. */
#pragma once
#include <stdio.h>

#include "control.pb-c.h"

void table_text(FILE *stream, const Sprof__Control__Table *table);
