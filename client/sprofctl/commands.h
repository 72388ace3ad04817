/* The commands, each a command_function. */
#pragma once
#include "sprofctl/command_line.h"
#include "sprofctl/problem.h"

command_function command_attach, command_detach, command_rate; /* control.c */
command_function command_list, command_status;                 /* show.c */
command_function command_pull;                                 /* pull.c */
command_function command_pprof;                                /* pprof.c */
command_function command_table;                                /* table.c */
