/* Answers of the daemon as text for people. Pure functions of the message (and of the clock, for ages). */
#pragma once
#include <stdio.h>

#include "control.pb-c.h"

/* A table, one line a target. */
void report_list(FILE *stream, const Sprof__Control__TargetList *list);
/* The daemon, and for each target what became of its entries. */
void report_status(FILE *stream, const Sprof__Control__Status *status, const char *socket);
