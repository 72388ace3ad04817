/* Tells how much time is taken from it: at the bottom of --depth=N frames it does nothing but read the processor's time stamp, and counts
 * each step longer than a microsecond as stolen by an interrupt or signal, one longer than --most-us=N (default 200) as another
 * process's turn. Its counters are in a file that anybody may map: gap [--depth=N] [--seconds=N] FILE. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "target.h"

/* All in ticks of the time stamp counter, since the start. */
struct counters {
	volatile uint64_t now, stolen, gaps, away;
	volatile uint64_t ticks_per_ms;
};

static struct counters *counters;
static long most_us = 200;

static uint64_t ticks_per_ms(void)
{
	uint64_t before_ns = target_now_ns(), before = __builtin_ia32_rdtsc();
	target_sleep_us(200000);
	return (__builtin_ia32_rdtsc() - before) * 1000000 / (target_now_ns() - before_ns);
}

TARGET_NOINLINE static void watch(void)
{
	uint64_t least = counters->ticks_per_ms / 1000, most = least * (uint64_t)most_us, last = __builtin_ia32_rdtsc();
	for (uint64_t loops = 0; !target_stop; loops++) {
		uint64_t now = __builtin_ia32_rdtsc(), step = now - last;
		if (step > most) {
			counters->away += step;
		} else if (step > least) {
			counters->stolen += step;
			counters->gaps++;
		}
		counters->now = last = now;
		if (loops % (1 << 20) == 0) {
			target_over();
			last = __builtin_ia32_rdtsc();
		}
	}
	__asm__ volatile("");
}

/* NOLINTNEXTLINE(misc-no-recursion): a stack of a known depth */
TARGET_NOINLINE static void gap_frame(long left)
{
	if (left > 1)
		gap_frame(left - 1);
	else
		watch();
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	long depth = 10, seconds = 0;
	const struct target_flag flags[] = {{"depth", &depth}, {"seconds", &seconds}, {"most-us", &most_us}};
	int first = target_parse(argc, argv, flags, 3);
	if (first >= argc)
		return 2;
	target_begin(seconds);
	int fd = open(argv[first], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, sizeof(*counters)) != 0)
		target_die(argv[first]);
	counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counters == MAP_FAILED)
		target_die("mmap");
	counters->ticks_per_ms = ticks_per_ms();
	target_ready(NULL);
	gap_frame(depth);
	return 0;
}
