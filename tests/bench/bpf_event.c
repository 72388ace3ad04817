/* A sampling program of peers.bpf.c on the cpu clock of a thread.
 *     bpf_event TID HZ noop|get_stack
 * Says "on" when it samples; at SIGINT or SIGTERM, how many times the program ran. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "peers.skel.h"

enum { NS_PER_S = 1000000000, CONSUME_NS = 50000000 };

static int open_event(pid_t tid, uint64_t hz)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = NS_PER_S / hz,
		.disabled = 1,
	};
	return (int)syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static int forget(void *context, void *data, size_t bytes)
{
	(void)context, (void)data, (void)bytes;
	return 0;
}

/* Until a signal comes, so that there is always room. */
static void consume(struct peers_bpf *peers, const sigset_t *ends)
{
	const struct timespec rest = {.tv_nsec = CONSUME_NS};
	struct ring_buffer *ring = ring_buffer__new(bpf_map__fd(peers->maps.ring), forget, NULL, NULL);
	while (sigtimedwait(ends, NULL, &rest) < 0)
		if (ring)
			ring_buffer__consume(ring);
	ring_buffer__free(ring);
}

static int sample(struct peers_bpf *peers, const struct bpf_program *program, pid_t tid, uint64_t hz)
{
	sigset_t ends;
	uint64_t ran_ns = 0;
	int event = open_event(tid, hz);
	if (event < 0 || ioctl(event, PERF_EVENT_IOC_SET_BPF, bpf_program__fd(program)) < 0)
		return -1;
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	ioctl(event, PERF_EVENT_IOC_ENABLE, 0);
	puts("on");
	(void)fflush(stdout);
	consume(peers, &ends);
	ioctl(event, PERF_EVENT_IOC_DISABLE, 0);
	if (read(event, &ran_ns, sizeof(ran_ns)) != sizeof(ran_ns))
		return -1;
	printf("%llu\n", (unsigned long long)(ran_ns / (NS_PER_S / hz)));
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t hz = argc == 4 ? strtoull(argv[2], NULL, 10) : 0;
	struct peers_bpf *peers = hz ? peers_bpf__open_and_load() : NULL;
	struct bpf_program *program = peers ? bpf_object__find_program_by_name(peers->obj, argv[3]) : NULL;
	if (hz == 0 || (peers && !program)) {
		fprintf(stderr, "usage: bpf_event TID HZ noop|get_stack\n");
		return 2;
	}
	if (!peers || sample(peers, program, (pid_t)strtol(argv[1], NULL, 10), hz) < 0) {
		fprintf(stderr, "bpf_event: %s (is this root?)\n", strerror(errno));
		return 1;
	}
	peers_bpf__destroy(peers);
	return 0;
}
