#include "sprofctl/problem.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

int problem_set(struct problem *problem, int code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(problem->text, sizeof(problem->text), format, args);
	va_end(args);
	for (char *c = problem->text; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = ' ';
	return -code;
}
