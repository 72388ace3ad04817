/* sprofctl: parses the command line, runs one command, tells in one line why it failed. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sprofctl/command_line.h"
#include "sprofctl/problem.h"

int main(int argc, char **argv)
{
	struct command_line command_line;
	struct problem problem = {0};
	setlocale(LC_CTYPE, "");
	command_line_parse(argc, argv, &command_line);
	int r = command_line.run(&command_line, &problem);
	if ((fflush(stdout) || ferror(stdout)) && r == 0)
		r = problem_set(&problem, EIO, "cannot write to standard output: %s", strerror(errno));
	free(command_line.pprof_arguments);
	if (r < 0)
		fprintf(stderr, "sprofctl: %s\n", problem.text);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
