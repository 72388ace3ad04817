/* Has a child that is a zombie until the end; says its number. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "target.h"

int main(int argc, char **argv)
{
	long seconds = 0;
	const struct target_flag flags[] = {{"seconds", &seconds}};
	target_parse(argc, argv, flags, 1);
	target_begin(seconds);
	pid_t child = fork();
	if (child < 0)
		target_die("fork");
	if (child == 0)
		_exit(0);
	siginfo_t info;
	waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT); /* dead, and left so */
	char more[64];
	snprintf(more, sizeof(more), "\"zombie\": %d", (int)child);
	target_ready(more);
	while (!target_over())
		target_sleep_us(20000);
	waitpid(child, NULL, 0);
	return 0;
}
