/* The BPF program and the arming of real threads, in this process: needs root, BPF and perf events. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "busy_child.h"
#include "check_main.h"
#include "collect/arming.h"
#include "collect/sampler.h"

enum { RING_BYTES = 4 << 20, HZ = 1000 };

static struct sampler *sampler;
static struct error err;
static uint16_t slot;
static uint32_t serial;

/* What was drained, by thread. */
struct tally {
	const struct busy_child *child;
	uint64_t records, malformed, strangers;
	uint64_t count[MAX_BUSY_THREADS], count_of_generation[4];
	uint64_t first_ns[MAX_BUSY_THREADS], last_ns[MAX_BUSY_THREADS]; /* runtime_ns */
	uint64_t widest_ns[MAX_BUSY_THREADS]; /* between two records of one thread, in its CPU time */
};

static void on_record(void *context, const struct record *record, size_t bytes)
{
	struct tally *tally = context;
	size_t expected = sizeof(*record) + ((size_t)record->n_kernel + record->n_user) * sizeof(__u64);
	tally->records++;
	tally->malformed += record->bytes != expected || bytes < expected || record->serial != serial ||
			    record->slot != slot || (pid_t)record->pid != tally->child->pid ||
			    record->user_end >= STACK_END_COUNT || record->n_user == 0;
	tally->count_of_generation[record->generation & 3]++;
	for (int i = 0; i < tally->child->shared->n; i++) {
		if (tally->child->shared->tids[i] != (pid_t)record->tid)
			continue;
		if (!tally->count[i]++)
			tally->first_ns[i] = record->runtime_ns;
		else if (record->runtime_ns - tally->last_ns[i] > tally->widest_ns[i])
			tally->widest_ns[i] = record->runtime_ns - tally->last_ns[i];
		tally->last_ns[i] = record->runtime_ns;
		return;
	}
	tally->strangers++;
}

static void drain_for(struct tally *tally, unsigned ms)
{
	for (unsigned i = 0; i < ms / 20; i++) {
		usleep(20000);
		sampler_drain(sampler, on_record, tally);
	}
}

static uint64_t total_runtime_ns(const struct busy_child *child)
{
	uint64_t total_ns = 0;
	for (int i = 0; i < child->shared->n; i++)
		total_ns += busy_runtime_ns(child, i);
	return total_ns;
}

/* Until the child has had so much CPU time, whoever else wants the processors. */
static void drain_while_it_runs(struct tally *tally, unsigned cpu_ms)
{
	uint64_t end_ns = total_runtime_ns(tally->child) + cpu_ms * NS_PER_MS;
	while (total_runtime_ns(tally->child) < end_ns)
		drain_for(tally, 20);
}

static void setup(void)
{
	struct sampler_options options = {.ring_bytes = RING_BYTES};
	ck_assert_msg(sampler_new(&options, &sampler, &err) == 0, "%s", err.text);
	ck_assert_int_eq(sampler_slot_acquire(sampler, &slot, &serial, &err), 0);
}

static struct arming *arm(const struct busy_child *child, uint16_t generation, uint32_t hz)
{
	struct arming_options options = {.pid = child->pid,
					 .slot = slot,
					 .generation = generation,
					 .event = ARMING_CPU_CLOCK,
					 .frequency_hz = hz};
	struct arming *arming;
	ck_assert_msg(arming_open(sampler, &options, &arming, &err) == 0, "%s", err.text);
	return arming;
}

static uint64_t sum_of_outcomes(const struct target_counters *counters)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < OUTCOME_COUNT; i++)
		sum += counters->outcomes[i];
	return sum;
}

/* Stops, drains what is left, and checks that nothing was lost without a name. */
static struct target_counters settle(struct arming *arming, struct tally *tally)
{
	struct target_counters counters;
	arming_stop(arming);
	sampler_drain(sampler, on_record, tally);
	ck_assert_int_eq(sampler_counters(sampler, slot, &counters), 0);
	ck_assert_uint_eq(counters.entries, sum_of_outcomes(&counters));
	ck_assert_uint_eq(counters.outcomes[OUTCOME_CAPTURED], tally->records);
	ck_assert_uint_eq(counters.outcomes[OUTCOME_RING_FULL], 0);
	ck_assert_uint_eq(counters.outcomes[OUTCOME_UNKNOWN_TARGET], 0);
	ck_assert_uint_eq(tally->malformed, 0);
	ck_assert_uint_eq(tally->strangers, 0);
	usleep(20000);
	struct target_counters later;
	ck_assert_int_eq(sampler_counters(sampler, slot, &later), 0);
	ck_assert_uint_eq(later.entries, counters.entries); /* stopped means stopped */
	return counters;
}

START_TEST(each_thread_by_its_cpu_time)
{
	enum { THREADS = 4 };
	struct busy_child child = busy_start(THREADS, 0);
	struct tally tally = {.child = &child};
	uint64_t before_ns[THREADS];
	setup();
	struct arming *arming = arm(&child, 0, HZ);
	ck_assert_uint_eq(arming_threads(arming), THREADS);
	ck_assert_uint_eq(arming_period_ns(arming), NS_PER_S / HZ);
	drain_for(&tally, 60);
	ck_assert_uint_eq(tally.records, 0); /* not started */
	for (int i = 0; i < THREADS; i++)
		before_ns[i] = busy_runtime_ns(&child, i);
	arming_start(arming);
	drain_while_it_runs(&tally, 2000);
	struct target_counters counters = settle(arming, &tally);
	for (int i = 0; i < THREADS; i++) {
		double cpu_s = (double)(busy_runtime_ns(&child, i) - before_ns[i]) / NS_PER_S;
		/* The thread goes on between the two looks and the events; the machine is shared with others. */
		ck_assert_msg(fabs((double)tally.count[i] - cpu_s * HZ) <=
				      0.05 * cpu_s * HZ + 40 + (double)counters.late_periods,
			      "thread %d: %d samples in %f s", i, (int)tally.count[i], cpu_s);
		if (i > 0)
			ck_assert_uint_gt(tally.count[i], 100);
	}
	bool known;
	double periods = (double)arming_periods(arming, &known);
	ck_assert(known);
	/* What the kernel skips since its timer is late is counted; none comes twice. */
	ck_assert_double_le((double)counters.entries, periods + THREADS);
	ck_assert_double_ge((double)(counters.entries + counters.late_periods), 0.98 * periods - THREADS);
	ck_assert_uint_eq(counters.entries, tally.records); /* no claims are needed, no rate changed */
	arming_close(arming);
	sampler_slot_release(sampler, slot);
	sampler_free(sampler);
	busy_stop(&child);
}
END_TEST

START_TEST(baselines_are_what_ran_before)
{
	enum { THREADS = 3 };
	struct busy_child child = busy_start(THREADS, 0);
	setup();
	usleep(100000);
	uint64_t before_ns[THREADS];
	for (int i = 0; i < THREADS; i++)
		before_ns[i] = busy_runtime_ns(&child, i);
	struct arming *arming = arm(&child, 0, HZ);
	struct arming_baseline *baselines;
	ck_assert_uint_eq(arming_take_baselines(arming, &baselines), THREADS);
	for (int i = 0; i < THREADS; i++) {
		uint64_t after_ns = busy_runtime_ns(&child, i);
		int k = 0;
		while (k < THREADS && baselines[k].tid != child.shared->tids[i])
			k++;
		ck_assert_int_lt(k, THREADS);
		ck_assert_uint_ge(baselines[k].runtime_ns, before_ns[i]);
		ck_assert_uint_le(baselines[k].runtime_ns, after_ns);
		ck_assert_uint_gt(baselines[k].start_ticks, 0);
	}
	free(baselines);
	ck_assert_uint_eq(arming_take_baselines(arming, &baselines), 0);
	free(baselines);
	arming_close(arming);
	sampler_free(sampler);
	busy_stop(&child);
}
END_TEST

static void read_clocks(const struct busy_child *child, int n, uint64_t *ret_ns)
{
	for (int i = 0; i < n; i++)
		ret_ns[i] = busy_runtime_ns(child, i);
}

START_TEST(threads_born_while_arming_are_sampled_once)
{
	enum { EARLY = 20, ALL = 120 };
	struct busy_child child = busy_start(EARLY, 100);
	struct tally tally = {.child = &child};
	setup();
	child.shared->wanted = ALL; /* births go on all through the scan */
	struct arming *arming = arm(&child, 0, HZ);
	int born = child.shared->n;
	arming_start(arming);
	while (child.shared->n < ALL)
		drain_for(&tally, 20);
	for (int i = 0; i < ALL; i++)
		while (!child.shared->tids[i])
			usleep(1000);
	tally.strangers = 0; /* until now one could be sampled before it had told its number */
	uint64_t outer_ns[ALL], inner_ns[ALL], inner_end_ns[ALL], count_before[ALL];
	drain_while_it_runs(&tally, 200);
	/* Reading so many clocks, and stopping so many events, takes a while on processors that all these threads keep busy: so the CPU time of the
	   samples that are counted lies between what was used from the inner looks and what was used from the outer ones. */
	read_clocks(&child, ALL, outer_ns);
	sampler_drain(sampler, on_record, &tally);
	memcpy(count_before, tally.count, sizeof(count_before));
	read_clocks(&child, ALL, inner_ns);
	drain_while_it_runs(&tally, 5000);
	read_clocks(&child, ALL, inner_end_ns);
	struct target_counters counters = settle(arming, &tally);
	uint64_t total = 0;
	double total_least = 0, total_most = 0;
	for (int i = 1; i < ALL; i++) {
		double least = (double)(inner_end_ns[i] - inner_ns[i]) / NS_PER_S * HZ;
		double most = (double)(busy_runtime_ns(&child, i) - outer_ns[i]) / NS_PER_S * HZ;
		double count = (double)(tally.count[i] - count_before[i]), late = (double)counters.late_periods / 10;
		/* Twice what is right, or nothing, is far outside of any bound. */
		ck_assert_msg(count >= least - 5 * sqrt(least) - 12 - late && count <= most + 5 * sqrt(most) + 12,
			      "thread %d of %d (%d born while arming): %f for %f to %f", i, ALL, born - EARLY, count,
			      least, most);
		total += tally.count[i] - count_before[i];
		total_least += least;
		total_most += most;
	}
	ck_assert_msg((double)total >= 0.9 * total_least - (double)counters.late_periods &&
			      (double)total <= 1.1 * total_most,
		      "%lu samples for %f to %f", (unsigned long)total, total_least, total_most);
	printf("%d threads were born while arming; %d events were second ones\n", born - EARLY,
	       (int)counters.outcomes[OUTCOME_DUPLICATE_EVENT]);
	ck_assert_uint_eq(counters.outcomes[OUTCOME_CLAIM_TABLE_FULL], 0);
	arming_close(arming);
	sampler_free(sampler);
	busy_stop(&child);
}
END_TEST

/* Two events on every thread, of one generation: the first to fire has the thread for itself. */
START_TEST(a_second_event_on_a_thread_does_not_count)
{
	enum { THREADS = 4 };
	struct busy_child child = busy_start(THREADS, 0);
	struct tally tally = {.child = &child};
	setup();
	sampler_check_claims(sampler, slot);
	struct arming *first = arm(&child, 0, HZ);
	child.shared->end[1] = true; /* so that the second scan numbers its events otherwise */
	while (busy_runtime_ns(&child, 1))
		usleep(1000);
	struct arming *second = arm(&child, 0, HZ);
	uint64_t before_ns[THREADS];
	for (int i = 2; i < THREADS; i++)
		before_ns[i] = busy_runtime_ns(&child, i);
	arming_start(first);
	arming_start(second);
	drain_while_it_runs(&tally, 1500);
	arming_stop(first);
	struct target_counters counters = settle(second, &tally);
	ck_assert_uint_gt(counters.outcomes[OUTCOME_DUPLICATE_EVENT], 100);
	for (int i = 2; i < THREADS; i++) {
		double expected = (double)(busy_runtime_ns(&child, i) - before_ns[i]) / NS_PER_S * HZ;
		ck_assert_msg(fabs((double)tally.count[i] - expected) <=
				      0.05 * expected + 40 + (double)counters.late_periods,
			      "thread %d: %d for %f", i, (int)tally.count[i], expected);
	}
	arming_close(first);
	arming_close(second);
	sampler_free(sampler);
	busy_stop(&child);
}
END_TEST

START_TEST(claims_end_with_their_target)
{
	enum { THREADS = 4 };
	struct busy_child child = busy_start(THREADS, 0);
	struct tally tally = {.child = &child}, again = {.child = &child};
	setup();
	sampler_check_claims(sampler, slot);
	struct arming *arming = arm(&child, 0, HZ);
	arming_start(arming);
	drain_while_it_runs(&tally, 400);
	settle(arming, &tally);
	arming_close(arming);
	sampler_slot_release(sampler, slot);

	child.shared->end[1] = true; /* the others get other numbers now */
	while (busy_runtime_ns(&child, 1))
		usleep(1000);
	ck_assert_int_eq(sampler_slot_acquire(sampler, &slot, &serial, &err), 0);
	sampler_check_claims(sampler, slot);
	arming = arm(&child, 0, HZ);
	arming_start(arming);
	drain_while_it_runs(&again, 800);
	struct target_counters counters = settle(arming, &again);
	ck_assert_uint_eq(counters.outcomes[OUTCOME_DUPLICATE_EVENT], 0);
	for (int i = 2; i < THREADS; i++)
		ck_assert_uint_gt(again.count[i], 50);
	arming_close(arming);
	sampler_free(sampler);
	busy_stop(&child);
}
END_TEST

START_TEST(a_change_of_rate_loses_nothing)
{
	enum { THREADS = 3, SLOW_HZ = 500, FAST_HZ = 2000 };
	struct busy_child child = busy_start(THREADS, 0);
	struct tally tally = {.child = &child};
	setup();
	struct arming *slow = arm(&child, 0, SLOW_HZ);
	arming_start(slow);
	drain_while_it_runs(&tally, 800);
	struct arming *fast = arm(&child, 1, FAST_HZ);
	arming_start(fast);
	drain_while_it_runs(&tally, 80);
	ck_assert_uint_eq(tally.count_of_generation[1], 0); /* not accepted yet */
	sampler_accept_generation(sampler, slot, 1);
	arming_stop(slow);
	arming_close(slow);
	uint64_t slow_records = tally.count_of_generation[0];
	drain_while_it_runs(&tally, 800);
	struct target_counters counters = settle(fast, &tally);
	ck_assert_uint_le(tally.count_of_generation[0], slow_records + 60); /* what lay in the ring */
	ck_assert_uint_gt(tally.count_of_generation[0], 50);
	ck_assert_uint_gt(tally.count_of_generation[1], 200);
	ck_assert_uint_gt(counters.outcomes[OUTCOME_NOT_CURRENT_RATE], 0);
	ck_assert_uint_eq(counters.entries, tally.records + counters.outcomes[OUTCOME_NOT_CURRENT_RATE]);
	/* At no moment were there no samples: across the change no thread ran for longer than some periods without one. */
	for (int i = 1; i < THREADS; i++)
		ck_assert_msg(tally.widest_ns[i] <= (6 + counters.late_periods) * NS_PER_S / SLOW_HZ,
			      "thread %d: %d us without a sample", i, (int)(tally.widest_ns[i] / 1000));
	arming_close(fast);
	sampler_free(sampler);
	busy_stop(&child);
}
END_TEST

START_TEST(a_full_ring_is_counted)
{
	struct busy_child child = busy_start(3, 0);
	struct tally tally = {.child = &child};
	struct sampler_options options = {.ring_bytes = 4096};
	ck_assert_msg(sampler_new(&options, &sampler, &err) == 0, "%s", err.text);
	ck_assert_int_eq(sampler_slot_acquire(sampler, &slot, &serial, &err), 0);
	struct arming *arming = arm(&child, 0, HZ);
	arming_start(arming);
	uint64_t end_ns = total_runtime_ns(&child) + 500 * NS_PER_MS;
	while (total_runtime_ns(&child) < end_ns)
		usleep(20000); /* nobody drains */
	arming_stop(arming);
	sampler_drain(sampler, on_record, &tally);
	struct target_counters counters;
	ck_assert_int_eq(sampler_counters(sampler, slot, &counters), 0);
	ck_assert_uint_gt(counters.outcomes[OUTCOME_RING_FULL], 100);
	ck_assert_uint_eq(counters.outcomes[OUTCOME_CAPTURED], tally.records);
	ck_assert_uint_eq(counters.entries, sum_of_outcomes(&counters));
	struct sampler_ring ring;
	sampler_ring(sampler, &ring);
	ck_assert_uint_eq(ring.bytes, 4096);
	ck_assert_uint_gt(ring.most_drained_bytes, 2048);
	ck_assert_uint_le(ring.most_drained_bytes, 4096);
	arming_close(arming);
	sampler_free(sampler);
	busy_stop(&child);
}
END_TEST

/* Where a hypervisor keeps its own page tables, the first write to each page of the ring is slow: no sample should be the one to make it. */
START_TEST(the_ring_has_been_written_before_the_first_sample)
{
	setup();
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = sampler_ring_fd(sampler);
	/* Documentation/bpf/ringbuf.rst: the first page is the consumer's position, the second the producer's */
	const uint64_t *read_to = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
	const uint64_t *written_to = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, (off_t)page);
	ck_assert_ptr_ne(read_to, MAP_FAILED);
	ck_assert_ptr_ne(written_to, MAP_FAILED);
	ck_assert_uint_eq(*written_to, RING_BYTES - page);
	ck_assert_uint_eq(*read_to, *written_to);
	struct sampler_ring ring;
	sampler_ring(sampler, &ring);
	ck_assert_uint_eq(ring.most_drained_bytes, 0);
	ck_assert_int_eq(munmap((void *)read_to, page), 0);
	ck_assert_int_eq(munmap((void *)written_to, page), 0);
	sampler_free(sampler);
}
END_TEST

static void on_record_slowly(void *context, const struct record *record, size_t bytes)
{
	(void)record, (void)bytes;
	++*(size_t *)context;
	usleep(1000);
}

START_TEST(a_drain_ends_however_fast_records_come)
{
	enum { SMALL_RING_BYTES = 65536 };
	struct busy_child child = busy_start(3, 0);
	struct sampler_options options = {.ring_bytes = SMALL_RING_BYTES};
	size_t records = 0;
	ck_assert_int_eq(sampler_new(&options, &sampler, &err), 0);
	ck_assert_int_eq(sampler_slot_acquire(sampler, &slot, &serial, &err), 0);
	struct arming *arming = arm(&child, 0, 20000);
	arming_start(arming);
	usleep(200000);
	size_t n = sampler_drain(sampler, on_record_slowly, &records); /* 20 times slower than they come */
	ck_assert_uint_eq(n, records);
	ck_assert_uint_gt(records, 10);
	ck_assert_uint_le(records, SMALL_RING_BYTES / sizeof(struct record));
	arming_close(arming);
	sampler_slot_release(sampler, slot);
	busy_stop(&child);
	sampler_free(sampler);
}
END_TEST

START_TEST(slots_are_many_and_bounded)
{
	setup();
	uint32_t last_serial = serial;
	for (int i = 1; i < MAX_TARGET_SLOTS; i++) {
		ck_assert_int_eq(sampler_slot_acquire(sampler, &slot, &serial, &err), 0);
		ck_assert_uint_gt(serial, last_serial);
		last_serial = serial;
	}
	uint16_t another;
	ck_assert_int_eq(sampler_slot_acquire(sampler, &another, &serial, &err), -ENOSPC);
	sampler_slot_release(sampler, 77);
	ck_assert_int_eq(sampler_slot_acquire(sampler, &another, &serial, &err), 0);
	ck_assert_uint_eq(another, 77);
	ck_assert_uint_gt(serial, last_serial);
	sampler_free(sampler);
	sampler_free(NULL);
	arming_close(NULL);
}
END_TEST

START_TEST(events_whose_target_is_gone)
{
	struct busy_child child = busy_start(2, 0);
	struct tally tally = {.child = &child};
	setup();
	struct arming *arming = arm(&child, 0, HZ);
	sampler_slot_release(sampler, slot);
	arming_start(arming);
	drain_while_it_runs(&tally, 200);
	arming_stop(arming);
	struct target_counters counters;
	ck_assert_int_eq(sampler_counters(sampler, slot, &counters), 0);
	ck_assert_uint_eq(tally.records, 0);
	ck_assert_uint_gt(counters.entries, 20);
	ck_assert_uint_eq(counters.outcomes[OUTCOME_UNKNOWN_TARGET], counters.entries);
	arming_close(arming);
	busy_stop(&child);
	struct arming_options options = {.pid = child.pid, .slot = slot, .frequency_hz = HZ};
	ck_assert_int_eq(arming_open(sampler, &options, &arming, &err), -ESRCH);
	sampler_free(sampler);
}
END_TEST

static bool can_sample(void)
{
	struct sampler_options options = {.ring_bytes = RING_BYTES};
	if (geteuid() == 0 && sampler_new(&options, &sampler, &err) == 0) {
		sampler_free(sampler);
		return true;
	}
	printf("skipped: %s\n", geteuid() == 0 ? err.text : "needs root");
	return false;
}

int main(void)
{
	const TTest *const tests[] = {each_thread_by_its_cpu_time,
				      baselines_are_what_ran_before,
				      threads_born_while_arming_are_sampled_once,
				      a_second_event_on_a_thread_does_not_count,
				      claims_end_with_their_target,
				      a_change_of_rate_loses_nothing,
				      the_ring_has_been_written_before_the_first_sample,
				      a_full_ring_is_counted,
				      a_drain_ends_however_fast_records_come,
				      slots_are_many_and_bounded,
				      events_whose_target_is_gone};
	return can_sample() ? check_main("sampler", tests, sizeof(tests) / sizeof(tests[0]), 240) : 77;
}
