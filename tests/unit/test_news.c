/* Who wakes the daemon: records that tell of something new, and the end of a target's events. Needs root, BPF and perf events. */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "check_main.h"
#include "collect/arming.h"
#include "collect/proc_maps.h"
#include "collect/sampler.h"
#include "collect/unwind_maps.h"

enum { RING_BYTES = 4 << 20, HZ = 1000, PAGE_BYTES = 4096 };

enum command { BURN, MAP_CODE, CHURN_CODE, CHURN_DATA, RUN_NEW_CODE, EXECUTE };

/* A child that burns CPU time and does what it is told. */
static struct child {
	pid_t pid;
	_Atomic int *command;
} child;

static struct sampler *sampler;
static struct arming *arming;
static uint64_t hush_ns; /* after a wake-up */
static struct error err;
static uint16_t slot;
static int loop;

static void *map(int protection)
{
	return mmap(NULL, PAGE_BYTES, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Runs code in memory that is writable too, as a JIT does, which a walk cannot leave: on the stack, and in the frame pointer, is zero. */
static void run_new_code(void)
{
	static const uint8_t code[] = {
		0x55,                         /* push rbp */
		0x31, 0xed,                   /* xor ebp, ebp */
		0x55,                         /* push rbp */
		0xb9, 0x00, 0x00, 0x10, 0x00, /* mov ecx, 1 << 20 */
		0xff, 0xc9,                   /* dec ecx */
		0x75, 0xfc,                   /* jnz to it */
		0x5d,                         /* pop rbp */
		0x5d,                         /* pop rbp */
		0xc3,                         /* ret */
	};
	void *memory = map(PROT_READ | PROT_WRITE | PROT_EXEC);
	memcpy(memory, code, sizeof(code));
	for (;;)
		((void (*)(void))memory)();
}

static void run_child(_Atomic int *command)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		for (volatile int i = 0; i < 100000; i++)
			;
		switch (*command) {
		case MAP_CODE:
			map(PROT_READ | PROT_EXEC);
			*command = BURN;
			break;
		case CHURN_CODE:
			map(PROT_READ | PROT_EXEC);
			break;
		case CHURN_DATA: /* alternating, so that neighbours are not merged */
			map(PROT_READ);
			map(PROT_NONE);
			break;
		case RUN_NEW_CODE:
			run_new_code();
			break;
		case EXECUTE:
			execl("/bin/sh", "sh", "-c", "while :; do :; done", NULL);
			_exit(1);
		default:
			break;
		}
	}
}

static void setup(void)
{
	struct sampler_options options = {.ring_bytes = RING_BYTES};
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	uint32_t serial;
	child.command = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(child.command != MAP_FAILED);
	child.pid = fork();
	if (child.pid == 0)
		run_child(child.command);
	ck_assert_msg(sampler_new(&options, &sampler, &err) == 0, "%s", err.text);
	ck_assert_int_eq(sampler_slot_acquire(sampler, &slot, &serial, &err), 0);
	struct arming_options how = {.pid = child.pid, .slot = slot, .event = ARMING_CPU_CLOCK, .frequency_hz = HZ};
	ck_assert_msg(arming_open(sampler, &how, &arming, &err) == 0, "%s", err.text);
	loop = epoll_create1(EPOLL_CLOEXEC);
	ck_assert_int_eq(epoll_ctl(loop, EPOLL_CTL_ADD, sampler_ring_fd(sampler), &event), 0);
}

static void teardown(void)
{
	arming_close(arming);
	kill(child.pid, SIGKILL);
	waitpid(child.pid, NULL, 0);
	sampler_free(sampler);
	close(loop);
}

static void ignore(void *context, const struct record *record, size_t bytes)
{
	(void)record, (void)bytes;
	++*(uint64_t *)context;
}

/* Drains at each wake-up and looks at nothing for hush_ns, as the daemon does. How often that was; *ret_records of how many records. */
static unsigned wakes_within(unsigned ms, uint64_t *ret_records)
{
	uint64_t end_ns = clock_monotonic_ns() + ms * NS_PER_MS, now_ns;
	unsigned wakes = 0;
	while ((now_ns = clock_monotonic_ns()) < end_ns) {
		struct epoll_event event;
		if (epoll_wait(loop, &event, 1, (int)((end_ns - now_ns) / NS_PER_MS) + 1) < 1)
			break;
		wakes++;
		sampler_hush(sampler, slot, clock_monotonic_ns() + hush_ns);
		sampler_drain(sampler, ignore, ret_records);
	}
	sampler_drain(sampler, ignore, ret_records);
	return wakes;
}

/* Whether there is a wake-up within two seconds. */
static bool wakes(void)
{
	struct epoll_event event;
	uint64_t records = 0;
	bool woken = epoll_wait(loop, &event, 1, 2000) == 1;
	sampler_drain(sampler, ignore, &records);
	return woken;
}

START_TEST(only_what_is_new_wakes)
{
	uint64_t records = 0;
	setup();
	arming_start(arming);
	ck_assert(wakes()); /* the first record */
	ck_assert_uint_eq(wakes_within(600, &records), 0);
	ck_assert_uint_gt(records, 20);
	*child.command = MAP_CODE;
	ck_assert(wakes());
	ck_assert_uint_eq(wakes_within(300, &records), 0);
	*child.command = EXECUTE;
	ck_assert(wakes());
	teardown();
}
END_TEST

/* Shows the slot's samples what the child has mapped. */
static struct unwind_maps *show_mappings(struct unwind_list *list)
{
	struct unwind_maps *unwind_maps =
		unwind_maps_new(sampler_lists_fd(sampler), sampler_tables_fd(sampler), 1 << 20);
	struct file_registry *files = file_registry_new(100);
	struct unwind_mapping mappings[100] = {0};
	struct maps *maps;
	ck_assert_int_eq(proc_maps_read(child.pid, files, &maps), 0);
	ck_assert_uint_le(maps->n, 100);
	for (size_t i = 0; i < maps->n; i++)
		mappings[i] = (struct unwind_mapping){
			.start = maps->mappings[i].start, .end = maps->mappings[i].end, .kind = UNWIND_CODE_PLAIN};
	ck_assert_int_eq(unwind_maps_show(unwind_maps, slot, maps->program, maps->exec_pages, mappings, maps->n, list),
			 0);
	maps_unref(maps);
	file_registry_free(files);
	return unwind_maps;
}

/* The kernel does not count it as executable, and other mappings wake once a second. */
START_TEST(new_code_in_writable_memory_wakes_once_it_runs)
{
	uint64_t records = 0;
	struct unwind_list list = {0};
	setup();
	struct unwind_maps *unwind_maps = show_mappings(&list);
	arming_start(arming);
	ck_assert(wakes());
	usleep(100000);
	*child.command = RUN_NEW_CODE;
	ck_assert_uint_eq(wakes_within(600, &records), 1);
	unwind_list_release(unwind_maps, &list);
	unwind_maps_free(unwind_maps);
	teardown();
}
END_TEST

START_TEST(no_code_wakes_before_the_daemon_would_look)
{
	uint64_t records = 0;
	setup();
	arming_start(arming);
	ck_assert(wakes());
	usleep(100000);
	uint64_t until_ns = clock_monotonic_ns() + 700 * NS_PER_MS;
	sampler_hush(sampler, slot, until_ns);
	*child.command = MAP_CODE;
	ck_assert_uint_eq(wakes_within(400, &records), 0);
	ck_assert_uint_gt(records, 20);
	ck_assert(wakes()); /* it is not forgotten */
	ck_assert_uint_ge(clock_monotonic_ns(), until_ns);
	sampler_hush(sampler, slot, UINT64_MAX);
	*child.command = EXECUTE; /* another program is always looked at */
	ck_assert(wakes());
	teardown();
}
END_TEST

START_TEST(what_changes_all_the_time_wakes_now_and_then)
{
	uint64_t records = 0;
	setup();
	arming_start(arming);
	ck_assert(wakes());
	*child.command = CHURN_CODE;
	unsigned followed = wakes_within(500, &records); /* as often as the daemon wants it, and as it can bear */
	ck_assert_uint_ge(followed, 30);
	ck_assert_uint_le(followed, 126);
	hush_ns = 50 * NS_PER_MS;
	unsigned of_code = wakes_within(1000, &records);
	ck_assert_uint_ge(of_code, 3);
	ck_assert_uint_le(of_code, 21);
	*child.command = CHURN_DATA;
	unsigned of_data = wakes_within(2200, &records);
	ck_assert_uint_ge(of_data, 1);
	ck_assert_uint_le(of_data, 4);
	teardown();
}
END_TEST

static short polled(int fd, int ms)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	return poll(&poll_fd, 1, ms) > 0 ? poll_fd.revents : 0;
}

START_TEST(the_watch_hangs_up_when_the_events_end)
{
	setup();
	arming_start(arming);
	int fd = arming_watch_fd(arming);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(polled(fd, 100), 0);
	*child.command = EXECUTE; /* no set-id program: its events go on */
	ck_assert(wakes());
	ck_assert_int_eq(polled(fd, 200), 0);
	kill(child.pid, SIGKILL);
	ck_assert_int_eq(polled(fd, 5000), POLLHUP);
	teardown();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {only_what_is_new_wakes, new_code_in_writable_memory_wakes_once_it_runs,
				      no_code_wakes_before_the_daemon_would_look,
				      what_changes_all_the_time_wakes_now_and_then,
				      the_watch_hangs_up_when_the_events_end};
	struct sampler_options options = {.ring_bytes = RING_BYTES};
	if (geteuid() != 0 || sampler_new(&options, &sampler, &err) < 0) {
		printf("skipped: %s\n", geteuid() == 0 ? err.text : "needs root");
		return 77;
	}
	sampler_free(sampler);
	return check_main("news", tests, sizeof(tests) / sizeof(tests[0]), 60);
}
