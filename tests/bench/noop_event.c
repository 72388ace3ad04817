/* The floor of any profiler that samples by a perf event and BPF: a program that returns at once, on the cpu clock of a thread.
 *     noop_event TID HZ
 * Says "on" when it samples; at SIGINT or SIGTERM, how many times the program ran. */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NS_PER_S = 1000000000 };

static int load(void)
{
	const struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	return bpf_prog_load(BPF_PROG_TYPE_PERF_EVENT, "noop", "GPL", code, sizeof(code) / sizeof(code[0]), NULL);
}

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

int main(int argc, char **argv)
{
	sigset_t ends;
	int number;
	uint64_t ran_ns = 0, hz = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
	if (hz == 0) {
		fprintf(stderr, "usage: noop_event TID HZ\n");
		return 2;
	}
	int program = load(), event = open_event((pid_t)strtol(argv[1], NULL, 10), hz);
	if (program < 0 || event < 0 || ioctl(event, PERF_EVENT_IOC_SET_BPF, program) < 0) {
		fprintf(stderr, "noop_event: %s (is this root?)\n", strerror(errno));
		return 1;
	}
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	ioctl(event, PERF_EVENT_IOC_ENABLE, 0);
	puts("on");
	(void)fflush(stdout);
	sigwait(&ends, &number);
	ioctl(event, PERF_EVENT_IOC_DISABLE, 0);
	if (read(event, &ran_ns, sizeof(ran_ns)) != sizeof(ran_ns))
		return 1;
	printf("%llu\n", (unsigned long long)(ran_ns / (NS_PER_S / hz)));
	return 0;
}
