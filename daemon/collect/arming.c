#include "collect/arming.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uthash.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "collect/process.h"
#include "collect/sampler.h"
#include "collect/watch.h"

enum { MAX_SCAN_SECONDS = 5, MIN_SCANS = 8, WATCH_TRIES = 16 };

/* An event on one thread, and its inherited copies on all threads born of it. */
struct root {
	pid_t tid;
	int fd;
	UT_hash_handle hh;
};

struct arming {
	struct sampler *sampler;
	struct arming_options options;
	struct root *roots; /* by tid */
	struct watch watch;
	struct arming_baseline *baselines;
	size_t n_baselines, baselines_room;
	uint32_t last_root; /* from 1, so that no cookie is 0 */
	bool scanned_before;
};

size_t arming_threads(const struct arming *arming)
{
	return HASH_COUNT(arming->roots);
}

int arming_watch_fd(const struct arming *arming)
{
	return arming->watch.fd;
}

uint64_t arming_period_ns(const struct arming *arming)
{
	return NS_PER_S / arming->options.frequency_hz;
}

static struct perf_event_attr attr_of(const struct arming *arming, uint32_t root)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.disabled = 1,
		.inherit = 1,
		.inherit_thread = 1, /* threads, but no forked children */
		/* The kernel gives it a meaning with sigtrap only. It carries our cookie into the inherited copies, where
		   bpf_get_attach_cookie reads 0. */
		.sig_data = COOKIE(arming->options.slot, arming->options.generation, root),
	};
	if (arming->options.event == ARMING_CYCLES) {
		attr.type = PERF_TYPE_HARDWARE;
		attr.config = PERF_COUNT_HW_CPU_CYCLES;
		attr.freq = 1;
		attr.sample_freq = arming->options.frequency_hz;
	} else {
		attr.type = PERF_TYPE_SOFTWARE;
		attr.config = PERF_COUNT_SW_CPU_CLOCK;
		attr.sample_period = arming_period_ns(arming);
		attr.sig_data |= COOKIE_CPU_CLOCK;
	}
	return attr;
}

static int paranoid_level(void)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/sys/kernel/perf_event_paranoid", "re");
	int level = -1;
	return file && fscanf(file, "%d", &level) == 1 ? level : -1;
}

static int explain_open_failure(const struct arming *arming, int error, struct error *err)
{
	pid_t pid = arming->options.pid;
	switch (error) {
	case EACCES:
	case EPERM: {
		int level = paranoid_level();
		if (level > 2)
			return error_set(
				err, EACCES,
				"the kernel refused a perf event on process %d: kernel.perf_event_paranoid is %d, "
				"which "
				"Debian's "
				"kernels enforce even on CAP_PERFMON; run `sysctl kernel.perf_event_paranoid=2`",
				pid, level);
		return error_set(err, EACCES,
				 "the kernel refused a perf event on process %d: sprofd needs CAP_PERFMON and "
				 "CAP_SYS_PTRACE (start it as root "
				 "or by systemctl)",
				 pid);
	}
	case EMFILE:
	case ENFILE:
		return error_set(err, EMFILE,
				 "too many open files after %zu threads of process %d: raise sprofd's limit "
				 "(LimitNOFILE= in sprofd.service, "
				 "or ulimit -n)",
				 arming_threads(arming), pid);
	case ENOENT:
	case ENODEV:
	case EOPNOTSUPP:
		if (arming->options.event != ARMING_CYCLES)
			return error_set(err, error, "the kernel refused a cpu-clock event on process %d: %s", pid,
					 strerror(error));
		return error_set(err, EOPNOTSUPP,
				 "this machine has no counter of cycles (no PMU; usual in virtual machines): use "
				 "--event=cpu-clock");
	case EINVAL:
		if (arming->options.event == ARMING_CYCLES)
			return error_set(
				err, ERANGE,
				"the kernel refused %u samples a second: it may have lowered "
				"kernel.perf_event_max_sample_rate since samples took long; use a lower --frequency",
				arming->options.frequency_hz);
		return error_set(err, ENOSYS,
				 "the kernel does not know this kind of perf event: sprofd needs Linux 6.1 or later");
	default:
		return error_set(err, error, "cannot open a perf event on process %d: %s", pid, strerror(error));
	}
}

/* "runtime wait slices" in nanoseconds; the start time from stat. Unknown values leave the baseline at zero runtime. */
static struct arming_baseline baseline_of(pid_t pid, pid_t tid)
{
	struct arming_baseline baseline = {.tid = tid};
	char path[64], line[1024];
	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", (int)pid, (int)tid);
	_cleanup_fclose_ FILE *schedstat = fopen(path, "re");
	if (!schedstat || fscanf(schedstat, "%" SCNu64, &baseline.runtime_ns) != 1)
		baseline.runtime_ns = 0;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	_cleanup_fclose_ FILE *stat = fopen(path, "re");
	struct process thread;
	if (stat && fgets(line, sizeof(line), stat) && process_parse_stat(line, &thread) == 0)
		baseline.start_ticks = thread.start_ticks;
	return baseline;
}

static int remember_baseline(struct arming *arming, struct arming_baseline baseline)
{
	if (arming->n_baselines == arming->baselines_room) {
		size_t room = arming->baselines_room ? arming->baselines_room * 2 : 8;
		struct arming_baseline *grown = reallocarray(arming->baselines, room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		arming->baselines = grown;
		arming->baselines_room = room;
	}
	arming->baselines[arming->n_baselines++] = baseline;
	return 0;
}

/* Opened stopped, then given its program: a thread born in between inherits a stopped event without program, and is found by
 * the next scan. 0, -ESRCH when the thread is gone, or -errno. */
static int open_event(struct arming *arming, pid_t tid, int *ret_fd)
{
	struct perf_event_attr attr = attr_of(arming, ++arming->last_root);
	_cleanup_close_ int fd = (int)syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0 || ioctl(fd, PERF_EVENT_IOC_SET_BPF, sampler_program_fd(arming->sampler)) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* 1; 0 when the thread has ended; or an error. */
static int arm_thread(struct arming *arming, pid_t tid, struct error *err)
{
	struct arming_baseline baseline = baseline_of(arming->options.pid, tid);
	int fd = -1;
	int r = open_event(arming, tid, &fd);
	if (r == -ESRCH)
		return 0;
	if (r < 0)
		return explain_open_failure(arming, -r, err);
	struct root *root = calloc(1, sizeof(*root));
	if (!root || remember_baseline(arming, baseline) < 0) {
		free(root);
		close(fd);
		return error_set(err, ENOMEM, "out of memory");
	}
	root->tid = tid;
	root->fd = fd;
	HASH_ADD_INT(arming->roots, tid, root);
	return 1;
}

/* The threads as they are now, malloc'ed. */
static int list_threads(pid_t pid, pid_t **ret, size_t *ret_n)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	_cleanup_closedir_ DIR *directory = opendir(path);
	if (!directory)
		return errno == ENOENT ? -ESRCH : -errno;
	_cleanup_free_ pid_t *tids = NULL;
	size_t n = 0, room = 0;
	struct dirent *entry;
	while (errno = 0, (entry = readdir(directory))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		if (n == room) {
			room = room ? room * 2 : 64;
			pid_t *grown = reallocarray(tids, room, sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			tids = grown;
		}
		tids[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
	}
	if (errno && errno != ENOENT && errno != ESRCH)
		return -errno;
	*ret = TAKE_PTR(tids);
	*ret_n = n;
	return 0;
}

/* One pass: arms every thread without an event. *ret_new: how many were found. */
static int scan(struct arming *arming, size_t *ret_new, struct error *err)
{
	_cleanup_free_ pid_t *tids = NULL;
	size_t n = 0;
	int r = list_threads(arming->options.pid, &tids, &n);
	if (r == -ESRCH || (r == 0 && n == 0))
		return error_set(err, ESRCH, "process %d exited while it was being attached", arming->options.pid);
	if (r < 0)
		return error_set(err, -r, "cannot list the threads of process %d: %s", arming->options.pid,
				 strerror(-r));
	*ret_new = 0;
	for (size_t i = 0; i < n; i++) {
		struct root *known;
		HASH_FIND_INT(arming->roots, &tids[i], known);
		if (known)
			continue;
		/* A thread first seen by a later scan may have inherited an event already. */
		if (arming->scanned_before)
			sampler_check_claims(arming->sampler, arming->options.slot);
		r = arm_thread(arming, tids[i], err);
		if (r < 0)
			return r;
		*ret_new += (size_t)r;
	}
	arming->scanned_before = true;
	return 0;
}

static int scan_until_stable(struct arming *arming, struct error *err)
{
	uint64_t deadline_ns = clock_monotonic_ns() + MAX_SCAN_SECONDS * NS_PER_S;
	size_t new_threads = 0, scans = 0;
	do {
		int r = scan(arming, &new_threads, err);
		if (r < 0)
			return r;
		/* On a machine that stands still for seconds the first scans may take them: that says nothing of the process. */
		if (new_threads && ++scans >= MIN_SCANS && clock_monotonic_ns() > deadline_ns)
			return error_set(
				err, EAGAIN,
				"process %d starts threads faster than they can be armed: try again when it is calmer",
				arming->options.pid);
	} while (new_threads);
	return 0;
}

/* The leader comes first, unless it has ended. Without a watch all else works. */
static void open_watch(struct arming *arming)
{
	const struct root *root = arming->roots;
	for (int i = 0; root && i < WATCH_TRIES && watch_open(root->tid, &arming->watch) < 0; i++)
		root = root->hh.next;
}

int arming_open(struct sampler *sampler, const struct arming_options *options, struct arming **ret, struct error *err)
{
	struct arming *arming = calloc(1, sizeof(*arming));
	if (!arming)
		return error_set(err, ENOMEM, "out of memory");
	arming->sampler = sampler;
	arming->options = *options;
	arming->watch = WATCH_NONE;
	int r = scan_until_stable(arming, err);
	if (r == 0 && arming_threads(arming) == 0)
		r = error_set(err, ESRCH, "process %d exited while it was being attached", options->pid);
	if (r < 0) {
		arming_close(arming);
		return r;
	}
	open_watch(arming);
	*ret = arming;
	return 0;
}

void arming_start(struct arming *arming)
{
	struct root *root, *next;
	HASH_ITER (hh, arming->roots, root, next)
		ioctl(root->fd, PERF_EVENT_IOC_ENABLE, 0); /* fails for no event that is open */
}

void arming_stop(struct arming *arming)
{
	struct root *root, *next;
	HASH_ITER (hh, arming->roots, root, next)
		ioctl(root->fd, PERF_EVENT_IOC_DISABLE, 0);
}

/* uthash's macros are beyond the analyzer. NOLINTBEGIN(clang-analyzer-unix.Malloc) */
void arming_close(struct arming *arming)
{
	if (!arming)
		return;
	arming_stop(arming); /* closing alone would let the inherited copies run on */
	struct root *root, *next;
	HASH_ITER (hh, arming->roots, root, next) {
		HASH_DEL(arming->roots, root);
		close(root->fd);
		free(root);
	}
	watch_close(&arming->watch);
	free(arming->baselines);
	free(arming);
}
/* NOLINTEND(clang-analyzer-unix.Malloc) */

uint64_t arming_count(const struct arming *arming)
{
	uint64_t total = 0, count;
	for (const struct root *root = arming->roots; root; root = root->hh.next)
		if (read(root->fd, &count, sizeof(count)) == sizeof(count))
			total += count;
	return total;
}

uint64_t arming_periods(const struct arming *arming, bool *ret_known)
{
	*ret_known = arming->options.event == ARMING_CPU_CLOCK;
	return *ret_known ? arming_count(arming) / arming_period_ns(arming) : 0;
}

size_t arming_take_baselines(struct arming *arming, struct arming_baseline **ret)
{
	size_t n = arming->n_baselines;
	*ret = TAKE_PTR(arming->baselines);
	arming->n_baselines = arming->baselines_room = 0;
	return n;
}
