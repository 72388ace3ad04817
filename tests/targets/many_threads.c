/* --threads=N threads that sleep until the end; says how many the machine allowed. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "target.h"

static void *sleeper(void *unused)
{
	pause();
	return unused;
}

int main(int argc, char **argv)
{
	long threads = 1000, seconds = 0, made = 0;
	const struct target_flag flags[] = {{"threads", &threads}, {"seconds", &seconds}};
	target_parse(argc, argv, flags, 2);
	target_begin(seconds);
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 16384);
	for (; made < threads - 1; made++) {
		pthread_t thread;
		if (pthread_create(&thread, &attributes, sleeper, NULL) != 0)
			break;
	}
	char more[64];
	snprintf(more, sizeof(more), "\"threads\": %ld", made + 1);
	target_ready(more);
	while (!target_over())
		target_sleep_us(20000);
	return 0;
}
