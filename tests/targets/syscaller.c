/* Spends its time in the kernel (--what=0: read of /dev/zero, 1: getppid through syscall) or in the vdso (2: clock_gettime). */
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

static char buffer[1 << 20];

TARGET_NOINLINE static void read_zeroes(int fd)
{
	if (read(fd, buffer, sizeof(buffer)) <= 0) /* a signal may cut it short */
		target_die("/dev/zero");
	__asm__ volatile("");
}

TARGET_NOINLINE static void call_getppid(void)
{
	for (int i = 0; i < 1000; i++)
		syscall(SYS_getppid);
	__asm__ volatile("");
}

TARGET_NOINLINE static void ask_time(void)
{
	struct timespec now;
	for (int i = 0; i < 10000; i++)
		clock_gettime(CLOCK_MONOTONIC, &now);
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	long what = 0, seconds = 0;
	const struct target_flag flags[] = {{"what", &what}, {"seconds", &seconds}};
	target_parse(argc, argv, flags, 2);
	target_begin(seconds);
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		target_die("/dev/zero");
	target_ready(NULL);
	while (!target_over()) {
		if (what == 0)
			read_zeroes(fd);
		else if (what == 1)
			call_getppid();
		else
			ask_time();
	}
	printf("{\"pid\": %d, \"process_cpu_ns\": %llu}\n", (int)getpid(), (unsigned long long)target_process_cpu_ns());
	return 0;
}
